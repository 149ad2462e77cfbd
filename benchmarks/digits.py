"""The problem that every contender of `continual.py` gets: digits in five experiences, in one order, and one network.

The rows of an experience are shuffled once; every pass visits them in that order, so that all libraries see the same batches.
`arrival="classes"` brings two classes per experience, `"mixed"` a fifth of all rows per experience (no change at all).
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time

import torch
from torch import Tensor, nn

EXPERIENCES = 5
BATCH = 32
PASSES = 5
LR = 0.1
CAPACITY = 500
REPLAY_BATCH = 32
ALPHA, BETA = 0.2, 0.5


@dataclass(frozen=True)
class Problem:
    """x: (rows, 64) float in 0..1, y: (rows,) int64, in the order of arrival; `sizes`: rows of each experience."""

    x: Tensor
    y: Tensor
    sizes: tuple[int, ...]
    test_x: Tensor
    test_y: Tensor
    seed: int

    def experiences(self) -> list[tuple[Tensor, Tensor]]:
        """(x, y) of each experience."""
        return list(zip(self.x.split(self.sizes), self.y.split(self.sizes), strict=True))

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Every batch of every pass, in order."""
        return [
            pair
            for x, y in self.experiences()
            for _ in range(PASSES)
            for pair in zip(x.split(BATCH), y.split(BATCH), strict=True)
        ]

    def network(self) -> nn.Module:
        """MLP 64-100-10, with weights drawn from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))


@dataclass(frozen=True)
class Outcome:
    """One run of one contender: the model, and what the run took.

    steps: gradient steps; step_us: median time between two steps in the experiences after the first (from when all contenders
    replay); seconds: wall time of the whole run; cpu_seconds: processor time of it; state: bytes to write the state down.
    """

    model: nn.Module
    steps: int
    step_us: float
    seconds: float
    cpu_seconds: float
    state: int


def problem(arrival: str, seed: int) -> Problem:
    """The test rows are the same for every seed; the seed draws the classes of each experience, the order and the weights."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(x / 16.0, y, test_size=0.2, stratify=y, random_state=0)
    random = torch.Generator().manual_seed(seed)
    labels = torch.tensor(train_y)
    order = torch.randperm(len(labels), generator=random)
    if arrival == "classes":
        group = torch.empty(10, dtype=torch.int64)
        group[torch.randperm(10, generator=random)] = torch.arange(10) // (10 // EXPERIENCES)
        order = order[torch.sort(group[labels[order]], stable=True).indices]
        sizes = torch.bincount(group[labels]).tolist()
    else:
        sizes = [len(part) for part in order.tensor_split(EXPERIENCES)]
    rows = torch.tensor(train_x, dtype=torch.float32)
    test = torch.tensor(test_x, dtype=torch.float32)
    return Problem(rows[order], labels[order], tuple(sizes), test, torch.tensor(test_y), seed)


def accuracy(model: nn.Module, given: Problem) -> float:
    """Accuracy on the test rows."""
    model.eval()
    with torch.no_grad():
        return float((model(given.test_x).argmax(1) == given.test_y).double().mean())


def timed(train: Callable[[], None], model: nn.Module, given: Problem) -> tuple[int, float, float, float]:
    """(steps, step_us, seconds, cpu_seconds) of a training. A hook of the network reads the clock before each forward pass of
    training, the same for every contender (each makes one a step); a step is the time to the next reading, data included."""
    stamps: list[float] = []

    def stamp(module: nn.Module, inputs: object) -> None:
        if module.training and torch.is_grad_enabled():
            stamps.append(perf_counter())

    handle = model.register_forward_pre_hook(stamp)
    started, processor = perf_counter(), process_time()
    train()
    seconds, processor = perf_counter() - started, process_time() - processor
    handle.remove()
    first = PASSES * -(-given.sizes[0] // BATCH)
    intervals = torch.tensor(stamps[first:], dtype=torch.float64).diff()
    return len(stamps), 1e6 * float(intervals.median()), seconds, processor
