"""Streams of corrupted images: `corruptions(cifar100, order="continual", rounds=10)`. A model is trained on clean images, is deployed, and
then meets noise, blur, weather and digital artefacts, without answers.

The stream is a view: a batch is corrupted when it is asked for, and nothing is stored. A picture is the same whenever it comes with the
same type and severity. Answers after deployment are kept from learners (`Stream.hidden_answers`); monitors score by them.

References: Hendrycks & Dietterich (2019), arXiv 1903.12261 (types); Wang et al. (2022), arXiv 2203.13591 (continual, gradual);
Gong et al. (2022), arXiv 2208.05117, and Yuan et al. (2023), arXiv 2303.13899 (labels that come in runs).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError, check_count, check_range
from everlearn.core.events import Batch, Boundary, Event
from everlearn.core.random import derive, generator
from everlearn.core.stream import HeldOut, Stream
from everlearn.data.corruption_tables import SEVERITIES, TYPES, check_strength
from everlearn.data.corruptions import check_images, corrupt, label_of
from everlearn.data.dataset import Data
from everlearn.data.indexed import Indexed, Session, place
from everlearn.data.naming import check_data, check_sizes, named

ORDERS = ("continual", "gradual", "mixed", "shuffled")
LABELS = ("iid", "sorted", "dirichlet")
SLOTS = 10  # into which the rows of each class are dealt where labels come in runs


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the stream with one corruption: kind is its number among the types, None where every row has its own."""

    kind: int | None
    severity: int
    round: int


@dataclass(frozen=True, slots=True)
class Condition:
    """What the rows of one event went through: kinds (rows,) int64, numbers of types; severity 1..5; round from 0."""

    kinds: Tensor
    severity: int
    round: int


@named
def corruptions(
    data: Data,
    *,
    types: Sequence[str] | None = None,
    severity: int = 5,
    order: str = "continual",
    rounds: int = 1,
    batch: int = 64,
    labels: str = "iid",
    delta: float = 0.1,
    labelled: bool = False,
    announced: bool = False,
    epochs: int = 1,
    source_batch: int = 64,
    rows: int | None = None,
    held_out: float = 0.25,
    size_table: str = "auto",
    test: float = 0.2,
    seed: int = 0,
) -> Stream:
    """Clean images with answers until deployment, then corrupted images without.

    types: names of corruptions in the order in which they come, the fifteen published ones unless given; severity: 1..5, the most
    that comes; order: "continual" (type after type), "gradual" (each type rises from severity 1 and falls again), "mixed" (every
    row has its own type), "shuffled" (type after type, in an order drawn anew for each round); rounds: how often it all comes;
    batch: rows of an event after deployment; labels: "iid", "sorted" (class after class), or "dirichlet" (runs of classes, shorter
    where delta is large); labelled: answers come with the inputs after all, for learners that need them; announced: a Boundary
    opens each corruption; epochs, source_batch: passes over the clean training rows before deployment, and rows of their batches;
    rows: at most so many for each corruption; held_out: the part of the test rows that is only judged on; size_table: as in
    `corrupt`; test: the part of the rows that is not trained on, where the data set has no test part of its own.

    Held-out sets: the clean rows, and these rows under each corruption; judged at deployment and after each round. Raises
    ArgumentError, DataError.

    >>> from everlearn import load
    >>> from everlearn.data.arrays import from_arrays
    >>> digits = load("digits")
    >>> images = from_arrays(digits.x.reshape(-1, 1, 8, 8) / 16, digits.y, name="images")
    >>> stream = corruptions(images, types=("fog", "contrast"), rounds=2, rows=128)
    >>> [item.name for item in stream.held_out], stream[stream.deployed].y, len(stream.hidden_answers(stream.deployed))
    (['clean', 'fog', 'contrast'], None, 64)
    """
    check_data("corruptions", data)
    check_sizes("corruptions", batch=batch, epochs=epochs, test=test)
    for argument, value in (("rounds", rounds), ("source_batch", source_batch)):
        check_count("corruptions", argument, value)
    if rows is not None:
        check_count("corruptions", "rows", rows)
    check_range("corruptions", "held_out", held_out, 0.0, 1.0)
    if held_out in (0, 1):
        raise ArgumentError(
            f"corruptions: held_out must lie between 0 and 1, both left out, got {held_out!r}. Use held_out=0.25."
        )
    check_range("corruptions", "delta", delta, 1e-6)
    for argument, value, allowed in (("order", order, ORDERS), ("labels", labels, LABELS)):
        if value not in allowed:
            raise ArgumentError(f"corruptions: {argument} must be one of {', '.join(allowed)}, got {value!r}.")
    if types is not None and (not isinstance(types, (list, tuple)) or not types):
        raise ArgumentError(f"corruptions: types must be names such as ('fog', 'snow'), or None for all 15, got {types!r}.")
    names = TYPES if types is None else tuple(types)
    for name in names:
        check_strength("corruptions", name, severity, size_table)
    check_images("corruptions", data.x[:1])
    if data.x.dtype != torch.uint8 and (data.x.min() < 0 or data.x.max() > 1):
        raise DataError(f"corruptions: images must lie in 0..1 or be bytes, and those of {data.name} do not. Scale them.")
    train, judged = data.split(test, derive(seed, "test"))
    unseen, kept = judged.split(held_out, derive(seed, "held out"))
    if rows is not None:
        unseen = unseen.take(torch.randperm(len(unseen), generator=generator(seed, "few"))[:rows].sort().values)
    return Corruptions(
        Indexed(train, [Session(0, len(train))], batch=source_batch, epochs=epochs, seed=seed),
        unseen,
        CorruptedSets(kept, names, severity, size_table, seed),
        phases_of(len(names), severity, order, rounds, seed),
        names,
        batch=batch,
        labels=labels,
        delta=delta,
        labelled=labelled,
        announced=announced,
        rounds=rounds,
        size_table=size_table,
        seed=seed,
    )


def phases_of(kinds: int, severity: int, order: str, rounds: int, seed: int) -> list[Phase]:
    """The phases of a stream, one after the other.

    >>> [(phase.kind, phase.severity) for phase in phases_of(2, 2, "gradual", 1, 0)]
    [(0, 1), (0, 2), (0, 1), (1, 1), (1, 2), (1, 1)]
    """
    ramp = [severity]
    if order == "gradual":
        rising = [step for step in SEVERITIES if step <= severity]
        ramp = rising + rising[-2::-1]
    found = []
    for number in range(rounds):
        if order == "mixed":
            found.append(Phase(None, severity, number))
            continue
        turn = list(range(kinds))
        if order == "shuffled":
            turn = torch.randperm(kinds, generator=generator(seed, "types", number)).tolist()
        found += [Phase(kind, step, number) for kind in turn for step in ramp]
    return found


class Corruptions(Stream):
    """Events of a clean source, then phases of corrupted rows, each of them a shuffled (or runs of classes) pass over the same rows."""

    def __init__(
        self,
        source: Indexed,
        unseen: Data,
        held_out: "CorruptedSets",
        phases: list[Phase],
        types: tuple[str, ...],
        *,
        batch: int,
        labels: str,
        delta: float,
        labelled: bool,
        announced: bool,
        rounds: int,
        size_table: str,
        seed: int,
    ):
        self.name = source.name
        self.schema = source.schema
        self.source = source
        self.held_out = held_out
        self.phases = phases
        self.types = types
        self.labels = tuple(label_of(kind) for kind in types)
        self.rounds = rounds
        self.boundaries = announced
        self.headline = "prequential"
        self.deployed = len(source)
        self._unseen = unseen
        self._batch = batch
        self._runs = (labels, delta)
        self._labelled = labelled
        self._size_table = size_table
        self._seed = seed
        self._rows = len(unseen) * (len(types) if phases[0].kind is None else 1)  # of a phase
        self._span = announced - (-self._rows // batch)  # events of a phase
        starts = range(self.deployed, self.deployed + self._span * len(phases), self._span)
        self.changes = tuple(starts)
        by_round = self._span * len(phases) // rounds
        self.checkpoints = tuple(self.deployed + by_round * number for number in range(rounds + 1))
        self._places = lru_cache(maxsize=2)(self._places_of)

    def __len__(self) -> int:
        return self.deployed + self._span * len(self.phases)

    def __getitem__(self, index: int) -> Event:
        index = place(index, len(self))
        if index < self.deployed:
            return self.source[index]
        number, items = self._items(index)
        if items is None:
            return Boundary(number)
        rows, kinds = items % len(self._unseen), self.condition(index).kinds
        severity = self.phases[number].severity
        x = self._unseen.x[rows]
        out = torch.empty_like(x)
        for kind in kinds.unique().tolist():
            mine = kinds == kind
            out[mine] = corrupt(x[mine], self.types[kind], severity, self._size_table, self._seed, index=rows[mine])
        return Batch(out, self._unseen.y[rows] if self._labelled else None)

    def hidden_answers(self, index: int) -> Tensor | None:
        index = place(index, len(self))
        if index < self.deployed or self._labelled:
            return None
        items = self._items(index)[1]
        return None if items is None else self._unseen.y[items % len(self._unseen)]

    def condition(self, index: int) -> Condition | None:
        """What the rows of an event went through; None before deployment, and for boundaries."""
        if index < self.deployed:
            return None
        number, items = self._items(place(index, len(self)))
        if items is None:
            return None
        phase = self.phases[number]
        kinds = items // len(self._unseen) if phase.kind is None else torch.full_like(items, phase.kind)
        return Condition(kinds, phase.severity, phase.round)

    def _items(self, index: int) -> tuple[int, Tensor | None]:
        """(number of the phase, rows + types * rows of the event; None where it is the boundary of the phase)."""
        number, step = divmod(index - self.deployed, self._span)
        step -= self.boundaries
        return number, None if step < 0 else self._places(number)[step * self._batch : (step + 1) * self._batch]

    def _places_of(self, number: int) -> Tensor:
        """(rows of a phase,) in the order in which they come."""
        order = torch.randperm(self._rows, generator=generator(self._seed, "phase", number))
        labels, delta = self._runs
        if labels == "iid":
            return order
        y = self._unseen.y[order % len(self._unseen)]
        if labels == "sorted":
            return order[torch.sort(y, stable=True).indices]
        return order[runs_of_classes(y, delta, derive(self._seed, "runs", number))]


def runs_of_classes(y: Tensor, delta: float, seed: int) -> Tensor:
    """An order of rows in which classes come in runs: each class is dealt into slots by shares ~ Dirichlet(delta), and slot follows
    upon slot, class upon class inside. A small delta puts a class into one slot; a large one spreads it evenly."""
    random = numpy.random.default_rng(seed)
    slots: list[list[numpy.ndarray]] = [[] for _ in range(SLOTS)]
    for label in random.permutation(torch.unique(y).numpy()):
        own = (y == label).nonzero().flatten().numpy()
        shares = random.dirichlet(numpy.full(SLOTS, float(delta)))
        cuts = numpy.round(shares.cumsum()[:-1] * len(own)).astype(numpy.int64)
        for slot, part in zip(slots, numpy.split(own, cuts), strict=True):
            slot.append(part)
    return torch.from_numpy(numpy.concatenate([part for slot in slots for part in slot]))


class CorruptedSets(Sequence[HeldOut]):
    """Held-out rows, clean and under each corruption, made when they are asked for."""

    def __init__(self, data: Data, types: tuple[str, ...], severity: int, size_table: str, seed: int):
        self._data, self._types, self._severity = data, types, severity
        self._size_table, self._seed = size_table, derive(seed, "held out")

    def __len__(self) -> int:
        return 1 + len(self._types)

    def __getitem__(self, index: int) -> HeldOut:
        number = place(index, len(self))
        x = self._data.x[:]
        if number == 0:
            return HeldOut("clean", x, self._data.y)
        kind = self._types[number - 1]
        return HeldOut(label_of(kind), corrupt(x, kind, self._severity, self._size_table, self._seed), self._data.y)
