"""What a rule does to its learning rate: the trace of the rate, how often it was changed, how often by mistake, how often it hit a limit.

    wrong = changes taken on an object that was recognised as one of the other effect / changes taken

A rate that keeps hitting its ceiling has run away; one pushed by unequal class frequencies shows in `balance`.
Reference: Man, Damasio & Neven (2022), Need is all you need: Homeostatic neural networks adapt to concept shift, arXiv 2205.08645.
"""

from typing import Any

from torch import Tensor

from everlearn.core.errors import check_count
from everlearn.core.events import Event
from everlearn.core.learner import Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.stream import HeldOut, Stream

COUNTED = ("decided", "taken", "wrong", "clipped")


class Regulation(Monitor):
    """Watches a learner whose updates tell their rate (`lr`): homeostatic learning and what it is compared with; others leave {}.

    points: spans of the trace, each with the mean rate in it. Figures: lr {start, end, mean, lowest, highest}; steps; decided (two
    futures were compared), taken, wrong (taken by a mistaken recognition), clipped (at min_lr or max_lr), skipped (the loss was not
    finite); balance (mean effect of the labels, None where classes have none); trace [[event, mean rate since the last point]].

    >>> watch = Regulation()
    >>> for lr, taken in ((0.1, False), (0.2, True)):
    ...     watch.note({"lr": lr, "decided": True, "taken": taken, "wrong": taken, "clipped": False, "finite": True})
    >>> watch.figures()["lr"]["mean"], watch.figures()["taken"], watch.figures()["wrong"]
    (0.15000000000000002, 1, 1)
    """

    name = "regulation"
    parts = ("rates", "counts", "steps", "skipped", "span", "trace", "balance")

    def __init__(self, points: int = 200):
        check_count(self.name, "points", points)
        self.points = points
        self.stride = 1
        self.events = 0  # of the stream
        self._begin()

    def _begin(self) -> None:
        self.rates: dict[str, float] = {}  # start, end, sum, lowest, highest
        self.counts: dict[str, int] = dict.fromkeys(COUNTED, 0)
        self.steps = 0
        self.skipped = 0
        self.span: list[float] = [0.0, 0.0]  # sum and number of the rates since the last point
        self.trace: list[list[float]] = []
        self.balance: float | None = None

    def start(self, learner: Learner, stream: Stream) -> None:
        self.events = len(stream)
        self.stride = max(1, -(-self.events // self.points))
        self._begin()

    def wants_prediction(self, event: Event) -> bool:
        return False

    def observe(self, step: Step, learner: Learner) -> None:
        if step.metrics is not None and "lr" in step.metrics:
            self.note(step.metrics)
            self.balance = getattr(getattr(learner, "regulation", None), "balance", None)
        event = step.position + 1
        if event % self.stride == 0 or event == self.events:
            self._point(event)

    def note(self, metrics: dict[str, Any]) -> None:
        """Count one update by what it told."""
        lr = float(metrics["lr"])
        rates = self.rates or {"start": lr, "end": lr, "sum": 0.0, "lowest": lr, "highest": lr}
        rates |= {
            "end": lr,
            "sum": rates["sum"] + lr,
            "lowest": min(lr, rates["lowest"]),
            "highest": max(lr, rates["highest"]),
        }
        self.rates = rates
        self.steps += 1
        self.span = [self.span[0] + lr, self.span[1] + 1.0]
        for name in COUNTED:
            self.counts[name] += int(metrics.get(name, False))
        self.skipped += int(not metrics.get("finite", True))

    def _point(self, event: int) -> None:
        if self.span[1]:
            self.trace.append([float(event), self.span[0] / self.span[1]])
            self.span = [0.0, 0.0]

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        """Rates are looked at, not answers."""

    def record(self, learner: Learner) -> dict[str, Any]:
        return {"lr": self.rates["end"], "taken": self.counts["taken"]} if self.steps else {}

    def figures(self) -> dict[str, Any]:
        if not self.steps:
            return {}
        told = {name: self.rates[name] for name in ("start", "end")} | {"mean": self.rates["sum"] / self.steps}
        told |= {name: self.rates[name] for name in ("lowest", "highest")}
        figures = {"lr": told, "steps": self.steps, **self.counts, "skipped": self.skipped, "balance": self.balance}
        return figures | {"trace": [list(point) for point in self.trace]}
