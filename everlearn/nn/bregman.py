"""Bregman divergences: how far p is from q, by how far a convex function at p lies above its tangent at q.

    D(p, q) = Phi(p) - Phi(q) - <grad Phi(q), p - q>          squared, quadratic(A), negentropy, binary_negentropy, lognorm(family)

They are 0 where p = q, positive elsewhere, convex in p, and not symmetric: the order of the arguments is part of what is meant.
A potential is a value that a call string can name. Coordinates lie along the last axis and are summed over.

Reference: Bregman (1967), The relaxation method of finding the common point of convex sets; Banerjee et al. (2005), Clustering
with Bregman divergences.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from everlearn.core.errors import ArgumentError, InputError, closest
from everlearn.core.spec import describe

FAMILIES = ("gaussian", "categorical")
Matrix = Tensor | tuple | list | None


@dataclass(frozen=True, repr=False)
class Squared:
    """Phi(p) = sum p^2, so D(p, q) = sum (p - q)^2."""

    name: ClassVar[str] = "squared"

    def value(self, p: Tensor) -> Tensor:
        """Phi(p), (...,) for p (..., d)."""
        return p.square().sum(-1)

    def gradient(self, p: Tensor) -> Tensor:
        """grad Phi(p), of the shape of p."""
        return 2.0 * p

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        """D(p, q), (...,)."""
        return (p - q).square().sum(-1)

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True, repr=False, eq=False)
class Quadratic:
    """Phi(p) = p' A p / 2, so D(p, q) = (p - q)' A (p - q) / 2, for a symmetric positive semi-definite A.

    matrix: a vector (d,) for a diagonal A; a pair of matrices (m, m), (n, n) for their Kronecker product, where p holds the m * n
    numbers of a matrix (m, n) row by row; a matrix (d, d); None where a method supplies A (an importance of weights).
    Numbers may be written as tuples: `quadratic((2.0, 1.0, 4.0))`.
    """

    matrix: Matrix = None
    name: ClassVar[str] = "quadratic"

    def __post_init__(self) -> None:
        if self.matrix is not None:
            for part in self._parts():
                if part.ndim == 0 or part.ndim > 2 or (part.ndim == 2 and part.shape[0] != part.shape[1]):
                    raise ArgumentError(
                        f"quadratic: matrix must be a vector, a square matrix or a pair of them, got shape {tuple(part.shape)}."
                    )

    @property
    def paired(self) -> bool:
        """Whether A is a Kronecker product."""
        return (
            isinstance(self.matrix, (tuple, list))
            and len(self.matrix) == 2
            and all(torch.as_tensor(part).ndim == 2 for part in self.matrix)
        )

    def _parts(self) -> list[Tensor]:
        if self.matrix is None:
            raise ArgumentError("quadratic: there is no matrix to measure with. Give one: quadratic((1.0, 2.0)).")
        return [torch.as_tensor(part) for part in self.matrix] if self.paired else [torch.as_tensor(self.matrix)]

    def gradient(self, p: Tensor) -> Tensor:
        """A p, of the shape of p."""
        parts = [part.to(p) for part in self._parts()]
        if len(parts) == 2:
            left, right = parts
            self._fits(p, len(left) * len(right))
            return (left @ p.unflatten(-1, (len(left), len(right))) @ right.T).flatten(-2)
        self._fits(p, len(parts[0]))
        return parts[0] * p if parts[0].ndim == 1 else p @ parts[0].T

    def value(self, p: Tensor) -> Tensor:
        """Phi(p), (...,) for p (..., d). Raises InputError where A has another size."""
        return 0.5 * (p * self.gradient(p)).sum(-1)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        """D(p, q), (...,)."""
        return self.value(p - q)

    def _fits(self, p: Tensor, size: int) -> None:
        if p.shape[-1] != size:
            raise InputError(f"quadratic: the matrix measures {size} coordinates, got {p.shape[-1]}.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quadratic) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        held = self.matrix
        if isinstance(held, Tensor):
            held = held.tolist()
        return "quadratic()" if held is None else f"quadratic({describe(held)})"


@dataclass(frozen=True, repr=False)
class NegEntropy:
    """Phi(p) = sum p log p, so D(p, q) = sum p log(p / q) - sum p + sum q: between distributions, KL(p, q).

    Coordinates of p may be 0, those of q must be above it.
    """

    name: ClassVar[str] = "negentropy"

    def value(self, p: Tensor) -> Tensor:
        """Phi(p), (...,) for p (..., d)."""
        return torch.xlogy(p, p).sum(-1)

    def gradient(self, p: Tensor) -> Tensor:
        """grad Phi(p), of the shape of p."""
        return p.log() + 1.0

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        """D(p, q), (...,)."""
        return (torch.xlogy(p, p) - torch.xlogy(p, q) - p + q).sum(-1)

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True, repr=False)
class BinaryNegEntropy:
    """Phi(p) = sum p log p + (1 - p) log(1 - p), so D(p, q) = the sum of the KL divergences of coins that fall with chance p and q."""

    name: ClassVar[str] = "binary_negentropy"

    def value(self, p: Tensor) -> Tensor:
        """Phi(p), (...,) for p (..., d) within 0..1."""
        return (torch.xlogy(p, p) + torch.special.xlog1py(1.0 - p, -p)).sum(-1)

    def gradient(self, p: Tensor) -> Tensor:
        """grad Phi(p), of the shape of p."""
        return torch.logit(p)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        """D(p, q), (...,)."""
        crossed = torch.xlogy(p, q) + torch.special.xlog1py(1.0 - p, -q)
        return self.value(p) - crossed.sum(-1)

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True, repr=False)
class LogNorm:
    """Phi(eta) = A(eta), the log-partition of an exponential family, so D(eta_a, eta_b) = KL(distribution b, distribution a).

    family: "gaussian", where eta are pairs (mean / variance, -1 / (2 variance)): all first ones, then all second ones, 2 d
    numbers for d coordinates; "categorical", where eta are the logits of one softmax. The arguments of the KL are swapped.
    """

    family: str = "gaussian"
    name: ClassVar[str] = "lognorm"

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ArgumentError(closest("lognorm: family", str(self.family), FAMILIES))

    def value(self, p: Tensor) -> Tensor:
        """A(eta), (...,) for eta (..., 2 d) or (..., classes)."""
        if self.family == "categorical":
            return p.logsumexp(-1)
        first, second = p.chunk(2, -1)
        return (-first.square() / (4.0 * second) - 0.5 * (-2.0 * second).log()).sum(-1)

    def gradient(self, p: Tensor) -> Tensor:
        """grad A(eta): the mean parameters, of the shape of eta."""
        if self.family == "categorical":
            return p.softmax(-1)
        first, second = p.chunk(2, -1)
        mean = -first / (2.0 * second)
        return torch.cat([mean, mean.square() - 0.5 / second], -1)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        """D(p, q) = KL(q-distribution, p-distribution), (...,)."""
        if self.family == "categorical":
            return (q.softmax(-1) * (q.log_softmax(-1) - p.log_softmax(-1))).sum(-1)
        (mean_p, deviation_p), (mean_q, deviation_q) = map(_moments, (p, q))
        return gaussian_divergence(mean_q, deviation_q, mean_p, deviation_p)

    def __repr__(self) -> str:
        return describe(self)


Potential = Squared | Quadratic | NegEntropy | BinaryNegEntropy | LogNorm
POTENTIALS = {cls.name: cls for cls in (Squared, Quadratic, NegEntropy, BinaryNegEntropy, LogNorm)}


def bregman(p: Tensor, q: Tensor, potential: Potential) -> Tensor:
    """D(p, q) = Phi(p) - Phi(q) - <grad Phi(q), p - q>, summed over the last axis: (...,) for p, q (..., d).

    Raises InputError where p and q differ in their coordinates.

    >>> p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.25, 0.25])
    >>> round(bregman(p, q, NegEntropy()).item(), 6), round(bregman(p, q, Squared()).item(), 6)
    (0.099273, 0.065)
    """
    if p.shape[-1:] != q.shape[-1:]:
        raise InputError(f"bregman: p and q need the same coordinates, got {tuple(p.shape)} and {tuple(q.shape)}.")
    return potential.divergence(p, q)


def gaussian_parameters(mean: Tensor, deviation: Tensor) -> Tensor:
    """(..., 2 d): the natural parameters (mean / variance, -1 / (2 variance)) of independent Gaussians (..., d)."""
    precision = deviation.square().reciprocal()
    return torch.cat([mean * precision, -0.5 * precision], -1)


def _moments(eta: Tensor) -> tuple[Tensor, Tensor]:
    first, second = eta.chunk(2, -1)
    variance = -0.5 / second
    return first * variance, variance.sqrt()


def gaussian_divergence(mean: Tensor, deviation: Tensor, other_mean: Tensor, other_deviation: Tensor) -> Tensor:
    """KL(N(mean, deviation^2), N(other_mean, other_deviation^2)), summed over the last axis.

    >>> one = torch.ones(1)
    >>> round(gaussian_divergence(one, 2 * one, 0 * one, one).item(), 6)
    1.306853
    """
    ratio = deviation / other_deviation
    moved = (mean - other_mean) / other_deviation
    return (0.5 * (ratio.square() + moved.square() - 1.0) - ratio.log()).sum(-1)


def softmax_divergence(scores: Tensor, target: Tensor, model_first: bool = False) -> Tensor:
    """(rows,): KL between g = softmax(scores) and a distribution, from scores, so that no chance is rounded to 0.

    scores, target: (rows, classes), the target's rows sum to 1. KL(target, g), or KL(g, target) with model_first.

    >>> softmax_divergence(torch.tensor([[0.0, 200.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([200.])
    """
    logs = scores.log_softmax(-1)
    if model_first:
        return (logs.exp() * (logs - target.log())).sum(-1)
    return (torch.xlogy(target, target) - target * logs).sum(-1)


def sigmoid_divergence(scores: Tensor, target: Tensor, model_first: bool = False) -> Tensor:
    """(rows,): the sum over coordinates of the KL divergences of coins, s = sigmoid(scores) and a target within 0..1.

    KL(target, s), or KL(s, target) with model_first.

    >>> sigmoid_divergence(torch.tensor([[-200.0]]), torch.tensor([[1.0]]))
    tensor([200.])
    """
    if model_first:
        chance = scores.sigmoid()
        known = chance * logsigmoid(scores) + (1.0 - chance) * logsigmoid(-scores)
        return (known - torch.xlogy(chance, target) - torch.special.xlog1py(1.0 - chance, -target)).sum(-1)
    crossed = binary_cross_entropy_with_logits(scores, target, reduction="none")
    return (crossed + torch.xlogy(target, target) + torch.special.xlog1py(1.0 - target, -target)).sum(-1)
