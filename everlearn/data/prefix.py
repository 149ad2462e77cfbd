"""The first events of a stream, for quick trials and for looking at an earlier moment."""

from torch import Tensor

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.events import Event
from everlearn.core.stream import Stream
from everlearn.data.indexed import place
from everlearn.data.naming import named


@named
def prefix(stream: Stream, events: int) -> Stream:
    """The first `events` events of a stream, judged where the stream is, and at the end. Raises ArgumentError.

    Held-out sets stay whole, also those of classes that have not come yet.
    """
    if not isinstance(stream, Stream):
        kind = getattr(stream, "name", type(stream).__name__)
        raise ArgumentError(
            f"prefix: the first argument must be a stream, got {kind}. Wrap a data set first: prefix(split({kind}), 100)."
        )
    check_count("prefix", "events", events)
    return Prefix(stream, min(events, len(stream)))


class Prefix(Stream):
    """The first `events` events of another stream."""

    def __init__(self, stream: Stream, events: int):
        self.name = stream.name
        self.stream = stream
        self.events = events
        self.schema = stream.schema
        self.held_out = stream.held_out
        self.boundaries = stream.boundaries
        self.headline = stream.headline
        self.base_classes = stream.base_classes
        self.deployed = min(stream.deployed, events)
        self.changes = tuple(event for event in stream.changes if event < events)
        last = (events,) if len(stream.held_out) else ()
        self.checkpoints = (*(event for event in stream.checkpoints if event < events), *last)

    def __len__(self) -> int:
        return self.events

    def __getitem__(self, index: int) -> Event:
        return self.stream[place(index, self.events)]

    def hidden_answers(self, index: int) -> Tensor | None:
        return self.stream.hidden_answers(place(index, self.events))
