"""Whether training runs away: a loss that stays above where it began.

    unstable   once the mean of the newest `steps` losses lies above the initial one

The initial loss is that of the first update, as the learner reports it. A loss that is not finite counts as infinite. Where
classes come group by group the loss jumps at each change and comes down again; what is looked for does not come down.
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

    steps: losses whose mean is held against the initial one, 50. Figures: unstable; since (the update at which it was found, None
    if it was not); highest (the highest such mean); initial and last (losses). None where there are too few updates.

    >>> watch = Instability(steps=3)
    >>> [watch.add(loss) for loss in (2.3, 1.9, 2.4, 2.5, 2.6, 2.2)]
    [False, False, False, False, True, True]
    >>> watch.figures()["since"]
    5
    """

    name = "instability"
    parts = ("updates", "initial", "recent", "highest", "since")

    def __init__(self, steps: int = 50):
        check_count(self.name, "steps", steps)
        self.steps = steps
        self.updates = 0
        self.initial: float | None = None
        self.recent: list[float] = []  # the newest losses
        self.highest: float | None = None
        self.since: int | None = None

    def add(self, loss: float) -> bool:
        """Take the loss of one more update; whether training has been unstable by now."""
        value = float(loss)
        value = value if math.isfinite(value) else math.inf
        if self.initial is None:
            self.initial = value
        self.updates += 1
        self.recent = [*self.recent, value][-self.steps :]
        if len(self.recent) == self.steps:
            mean = sum(self.recent) / self.steps
            self.highest = mean if self.highest is None else max(self.highest, mean)
            if self.since is None and not mean <= self.initial:
                self.since = self.updates
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
            "highest": self.highest,
            "initial": self.initial,
            "last": self.recent[-1] if self.recent else None,
        }
