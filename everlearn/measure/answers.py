"""Joins answers that come late to the predictions that were made when their inputs came.

A row counts once: with the prediction made before its answer was known. Rows whose answer comes with the input are scored at
once. Rows that come without wait under their id; when the id comes back with y, the prediction of then is scored. An id that
comes back again with another y is a correction: its score is revised. Inputs without an id can never be joined. Answers that learners are
never told (`Step.answers`) score the prediction at once.

A guess is the class with the highest score, or the values that were predicted (`values=True`).
"""

from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from everlearn.core.errors import check_count
from everlearn.core.events import Batch
from everlearn.core.monitor import Step


class Scored(NamedTuple):
    """guesses, labels: (rows,) int64 on the CPU, or (rows, columns) of values; asked: (rows,) the event at which each prediction was
    made, None where it is this one for all; revised: (guess, label before, label now, event asked) of each corrected answer."""

    guesses: Tensor
    labels: Tensor
    asked: Tensor | None = None
    revised: tuple[tuple[Any, Any, Any, int], ...] = ()


class Answers:
    """Predictions that wait for their answers. State is JSON and bounded.

    capacity: predictions that may wait; the oldest is given up beyond that, and counted. remembered: answered rows for which a
    correction is still recognised. values: whether predictions and answers are real numbers, all of which are kept.
    """

    parts = ("pending", "answered", "dropped")

    def __init__(self, capacity: int = 100_000, remembered: int = 10_000, *, values: bool = False):
        check_count("answers", "capacity", capacity)
        check_count("answers", "remembered", remembered, low=0)
        self.capacity = capacity
        self.remembered = remembered
        self.values = values
        self.pending: dict[str, list[Any]] = {}  # id -> [guess, event]
        self.answered: dict[str, list[Any]] = {}  # id -> [guess, label, event]
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Rows predicted whose answer has not come, those given up included."""
        return len(self.pending) + self.dropped

    def wants(self, event: Batch) -> bool:
        """Whether an event has rows that need a prediction now."""
        if event.y is None:
            return event.id is not None
        if event.id is None or not (self.pending or self.answered):
            return True
        return any(name not in self.pending and name not in self.answered for name in event.id)

    def match(self, step: Step) -> Scored | None:
        """What this step lets us score; None where nothing."""
        event = step.event
        if not isinstance(event, Batch):
            return None
        if event.y is None:
            if step.answers is not None and step.prediction is not None:
                return Scored(self._guesses(step.prediction).cpu(), step.answers.cpu())
            if event.id is not None and step.prediction is not None:
                self._wait(event.id, self._guesses(step.prediction).tolist(), step.position)
            return None
        if event.id is None or not (self.pending or self.answered):
            return Scored(self._guesses(step.prediction).cpu(), event.y.cpu())
        return self._late(step, event)

    def _guesses(self, prediction: Tensor) -> Tensor:
        return prediction if self.values else prediction.argmax(dim=1)

    def _wait(self, names: tuple[str, ...], guesses: list[Any], position: int) -> None:
        for name, guess in zip(names, guesses, strict=True):
            self.pending[name] = [guess, position]
        excess = len(self.pending) - self.capacity
        if excess > 0:
            self.dropped += excess
            _forget(self.pending, excess)

    def _late(self, step: Step, event: Batch) -> Scored:
        fresh = None if step.prediction is None else self._guesses(step.prediction).tolist()
        rows: list[list[Any]] = []
        revised: list[tuple[Any, Any, Any, int]] = []
        for index, (name, label) in enumerate(zip(event.id, event.y.tolist(), strict=True)):
            if name in self.pending:
                guess, asked = self.pending.pop(name)
            elif name in self.answered:
                guess, before, asked = self.answered[name]
                revised.append((guess, before, label, asked))
                self.answered[name][1] = label
                continue
            else:
                guess, asked = fresh[index], step.position
            row = [guess, label, asked]
            self.answered[name] = row
            rows.append(row)
        _forget(self.answered, len(self.answered) - self.remembered)
        if not rows:
            return Scored(event.y.cpu()[:0], event.y.cpu()[:0], torch.zeros(0, dtype=torch.int64), tuple(revised))
        guesses, labels, asked = zip(*rows, strict=True)
        kind = torch.float32 if self.values else torch.int64
        return Scored(
            torch.tensor(guesses, dtype=kind), torch.tensor(labels, dtype=kind), torch.tensor(asked), tuple(revised)
        )


def _forget(entries: dict, count: int) -> None:
    """Remove the oldest entries of a dict."""
    for name in list(islice(entries, max(0, count))):
        del entries[name]
