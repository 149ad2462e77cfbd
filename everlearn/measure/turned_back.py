"""How often a watched adapter was taken back to an earlier state because its answers collapsed: when, to which, and why.

`rollback(LEARNER)` keeps this in its `history`. A learner that turns back again and again gains nothing by adapting: its rate is too
high, or the stream is not one for it.
Reference: Niu et al. (2023), SAR, arXiv 2302.12400 (collapse and recovery).
"""

from typing import Any

from torch import Tensor

from everlearn.core.events import Event
from everlearn.core.learner import Adapter, Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.stream import HeldOut, Stream


class TurnedBack(Monitor):
    """Counts the times that an adapter went back; learners that never do leave {}.

    Figures: turned_back, the number of times; events [[event, to which state, why]], counted from 0; stopped, the event at which it
    gave up adapting for good (None: it did not). Curve: turned_back.
    """

    name = "turned_back"
    parts = ("watched", "before", "events", "stopped")

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.watched = False  # whether the learner is one that goes back
        self.before = 0  # times that it had gone back before the fold
        self.events: list[list[Any]] = []
        self.stopped: int | None = None

    def start(self, learner: Learner, stream: Stream) -> None:
        self._begin()
        self.watched = isinstance(learner, Adapter) and learner.history is not None
        self.before = len(learner.history) if self.watched else 0

    def wants_prediction(self, event: Event) -> bool:
        return False

    def observe(self, step: Step, learner: Learner) -> None:
        if not self.watched:
            return
        turns = learner.history[self.before + len(self.events) :]
        self.events += [[step.position, to, why] for _, why, to in turns]
        if turns and learner.stopped:
            self.stopped = step.position

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        """What the learner went through is looked at, not its answers to held-out sets."""

    def record(self, learner: Learner) -> dict[str, Any]:
        return {"turned_back": len(self.events)} if self.watched else {}

    def figures(self) -> dict[str, Any]:
        if not self.watched:
            return {}
        events = [list(item) for item in self.events]
        return {"turned_back": len(events), "events": events, "stopped": self.stopped}
