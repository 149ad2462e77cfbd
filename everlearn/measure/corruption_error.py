"""Errors under corruption: by type, severity and round, and on clean images before and after. For streams of `corruptions`.

    error(type, severity, round) = wrong answers / rows        mean error = mean over types of their errors

Each row counts with the prediction made when it came. Errors are shares 0..1. The mean is not divided by the errors of a reference
network: that "mCE" is for tables of architectures.
Reference: Hendrycks & Dietterich (2019), Benchmarking neural network robustness to common corruptions, arXiv 1903.12261.
"""

from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from everlearn.core.events import Event
from everlearn.core.learner import Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.stream import HeldOut, Stream
from everlearn.data.corruption_stream import Corruptions
from everlearn.data.corruption_tables import SEVERITIES
from everlearn.data.prefix import Prefix

CLEAN = 0  # place of the clean rows among the held-out sets


class CorruptionError(Monitor):
    """Errors of what was answered after deployment, by what the images went through.

    Figures: mean_error (over types), by_type {type: error}, by_severity {type: {severity: error}}, by_round [{type: error, "mean":
    ...}], clean (on held-out clean rows, at each checkpoint), clean_before, clean_after, held_out {type: errors at each checkpoint},
    rows. Curve: error over the rows since the point before.
    """

    name = "corruption"
    parts = ("wrong", "seen", "held", "shown")

    def __init__(self) -> None:
        self._begin((), 1)

    def _begin(self, labels: tuple[str, ...], rounds: int) -> None:
        self.labels = labels
        self.wrong = torch.zeros(rounds, len(labels), len(SEVERITIES), dtype=torch.int64)
        self.seen = torch.zeros_like(self.wrong)
        self.held: list[list[float]] = []  # [checkpoint][held-out set]
        self.shown = [0, 0]  # wrong, seen at the last point of the curve
        self._stream: Corruptions | None = None

    def start(self, learner: Learner, stream: Stream) -> None:
        source = corruptions_in(stream)
        self._begin(source.labels if source else (), source.rounds if source else 1)
        self._stream = source

    def wants_prediction(self, event: Event) -> bool:
        return False  # hidden answers always ask for one, and answers that come are scored by others too

    def observe(self, step: Step, learner: Learner) -> None:
        """Count the rows of an event."""
        answers = step.answers if step.answers is not None else getattr(step.event, "y", None)
        if self._stream is None or step.prediction is None or answers is None:
            return
        condition = self._stream.condition(step.position)
        if condition is None:
            return
        wrong = step.prediction.argmax(dim=1).cpu() != answers.cpu()
        place = (condition.round, slice(None), condition.severity - 1)
        self.seen[place] += torch.bincount(condition.kinds, minlength=len(self.labels))
        self.wrong[place] += torch.bincount(condition.kinds[wrong], minlength=len(self.labels))

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        if index == CLEAN:
            self.held.append([])
        self.held[-1].append(float((scores.argmax(dim=1) != held_out.y.cpu()).double().mean()))

    def record(self, learner: Learner) -> dict[str, Any]:
        wrong, seen = int(self.wrong.sum()), int(self.seen.sum())
        new = seen - self.shown[1]
        point = {"error": (wrong - self.shown[0]) / new} if new else {}
        self.shown = [wrong, seen]
        return point

    def figures(self) -> dict[str, Any]:
        by_type = self._errors(self.wrong.sum((0, 2)), self.seen.sum((0, 2)))
        by_round = [self._errors(wrong.sum(1), seen.sum(1)) for wrong, seen in zip(self.wrong, self.seen, strict=True)]
        by_severity: dict[str, dict[str, float]] = {label: {} for label in self.labels}
        for level in SEVERITIES:
            for label, error in self._errors(self.wrong[..., level - 1].sum(0), self.seen[..., level - 1].sum(0)).items():
                by_severity[label][str(level)] = error
        clean = [errors[CLEAN] for errors in self.held]
        names = dict(zip(self.labels, range(1, len(self.labels) + 1), strict=True))
        return {
            "mean_error": _mean(by_type),
            "by_type": by_type,
            "by_severity": by_severity,
            "by_round": [errors | {"mean": _mean(errors)} for errors in by_round],
            "clean": clean,
            "clean_before": clean[0] if clean else None,
            "clean_after": clean[-1] if clean else None,
            "held_out": {label: [errors[place] for errors in self.held] for label, place in names.items()},
            "rows": int(self.seen.sum()),
        }

    def _errors(self, wrong: Tensor, seen: Tensor) -> dict[str, float]:
        """{type: error} of the types that came."""
        counts = zip(self.labels, wrong.tolist(), seen.tolist(), strict=True)
        return {label: missed / rows for label, missed, rows in counts if rows}


def corruptions_in(stream: Stream) -> Corruptions | None:
    """The stream of corruptions that a stream is, or is the beginning of; None for others."""
    inner = stream.stream if isinstance(stream, Prefix) else stream
    return inner if isinstance(inner, Corruptions) else None


def _mean(errors: dict[str, float]) -> float | None:
    return fmean(errors.values()) if errors else None
