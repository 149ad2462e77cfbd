"""A stream of windows over a series: each window is forecast before its answer is known, in service as here.

    x: the last `window` values of the columns observed     y: the values of the targets, `horizon` samples after the window's end

A window ends at a time and is made of the samples seen until then; one whose answer was not seen is left out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import DataError
from everlearn.core.events import Batch, Boundary, Event, X
from everlearn.core.stream import HeldOut, Schema, Stream
from everlearn.data.indexed import place
from everlearn.data.naming import evenly

CHECKPOINTS = 10
BOUNDARY, INPUT, ANSWER = range(3)  # kinds of events


class Windows(NamedTuple):
    """Which columns of a series a window shows. observed, targets: their places; gaps: whether x tells the time between samples."""

    observed: tuple[int, ...]
    targets: tuple[int, ...]
    window: int
    horizon: int
    gaps: bool
    key: str = "values"

    def rows(self, values: Tensor, samples: numpy.ndarray, last: numpy.ndarray) -> tuple[X, Tensor]:
        """x and y of the windows that end at places `last` of `samples`, the rising times at which the series was seen."""
        shown = samples[last[:, None] + numpy.arange(1 - self.window, 1)]
        x = values[torch.from_numpy(shown)][..., list(self.observed)].float()
        y = values[torch.from_numpy(samples[last] + self.horizon)][..., list(self.targets)].float()
        if not self.gaps:
            return x, y
        before = numpy.concatenate([[-1], samples])[last[:, None] + numpy.arange(1 - self.window, 1)]
        return {self.key: x, "dt": torch.from_numpy((shown - before).astype(numpy.float32))}, y


class WindowStream(Stream):
    """Windows in the order of time, in batches that never reach over a change. Tables are made once, x on demand.

    An answer that lies further ahead than the next window comes as an event of its own, before the first window that may know it.

    values: (time, columns) float64; kept: (time,) bool, the times at which the series was seen; changes: rising times from which the
    world is another; states: the number of the state that holds from the beginning and from each change on, told by boundaries where
    `announced`; features, targets: names of the columns that x and y hold; minutes: between two times.
    """

    def __init__(
        self,
        values: Tensor,
        kept: numpy.ndarray,
        layout: Windows,
        *,
        features: Sequence[str],
        targets: Sequence[str],
        batch: int,
        minutes: float = 1.0,
        origin: float = 0.0,
        changes: Sequence[int] = (),
        states: Sequence[int] = (0,),
        announced: bool = False,
        held_out: Sequence[HeldOut] = (),
    ):
        self.name = "windows"
        self.schema = Schema(
            (layout.window, len(layout.observed)), torch.float32, (), tuple(features), targets=tuple(targets)
        )
        self.held_out = held_out
        self.boundaries = announced
        self.headline = "prequential"
        self._values = values
        self._layout = layout
        self._minutes = minutes
        self._origin = origin
        self._samples = numpy.flatnonzero(kept)
        self._last = _windows(kept, self._samples, layout)
        end = self._samples[self._last]
        starts = numpy.array([0, *changes])
        self._low, self._high, spans = _batches(numpy.searchsorted(starts, end, side="right") - 1, batch)
        self._first = end[self._low]  # the time at which the first window of each batch ends
        answered = end[self._high - 1] + layout.horizon  # the time at which all answers of a batch are known
        self._kind, self._number, self.late = _order(self._first, answered, spans if announced else None)
        self._inputs = numpy.flatnonzero(self._kind == INPUT)  # the event of each batch
        self._states = [states[number] for number in spans]
        changed = numpy.searchsorted(answered, starts[1:])  # the first batch whose answers know of a change
        self.changes = tuple(dict.fromkeys(self._inputs[changed[changed < len(answered)]].tolist()))
        begun = self._inputs[1:][spans[1:] != spans[:-1]] - announced
        if len(held_out):
            self.checkpoints = (*begun.tolist(), len(self)) if len(begun) else evenly(len(self), CHECKPOINTS)

    def __len__(self) -> int:
        return len(self._kind)

    def __getitem__(self, index: int) -> Event:
        index = place(index, len(self))
        number = int(self._number[index])
        if self._kind[index] == BOUNDARY:
            return Boundary(self._states[number])
        last = self._last[self._low[number] : self._high[number]]
        end = self._samples[last]
        x, y = self._layout.rows(self._values, self._samples, last)
        return Batch(
            x,
            None if self.late and self._kind[index] == INPUT else y,
            time=torch.from_numpy(self._origin + end * self._minutes),
            id=tuple(map(str, end.tolist())) if self.late else None,
        )

    def event_at(self, time: float) -> int:
        """The number of the first event whose windows end at a time or later, the last one at most."""
        number = int(numpy.searchsorted(self._first, time))
        return int(self._inputs[min(number, len(self._inputs) - 1)])


def _windows(kept: numpy.ndarray, samples: numpy.ndarray, layout: Windows) -> numpy.ndarray:
    """The places in `samples` at which a window ends whose answer was seen too."""
    last = numpy.arange(layout.window - 1, len(samples))
    answer = samples[last] + layout.horizon
    inside = answer < len(kept)
    last = last[inside][kept[answer[inside]]]
    if not len(last):
        raise DataError(
            f"windows: of {len(kept)} samples {len(samples)} are seen, and no window of {layout.window} has its answer among them. "
            "Lose fewer samples, or use a shorter window."
        )
    return last


def _batches(span: numpy.ndarray, batch: int) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """(first row, end, span) of each batch; rows of one batch have one span."""
    begins = numpy.flatnonzero(numpy.diff(span, prepend=-1))
    ends = numpy.append(begins[1:], len(span))
    low = numpy.concatenate([numpy.arange(begin, end, batch) for begin, end in zip(begins, ends, strict=True)])
    return low, numpy.minimum(low + batch, ends[numpy.searchsorted(begins, low, side="right") - 1]), span[low]


def _order(
    first: numpy.ndarray, answered: numpy.ndarray, spans: numpy.ndarray | None
) -> tuple[numpy.ndarray, numpy.ndarray, bool]:
    """(kind, batch) of each event, and whether answers come late. spans: announced where they begin, None for not at all."""
    number = numpy.arange(len(first))
    due = numpy.searchsorted(first, answered)  # answers come before the first batch that may know them
    late = bool((due > number + 1).any())
    begun = number[:0] if spans is None else number[numpy.diff(spans, prepend=-1) != 0]
    kinds = [numpy.full(len(number), INPUT), numpy.full(len(begun), BOUNDARY), numpy.full(late * len(number), ANSWER)]
    numbers = [number, begun, number[: late * len(number)]]
    places = [
        3 * number + 2,
        3 * begun + 1,
        3 * due[: late * len(number)],
    ]  # before a batch its boundary, before that answers
    kind, source, where = map(numpy.concatenate, (kinds, numbers, places))
    order = numpy.lexsort((source, where))
    return kind[order], source[order], late
