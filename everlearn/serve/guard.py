"""Whether a newer version may serve, and whether the one in service should go.

Every answered row is scored three times before it is learned from: by the learner as it stands (the candidate), by the version in
service and by the one before it. So a candidate is judged on rows that it had not learned from, and all on the same rows.

    into service:   mean(candidate - service) >= -margin          over the newest `window` rows, at least `least`
    back again:     mean(d) - t(n-1, c) s / sqrt(n) > margin,  d = parent - service, over the rows since it came into service

The second is asked at `least`, twice as many, four times as many, ... and `window` rows since the version came into service, then every
`window` rows. With k looks up to `window`, c = 1 - (1 - confidence) / k, so that all of them together are wrong no more often than one.

Scores: 1 for a right answer; minus the mean absolute error; for agents the reward weighted by 1 / propensity where the policy, asked
anew with randomness of its own, takes the logged action (an unbiased estimate of what it would have earned).
Learners that need no answers are held to this: their answers may not collapse to fewer kinds than those in service.
Reference: Dawid (1984), the prequential approach. Li et al. (2011), arXiv 1003.5956 (replaying logged feedback).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from everlearn.core.agent import Agent
from everlearn.core.events import Batch, Event, Feedback, X
from everlearn.core.learner import Adapter, Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.random import derive
from everlearn.core.stream import HeldOut, Stream
from everlearn.nn.entropy import entropy_of_shares
from everlearn.serve.options import Options

COLLAPSE = 0.5  # of the entropy of the answers in service


@dataclass(frozen=True)
class Verdict:
    """What the guard says of a candidate: whether it may serve, why, the two scores (None where unknown) and the rows behind them."""

    promote: bool
    reason: str
    score: float | None = None
    service_score: float | None = None
    rows: int = 0


class Guard(Monitor):
    """Scores the candidate, the version in service and its parent on the same rows.

    kind: "classes", "values" or "actions". `service` and `parent` are predictors, set by whoever puts versions into service.
    """

    name = "guard"
    parts = ("candidate", "served", "previous", "since", "looks", "kinds", "served_kinds", "metrics")

    def __init__(self, options: Options, kind: str, classes: int = 0):
        self.options = options
        self.kind = kind
        self.classes = classes
        self.service: Learner | Agent | None = None
        self.parent: Learner | Agent | None = None
        self.candidate: list[float] = []  # of the newest rows, the oldest first
        self.served: list[float] = []
        self.previous: list[float] = []  # the parent's, of the rows since the version came into service
        self.since = 0  # answered rows since the version came into service
        self.looks = False  # whether the present step is one at which the version in service is held against its parent
        self.kinds: list[int] = []  # answers to the newest rows without labels
        self.served_kinds: list[int] = []
        self.metrics: dict[str, float] = {}  # of the newest update, where it is a number

    def begin_step(self) -> None:
        """Another step begins: what was told of the one before does not count for it."""
        self.metrics, self.looks = {}, False

    def start(self, learner: Learner, stream: Stream) -> None:
        """Nothing depends on the stream."""

    def wants_prediction(self, event: Event) -> bool:
        return isinstance(event, Batch) and event.y is not None and self.options.guard

    def observe(self, step: Step, learner: Learner | Agent) -> None:
        """Score the rows of one event, by predictions made before it was learned from."""
        if step.metrics:
            self.metrics = {
                key: float(value)
                for key, value in step.metrics.items()
                if isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.numel() == 1)
            }
        event = step.event
        if not self.options.guard or self.service is None:
            return
        if isinstance(event, Feedback):
            self._add(
                [self._earned(learner, event)], [self._earned(self.service, event)],
                [] if self.parent is None else [self._earned(self.parent, event)],
            )  # fmt: skip
        elif isinstance(event, Batch) and event.y is not None:
            parent = [] if self.parent is None else self._scores(self.parent.predict(event.x), event.y)
            self._add(self._scores(step.prediction, event.y), self._scores(self.service.predict(event.x), event.y), parent)
        elif isinstance(event, Batch) and isinstance(learner, Adapter) and self.kind == "classes":
            self.kinds = (self.kinds + step.prediction.argmax(dim=1).tolist())[-self.options.window :]
            self.served_kinds = (self.served_kinds + _kinds(self.service, event.x))[-self.options.window :]

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        """A server has no held-out sets."""

    def record(self, learner: Learner) -> dict[str, Any]:
        return {}

    def figures(self) -> dict[str, Any]:
        """Means over the window, None while unknown."""
        previous = self.previous[-self.options.window :]
        return {
            "rows": len(self.served), "candidate": _mean(self.candidate), "service": _mean(self.served), "parent": _mean(previous),
        }  # fmt: skip

    def verdict(self) -> Verdict:
        """Whether the learner as it stands may serve."""
        options, rows = self.options, len(self.served)
        if not options.guard:
            return Verdict(True, "the guard is off")
        collapsed = self._collapsed()
        if collapsed:
            return Verdict(False, collapsed)
        if rows < options.least:
            if len(self.kinds) >= options.least:
                return Verdict(True, f"its answers to {len(self.kinds)} rows without labels keep their variety")
            return Verdict(False, f"only {rows} answered rows since the last change, {options.least} are needed", rows=rows)
        score, service = _mean(self.candidate), _mean(self.served)
        told = f"{score:.4g} against {service:.4g} in service over {rows} rows"
        if not math.isfinite(score):
            return Verdict(False, f"its answers are not finite ({told})", None, service, rows)
        if not math.isfinite(service) or score >= service - options.margin:
            return Verdict(True, f"scores {told}", score, service, rows)
        return Verdict(False, f"scores {told}, worse by more than {options.margin:g}", score, service, rows)

    def regret(self) -> str | None:
        """Why the version in service should give way to its parent, None where it need not."""
        options = self.options
        previous = self.previous[-options.window :]
        if not self.looks or self.parent is None or not previous:
            return None
        served = self.served[-len(previous) :]
        if not math.isfinite(_mean(served)) and math.isfinite(_mean(previous)):
            return f"its answers are not finite, those of the version before it are, over {len(previous)} rows"
        differences = [old - new for old, new in zip(previous, served, strict=True)]
        bound = lower_bound(differences, 1.0 - (1.0 - options.confidence) / len(self._first_looks()))
        if bound is None or bound <= options.margin:
            return None
        return (
            f"scores {_mean(served):.4g} against {_mean(previous):.4g} of the version before it over "
            f"{len(previous)} rows: worse by more than {options.margin:g} with {options.confidence:.0%} confidence"
        )

    def settled(self) -> None:
        """Another version serves: what was scored for the one before it no longer counts."""
        self.candidate, self.served, self.previous, self.since, self.looks = [], [], [], 0, False
        self.kinds, self.served_kinds = [], []

    def _add(self, candidate: list[float], served: list[float], previous: list[float]) -> None:
        window = self.options.window
        self.candidate = (self.candidate + candidate)[-window:]
        self.served = (self.served + served)[-window:]
        self.previous = (self.previous + previous)[-window:] if previous else []
        before, self.since = self.since, self.since + len(served)
        self.looks = self.looks or self._looks_between(before, self.since)

    def _first_looks(self) -> list[int]:
        """Rows since a version came into service at which it is held against its parent, up to `window`."""
        least, window = self.options.least, self.options.window
        doubled = [least * 2**power for power in range(window.bit_length()) if least * 2**power < window]
        return [*doubled, max(least, window)]

    def _looks_between(self, before: int, now: int) -> bool:
        """Whether a look falls on the rows after `before` up to `now`."""
        window = self.options.window
        return any(before < rows <= now for rows in self._first_looks()) or (
            now > window and now // window > before // window
        )

    def _scores(self, scores: Tensor, y: Tensor) -> list[float]:
        if self.kind == "classes":
            right = (scores.argmax(dim=1) == y).double()
            return torch.where(scores.isfinite().all(dim=1), right, torch.nan).tolist()
        return (-(scores.reshape(y.shape) - y).abs().flatten(1).mean(dim=1)).tolist()

    @staticmethod
    def _earned(policy: Agent, feedback: Feedback) -> float:
        """The logged reward, weighted, where the policy takes the logged action under randomness of its own."""
        decision = policy.act(feedback.observation, derive(0, "shadow", feedback.id))
        return feedback.reward / (feedback.propensity or 1.0) if decision.action == feedback.action else 0.0

    def _collapsed(self) -> str | None:
        if len(self.kinds) < self.options.least:
            return None
        ours, theirs = (entropy_of_shares(Counter(kinds).values()) for kinds in (self.kinds, self.served_kinds))
        if ours >= COLLAPSE * theirs:
            return None
        return f"its answers collapse: their entropy over {len(self.kinds)} rows is {ours:.3g}, {theirs:.3g} in service"


def lower_bound(differences: Sequence[float], confidence: float) -> float | None:
    """The one-sided lower bound of the mean, by Student's t; None for fewer than two, or numbers that are not finite.

    >>> round(lower_bound([1.0, 2.0, 3.0], 0.95), 4)
    0.3141
    """
    if len(differences) < 2 or not all(map(math.isfinite, differences)):
        return None
    mean = math.fsum(differences) / len(differences)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in differences) / (len(differences) - 1))
    from scipy.special import stdtrit

    return mean - float(stdtrit(len(differences) - 1, confidence)) * spread / math.sqrt(len(differences))


def _kinds(learner: Learner | Agent, x: X) -> list[int]:
    return learner.predict(x).argmax(dim=1).tolist()


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
