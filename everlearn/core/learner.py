"""The contract of everything that learns from a stream.

A learner's state is a fold over events: `update` and `boundary` change it, `predict` never does, and the attributes named by
`parts` are all of it. Classes are abstract or final; a learner is written by subclassing `Learner` once.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.spec import describe
from everlearn.core.state import capture, load


class Learner(ABC):
    """Learns from answers, or from inputs alone.

    parts: the attributes that are state (modules, optimisers, memories, generators, tensors, scalars).
    name: the word for it in call strings. needs_boundaries: whether it can only learn where changes are announced.
    reference: a yardstick that may exceed the budget and is never recommended (retraining on everything, say).
    gives: what it learns to give, "classes" or "values" (or both): scores of classes, or a real number for each target.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    needs_boundaries: ClassVar[bool] = False
    reference: ClassVar[bool] = False
    gives: ClassVar[tuple[str, ...]] = ("classes",)

    @abstractmethod
    def predict(self, x: X) -> Tensor:
        """Scores (batch, classes) whose argmax is the answer, or the values (batch, targets). Changes nothing."""

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
    """A learner that also learns at prediction time, from the same inputs.

    history: where it goes back to earlier states, each time that it did: [batches without labels so far, why, to which state]; None
    where it never does. stopped: whether it gave up adapting for good, which it does with the last of these.
    """

    history: Sequence[Sequence[Any]] | None = None
    stopped: bool = False

    @abstractmethod
    def adapt(self, x: X) -> Tensor:
        """One forward pass: the scores, and learning from x alone."""


class TaskLearner(Learner):
    """A learner that is told the task at prediction time (task-incremental).

    infers_task: whether `predict` finds the task by itself where it is not told; without it, a stream must tell the tasks of its
    held-out sets, and `predict` refuses once there is more than one task to choose from.
    """

    infers_task: bool = False

    @property
    @abstractmethod
    def tasks(self) -> tuple[int, ...]:
        """The numbers of the tasks that can be asked about, in the order in which they were announced."""

    @abstractmethod
    def predict_in(self, x: X, task: int) -> Tensor:
        """Scores (batch, classes) among the classes of one task; the others get a score that none of these can have. Changes
        nothing. Raises InputError for a task that was never announced."""


def ask(learner: Learner, x: X, task: int | None = None) -> Tensor:
    """A learner's scores for x, in the task where it is told and the learner wants to know it.

    A task that is still to come has no answer yet: all its classes score 0.
    """
    if task is None or not isinstance(learner, TaskLearner):
        return learner.predict(x)
    if task in learner.tasks:
        return learner.predict_in(x, task)
    return torch.zeros_like(learner.predict_in(x, learner.tasks[-1]) if learner.tasks else learner.predict(x))


def ask_latest(learner: Learner, x: X) -> Tensor:
    """A learner's scores for x, in the task announced last where it must be told one."""
    return ask(learner, x, learner.tasks[-1] if isinstance(learner, TaskLearner) and learner.tasks else None)
