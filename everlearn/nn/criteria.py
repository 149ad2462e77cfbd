"""Which classes compete in the loss, as values: `masked(scope="batch")` names a criterion in a call string.

    plain                cross-entropy over all classes
    masked, "batch"      over the classes of the rows at hand: the others get no gradient and are not pushed down
    masked, "task"       over the classes that the last boundary announced, and those of the rows at hand
    masked, "seen"       over the classes that have come so far

A masked loss of rows of one class is exactly 0, and so is its gradient.

Reference: Lesort et al. (2023), Challenging common assumptions about catastrophic forgetting, arXiv 2207.04543; Caccia et al.
(2022), New insights on reducing abrupt representation change, arXiv 2104.05025.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, InputError, closest
from everlearn.core.events import Boundary
from everlearn.core.spec import describe
from everlearn.nn.losses import counted_cross_entropy, present

SCOPES = ("batch", "task", "seen")


class Criterion:
    """A loss with what it must remember: the classes seen, and those of the task. (logits, labels) -> mean loss.

    Logits are (rows, classes), labels (rows,) int64. Nothing is written into the logits.
    """

    parts = ("seen", "task")

    def __init__(self, owner: str, scope: str):
        self.owner = owner
        self.scope = scope  # "" for the plain loss
        self.seen = torch.zeros(0)  # (classes,) 1 for those that came; as wide as the logits once there are some
        self.task = torch.zeros(0)  # (classes,) 1 for those announced, shorter where the last ones were not

    @property
    def needs_boundaries(self) -> bool:
        """Whether it can only be used where tasks are announced."""
        return self.scope == "task"

    def hear(self, boundary: Boundary) -> None:
        """Take note of the classes of the task that begins."""
        if self.scope != "task":
            return
        if boundary.classes:
            self.task = present(torch.tensor(boundary.classes), 0)
        elif boundary.data is not None and boundary.data.y is not None:
            self.task = present(boundary.data.y, 0)
        else:
            raise InputError(
                f"{self.owner}: masked(scope='task') needs boundaries that name their classes, and this one names none. "
                "Use masked(scope='batch')."
            )

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        if not self.scope:
            return cross_entropy(logits, labels)
        allowed = present(labels, logits.shape[1])
        if self.scope == "seen":
            self.seen = torch.maximum(allowed, self.seen) if len(self.seen) else allowed
            allowed = self.seen
        elif self.scope == "task":
            if not len(self.task):
                raise InputError(f"{self.owner}: masked(scope='task') has heard of no task. Use masked(scope='batch').")
            allowed[: len(self.task)] = torch.maximum(allowed[: len(self.task)], self.task.to(allowed.device))
        return counted_cross_entropy(logits, labels, allowed)


@dataclass(frozen=True, repr=False)
class Plain:
    """Cross-entropy over all classes."""

    name: ClassVar[str] = "plain"

    def make(self, owner: str) -> Criterion:
        """The criterion of one learner."""
        return Criterion(owner, "")

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True, repr=False)
class Masked:
    """Cross-entropy over the classes in a scope: "batch" (as published), "task" or "seen".

    Where classes never share a batch, a loss masked by batch never compares them: on a fixed partition of classes into tasks the
    head cannot rank classes of different tasks.
    Reference: Lesort et al. (2023), arXiv 2207.04543.
    """

    scope: str = "batch"
    name: ClassVar[str] = "masked"

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ArgumentError(closest("masked: scope", str(self.scope), SCOPES))

    def make(self, owner: str) -> Criterion:
        """The criterion of one learner."""
        return Criterion(owner, self.scope)

    def __repr__(self) -> str:
        return describe(self)


Loss = Plain | Masked
LOSSES = {"plain": Plain, "masked": Masked}
