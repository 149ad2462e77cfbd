"""What holds weights: springs with an anchor and a stiffness each, and the rows of the present task from which stiffness is taken.

    penalty = 1/2 sum_i k_i (w_i - a_i)^2,   its gradient k_i (w_i - a_i)

Reference: Schwarz et al. (2018), arXiv 1805.06370 (running importance); Kirkpatrick et al. (2017), arXiv 1612.00796 (one term
for each task); Zenke et al. (2017), arXiv 1703.04200 (path integral).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError
from everlearn.core.flat import cut, flat
from everlearn.core.random import derive, generator
from everlearn.data.memory import Memory
from everlearn.learners.objective import FISHERS, WeightTerm
from everlearn.learners.pull import Pull
from everlearn.nn.bregman import Quadratic, Squared
from everlearn.nn.fisher import fisher_diagonal
from everlearn.nn.sensitivity import output_sensitivity


def rows_of_task(samples: int, seed: int, tasks: int, former: Memory | None = None) -> Memory:
    """An empty memory for a uniform sample of the rows of the task that begins, within the limits of the one before it."""
    memory = Memory(samples, seed=derive(seed, "online_ewc", tasks))
    if former is not None:
        memory.limit(former.capacity, former.bytes)
    return memory


def importance_of_rows(
    kind: str, model: nn.Module, parameters: Sequence[Tensor], kept: dict[str, Any], seed: int, tasks: int
) -> Tensor:
    """(weights,) what each weight means for the rows kept (fields x and y): a Fisher diagonal by kind, or "output_norm"."""
    if kind == "output_norm":
        return output_sensitivity(model, parameters, kept["x"])
    random = generator(seed, "fisher", tasks)
    return fisher_diagonal(model, parameters, kept["x"], kept["y"], FISHERS[kind], random)


def gathered(importance: Tensor, path: Tensor, present: Tensor, anchor: Tensor, damping: float) -> Tensor:
    """(weights,) path integrals over squared moves, added to the importance so far, and at least 0."""
    return (importance + path / ((present - anchor).square() + damping)).clamp_(min=0.0)


class Springs:
    """The springs of one weight term: where they are anchored, and how stiff they are.

    steepest: the stiffest spring that steps can follow, 1 / lr of plain descent, where one step takes the weight to its anchor.
    """

    parts = ("importance", "anchor", "path", "constant", "tasks")

    def __init__(
        self,
        term: WeightTerm,
        weights: Sequence[Tensor],
        steepest: float = float("inf"),
        extra: float = 0.0,
        number: int = 1,
    ):
        self.term = term
        self.number = number  # of the term in its objective
        self.weights = list(weights)
        self.steepest = steepest
        self.extra = extra  # added to every spring: the damping of a natural step
        self.importance: Tensor | None = None  # (weights,) in one row, as are the two below
        self.anchor: Tensor | None = None
        self.path: Tensor | None = None  # what the moves since the last change did for the task loss
        self.constant = 0.0  # what the sum of one term per task is more than one term around their common centre
        self.tasks = 0  # changes at which something had been learned
        self._stiffness: Tensor | None = None  # (weights,)
        self._pull: Pull | None = None
        self._path: list[Tensor] = []  # views of the path in the shapes of the weights
        if isinstance(term.potential, Quadratic) and term.potential.matrix is not None:
            self._given = self._diagonal(term.potential)
        else:
            self._given = 2.0 if isinstance(term.potential, Squared) else None  # |d|^2 is 1/2 * 2 |d|^2
        if term.importance == "path_integral":
            self.anchor = flat(self.weights).detach()
            self.importance, self.path = torch.zeros_like(self.anchor), torch.zeros_like(self.anchor)
        if term.reference == "start":
            self.anchor = flat(self.weights).detach()
            self.importance = torch.ones_like(self.anchor) * self._given

    def _diagonal(self, potential: Quadratic) -> Tensor:
        size = sum(weight.numel() for weight in self.weights)
        matrix = None if potential.paired else torch.as_tensor(potential.matrix)
        if matrix is None or matrix.shape != (size,):
            found = "a pair" if matrix is None else f"shape {tuple(matrix.shape)}"
            raise ArgumentError(f"{self.term!r}: the matrix must be a vector of the {size} weights, got {found}.")
        return matrix.to(self.weights[0])

    @property
    def pulling(self) -> bool:
        """Whether there is something to hold to yet."""
        return self.term.weight > 0 and self.importance is not None and (self.tasks > 0 or self.term.reference == "start")

    @property
    def kind(self) -> str | None:
        """The importance that it takes from rows of a task; None where it needs no rows."""
        return None if self.term.importance == "path_integral" else self.term.importance

    @property
    def stiffness(self) -> Tensor:
        """(weights,) how stiff each spring is: weight * importance, at most `steepest`."""
        if self._stiffness is None:
            self._stiffness = (self.term.weight * self.importance).clamp(max=self.steepest) + self.extra
        return self._stiffness

    def penalty(self) -> Tensor:
        """1/2 sum k (w - a)^2, and the constant of one term for each task; with a graph."""
        return self._with_constant(self._held().penalty())

    def added(self, gradients: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor | None]]:
        """(the penalty without a graph, the gradients with its own added), at the present weights: all that a plain step needs."""
        penalty, pulled = self._held().added(gradients)
        return self._with_constant(penalty), pulled

    def _held(self) -> Pull:
        if self._pull is None:
            self._pull = Pull(self.weights, self.anchor, self.stiffness)
        return self._pull

    def _with_constant(self, penalty: Tensor) -> Tensor:
        return penalty + self.term.weight * self.constant if self.constant else penalty

    def consolidate(self, fresh: Tensor | None) -> None:
        """A task ends: hold to the weights as they are. fresh: its importance from rows, None where there is none."""
        term, present = self.term, flat(self.weights).detach()
        if term.reference == "start":
            return
        if self.path is not None:
            self.importance = gathered(self.importance, self.path, present, self.anchor, term.damping)
            self.path = torch.zeros_like(present)
        else:
            given = self._given is not None
            fresh = torch.ones_like(present) * self._given if given else fresh
            if term.reference == "each_task" and self.importance is not None:
                self._add(fresh, present)
                return
            running = self.importance is not None and not given
            self.importance = fresh + term.decay * self.importance if running else fresh
        self.anchor = present
        self.tasks += 1
        self._forget()

    def _add(self, fresh: Tensor, present: Tensor) -> None:
        """Two quadratics are one around their common centre, and a constant: k1 k2 / (k1 + k2) (a1 - a2)^2 / 2."""
        total = self.importance + fresh
        share = torch.where(total > 0, fresh / total, torch.zeros_like(total))
        apart = present - self.anchor
        self.constant += 0.5 * float((self.importance * share * apart.square()).sum())
        self.anchor = self.anchor + share * apart
        self.importance = total
        self.tasks += 1
        self._forget()

    def travel(self, slopes: Sequence[Tensor], moves: Sequence[Tensor], scale: float) -> None:
        """Add what a step did for the task loss: path += scale * slope * move."""
        if not self._path:
            self._path = cut(self.path, self.weights)
        torch._foreach_addcmul_(self._path, list(slopes), list(moves), value=scale)

    def restored(self) -> None:
        """Forget what was made of what stood before."""
        self._forget()

    def _forget(self) -> None:
        self._stiffness, self._pull, self._path = None, None, []
