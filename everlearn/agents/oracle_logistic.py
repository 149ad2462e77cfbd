"""Logistic regression on the row, the action, and each column of the row by action: probabilities, fitted by Newton's method.

    f(x, a) = sigmoid(x' (u + v_a)),   x with a constant behind it,   least  sum w log loss + (|u|^2 + sum_a |v_a|^2) / (2 C)

An action never taken is expected to do as the others do (v_a = 0). The Hessian is an arrow: the shared weights, and a block for each
action; its Schur complement makes a step cost actions * columns^3. width = p (1 - p) sqrt(x' Cov(u + v_a) x), Laplace's approximation.
Reference: Bishop (2006), Pattern recognition and machine learning, sections 4.3 and 4.5.
"""

from dataclasses import dataclass

import numpy
import torch
from scipy.special import expit

from everlearn.agents.oracles import Array, Model, Oracle, Rows, constant, tensor
from everlearn.core.errors import check_count, check_range

FREE = 1e-3  # of the penalty, on the shared constant: it would run away where every reward is the same
TOLERANCE = 1e-8  # of the gradient, by row
HALVINGS = 30


@dataclass(frozen=True, repr=False)
class Logistic(Oracle):
    """Logistic regression with all interactions of columns and actions.

    C: inverse strength of the penalty; steps: Newton's steps at most; warm_start: begin at the weights of the fit before.
    """

    name = "logistic"
    measures = True
    C: float = 0.3
    steps: int = 50
    warm_start: bool = False

    def __post_init__(self) -> None:
        check_range(self.name, "C", self.C, 1e-12)
        check_count(self.name, "steps", self.steps)

    def start(self, actions: int, seed: int) -> Model:
        return LogisticModel(actions, self.C, self.steps, self.warm_start)


class LogisticModel(Model):
    """State: shared (columns + 1,), own (actions, columns + 1), covariance (actions, columns + 1, columns + 1) of their sum."""

    parts = ("shared", "own", "covariance")

    def __init__(self, actions: int, C: float, steps: int, warm_start: bool):
        self.actions, self.C, self.steps, self.warm_start = actions, C, steps, warm_start
        self.shared, self.own = torch.zeros(0, dtype=torch.float64), torch.zeros(actions, 0, dtype=torch.float64)
        self.covariance = torch.zeros(actions, 0, 0, dtype=torch.float64)

    def fit(self, rows: Rows) -> None:
        x = constant(rows.x)
        size = x.shape[1]
        began = self.warm_start and len(self.shared) == size
        shared = self.shared.numpy().copy() if began else numpy.zeros(size)
        own = self.own.numpy().copy() if began else numpy.zeros((self.actions, size))
        penalty = numpy.full(size, 1.0 / self.C)
        loose = penalty.copy()
        loose[-1] *= FREE
        taken = [numpy.flatnonzero(rows.action == action) for action in range(self.actions)]

        def loss(shared: Array, own: Array) -> float:
            logits = _logits(x, shared, own, rows.action)
            fit = numpy.logaddexp(0.0, logits) - rows.reward * logits
            return float(rows.weight @ fit + 0.5 * (loose @ shared**2 + penalty @ (own**2).sum(axis=0)))

        now, blocks = loss(shared, own), None
        for _ in range(self.steps):
            chance = expit(_logits(x, shared, own, rows.action))
            error = rows.weight * (chance - rows.reward)
            slopes = numpy.stack([x[took].T @ error[took] for took in taken])
            down_shared, down_own = slopes.sum(axis=0) + loose * shared, slopes + penalty * own
            curve = rows.weight * chance * (1.0 - chance)
            blocks = numpy.stack([(x[took].T * curve[took]) @ x[took] for took in taken])
            if max(abs(down_shared).max(), abs(down_own).max()) <= TOLERANCE * max(len(x), 1):
                break
            step_shared, step_own = _arrow(blocks, loose, penalty, down_shared, down_own)
            length = 1.0
            for _ in range(HALVINGS):
                after = loss(shared - length * step_shared, own - length * step_own)
                if after <= now:
                    break
                length *= 0.5
            else:
                break  # rounding leaves nothing to gain
            shared, own, now = shared - length * step_shared, own - length * step_own, after
        self.shared, self.own = tensor(shared), tensor(own)
        self.covariance = tensor(_covariance(blocks, loose, penalty))

    def scores(self, x: Array) -> Array:
        if len(self.shared) == 0:
            return numpy.full((self.actions, len(x)), 0.5)
        weights = self.shared.numpy() + self.own.numpy()
        return expit(weights[:, :-1] @ x.T + weights[:, -1:])

    def widths(self, x: Array) -> Array:
        if len(self.shared) == 0:
            return numpy.full((self.actions, len(x)), 0.5)
        rows, chance = constant(x), self.scores(x)
        return chance * (1.0 - chance) * numpy.sqrt(((rows @ self.covariance.numpy()) * rows).sum(axis=2).clip(min=0.0))


def _logits(x: Array, shared: Array, own: Array, action: Array) -> Array:
    return numpy.einsum("nd,nd->n", x, (shared + own)[action])


def _arrow(blocks: Array, loose: Array, penalty: Array, shared: Array, own: Array) -> tuple[Array, Array]:
    """Solve the arrow system: [[sum B + loose, B_1..B_K], [B_a, B_a + penalty]] (u, v) = (shared, own)."""
    inner = blocks + numpy.diag(penalty)
    turned = numpy.linalg.solve(inner, numpy.concatenate([blocks, own[:, :, None]], axis=2))  # D^-1 [B, own]
    schur = blocks.sum(axis=0) + numpy.diag(loose) - numpy.einsum("aij,ajk->ik", blocks, turned[:, :, :-1])
    found = numpy.linalg.solve(schur, shared - numpy.einsum("aij,aj->i", blocks, turned[:, :, -1]))
    return found, turned[:, :, -1] - turned[:, :, :-1] @ found


def _covariance(blocks: Array, loose: Array, penalty: Array) -> Array:
    """(actions, size, size): of u + v_a under Laplace's approximation, from the inverse of the arrow."""
    size = len(penalty)
    inverse = numpy.linalg.inv(blocks + numpy.diag(penalty))
    turned = inverse @ blocks  # D^-1 B
    top = numpy.linalg.inv(blocks.sum(axis=0) + numpy.diag(loose) - numpy.einsum("aij,ajk->ik", blocks, turned))
    left = numpy.eye(size) - turned  # u + v_a has the part (I - D^-1 B) u, and D^-1 of its own
    return left @ top @ left.transpose(0, 2, 1) + inverse
