"""What happened to a deployed model, as a stream: the exported log of its server, event by event.

    each step of the server  ->  Batch(x of its inputs, no y), Batch(x, y of its answers)        an agent: one Feedback per answer

Those are the events that the server's learner was told, in order. So `run` over them gives the weights that the server has, and
`compare` tells how another learner would have done on the very same requests.
"""

import json
from pathlib import Path

from everlearn.core.errors import check_range
from everlearn.core.events import Batch, Event, Feedback
from everlearn.core.spec import describe
from everlearn.core.stream import Stream
from everlearn.data.indexed import place
from everlearn.data.naming import fraction_of
from everlearn.data.served_file import ServedFile

FIRST = 0.2


def served(path: str | Path, *, first: float = FIRST) -> Stream:
    """The log of a deployed server: what it was asked and told, when it was.

    path: the Parquet file to which it was exported; first: the part of the events that is the first training of the models
    which are compared. Only the rows of the event asked for are read. Raises DataError where the file is missing, damaged, or no
    log of a server; ArgumentError.
    """
    check_range("served", "first", first, 0.0, 1.0)
    stream = Served(path)
    stream.deployed = fraction_of(len(stream), first)
    if first != FIRST:
        stream.name = f"served({str(path)!r}, first={describe(first)})"
    return stream


class Served(Stream):
    """The events of an exported log. kind: "classes", "values" or "actions"; about: {"model", "seed", "steps"} of the server."""

    def __init__(self, path: str | Path):
        self.name = f"served({str(path)!r})"
        self.headline = "prequential"
        self._file = ServedFile(path)
        self.kind = self._file.layout.kind
        self.about = self._file.about
        self.schema = self._file.layout.schema

    def __len__(self) -> int:
        return len(self._file)

    def __getitem__(self, index: int) -> Event:
        start, stop, answers = self._file.span(place(index, len(self)))
        rows = self._file.rows(start, stop)
        if self.kind == "actions":
            action, reward = rows.action[0], rows.reward[0]
            if action is None or reward is None:
                raise self._file.fault("the action or its reward is missing.", start)
            return Feedback(
                rows.id[0], rows.x, self._action(action, start), rows.propensity[0], reward, generation=rows.generation[0]
            )
        if not answers:
            return Batch(rows.x, time=rows.time, id=rows.id)
        unknown = (rows.y < 0) if self.kind == "classes" else rows.y.isnan().any(dim=1)
        if unknown.any():
            raise self._file.fault("the answer is missing.", start + int(unknown.int().argmax()))
        return Batch(rows.x, rows.y, time=rows.time, id=rows.id)

    def _action(self, text: str, row: int) -> object:
        try:
            return json.loads(text)
        except ValueError as error:
            raise self._file.fault(f"the action {text[:60]!r} is no JSON.", row) from error
