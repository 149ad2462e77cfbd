"""Answers that come late, or never: `delayed(stream, delay=10)` wraps any stream.

A batch comes without y, its rows named by ids; `delay` source events later the same ids come with x and y. What a learner may
know at each moment is thereby a property of the stream, and the log of a server looks the same.

Reference: Grzenda, Gomes & Bifet (2020), Delayed labelling evaluation for data streams, Data Mining and Knowledge Discovery 34.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError, check_count, check_range
from everlearn.core.events import Batch, Event, rows
from everlearn.core.random import derive, generator
from everlearn.core.stream import Stream
from everlearn.data.indexed import Indexed, place
from everlearn.data.naming import named
from everlearn.data.prefix import Prefix
from everlearn.data.recurring import Recurring


@named
def delayed(stream: Stream, *, delay: int = 10, jitter: int = 0, missing: float = 0.0, seed: int = 0) -> Stream:
    """Any stream, with answers that come later than their inputs.

    delay: source events between an input and its answer (0: the answer follows at once); jitter: up to so many more, drawn for
    each batch; missing: the part of rows that is never answered. What comes before deployment is the model's first training: it
    has its answers at once and passes unchanged. Answers still open at the end of the source come after it. Boundaries keep
    their place. Raises ArgumentError.
    """
    if not isinstance(stream, Stream):
        kind = getattr(stream, "name", type(stream).__name__)
        raise ArgumentError(
            f"delayed: the first argument must be a stream, got {kind}. Wrap a data set first: delayed(split({kind}))."
        )
    if isinstance(stream, Delayed) or (isinstance(stream, Prefix) and isinstance(stream.stream, Delayed)):
        raise ArgumentError(
            f"delayed: {stream.name} has late answers already; give it a longer delay or more jitter instead."
        )
    check_count("delayed", "delay", delay, low=0)
    check_count("delayed", "jitter", jitter, low=0)
    check_range("delayed", "missing", missing, 0.0, 1.0)
    return Delayed(stream, delay, jitter, missing, seed)


class Delayed(Stream):
    """A table of (source event, whether this is its answer), made once; events are looked up in it."""

    def __init__(self, stream: Stream, delay: int, jitter: int, missing: float, seed: int):
        self.name = stream.name
        self.stream = stream
        self.schema = stream.schema
        self.held_out = stream.held_out
        self.boundaries = stream.boundaries
        self.headline = stream.headline
        self.base_classes = stream.base_classes
        self._late = stream.deployed  # the first source event whose answer is late
        sizes = numpy.array(event_sizes(stream), dtype=numpy.int64)
        self._starts = numpy.concatenate([[0], sizes.cumsum()])
        draws = torch.rand(int(self._starts[-1]), generator=generator(seed, "missing"), dtype=torch.float64)
        self._answered = draws >= missing
        self._source, self._answer = self._table(sizes, delay, jitter, seed)
        inputs = numpy.flatnonzero(~self._answer)  # where each source event stands
        moved = [*inputs.tolist(), len(self._source)]
        self.deployed = moved[stream.deployed]
        self.changes = tuple(moved[event] for event in stream.changes)
        self.checkpoints = tuple(moved[event] for event in stream.checkpoints)

    def _table(self, sizes: numpy.ndarray, delay: int, jitter: int, seed: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """(source event, is an answer) of each event, ordered by when it comes; at one moment inputs stand before answers."""
        number = numpy.arange(len(sizes))
        extra = numpy.random.default_rng(derive(seed, "jitter")).integers(0, jitter + 1, len(sizes))
        counts = numpy.concatenate([[0], self._answered.numpy().cumsum()])
        answered = counts[self._starts[1:]] > counts[self._starts[:-1]]
        late = number[(number >= self._late) & answered]
        source = numpy.concatenate([number, late])
        answer = numpy.concatenate([numpy.zeros(len(number), dtype=bool), numpy.ones(len(late), dtype=bool)])
        moment = numpy.concatenate([number, late + delay + extra[late]])
        order = numpy.lexsort((source, answer, moment))
        return source[order], answer[order]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Event:
        index = place(index, len(self))
        number = int(self._source[index])
        event = self.stream[number]
        if not isinstance(event, Batch) or number < self._late:
            return event
        if event.y is None:
            raise DataError(f"delayed: event {number} of {self.stream.name} has no answers that could come late.")
        names = event.id or tuple(f"{number}.{row}" for row in range(len(event)))
        if not self._answer[index]:
            return replace(event, y=None, id=names)
        return _rows(replace(event, id=names), self._answered[self._starts[number] : self._starts[number + 1]])

    def sizes(self) -> list[int]:
        """The number of rows of each event, 0 for a boundary."""
        whole = numpy.diff(self._starts)[self._source]
        counts = numpy.concatenate([[0], self._answered.numpy().cumsum()])
        known = (counts[self._starts[1:]] - counts[self._starts[:-1]])[self._source]
        return numpy.where(self._answer, known, whole).tolist()


def event_sizes(stream: Stream) -> Sequence[int]:
    """The number of rows of each event, 0 for a boundary. Streams from elsewhere are walked through once."""
    if isinstance(stream, (Indexed, Recurring, Delayed)):
        return stream.sizes()
    if isinstance(stream, Prefix):
        return event_sizes(stream.stream)[: len(stream)]
    return [len(event) if isinstance(event, Batch) else 0 for event in stream]


def _rows(batch: Batch, mask: Tensor) -> Batch:
    """The rows of a batch that a mask names."""
    if bool(mask.all()):
        return batch
    index = mask.nonzero().flatten()
    names = tuple(batch.id[row] for row in index.tolist())
    time = None if batch.time is None else batch.time[index]
    return replace(batch, x=rows(batch.x, index), y=batch.y[index], time=time, id=names)
