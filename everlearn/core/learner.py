"""The contract of everything that learns from a stream.

A learner's state is a fold over events: `update` and `boundary` change it, `predict` never does, and the attributes named by
`parts` are all of it. Classes are abstract or final; a learner is written by subclassing `Learner` once.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.spec import describe
from everlearn.core.state import capture, load


class Learner(ABC):
    """Learns from answers, or from inputs alone.

    parts: the attributes that are state (modules, optimisers, memories, generators, tensors, scalars).
    name: the word for it in call strings. needs_boundaries: whether it can only learn where changes are announced.
    reference: a yardstick that may exceed the budget and is never recommended (retraining on everything, say).
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    needs_boundaries: ClassVar[bool] = False
    reference: ClassVar[bool] = False

    @abstractmethod
    def predict(self, x: X) -> Tensor:
        """Scores (batch, classes) whose argmax is the answer. Changes nothing."""

    @abstractmethod
    def update(self, batch: Batch) -> Metrics:
        """Learn from one batch; refuse bad input before any state changes. A batch without y is passed over, or learned from
        by learners that need no answers."""

    @abstractmethod
    def boundary(self, boundary: Boundary) -> None:
        """Hear of a known change."""

    def state_dict(self) -> dict[str, Any]:
        """All state, as a tree of tensors and JSON scalars."""
        return capture(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave. Raises StateError, with nothing changed, where it does not fit."""
        load(self, state)

    def __repr__(self) -> str:
        return describe(self)


class Adapter(Learner):
    """A learner that also learns at prediction time, from the same inputs."""

    @abstractmethod
    def adapt(self, x: X) -> Tensor:
        """One forward pass: the scores, and learning from x alone."""
