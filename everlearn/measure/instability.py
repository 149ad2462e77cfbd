"""Whether training runs away: a loss that stays above where it began.

    unstable   once the loss lay above its initial value for `steps` updates in a row

The initial value is the loss of the first update. A loss that is not finite counts as above. Where classes come group by group the
loss jumps at each change and comes down again; what is looked for does not come down.
"""

import math
from typing import Any

from torch import Tensor

from everlearn.core.errors import check_count
from everlearn.core.events import Event
from everlearn.core.learner import Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.stream import HeldOut, Stream


class Instability(Monitor):
    """Watches the loss that updates report, in a run or, by `add`, in a training loop of one's own.

    steps: updates in a row above the initial loss, 50. Figures: unstable; since (the update with which the first such row began, None
    without one); longest (updates in the longest row); initial and last (losses, None before the first).

    >>> watch = Instability(steps=3)
    >>> [watch.add(loss) for loss in (2.3, 2.0, 2.4, 2.5, 2.6, 2.2)]
    [False, False, False, False, True, True]
    >>> watch.figures()["since"]
    3
    """

    name = "instability"
    parts = ("updates", "initial", "last", "above", "longest", "since")

    def __init__(self, steps: int = 50):
        check_count(self.name, "steps", steps)
        self.steps = steps
        self.updates = 0
        self.initial: float | None = None
        self.last: float | None = None
        self.above = 0  # updates in a row above the initial loss, up to now
        self.longest = 0
        self.since: int | None = None

    def add(self, loss: float) -> bool:
        """Take the loss of one more update; whether training has been unstable by now."""
        self.updates += 1
        self.last = float(loss)
        if self.initial is None:
            self.initial = self.last
        higher = not self.last <= self.initial or not math.isfinite(self.last)  # NaN is above
        self.above = self.above + 1 if higher else 0
        self.longest = max(self.longest, self.above)
        if self.since is None and self.above >= self.steps:
            self.since = self.updates - self.above + 1
        return self.since is not None

    def start(self, learner: Learner, stream: Stream) -> None:
        """Nothing is needed of either."""

    def wants_prediction(self, event: Event) -> bool:
        return False

    def observe(self, step: Step, learner: Learner) -> None:
        loss = (step.metrics or {}).get("loss")
        if isinstance(loss, (int, float, Tensor)):
            self.add(float(loss))

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        """Losses are of training alone."""

    def record(self, learner: Learner) -> dict[str, Any]:
        return {"unstable": self.since is not None}

    def figures(self) -> dict[str, Any]:
        return {
            "unstable": self.since is not None,
            "since": self.since,
            "longest": self.longest,
            "initial": self.initial,
            "last": self.last,
        }
