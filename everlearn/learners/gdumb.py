"""GDumb: a memory filled greedily and in balance, and a network trained from scratch on nothing but that memory.

    a row of class y is taken while n_y < capacity / (classes seen); in a full memory a random row of the largest class goes
    weights = `epochs` of mini-batches of cross_entropy(model(x), y) over the memory, from the initial weights
    rate in epoch e = rate / 10 for e = 0, then half cosines from rate to floor * rate over 1, 2, 4, 8, ... epochs

It learns nothing from the order of a stream, so what it reaches is what remembering alone is worth: the test of all others.
Reference: Prabhu et al. (2020), GDumb: a simple approach that questions our progress in continual learning, ECCV.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import InputError, check_count, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X, rows
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.core.random import generator
from everlearn.core.state import capture
from everlearn.data.keep import Fields, Keeper, Plan, Rule
from everlearn.data.memory import Memory
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer
from everlearn.optim.refit import Grown, Refit
from everlearn.optim.shapes import cosine_decay

WARM_UP = 0.1  # part of the rate in the first epoch


class GDumb(Learner):
    """Keeps a balanced memory, and trains anew on it when a task has come to its end, and as `when` says.

    model: maps x to (batch, classes) scores, and training begins from its weights as they are given; capacity: rows kept in all,
    500; epochs: passes over the memory at each training, 16 (see below); batch: rows per step, 16; optimizer: momentum 0.9, rate
    0.05, gradients cut to norm 10; floor: what is left of the rate at the end of a cycle, 0.01; cutmix: the chance that a step
    puts a piece of another image into each (images of shape (channels, height, width) only), 0.5 as published for colour images,
    0 for digits. The published values, but where said otherwise; the capacity is one of several.

    It trains where `when` says so (`grown(1.5)`, `every(n)`, `on_drift(detector)` or `never()`, told of the rows that came), when
    as many rows have come as the last boundary brought with it, and at each boundary; never on the same memory twice. Between
    trainings the model stands still. So at the end of a stream whose boundaries bring no rows, the last to come, a third of all
    at most with `grown(1.5)`, may not have been learned, a last task among them.

    >>> import torch
    >>> from everlearn import Batch, GDumb
    >>> learner = GDumb(torch.nn.Linear(4, 3), capacity=10, epochs=2)
    >>> for label in (0, 0, 1, 2):
    ...     metrics = learner.update(Batch(torch.ones(8, 4), torch.full((8,), label)))
    >>> learner.memory.per_class, learner.trainings
    ({0: 3, 1: 3, 2: 4}, 3)

    Reference: Prabhu et al. (2020), ECCV, algorithm 1 and section 4.
    Differs from the paper in: it trains before it is asked, since an answer must change nothing and should not have to wait.
    The authors train for up to 256 epochs and report the best of them on the test rows; here the last epoch counts, and 16
    epochs, which end with a cycle as 256 do, since there are many trainings. No crops or flips.
    """

    name = "gdumb"
    parts = ("descent", "guard", "memory", "when", "initial", "trainings", "trained", "expected", "came")

    def __init__(
        self,
        model: nn.Module,
        *,
        capacity: int = 500,
        when: Refit = Grown(1.5),
        epochs: int = 16,
        batch: int = 16,
        floor: float = 0.01,
        cutmix: float = 0.0,
        optimizer: Optimizer = SGD(lr=0.05, momentum=0.9, weight_decay=1e-6, clip=10.0),
        seed: int = 0,
    ):
        check_count(self.name, "capacity", capacity, fix="Use fine_tune(model) to learn without a memory.")
        check_count(self.name, "epochs", epochs)
        check_count(self.name, "batch", batch)
        check_range(self.name, "floor", floor, 0.0, 1.0)
        check_range(self.name, "cutmix", cutmix, 0.0, 1.0)
        self.capacity = capacity
        self.when = when.fresh()
        self.epochs = epochs
        self.batch = batch
        self.floor = floor
        self.cutmix = cutmix
        self.optimizer = optimizer
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.memory = Memory(capacity, keep=Greedy(), seed=seed)
        self.initial = capture(model)  # the weights that every training begins from
        self.trainings = 0
        self.trained = 0  # rows that the memory had taken at the last training
        self.expected = 0  # rows of the present task, where they are known
        self.came = 0  # rows since the last boundary

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        if self.cutmix:
            self._images(batch)
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        error = None
        if self.when.needs_error:
            error = float((self.descent.predict(batch.x).argmax(1) != batch.y).double().mean())
        self.memory.insert(x=batch.x, y=batch.y)
        before, self.came = self.came, self.came + len(batch)
        ended = before < self.expected <= self.came
        return self._train() if self.when.due(self.memory.seen, error) or ended else {}

    def boundary(self, boundary: Boundary) -> None:
        """A task ends: train on what the memory holds, if it took rows since the last training. Another begins."""
        self._train()
        self.expected, self.came = 0 if boundary.data is None else len(boundary.data), 0

    def _train(self) -> Metrics:
        """Train from the initial weights; the order of rows comes from (seed, number of this training)."""
        if self.memory.keeper.taken == self.trained:
            return {}
        self.descent.model.load_state_dict(self.initial)
        self.descent.restart()
        kept = self.memory.rows()
        x, y = kept["x"], kept["y"]
        random = generator(self.seed, self.name, self.trainings)
        for epoch in range(self.epochs):
            self.descent.scale(warm_restarts(epoch, self.floor))
            for index in torch.randperm(len(y), generator=random).to(y.device).split(self.batch):
                loss = self._step(rows(x, index), y[index], random)
        self.trainings += 1
        self.trained = self.memory.keeper.taken
        return {"loss": loss}

    def _step(self, x: X, y: Tensor, random: torch.Generator) -> Tensor:
        model = self.descent.model
        if not self.cutmix or torch.rand((), generator=random) >= self.cutmix:
            return self.descent(lambda: cross_entropy(model(x), y))
        mixed, partner, share = cut_and_mix(x, random)

        def loss() -> Tensor:
            scores = model(mixed)
            return share * cross_entropy(scores, y) + (1.0 - share) * cross_entropy(scores, y[partner])

        return self.descent(loss)

    def _images(self, batch: Batch) -> None:
        """Refuse, before anything changes, rows that nothing can be cut out of."""
        x = batch.x if isinstance(batch, Batch) else None
        if not isinstance(x, Tensor) or x.ndim != 4:
            found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(
                f"{self.name}: cutmix needs images (rows, channels, height, width), got {found}. Use cutmix=0.0."
            )


def warm_restarts(epoch: int, floor: float) -> float:
    """Part of the rate in an epoch: 0.1 in the first, then half cosines from 1 to floor over 1, 2, 4, 8, ... epochs.

    >>> [round(warm_restarts(epoch, 0.01), 4) for epoch in range(8)]
    [0.1, 1.0, 1.0, 0.505, 1.0, 0.855, 0.505, 0.155]

    Reference: Loshchilov & Hutter (2017), SGDR, arXiv 1608.03983, equation 5, with T_0 = 1 and T_mult = 2, by whole epochs.
    """
    if epoch == 0:
        return WARM_UP
    length = 1 << (epoch.bit_length() - 1)  # of the cycle; those before it were one shorter in all
    return floor + (1.0 - floor) * cosine_decay((epoch - length) / length)


def cut_and_mix(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """(images with a box of their partner's in them, (rows,) the partner of each, the share of an image that is its own).

    x: (rows, channels, height, width). The box is the same for all: its area before it is cut at the edges is uniform in 0..1
    of the image, and so is its centre in each direction.

    >>> mixed, partner, share = cut_and_mix(torch.ones(4, 1, 8, 8), torch.Generator().manual_seed(0))
    >>> mixed.shape, sorted(partner.tolist()), 0 <= share <= 1
    (torch.Size([4, 1, 8, 8]), [0, 1, 2, 3], True)

    Reference: Yun et al. (2019), CutMix, arXiv 1905.04899, with alpha 1.
    """
    height, width = x.shape[-2:]
    area, down, across = torch.rand(3, generator=random, dtype=torch.float64).tolist()
    partner = torch.randperm(len(x), generator=random).to(x.device)
    side = math.sqrt(area)
    top, bottom = _edges(height, side, down)
    left, right = _edges(width, side, across)
    mixed = x.clone()
    mixed[..., top:bottom, left:right] = x[partner, :, top:bottom, left:right]
    return mixed, partner, 1.0 - (bottom - top) * (right - left) / (height * width)


def _edges(size: int, length: float, centre: float) -> tuple[int, int]:
    """(first, behind the last) pixel of a length around a centre, both parts of the size, cut at 0 and at the size."""
    first, behind = round(size * (centre - length / 2)), round(size * (centre + length / 2))
    return max(first, 0), min(behind, size)


class GreedyKeeper(Keeper):
    """Takes what a class lacks of its equal share; the largest class makes room. taken: rows taken so far."""

    parts = ("members", "taken")
    labelled = True

    def __init__(self) -> None:
        self.members: dict[int, list[int]] = {}  # class -> slots
        self.taken = 0

    def restored(self) -> None:
        """Turn the keys of snapshots back into class numbers."""
        self.members = {int(label): slots for label, slots in self.members.items()}

    def observe(self, labels: list[int], values: Fields) -> None:
        """Counted row by row in `plan`."""

    def plan(
        self, count: int, labels: list[int], values: Fields, held: Fields, stored: int, room: int, seen: int, random
    ) -> Plan:
        """Row by row: a class takes a row while it has less than room / classes seen."""
        draws = torch.rand(count, 2, generator=random, dtype=torch.float64).tolist()
        chosen: dict[int, int] = {}  # slot -> row; of two rows that come to one slot the later stays
        for row, (label, (draw, place)) in enumerate(zip(labels, draws, strict=True)):
            own = self.members.setdefault(label, [])
            if len(own) * len(self.members) >= room:
                continue
            slot, stored = (stored, stored + 1) if stored < room else (self._give(draw, place), stored)
            own.append(slot)
            chosen[slot] = row
            self.taken += 1
        return Plan(0, stored, list(chosen), list(chosen.values()))

    def _give(self, draw: float, place: float) -> int:
        """A random slot of the largest class, of several a random one, which loses it."""
        most = max(map(len, self.members.values()))
        largest = [slots for slots in self.members.values() if len(slots) == most]
        giver = largest[int(draw * len(largest))]
        position = int(place * len(giver))
        slot, giver[position] = giver[position], giver[-1]
        giver.pop()
        return slot


class Greedy(Rule):
    """Classes as equal as can be, of which a row is taken only while its class lacks some. Prabhu et al. (2020), algorithm 1.

    A class that has its share keeps the rows it has. Where there are more classes than places, each place holds one class.
    """

    name: ClassVar[str] = "greedy"

    def make(self) -> Keeper:
        return GreedyKeeper()
