"""Concept shift: labels change their meaning while the images stay. At each change some classes exchange their labels, for good.

    label shown of a row with true class c  =  map_k(c)        k: changes so far;   map_k = change_k o map_{k-1}, map_0 = identity

A change comes after every floor(rows / swaps) rows of an epoch, at that very row. Where the number of swaps itself goes from season to
season (`schedule`), the shift is of second order.
Reference: Man, Damasio & Neven (2022), Need is all you need: Homeostatic neural networks adapt to concept shift, arXiv 2205.08645.
"""

from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError, check_count, check_range
from everlearn.core.events import Batch
from everlearn.core.random import derive, generator
from everlearn.core.stream import HeldOut, Stream
from everlearn.data.dataset import Data
from everlearn.data.indexed import place
from everlearn.data.naming import check_data, check_sizes, fraction_of, named

KINDS = {"swap": 2, "cycle": 3, "full": 2}  # classes that each needs at least


@named
def label_swaps(
    data: Data,
    *,
    swaps: int = 10,
    schedule: Sequence[int] | None = None,
    epochs: int = 5,
    kind: str = "swap",
    batch: int = 10,
    evaluate_every: int = 1,
    deployed: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
) -> Stream:
    """Labels that are exchanged from time to time: `swaps` changes in each epoch, evenly spaced.

    schedule: changes by epoch, begun anew when it ends, in place of `swaps`: (0, 0, 50, 50) for calm and stormy seasons, see
    `seasons`. kind: "swap" exchanges the labels of two classes, "cycle" passes those of three round, "full" draws a new map of all
    classes; classes are drawn evenly by the seed. Changes add up: the map is a growing permutation. epochs: passes over the training
    part, each shuffled anew; evaluate_every: epochs between two checkpoints. Held out is the test part once for each checkpoint, with
    the labels of that time: set k at checkpoint k is judged under the map that holds then, and older sets say what is left of older
    maps. Learners are judged by their answers on the stream. Raises ArgumentError, DataError.

    >>> from everlearn import load
    >>> stream = label_swaps(load("digits"), swaps=4, epochs=2)
    >>> stream.positions[:5], stream.changes[:2], stream.map_at(40).tolist()
    ((359, 718, 1077, 1436, 1797), (35, 71), [0, 2, 1, 3, 4, 5, 6, 7, 8, 9])

    Reference: Man, Damasio & Neven (2022), arXiv 2205.08645.
    Differs from the paper in: changes come at their row, also within a batch, and none is skipped.
    """
    check_data("label_swaps", data)
    check_sizes("label_swaps", batch=batch, epochs=epochs, test=test)
    check_count("label_swaps", "evaluate_every", evaluate_every)
    check_range("label_swaps", "deployed", deployed, 0.0, 1.0)
    if kind not in KINDS:
        raise ArgumentError(f"label_swaps: kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}.")
    if len(data.classes) < KINDS[kind]:
        raise ArgumentError(
            f"label_swaps: kind={kind!r} needs {KINDS[kind]} classes, and {data.name} has {len(data.classes)}."
        )
    train, judged = data.split(test, derive(seed, "test"))
    if not len(judged):
        raise DataError(f"{data.name}: no test row is left to judge on. Raise test.")
    per_epoch = _per_epoch(swaps, schedule, epochs, -(-len(train) // batch))
    stream = LabelSwaps(train, judged, per_epoch, kind=kind, batch=batch, evaluate_every=evaluate_every, seed=seed)
    stream.deployed = fraction_of(len(stream), deployed)
    return stream


def seasons(calm: int = 5, stormy: int = 5, swaps: int = 50, between: int = 0) -> tuple[int, ...]:
    """A schedule of calm epochs with `between` changes each, and stormy ones with `swaps`.

    >>> seasons(calm=2, stormy=1, swaps=50)
    (0, 0, 50)
    """
    return (between,) * calm + (swaps,) * stormy


def _per_epoch(swaps: int, schedule: Sequence[int] | None, epochs: int, batches: int) -> list[int]:
    """Changes in each epoch; refused where they are more than the batches of one."""
    if schedule is not None and (not isinstance(schedule, (tuple, list)) or not schedule):
        raise ArgumentError(f"label_swaps: schedule must be changes by epoch such as (0, 0, 50, 50), got {schedule!r}.")
    given = [swaps] if schedule is None else list(schedule)
    for count in given:
        check_count("label_swaps", "swaps" if schedule is None else "a number in schedule", count, low=0)
        if count > batches:
            raise ArgumentError(
                f"label_swaps: {count} changes in an epoch of {batches} batches are more than one for each. Use fewer, or batch=1."
            )
    return [given[epoch % len(given)] for epoch in range(epochs)]


def change_map(kind: str, classes: int, random: torch.Generator) -> Tensor:
    """(classes,) what each label is called after one change, drawn by the generator; never what it was for all of them.

    >>> sorted(change_map("cycle", 4, torch.Generator().manual_seed(0)).tolist())
    [0, 1, 2, 3]
    """
    found = torch.arange(classes)
    if kind == "full":
        while True:
            drawn = torch.randperm(classes, generator=random)
            if not torch.equal(drawn, found):
                return drawn
    ring = torch.randperm(classes, generator=random)[: KINDS[kind]]
    found[ring] = ring.roll(-1)
    return found


class LabelSwaps(Stream):
    """The stream behind `label_swaps`. Rows are counted from 0 over all epochs.

    positions: rows before which the map changes, rising; maps: (changes + 1, classes), the label of each class before and after
    each change; per_epoch: changes in each epoch. `changes` names the events of the first rows under a new map.
    """

    def __init__(
        self,
        train: Data,
        judged: Data,
        per_epoch: Sequence[int],
        *,
        kind: str,
        batch: int,
        evaluate_every: int,
        seed: int,
    ):
        self.name = train.name
        self.schema = train.schema
        self.headline = "prequential"
        self.batch = batch
        self.epochs = len(per_epoch)
        self.per_epoch = tuple(per_epoch)
        self._data, self._seed = train, seed
        self._batches = -(-len(train) // batch)
        count = len(train)
        self.positions = tuple(
            epoch * count + number * (count // changes)
            for epoch, changes in enumerate(per_epoch)
            for number in range(1, changes + 1)
        )
        self.maps = _maps(kind, len(train.classes), len(self.positions), seed)
        rows = [position for position in self.positions if position < self.epochs * count]
        self.changes = tuple(sorted({self._event_of(row) for row in rows}))
        ends = sorted({*range(evaluate_every, self.epochs, evaluate_every), self.epochs})
        self.checkpoints = tuple(end * self._batches for end in ends)
        # at the end of an epoch the map of its last row holds; a change due at that very end belongs to the next row
        self.held_out = Relabelled(judged, [self._map_of(end * count - 1) for end in ends], ends)
        self._latest: tuple[int, Tensor] | None = None  # (epoch, order of its rows)

    def __len__(self) -> int:
        return self.epochs * self._batches

    def __getitem__(self, index: int) -> Batch:
        epoch, step = divmod(place(index, len(self)), self._batches)
        low, high = step * self.batch, min(len(self._data), (step + 1) * self.batch)
        rows = self.order(epoch)[low:high]
        y = self._data.y.index_select(0, rows)
        first = epoch * len(self._data) + low
        before, after = (bisect_right(self.positions, row) for row in (first, first + high - low - 1))
        if before == after:
            y = self.maps[before][y]
        else:
            numbers = torch.tensor([bisect_right(self.positions, row) for row in range(first, first + high - low)])
            y = self.maps[numbers, y]
        time = self._data.time
        return Batch(self._data.x.index_select(0, rows), y, time=None if time is None else time.index_select(0, rows))

    def order(self, epoch: int) -> Tensor:
        """(rows,) the rows of the training part in the order of an epoch; the last one asked for is kept."""
        if self._latest is None or self._latest[0] != epoch:
            order = torch.randperm(len(self._data), generator=generator(self._seed, "epoch", epoch))
            self._latest = (epoch, order)
        return self._latest[1]

    def sizes(self) -> list[int]:
        """The number of rows of each event, without making the events."""
        last = len(self._data) - (self._batches - 1) * self.batch
        return ([self.batch] * (self._batches - 1) + [last]) * self.epochs

    def map_at(self, event: int) -> Tensor:
        """(classes,) the label that rows of each class bear at the last row of an event."""
        epoch, step = divmod(place(event, len(self)), self._batches)
        row = epoch * len(self._data) + min(len(self._data), (step + 1) * self.batch) - 1
        return self._map_of(row).clone()

    def swapped(self, change: int) -> tuple[int, ...]:
        """The labels that a change exchanged, rising."""
        before, after = self.maps[change], self.maps[change + 1]
        return tuple(sorted(before[before != after].tolist()))

    def epoch_of(self, event: int) -> int:
        """The epoch in which an event lies, from 0."""
        return place(event, len(self)) // self._batches

    def _map_of(self, row: int) -> Tensor:
        return self.maps[bisect_right(self.positions, row)]

    def _event_of(self, row: int) -> int:
        epoch, within = divmod(row, len(self._data))
        return epoch * self._batches + within // self.batch


def _maps(kind: str, classes: int, changes: int, seed: int) -> Tensor:
    """(changes + 1, classes) the map before the first change and after each."""
    random = generator(seed, "changes")
    maps = torch.empty(changes + 1, classes, dtype=torch.int64)
    maps[0] = torch.arange(classes)
    for number in range(changes):
        maps[number + 1] = change_map(kind, classes, random)[maps[number]]
    return maps


class Relabelled(Sequence[HeldOut]):
    """The test rows under the map of each checkpoint, made when asked for."""

    def __init__(self, judged: Data, maps: Sequence[Tensor], ends: Sequence[int]):
        self._judged, self._maps, self._ends = judged, maps, ends

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, index: int) -> HeldOut:
        number = place(index, len(self))
        return HeldOut(f"labels after epoch {self._ends[number]}", self._judged.x, self._maps[number][self._judged.y])
