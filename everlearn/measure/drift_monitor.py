"""Drift detectors that watch a learner's errors, and how good they were where the changes are known.

Every row scored from deployment on is one value, in the order in which answers come (late ones with the prediction of their time):
1 for a wrong class and 0 for a right one, or how far a forecast is off, |f - y| / max(|f|, |y|), mean over the targets. A detector
that alarms on a clock stands among them: one that does not beat it is of no use.
Reference: Bifet & Gavalda (2007), Learning from time-changing data with adaptive windowing. Bifet (2017), Classifier concept drift
detection and the illusion of progress (an alarm at regular intervals beats many detectors).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.events import Batch, Event
from everlearn.core.learner import Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.stream import HeldOut, Stream
from everlearn.measure.answers import Answers
from everlearn.measure.drift import ADWIN, Detector, Every, PageHinkley, score_alarms

DUMMY = 100  # rows between the alarms of the detector that sees nothing


class DriftMonitor(Monitor):
    """Alarms of detectors on the learner's errors, row by row.

    detectors: None takes adwin, page_hinkley and every_n(n=100); tolerance: events after a change within which an alarm counts
    as having found it, None takes a tenth of the stream.

    Figures: alarms {detector: event of each alarm, from 0}; scores {detector: found (changes found), changes (that could be:
    those after deployment), delay (events, mean over those found), false_per_1000 (false alarms per 1,000 rows), alarms_per_1000};
    rows watched. Where the stream knows of no change nobody can say which alarms are false: found and false_per_1000 are None.
    """

    name = "drift"
    parts = ("detectors", "alarms", "rows", "answers")

    def __init__(self, detectors: Sequence[Detector] | None = None, *, tolerance: int | None = None):
        if tolerance is not None:
            check_count(self.name, "tolerance", tolerance, low=0)
        self.detectors = list(detectors) if detectors is not None else [ADWIN(), PageHinkley(), Every(DUMMY)]
        self.labels = [repr(detector) for detector in self.detectors]
        if len(set(self.labels)) < len(self.labels) or not self.labels:
            raise ArgumentError(f"{self.name}: detectors must be one or more, all different, got {self.labels}.")
        self.tolerance = tolerance
        self.alarms: list[list[int]] = [[] for _ in self.detectors]
        self.rows = 0
        self.answers = Answers()
        self.values = False
        self.deployed = 0
        self.known = False  # whether the stream knows when it changes
        self.changes: tuple[int, ...] = ()
        self.events = 1

    def start(self, learner: Learner, stream: Stream) -> None:
        self.events = len(stream)
        self.values = stream.schema.answers == "values"
        self.answers = Answers(values=self.values)
        self.deployed = stream.deployed
        self.known = len(stream.changes) > 0
        self.changes = tuple(change for change in stream.changes if max(1, stream.deployed) <= change < len(stream))

    def wants_prediction(self, event: Event) -> bool:
        return isinstance(event, Batch) and self.answers.wants(event)

    def observe(self, step: Step, learner: Learner) -> None:
        scored = self.answers.match(step)
        if scored is None or step.position < self.deployed:
            return
        wrong = _shares(scored.guesses, scored.labels) if self.values else scored.guesses != scored.labels
        if scored.asked is not None:
            wrong = wrong[scored.asked >= self.deployed]
        errors = wrong.double().tolist()
        self.rows += len(errors)
        for detector, alarms in zip(self.detectors, self.alarms, strict=True):
            update = detector.update
            for error in errors:
                if update(error):
                    alarms.append(step.position)

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        """Held-out sets are not part of the stream."""

    def record(self, learner: Learner) -> dict[str, Any]:
        """Alarms are drawn from the figures."""
        return {}

    def figures(self) -> dict[str, Any]:
        return {
            "alarms": dict(zip(self.labels, self.alarms, strict=True)),
            "scores": {label: self._score(alarms) for label, alarms in zip(self.labels, self.alarms, strict=True)},
            "rows": self.rows,
        }

    def _score(self, alarms: list[int]) -> dict[str, Any]:
        rate = 1000.0 / self.rows if self.rows else None
        scores = {"found": None, "changes": len(self.changes), "delay": None, "false_per_1000": None}
        scores["alarms_per_1000"] = None if rate is None else rate * len(alarms)
        if self.known:
            tolerance = max(1, self.events // 10) if self.tolerance is None else self.tolerance
            found = score_alarms(alarms, self.changes, length=self.events, tolerance=tolerance)
            scores |= {"found": found["found"], "delay": found["delay"]}
            scores["false_per_1000"] = None if rate is None else rate * (len(alarms) - found["found"])
        return scores


def _shares(forecasts: Tensor, y: Tensor) -> Tensor:
    """|f - y| / max(|y|, |f|, 1e-12) by row, mean over the targets: 0..1, as detectors of errors expect."""
    f, y = forecasts.double(), y.double()
    return ((f - y).abs() / torch.maximum(f.abs(), y.abs()).clamp(min=1e-12)).clamp(max=1.0).mean(dim=1)
