"""The problem that every contender of `continual.py` and `methods.py` gets: digits in five experiences, in one order, and one network.

The rows of an experience are shuffled once; every pass visits them in that order, so that all libraries see the same batches.
`arrival="classes"` brings two classes per experience, `"mixed"` a fifth of all rows per experience (no change at all).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
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
class Settings:
    """What is equal for all contenders: rows a step, passes over an experience, rate, rows kept, rows replayed a step."""

    batch: int = BATCH
    passes: int = PASSES
    lr: float = LR
    capacity: int = CAPACITY
    replay_batch: int = REPLAY_BATCH


def perceptron() -> nn.Module:
    """MLP 64-100-10."""
    return nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))


@dataclass(frozen=True)
class Problem:
    """x: (rows, ...) what the network takes, y: (rows,) int64, in the order of arrival; `sizes`: rows of each experience."""

    x: Tensor
    y: Tensor
    sizes: tuple[int, ...]
    test_x: Tensor
    test_y: Tensor
    seed: int
    settings: Settings = field(default_factory=Settings)
    build: Callable[[], nn.Module] = perceptron

    def experiences(self) -> list[tuple[Tensor, Tensor]]:
        """(x, y) of each experience."""
        return list(zip(self.x.split(self.sizes), self.y.split(self.sizes), strict=True))

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Every batch of every pass, in order."""
        return [
            pair
            for x, y in self.experiences()
            for _ in range(self.settings.passes)
            for pair in zip(x.split(self.settings.batch), y.split(self.settings.batch), strict=True)
        ]

    @property
    def opening(self) -> int:
        """The number of steps in the first experience, when nothing is replayed yet by those that go by experiences."""
        return self.settings.passes * -(-self.sizes[0] // self.settings.batch)

    def network(self) -> nn.Module:
        """The network, with weights drawn from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.build()


@dataclass(frozen=True)
class Outcome:
    """One run of one contender: the model, and what the run took.

    steps: gradient steps; step_us: median time between two steps in the experiences after the first (from when all contenders
    replay); seconds: wall time of the whole run; cpu_seconds: processor time of it; state: bytes to write the state down;
    scores: how x is answered, where that is not the model itself.
    """

    model: nn.Module
    steps: int
    step_us: float
    seconds: float
    cpu_seconds: float
    state: int
    scores: Callable[[Tensor], Tensor] | None = None


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


def accuracy(run: Outcome, given: Problem) -> float:
    """Accuracy on the test rows."""
    run.model.eval()
    with torch.no_grad():
        return float(((run.scores or run.model)(given.test_x).argmax(1) == given.test_y).double().mean())


def timed(train: Callable[[], None], model: nn.Module, given: Problem) -> tuple[int, float, float, float]:
    """(steps, step_us, seconds, cpu_seconds) of a training. A hook of the network reads the clock before each forward pass of
    training, the same for every contender (each makes one a step); a step is the time to the next reading, data included."""
    stamps: list[float] = []

    def stamp(module: nn.Module, inputs: object) -> None:
        if module.training and torch.is_grad_enabled():
            stamps.append(perf_counter())

    handle = model.register_forward_pre_hook(stamp)
    figures = clocked(train, stamps, given)
    handle.remove()
    return figures


def clocked(train: Callable[[], None], stamps: list[float], given: Problem) -> tuple[int, float, float, float]:
    """The same, where the training itself reads a clock once a step, at its beginning."""
    started, processor = perf_counter(), process_time()
    train()
    seconds, processor = perf_counter() - started, process_time() - processor
    intervals = torch.tensor(stamps[given.opening :], dtype=torch.float64).diff()
    return len(stamps), 1e6 * float(intervals.median()), seconds, processor
