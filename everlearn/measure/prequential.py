"""Test, then train: every row is predicted before its answer is known to the learner, and scored when the answer comes.

    accuracy = right answers / rows scored      over predictions made from `stream.deployed` on

Predictions made earlier count in `accuracy_all` only. With late answers the prediction of the time of the input is scored. The
whole state is counts by class, the hits of one window and the predictions that wait, so it does not grow with the stream.
Reference: Dawid (1984), Statistical theory: the prequential approach. Gama et al. (2013), On evaluating stream learning algorithms.
"""

from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import check_count
from everlearn.core.events import Batch, Event
from everlearn.core.learner import Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.stream import HeldOut, Stream
from everlearn.measure.answers import Answers, Scored
from everlearn.measure.metrics import class_accuracy, kappa

FLUSH = 64  # events whose guesses are gathered before they are counted
POINTS_BY_CLASS = 20  # points of the curve that carry the accuracy of each class


class Tally:
    """Counts by class: right answers, rows of the class, answers that named the class."""

    parts = ("right", "labelled", "named")

    def __init__(self, classes: int):
        self.classes = classes
        self.right = torch.zeros(classes, dtype=torch.int64)
        self.labelled = torch.zeros(classes, dtype=torch.int64)
        self.named = torch.zeros(classes, dtype=torch.int64)

    def add(self, guesses: Tensor, labels: Tensor) -> Tensor:
        """Count rows; gives back which of them were right, (rows,) bool."""
        hits = guesses == labels
        self.right += torch.bincount(labels[hits], minlength=self.classes)
        self.labelled += torch.bincount(labels, minlength=self.classes)
        self.named += torch.bincount(guesses, minlength=self.classes)[: self.classes]
        return hits

    def relabel(self, guess: int, before: int, now: int) -> None:
        """Count a row again whose label turned out to be another."""
        self.labelled[before] -= 1
        self.labelled[now] += 1
        self.right[before] -= int(guess == before)
        self.right[now] += int(guess == now)

    @property
    def rows(self) -> int:
        """Rows counted."""
        return int(self.labelled.sum())

    @property
    def hits(self) -> int:
        """Rows counted whose answer was right."""
        return int(self.right.sum())


class Prequential(Monitor):
    """Accuracy of the answers given before their labels were known.

    window: rows of the sliding accuracy of the curve; None takes a twentieth of the stream, between 100 and 10,000 rows.

    Figures: accuracy, kappa, scored and per_class from deployment on; accuracy_all and scored_all from the first event;
    pending: rows predicted whose answer has not come. Curve: accuracy over the window, total since deployment, and at 20 points
    per_class over the rows since the point before.
    """

    name = "prequential"
    parts = ("answers", "before", "after", "live", "gathered", "recent", "position", "shown")

    def __init__(self, window: int | None = None):
        if window is not None:
            check_count(self.name, "window", window)
        self.window = window
        self._begin(classes=(), deployed=0, events=1, window=window or 100)

    def start(self, learner: Learner, stream: Stream) -> None:
        self._begin(stream.schema.classes, stream.deployed, len(stream), self.window or _twentieth(stream))

    def _begin(self, classes: tuple[str, ...], deployed: int, events: int, window: int) -> None:
        self.classes = classes
        self.deployed = deployed
        self.stride = max(1, events // POINTS_BY_CLASS)
        self.span = window
        self.answers = Answers()
        self.before = Tally(len(classes))  # predictions made before deployment
        self.after = Tally(len(classes))
        self.live = False  # whether the gathered rows were predicted after deployment
        self.gathered: list[list[Tensor]] = []  # [guesses, labels] by event, not yet counted
        self.recent = torch.zeros(0, dtype=torch.bool)
        self.position = 0
        self.shown: list[Any] = [0, [], []]  # event, right and labelled by class at the last point with per_class

    def wants_prediction(self, event: Event) -> bool:
        return isinstance(event, Batch) and self.answers.wants(event)

    def observe(self, step: Step, learner: Learner) -> None:
        self.position = step.position + 1
        if step.position == self.deployed:
            self._flush()
            self.live = True
        scored = self.answers.match(step)
        if scored is None:
            return
        if scored.asked is not None:
            self._late(scored, scored.asked)
            return
        self.gathered.append([scored.guesses, scored.labels])
        if len(self.gathered) >= FLUSH:
            self._flush()

    def _flush(self) -> None:
        if not self.gathered:
            return
        guesses = torch.cat([pair[0] for pair in self.gathered])
        labels = torch.cat([pair[1] for pair in self.gathered])
        self.gathered = []
        self._slide((self.after if self.live else self.before).add(guesses, labels))

    def _late(self, scored: Scored, asked: Tensor) -> None:
        self._flush()
        old = asked < self.deployed
        self.before.add(scored.guesses[old], scored.labels[old])
        self.after.add(scored.guesses[~old], scored.labels[~old])
        self._slide(scored.guesses == scored.labels)
        for guess, before, now, event in scored.revised:
            (self.before if event < self.deployed else self.after).relabel(guess, before, now)

    def _slide(self, hits: Tensor) -> None:
        self.recent = torch.cat([self.recent, hits])[-self.span :].clone()

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        """Held-out sets are not part of the stream."""

    def record(self, learner: Learner) -> dict[str, Any]:
        self._flush()
        if not len(self.recent):
            return {}
        point: dict[str, Any] = {
            "accuracy": float(self.recent.double().mean()),
            "total": _share(self.after.hits, self.after.rows),
        }
        if self.position - self.shown[0] >= self.stride:
            right, labelled = (self.before.right + self.after.right), (self.before.labelled + self.after.labelled)
            was_right, was_labelled = self.shown[1:]
            new_right = right - torch.tensor(was_right or [0], dtype=torch.int64)
            new_labelled = labelled - torch.tensor(was_labelled or [0], dtype=torch.int64)
            point["per_class"] = class_accuracy(new_right.tolist(), new_labelled.tolist(), self.classes)
            self.shown = [self.position, right.tolist(), labelled.tolist()]
        return point

    def figures(self) -> dict[str, Any]:
        self._flush()
        before, after = self.before, self.after
        return {
            "accuracy": _share(after.hits, after.rows),
            "accuracy_all": _share(before.hits + after.hits, before.rows + after.rows),
            "kappa": kappa(after.hits, after.labelled.tolist(), after.named.tolist()),
            "scored": after.rows,
            "scored_all": before.rows + after.rows,
            "pending": self.answers.waiting,
            "per_class": class_accuracy(after.right.tolist(), after.labelled.tolist(), self.classes),
        }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _twentieth(stream: Stream) -> int:
    """A twentieth of the stream in rows, taking every event to be as large as its first batch; within 100..10,000."""
    first = next((event for event in stream if isinstance(event, Batch)), None)
    rows = len(stream) * (1 if first is None else len(first))
    return min(max(100, rows // 20), 10_000)
