"""The stream behind the scenarios: sessions over one data set, every batch found by index arithmetic.

A session is a span of the row order. Pass k over a session of m rows visits row (stride * i + shift) mod m of its span, with
stride and shift drawn from (seed, session, pass) and stride prime to m, so each pass is a permutation that costs no memory,
and `stream[i]` costs one batch whatever i is. Nothing is copied but the rows of the batch.
"""

import copy
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from math import gcd

import torch
from torch import Tensor

from everlearn.core.errors import DataError
from everlearn.core.events import Batch, Boundary, Event
from everlearn.core.random import derive
from everlearn.core.stream import HeldOut, Stream
from everlearn.data.dataset import Data

Transform = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Session:
    """`count` rows from place `start` of the order; `classes`: those that are new in it."""

    start: int
    count: int
    classes: tuple[int, ...] = ()


class Indexed(Stream):
    """Sessions, one after the other, in batches that never reach over the end of a session or of a pass.

    order: (places,) row numbers of `data`, None for the rows as they stand; epochs: passes over each session, one number for all
    or one for each; seed: shuffles every pass anew, None keeps the order; announced: a Boundary with all rows of the session
    opens each; tasks: batches tell the number of their session; transform: (x of some rows, session number) -> x.
    """

    def __init__(
        self,
        data: Data,
        sessions: Sequence[Session],
        *,
        batch: int,
        order: Tensor | None = None,
        epochs: int | Sequence[int] = 1,
        seed: int | None = None,
        announced: bool = False,
        tasks: bool = False,
        transform: Transform | None = None,
        held_out: Sequence[HeldOut] = (),
    ):
        self.name = data.name
        self.schema = data.schema
        self.boundaries = announced
        self.held_out = held_out
        self.batch = batch
        self.epochs = epochs
        self._data = data
        self._order = order
        self._sessions = sessions
        self._seed = seed
        self._tasks = tasks
        self._transform = transform
        self._batches = [-(-session.count // batch) for session in sessions]  # in one pass
        self._passes = [epochs] * len(sessions) if isinstance(epochs, int) else list(epochs)
        counts = [announced + passes * batches for passes, batches in zip(self._passes, self._batches, strict=True)]
        self._ends = list(accumulate(counts))
        self.checkpoints = tuple(self._ends)
        self.changes = tuple(self._ends[:-1])
        self.deployed = self._ends[0]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Event:
        index = place(index, len(self))
        number = bisect_right(self._ends, index)
        session = self._sessions[number]
        step = index - (self._ends[number - 1] if number else 0) - self.boundaries
        if step < 0:
            return Boundary(number, session.classes, self._rows(slice(session.start, session.start + session.count), number))
        turn, step = divmod(step, self._batches[number])
        low, high = step * self.batch, min(session.count, (step + 1) * self.batch)
        if self._seed is None:
            return self._rows(slice(session.start + low, session.start + high), number)
        stride, shift = permutation(session.count, self._seed, number, turn)
        first = low * stride + shift
        places = torch.arange(first, first + (high - low) * stride, stride).remainder_(session.count)
        return self._rows(places.add_(session.start) if session.start else places, number)

    def relabelled(self, change: Callable[[Tensor, int], Tensor]) -> "Indexed":
        """The same stream with labels y replaced by change(y, classes); held-out sets stay as they are."""
        changed = copy.copy(self)
        changed._data = replace(self._data, y=change(self._data.y, len(self._data.classes)))
        return changed

    def sizes(self) -> list[int]:
        """The number of rows of each event, 0 for a boundary, without making the events."""
        counts = []
        for session, batches, passes in zip(self._sessions, self._batches, self._passes, strict=True):
            one = [self.batch] * (batches - 1) + [session.count - (batches - 1) * self.batch]
            counts += [0] * self.boundaries + one * passes
        return counts

    def _rows(self, places: Tensor | slice, number: int) -> Batch:
        index = places if self._order is None else _take(self._order, places)
        x, y, time = _take(self._data.x, index), _take(self._data.y, index), self._data.time
        return Batch(
            x if self._transform is None else self._transform(x, number),
            y,
            task=number if self._tasks else None,
            time=None if time is None else _take(time, index),
        )


class HeldOutSets(Sequence[HeldOut]):
    """One held-out set per session, made when it is asked for. Every session needs at least one row."""

    def __init__(
        self,
        data: Data,
        sessions: Sequence[Session],
        names: Sequence[str],
        *,
        order: Tensor | None = None,
        tasks: bool = False,
        transform: Transform | None = None,
    ):
        for session, name in zip(sessions, names, strict=True):
            if session.count == 0:
                raise DataError(
                    f"{data.name}: no test row for the held-out set {name!r}. Raise test, ask for fewer experiences, "
                    "or leave rare classes out."
                )
        self._data, self._sessions, self._names, self._order = data, sessions, names, order
        self._tasks, self._transform = tasks, transform

    def __len__(self) -> int:
        return len(self._sessions)

    def __getitem__(self, index: int) -> HeldOut:
        number = place(index, len(self))
        session = self._sessions[number]
        places = slice(session.start, session.start + session.count)
        rows = places if self._order is None else self._order[places]
        x = self._data.x[rows]
        if self._transform is not None:
            x = self._transform(x, number)
        return HeldOut(self._names[number], x, self._data.y[rows], number if self._tasks else None)


def place(index: int, length: int) -> int:
    """A number in 0..length-1; negative ones count from the end. Raises IndexError."""
    if not -length <= index < length:
        raise IndexError(f"there is no number {index} among {length}.")
    return index % length


def _take(values: Tensor, index: Tensor | slice) -> Tensor:
    """The rows that an index names; a slice is a view."""
    return values[index] if isinstance(index, slice) else values.index_select(0, index)


@lru_cache(maxsize=1024)
def permutation(count: int, seed: int, *labels: object) -> tuple[int, int]:
    """(stride, shift) such that i -> (stride * i + shift) mod count is a permutation, drawn from (seed, labels)."""
    number = derive(seed, "pass", *labels)
    shift, stride = number % count, 1 + (number // count) % count
    while gcd(stride, count) > 1:
        stride = 1 + stride % count
    return stride, shift


def grouped(groups: Tensor, count: int, keys: Tensor | None = None) -> tuple[Tensor, list[Session]]:
    """(order, sessions): rows by group 0..count-1, inside a group by key in 0..1 (as they stand without); others left out."""
    inside = groups if keys is None else groups + keys
    order = torch.sort(inside, stable=True).indices
    order = order[int((groups < 0).sum()) :]
    counts = torch.bincount(groups[groups >= 0], minlength=count).tolist()
    starts = accumulate(counts, initial=0)
    return order, [Session(start, size) for start, size in zip(starts, counts, strict=False)]
