"""The contract of what is measured as the fold goes. A monitor's state is part of the fold: resume continues its counts."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from everlearn.core.events import Event, Metrics
from everlearn.core.learner import Learner
from everlearn.core.stream import HeldOut, Stream


@dataclass(frozen=True, slots=True)
class Step:
    """One event as it was handled: position (0-based), the event, the prediction made before learning from it (None where no
    monitor asked), what update returned (None where nothing was learned), the seconds that predict and update took, and the answers
    that learners are never told (`Stream.hidden_answers`)."""

    position: int
    event: Event
    prediction: Tensor | None
    metrics: Metrics | None
    predict_seconds: float
    update_seconds: float
    answers: Tensor | None = None


class Monitor(ABC):
    """Watches one fold of one learner over one stream.

    name: its key in results; parts: the attributes that are state; timed: whether its figures depend on the clock (they are
    left out where two runs are compared bit by bit).
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    timed: ClassVar[bool] = False

    @abstractmethod
    def start(self, learner: Learner, stream: Stream) -> None:
        """Called once before the first event, also on resume (then the state is restored afterwards)."""

    @abstractmethod
    def wants_prediction(self, event: Event) -> bool:
        """Whether this event should be predicted before it is learned from."""

    @abstractmethod
    def observe(self, step: Step, learner: Learner) -> None:
        """Called after every event."""

    @abstractmethod
    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        """Called at each checkpoint (0-based) for each held-out set, with the learner's scores (rows, classes) on it."""

    @abstractmethod
    def record(self, learner: Learner) -> dict[str, Any]:
        """Figures for the curve at this moment (JSON), {} where there is nothing to draw."""

    @abstractmethod
    def figures(self) -> dict[str, Any]:
        """Figures of the whole fold so far (JSON)."""
