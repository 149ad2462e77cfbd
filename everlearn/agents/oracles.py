"""What a bandit expects of an action: regression oracles, fitted to the log as if it were any table.

    f(x, a) ~ E[reward | x, a],     ridge: f = x' theta_a,  theta_a = (lambda I + sum x x')^-1 sum r x over the rows that took a

An oracle is a value, such as `ridge(strength=1.0)`; `start` gives the model that holds the state. Inputs are arrays (rows, columns);
scores lie actions first. Reference: Foster & Rakhlin (2020), "Beyond UCB", arXiv 2002.04926 (regression oracles).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ContractError, check_range
from everlearn.core.spec import Described

Array = numpy.ndarray


@dataclass(frozen=True)
class Rows:
    """What a model is fitted to: x (rows, columns) float64, action (rows,), reward (rows,), weight (rows,)."""

    x: Array
    action: Array
    reward: Array
    weight: Array

    def take(self, which: Array) -> "Rows":
        """Some of the rows, by index or mask."""
        return Rows(self.x[which], self.action[which], self.reward[which], self.weight[which])


class Model(ABC):
    """The state of an oracle: fitted to rows, and asked for scores. `parts` name it."""

    parts: ClassVar[tuple[str, ...]]

    @abstractmethod
    def fit(self, rows: Rows) -> None:
        """Fit to rows, from scratch unless it is to go on from where it was."""

    @abstractmethod
    def scores(self, x: Array) -> Array:
        """(actions, rows) of what is expected."""

    def learn(self, x: Array, action: int, reward: float, weight: float) -> None:
        """Take in one row (columns,)."""
        raise ContractError(f"{type(self).__name__} learns by fits alone; its oracle must say online=False.")

    def widths(self, x: Array) -> Array | None:
        """(actions, rows) of how uncertain the scores are; None where that is not known."""
        return None


class Oracle(Described, ABC):
    """A kind of model with its settings. online: it learns from each row as it comes; measures: it knows how uncertain its scores are."""

    name: ClassVar[str]
    online: bool = False
    measures: ClassVar[bool] = False

    @abstractmethod
    def start(self, actions: int, seed: int) -> Model:
        """A model that has learned nothing."""


@dataclass(frozen=True, repr=False)
class Ridge(Oracle):
    """Least squares for each action apart, with a penalty: exact after every row, by rank-one updates.

    strength: lambda of the penalty on all weights, the constant's too; online: learn from each row as it comes, not only from fits.
    """

    name = "ridge"
    measures = True
    strength: float = 1.0
    online: bool = True

    def __post_init__(self) -> None:
        check_range(self.name, "strength", self.strength, 1e-12)

    def start(self, actions: int, seed: int) -> Model:
        return RidgeModel(actions, self.strength)


class RidgeModel(Model):
    """State: inverse (actions, columns + 1, columns + 1) of the penalised Gram matrices, theta (actions, columns + 1)."""

    parts = ("inverse", "theta")

    def __init__(self, actions: int, strength: float):
        self.actions = actions
        self.strength = strength
        self._hold(numpy.zeros((actions, 0, 0)), numpy.zeros((actions, 0)))

    def _hold(self, inverse: Array, theta: Array) -> None:
        self.inverse, self.theta = tensor(inverse), tensor(theta)
        self.restored()

    def restored(self) -> None:
        """Look at the same memory as arrays, which are quicker one row at a time."""
        self._inverse, self._theta = self.inverse.numpy(), self.theta.numpy()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.restored()

    def _begin(self, columns: int) -> None:
        size = columns + 1
        self._hold(numpy.tile(numpy.eye(size) / self.strength, (self.actions, 1, 1)), numpy.zeros((self.actions, size)))

    def fit(self, rows: Rows) -> None:
        self._begin(rows.x.shape[1])
        x = constant(rows.x)
        for action in range(self.actions):
            took = rows.action == action
            if took.any():
                weighted = x[took] * rows.weight[took, None]
                gram = weighted.T @ x[took]
                gram[numpy.diag_indices_from(gram)] += self.strength
                self._inverse[action] = numpy.linalg.inv(gram)
                self._theta[action] = self._inverse[action] @ (weighted.T @ rows.reward[took])

    def learn(self, x: Array, action: int, reward: float, weight: float) -> None:
        if self._theta.shape[1] == 0:
            self._begin(len(x))
        row = numpy.empty(len(x) + 1)
        row[:-1], row[-1] = x, 1.0
        inverse, theta = self._inverse[action], self._theta[action]
        turned = inverse @ row
        spread = 1.0 / weight + row @ turned
        theta += turned * ((reward - row @ theta) / spread)
        turned *= spread**-0.5
        inverse -= turned[:, None] * turned  # symmetric to the bit

    def scores(self, x: Array) -> Array:
        if self._theta.shape[1] == 0:
            return numpy.zeros((self.actions, len(x)))
        return self._theta[:, :-1] @ x.T + self._theta[:, -1:]

    def widths(self, x: Array) -> Array:
        if self._theta.shape[1] == 0:
            return numpy.tile(numpy.sqrt((x * x).sum(axis=1) + 1.0) / self.strength**0.5, (self.actions, 1))
        rows = constant(x)
        return numpy.sqrt(numpy.maximum(((rows @ self._inverse) * rows).sum(axis=2), 0.0))


def constant(x: Array) -> Array:
    """The rows with a column of ones behind them."""
    return numpy.hstack([x, numpy.ones((len(x), 1))])


def tensor(values: Array) -> Tensor:
    """An array as a tensor of its own, whose strides are those of a fresh one also where it is empty."""
    return torch.empty(values.shape, dtype=torch.float64).copy_(torch.from_numpy(values))
