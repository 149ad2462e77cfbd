"""Which classes to replay, by how often they come, and the rows kept of each for it.

    frequency of class c = (tasks in which c was learned, replayed ones included) / (tasks so far)

A class is replayed where its frequency lies in a band: above `low`, so that it is worth it, and at most `high`, so that it needs
it. Rows are kept per class and refreshed each time the class comes back, less each time.

Reference: Lesort et al. (2023), Challenging common assumptions about catastrophic forgetting, arXiv 2207.04543.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from everlearn.core.errors import check_count
from everlearn.data.keep import Fields, Keeper, Plan, Rule

LEAST = 10  # rows refreshed at every return


class Frequencies:
    """Tasks, and for every class the (weighted) tasks in which it was learned.

    low, high: the band; min_occurrences: tasks with a class before it is replayed at all.

    >>> found = Frequencies(low=0.01, high=0.1, min_occurrences=3)
    >>> found.tasks, found.counts, found.occurrences = 100, {0: 5.0, 1: 1.0, 2: 3.0, 3: 9.0}, {0: 5, 1: 1, 2: 3, 3: 9}
    >>> found.select([0]), found.select([2])
    ([2], [0])
    """

    parts = ("tasks", "counts", "occurrences")

    def __init__(self, low: float = 0.01, high: float = 0.1, min_occurrences: int = 3):
        self.low = low
        self.high = high
        self.min_occurrences = min_occurrences
        self.tasks = 0
        self.counts: dict[int, float] = {}
        self.occurrences: dict[int, int] = {}

    def restored(self) -> None:
        """Class numbers come back from a snapshot as text."""
        self.counts = {int(label): count for label, count in self.counts.items()}
        self.occurrences = {int(label): count for label, count in self.occurrences.items()}

    def record(self, weights: Mapping[int, float]) -> None:
        """A task is over in which these classes were learned, each counting with its weight (1, or its accuracy)."""
        self.tasks += 1
        for label, weight in weights.items():
            self.counts[label] = self.counts.get(label, 0.0) + weight
            self.occurrences[label] = self.occurrences.get(label, 0) + 1

    def select(self, current: Sequence[int]) -> list[int]:
        """The rarest classes of the band, at most as many as the task that begins has classes of its own, and none of these."""
        chosen: list[int] = []
        for label, count in sorted(self.counts.items(), key=lambda item: (item[1], item[0])):
            if len(chosen) == len(current):
                break
            if label in current or self.occurrences[label] < self.min_occurrences:
                continue
            frequency = count / self.tasks
            if frequency > self.high:
                break
            if frequency > self.low:
                chosen.append(label)
        return chosen


def refresh_size(per_class: int, before: int) -> int:
    """Rows of a class taken in a task: per_class the first time, then per_class / (times before + 1), ten at least.

    >>> [refresh_size(200, before) for before in range(5)]
    [200, 100, 66, 50, 40]
    """
    return per_class if before == 0 else max(per_class // (before + 1), LEAST)


class RefreshedKeeper(Keeper):
    """At most per_class rows of each class; when a class comes back, some of its rows give way to new ones, drawn at random."""

    parts = ("members", "came", "quota", "stale")
    labelled = True

    def __init__(self, per_class: int):
        self.per_class = per_class
        self.members: dict[int, list[int]] = {}  # class -> slots
        self.came: dict[int, int] = {}  # class -> tasks in which it came, the present one included
        self.quota: dict[int, int] = {}  # class -> rows still taken in this task
        self.stale: dict[int, list[int]] = {}  # class that came in this task -> its slots that may take new rows

    def restored(self) -> None:
        for name in self.parts:
            setattr(self, name, {int(label): value for label, value in getattr(self, name).items()})

    def begin(self) -> None:
        """A task begins: classes may be refreshed again."""
        self.quota, self.stale = {}, {}

    def slots(self, labels: Sequence[int]) -> list[int]:
        """The slots of some classes."""
        return [slot for label in labels for slot in self.members.get(label, ())]

    def observe(self, labels: list[int], values: Fields) -> None:
        for label in dict.fromkeys(labels):
            if label not in self.quota:
                self.quota[label] = refresh_size(self.per_class, self.came.get(label, 0))
                self.came[label] = self.came.get(label, 0) + 1
                self.stale[label] = list(self.members.get(label, ()))

    def plan(
        self, count: int, labels: list[int], values: Fields, held: Fields, stored: int, room: int, seen: int, random
    ) -> Plan:
        """New rows while their class may be refreshed; below room for all classes, all of them shrink alike."""
        most = max(1, min(self.per_class, room // len(self.came)))
        taken: dict[int, int] = {}  # slot -> row, the last where several rows of this batch go there
        for row, label in enumerate(labels):
            if not self.quota[label]:
                continue
            slot, stored = self._slot(label, most, stored, room, random)
            if slot is None:
                continue
            self.quota[label] -= 1
            taken[slot] = row
        return Plan(0, stored, list(taken), list(taken.values()))

    def _slot(self, label: int, most: int, stored: int, room: int, random: torch.Generator) -> tuple[int | None, int]:
        """(the slot that a row takes, None where it is passed over; rows stored then)."""
        own = self.members.setdefault(label, [])
        if len(own) < most and stored < room:
            own.append(stored)
            return stored, stored + 1
        if len(own) < most:  # the memory is full: the largest class gives a slot
            giver = max(self.members, key=lambda other: (len(self.members[other]), -other))
            if len(self.members[giver]) > most:
                slot = _popped(self.members[giver], random)
                self.stale[giver] = [other for other in self.stale.get(giver, ()) if other != slot]
                own.append(slot)
                return slot, stored
        stale = self.stale[label]
        return (_popped(stale, random) if stale else None), stored


def _popped(slots: list[int], random: torch.Generator) -> int:
    """One of the slots at random, taken out."""
    return slots.pop(int(torch.randint(len(slots), (), generator=random)))


@dataclass(frozen=True, repr=False)
class Refreshed(Rule):
    """per_class rows of each class, refreshed whenever the class comes back. Lesort et al. (2023).

    A class fills its places the first time it comes; at its k-th return max(per_class / (k + 1), 10) of them, drawn at random,
    take new rows. `RefreshedKeeper.begin` says that a task begins; without, everything is one task.
    """

    per_class: int = 200
    name: ClassVar[str] = "refreshed"

    def __post_init__(self) -> None:
        check_count(self.name, "per_class", self.per_class)

    def make(self) -> RefreshedKeeper:
        return RefreshedKeeper(self.per_class)
