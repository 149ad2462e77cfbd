"""Rules by which rows stay in a replay memory, as values: `reservoir()`, `balanced()`, `ring()`, `herding()`.

A rule makes a keeper, which holds the rule's state and answers each insertion with a `Plan`: which rows go to which slots.
Reservoir: row n replaces slot j ~ U{0..n-1} if j < capacity, so that each of n rows stays with probability capacity / n.

References: Vitter (1985), Random sampling with a reservoir, ACM TOMS 11(1), algorithm R; Chrysakis & Moens (2020), Online
continual learning from imbalanced data, ICML; Rebuffi et al. (2017), iCaRL, arXiv 1611.07725, algorithms 4 and 5.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy
import torch
from torch import Tensor

from everlearn.core.spec import describe

Fields = dict[str, Tensor]


@dataclass(slots=True)
class Plan:
    """What to do with a batch: the first `append` rows go behind the stored ones; then slot `to[i]` takes the content of slot
    `source[i]`; then slot `slots[i]` takes row `rows[i]` of the batch; `stored` rows are held afterwards."""

    append: int
    stored: int
    slots: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    to: list[int] = field(default_factory=list)
    source: list[int] = field(default_factory=list)


class Keeper(ABC):
    """The state of one rule in one memory. labelled: whether it needs y; measured: whether it needs distances between rows."""

    parts: ClassVar[tuple[str, ...]] = ()
    labelled: ClassVar[bool] = False
    measured: ClassVar[bool] = False
    nbytes: int = 0  # of the statistics it keeps beside the rows

    @abstractmethod
    def observe(self, labels: list[int], values: Fields) -> None:
        """Take note of rows that come, before room is measured."""

    @abstractmethod
    def plan(
        self, count: int, labels: list[int], values: Fields, held: Fields, stored: int, room: int, seen: int, random
    ) -> Plan:
        """Where `count` rows go. held: the tensors of the memory; room: rows it may hold; seen: rows offered before these."""


class Rule(ABC):
    """A rule as a value; `make` gives the keeper that applies it."""

    name: ClassVar[str]

    @abstractmethod
    def make(self) -> Keeper:
        """A keeper that has seen nothing."""

    def __repr__(self) -> str:
        return describe(self)


class ReservoirKeeper(Keeper):
    """Algorithm R, a batch at a time."""

    def observe(self, labels: list[int], values: Fields) -> None:
        """Nothing to note."""

    def plan(
        self, count: int, labels: list[int], values: Fields, held: Fields, stored: int, room: int, seen: int, random
    ) -> Plan:
        """Every row seen so far is equally likely to be kept."""
        append = min(count, room - stored)
        if append == count:
            return Plan(append, stored + append)
        draws = torch.rand(count - append, generator=random, dtype=torch.float64).tolist()
        chosen = {}  # slot -> row; of two rows that choose one slot the later stays, as if they had come one by one
        for row, draw in enumerate(draws, start=append):
            slot = int(draw * (seen + row + 1))
            if slot < room:
                chosen[slot] = row
        return Plan(append, stored + append, list(chosen), list(chosen.values()))


class RingKeeper(Keeper):
    """The newest rows: row n stands in slot n mod capacity."""

    def observe(self, labels: list[int], values: Fields) -> None:
        """Nothing to note."""

    def plan(
        self, count: int, labels: list[int], values: Fields, held: Fields, stored: int, room: int, seen: int, random
    ) -> Plan:
        """The newest rows take the places of the oldest."""
        append = min(count, room - stored)
        rows = list(range(max(append, count - room), count))
        return Plan(append, stored + append, [(seen + row) % room for row in rows], rows)


class BalancedKeeper(Keeper):
    """Class-balancing reservoir sampling: state per class, and lists of slots so that each row costs O(1)."""

    parts = ("members", "offered", "full")
    labelled = True

    def __init__(self) -> None:
        self.members: dict[int, list[int]] = {}  # class -> slots
        self.offered: dict[int, int] = {}  # class -> rows seen
        self.full: list[int] = []  # classes that were the largest while the memory was full

    def restored(self) -> None:
        self.members = {int(label): slots for label, slots in self.members.items()}
        self.offered = {int(label): count for label, count in self.offered.items()}

    def observe(self, labels: list[int], values: Fields) -> None:
        """Counted row by row in `plan`: the n-th row of a class needs n."""

    def plan(
        self, count: int, labels: list[int], values: Fields, held: Fields, stored: int, room: int, seen: int, random
    ) -> Plan:
        """Rows of the largest class make room."""
        append = min(count, room - stored)
        for row, label in enumerate(labels[:append]):
            self.members.setdefault(label, []).append(stored + row)
            self.offered[label] = self.offered.get(label, 0) + 1
        stored += append
        if append == count:
            if stored == room:
                self._mark_full()
            return Plan(append, stored)
        if append:
            self._mark_full()
        draws = torch.rand(count - append, 2, generator=random, dtype=torch.float64).tolist()
        chosen: dict[int, int] = {}
        for row, (draw, place) in enumerate(draws, start=append):
            slot = self._slot(labels[row], draw, place)
            if slot is not None:
                chosen[slot] = row
        return Plan(append, stored, list(chosen), list(chosen.values()))

    def _slot(self, label: int, draw: float, place: float) -> int | None:
        """The slot that a row of a class takes in a full memory, None where it is passed over."""
        own = self.members.setdefault(label, [])
        self.offered[label] = self.offered.get(label, 0) + 1
        if own and label in self.full:
            return own[int(place * len(own))] if draw < len(own) / self.offered[label] else None
        largest = self._largest()
        giver = self.members[largest[int(draw * len(largest))]]
        if giver is own:
            return own[int(place * len(own))]
        position = int(place * len(giver))
        slot, giver[position] = giver[position], giver[-1]
        giver.pop()
        own.append(slot)
        self._mark_full()
        return slot

    def _largest(self) -> list[int]:
        most = max(map(len, self.members.values()))
        return [label for label, slots in self.members.items() if len(slots) == most]

    def _mark_full(self) -> None:
        self.full += [label for label in self._largest() if label not in self.full]


class HerdingKeeper(Keeper):
    """Greedy choice per class of the rows whose mean is nearest to the mean of all rows of the class seen so far."""

    parts = ("members", "offered", "sums")
    labelled = True
    measured = True

    def __init__(self) -> None:
        self.members: dict[int, list[int]] = {}  # class -> slots, in the order of choice: the first k are the best k
        self.offered: dict[int, int] = {}
        self.sums: dict[int, Tensor] = {}  # class -> sum of features, float64

    def restored(self) -> None:
        self.members = {int(label): slots for label, slots in self.members.items()}
        self.offered = {int(label): count for label, count in self.offered.items()}
        self.sums = {int(label): total for label, total in self.sums.items()}

    @property
    def nbytes(self) -> int:
        return sum(total.nbytes for total in self.sums.values())

    def observe(self, labels: list[int], values: Fields) -> None:
        features = _features(values)
        names = numpy.asarray(labels)
        for label in dict.fromkeys(labels):
            mine = features[names == label]
            total = torch.from_numpy(mine.sum(0))
            self.sums[label] = self.sums[label] + total if label in self.sums else total
            self.offered[label] = self.offered.get(label, 0) + len(mine)
            self.members.setdefault(label, [])

    def plan(
        self, count: int, labels: list[int], values: Fields, held: Fields, stored: int, room: int, seen: int, random
    ) -> Plan:
        """Each class keeps the rows whose mean is nearest to its own."""
        order = list(self.members)
        quota = dict.fromkeys(order, room // len(order)) if len(order) <= room else dict.fromkeys(order[:room], 1)
        features = _features(values)
        names = numpy.asarray(labels)
        taken: dict[int, list[int]] = {}  # class -> chosen rows of the batch, as -1 - row, among its slots
        for label, slots in self.members.items():
            most = quota.get(label, 0)
            fresh = numpy.flatnonzero(names == label)
            if not len(fresh) or most == 0:
                taken[label] = slots[:most]
                continue
            candidates = features[fresh]
            if slots:
                index = torch.tensor(slots)
                candidates = numpy.concatenate([_features({key: value[index] for key, value in held.items()}), candidates])
            mean = self.sums[label].numpy() / self.offered[label]
            named = slots + [-1 - int(row) for row in fresh]
            taken[label] = [named[position] for position in herd(candidates, mean, most)]
        return self._settle(taken, stored)

    def _settle(self, taken: dict[int, list[int]], stored: int) -> Plan:
        """Give every chosen row a slot below the new count; rows that stand above it move into the holes."""
        kept = {slot for slots in taken.values() for slot in slots if slot >= 0}
        fresh = [-1 - slot for slots in taken.values() for slot in slots if slot < 0]
        total = len(kept) + len(fresh)
        holes = [slot for slot in range(total) if slot not in kept]
        tail = sorted(slot for slot in kept if slot >= total)
        moved = dict(zip(tail, holes, strict=False))
        placed = dict(zip(fresh, holes[len(tail) :], strict=True))
        self.members = {
            label: [placed[-1 - slot] if slot < 0 else moved.get(slot, slot) for slot in slots]
            for label, slots in taken.items()
        }
        return Plan(0, total, list(placed.values()), list(placed), list(moved.values()), list(moved))


def herd(features: numpy.ndarray, mean: numpy.ndarray, count: int) -> list[int]:
    """The first `count` rows in herding order: row k is the one that brings the mean of the rows chosen nearest to `mean`.

        p_k = argmin_x || mean - (phi(x) + phi(p_1) + ... + phi(p_{k-1})) / k ||

    features: (rows, size) float64; mean: (size,). Each step costs one product of the features with a vector.
    """
    squares = (features * features).sum(1)
    aligned = features @ mean
    overlap = numpy.zeros(len(features))  # products of each row with the sum of those chosen
    chosen: list[int] = []
    for step in range(1, min(count, len(features)) + 1):
        best = int(
            (squares - 2.0 * (step * aligned - overlap)).argmin()
        )  # the squared distance, times step**2, but for a constant
        chosen.append(best)
        squares[best] = numpy.inf
        overlap += features @ features[best]
    return chosen


def _features(values: Fields) -> numpy.ndarray:
    """(rows, size) float64: the field `feature` where it is kept, else x flattened."""
    chosen = values["feature"] if "feature" in values else values["x"]
    return chosen.reshape(len(chosen), -1).to("cpu", torch.float64).numpy()


@dataclass(frozen=True, repr=False)
class Reservoir(Rule):
    """A uniform sample of all rows seen. Vitter (1985)."""

    name: ClassVar[str] = "reservoir"

    def make(self) -> Keeper:
        return ReservoirKeeper()


@dataclass(frozen=True, repr=False)
class Balanced(Rule):
    """Classes as equal as can be, each a uniform sample of its rows. Chrysakis & Moens (2020).

    A new row of a class that never was the largest takes the place of a random row of the largest class (ties at random).
    A class without a stored row counts as one that never was; so where there are more classes than places, the newest class
    has a row and others lose theirs at random.
    """

    name: ClassVar[str] = "balanced"

    def make(self) -> Keeper:
        return BalancedKeeper()


@dataclass(frozen=True, repr=False)
class Ring(Rule):
    """The newest rows."""

    name: ClassVar[str] = "ring"

    def make(self) -> Keeper:
        return RingKeeper()


@dataclass(frozen=True, repr=False)
class Herding(Rule):
    """Rows nearest to their class mean, capacity // (classes seen) for each class. Rebuffi et al. (2017).

    Distances are between the field `feature` where it is inserted, else between flattened x. Features stay as they were given:
    they are not taken anew when a network changes. The mean is that of all rows of the class seen; one insertion of a whole
    class is the published choice, and a class that comes in pieces is chosen among the rows kept and the new ones. Where there
    are more classes than places, the classes that came first hold one row each.
    """

    name: ClassVar[str] = "herding"

    def make(self) -> Keeper:
        return HerdingKeeper()


RULES = {"reservoir": Reservoir, "balanced": Balanced, "ring": Ring, "herding": Herding}
