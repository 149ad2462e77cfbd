"""How hard an instance of an active learning problem is, and the design of queries that is best for it.

    rho*(theta) = min_{lambda in simplex} max_{z != z*} ||z* - z||^2_{A(lambda)^-1} / <z* - z, theta>^2
    A(lambda)   = sum_i lambda_i x_i x_i' / sigma_i^2,    z* = argmax_z <z, theta>

About rho* log(1 / delta) answers are needed to know z* with probability 1 - delta. Exactly, by Newton's steps on a barrier: with
w = rho lambda the problem is  min sum w  subject to  v_z' A(w)^-1 v_z <= 1,  v_z = (z* - z) / <z* - z, theta>. For many instances
at once, by multiplicative weights: what they give is the value of a design, so never below rho*.

Reference: Fiez, Jain, Jamieson & Ratliff (2019), Sequential experimental design for transductive linear bandits, arXiv 1906.08399.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, InputError

GROWTH, GAP, MOST_STEPS = 30.0, 1e-9, 200  # of the barrier's weight; relative duality gap at the end; Newton's steps in sum
NEAR = 1e-3  # squared Newton decrement from which on steps converge quadratically: enough before the last stage
CENTRED = 1e-9  # at the last stage, or as near as rounding allows: dual weights are wanted, too
GAP_FLOOR = 1e-3  # of <z* - z, theta> in the batched form
SHARPNESS, RATE, MIX = (
    60.0,
    0.3,
    0.005,
)  # of the batched form's weights on answers, of its steps, and its share of the uniform design
COLD, WARM = 200, 4
SPAN = 1e-9


@dataclass(frozen=True)
class Difficulties:
    """Of many instances: value (B,), design (B, n), gradient (B, d) of the value in theta with the design held, best (B,) index of z*."""

    value: Tensor
    design: Tensor
    gradient: Tensor
    best: Tensor


def rho_star(queries: Any, answers: Any, theta: Any, *, sigma: Any = None) -> tuple[float, Tensor]:
    """(rho*, its design (n,)) of one instance: queries (n, d), answers (m, d), theta (d,); sigma: noise of each query, 1 by default.

    Infinite, with the uniform design, where two different answers are equally good.

    Raises InputError where no query tells two answers apart, ArgumentError on wrong shapes.

    >>> value, design = rho_star(torch.eye(2), torch.eye(2), [1.0, 0.0])
    >>> round(value, 6), design
    (4.0, tensor([0.5000, 0.5000], dtype=torch.float64))
    """
    value, design, _ = _instance(queries, answers, theta, sigma)
    return value, design


def difficulty_gradient(queries: Any, answers: Any, theta: Any, *, sigma: Any = None) -> tuple[float, Tensor]:
    """(rho*, its gradient (d,) in theta): by the envelope theorem the design and the answers' dual weights mu are held,

        grad = - 2 sum_z mu_z rho (z* - z) / <z* - z, theta>

    >>> value, gradient = difficulty_gradient(torch.eye(3), torch.eye(3), [1.0, 0.6, 0.3])
    >>> round(value, 4), [round(x, 2) for x in gradient.tolist()]
    (27.4368, [-130.96, 122.66, 8.3])
    """
    value, _, dual = _instance(queries, answers, theta, sigma)
    _, z, theta = _tensors(queries, answers, theta)
    best = int((z @ theta).argmax())
    apart = (z[best] - z).abs().amax(1) > 0
    if math.isinf(value):
        raise InputError("difficulty: two different answers are equally good, so rho* is infinite and has no gradient.")
    scaled = (z[best] - z)[apart] / ((z[best] - z)[apart] @ theta).unsqueeze(1)
    return value, -2.0 * value * dual @ scaled


def optimal_design(queries: Any, directions: Any, *, sigma: Any = None) -> tuple[float, Tensor]:
    """(value, design (n,)) of  min_lambda max_v v' A(lambda)^-1 v  for queries (n, d) and directions (m, d).

    Raises InputError, naming the direction, where the queries do not span one.

    >>> value, design = optimal_design(torch.eye(2), [[1.0, 3.0]])
    >>> round(value, 6), design
    (16.0, tensor([0.2500, 0.7500], dtype=torch.float64))
    """
    value, design, _ = _optimal(_whitened(_matrix("queries", queries), sigma), _matrix("directions", directions))
    return value, design


def difficulties(
    queries: Tensor,
    answers: Tensor,
    theta: Tensor,
    design: Tensor | None = None,
    *,
    steps: int | None = None,
    sigma: Any = None,
) -> Difficulties:
    """rho* of many instances theta (B, d) at once, from above; `design` (B, n) is continued (4 steps), else begun (200 steps).

    Gaps are floored at 1e-3, the design's smallest weight at 0.005 / n. Queries that are the unit vectors take a short way.

    >>> found = difficulties(torch.eye(2), torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    >>> [round(x, 2) for x in found.value.tolist()]
    [4.0, 1.0]
    """
    dtype = theta.dtype
    x, z = _whitened(queries.to(dtype), sigma), answers.to(dtype)
    count = len(x)
    if steps is None:
        steps = COLD if design is None else WARM
    lam = torch.full((len(theta), count), 1.0 / count, dtype=dtype) if design is None else design.to(dtype)
    scores = theta @ z.T
    best = scores.argmax(1)
    gap = (scores.gather(1, best[:, None]) - scores).clamp_min(GAP_FLOOR)
    other = (z[best, None] - z).abs().amax(2) > 0  # (B, m): answers that differ from the best one
    plain = x.shape[0] == x.shape[1] and torch.equal(x, torch.eye(count, dtype=dtype))
    ratios = _plain(z, best, gap) if plain else _general(x, z, best, gap)
    value, marginal = ratios(lam)
    for number in range(steps):
        weight = _weights(value, other)
        move = marginal(weight)
        move = move / move.amax(1, keepdim=True).clamp_min(1e-30)
        rate = RATE if design is not None else RATE * (1.0 - number / steps)  # a design that is begun comes to rest
        lam = lam * (rate * move).exp()
        lam = (1.0 - MIX) * lam / lam.sum(1, keepdim=True) + MIX / count
        value, marginal = ratios(lam)
    weight = _weights(value, other) * value / gap
    difference = weight.sum(1, keepdim=True) * z[best] - weight @ z
    return Difficulties(value.amax(1), lam, -2.0 * difference, best)


def _weights(value: Tensor, other: Tensor) -> Tensor:
    peak = value.amax(1, keepdim=True).clamp_min(1e-30)
    return (SHARPNESS * value / peak).masked_fill(~other, -math.inf).softmax(1)


def _plain(z: Tensor, best: Tensor, gap: Tensor) -> Any:
    """Queries are unit vectors: ||u||^2 = sum_i u_i^2 / lambda_i, and -d/d lambda_i = u_i^2 / lambda_i^2."""
    squared = ((z[:, None] - z) ** 2)[best] if len(z) <= 200 else (z[best, None] - z) ** 2
    inverse_gap = 1.0 / gap**2

    def ratios(lam: Tensor) -> tuple[Tensor, Any]:
        inverse = 1.0 / lam
        value = torch.bmm(squared, inverse.unsqueeze(2)).squeeze(2) * inverse_gap
        return value, lambda w: torch.bmm((w * inverse_gap).unsqueeze(1), squared).squeeze(1) * inverse**2

    return ratios


def _general(x: Tensor, z: Tensor, best: Tensor, gap: Tensor) -> Any:
    """||u||^2_{A^-1} by Cholesky; -d/d lambda_i = (x_i' A^-1 u)^2."""
    basis = _basis(x)
    x = x @ basis
    scaled = (z[best, None] - z) @ basis / gap.unsqueeze(2)

    def ratios(lam: Tensor) -> tuple[Tensor, Any]:
        factor = torch.linalg.cholesky(torch.einsum("bi,id,ie->bde", lam, x, x))
        solved = torch.cholesky_solve(scaled.transpose(1, 2), factor)  # (B, d, m)
        value = (scaled.transpose(1, 2) * solved).sum(1)
        return value, lambda w: ((x @ solved) ** 2 @ w.unsqueeze(2)).squeeze(2)

    return ratios


def _instance(queries: Any, answers: Any, theta: Any, sigma: Any) -> tuple[float, Tensor, Tensor]:
    x, z, theta = _tensors(queries, answers, theta)
    scores = z @ theta
    best = int(scores.argmax())
    apart = (z[best] - z).abs().amax(1) > 0
    if not apart.any():
        raise ArgumentError("difficulty: all answers are the same one; give at least two that differ.")
    gap = scores[best] - scores[apart]
    if bool((gap <= 0).any()):
        return math.inf, torch.full((len(x),), 1.0 / len(x), dtype=torch.float64), torch.empty(0)
    return _optimal(_whitened(x, sigma), (z[best] - z[apart]) / gap.unsqueeze(1))


def _optimal(x: Tensor, v: Tensor) -> tuple[float, Tensor, Tensor]:
    """(value, design, dual weights of the directions): the barrier method; its gap after the last stage is (n + m) / weight."""
    basis = _basis(x)
    left = v - v @ basis @ basis.T
    outside = (left.norm(dim=1) > SPAN * v.norm(dim=1).clamp_min(1e-30)).nonzero().flatten()
    if len(outside):
        direction = (left[int(outside[0])] / left[int(outside[0])].norm()).tolist()
        raise InputError(
            f"difficulty: the queries do not span the answers' differences: none sees {[round(c, 4) for c in direction]}. "
            "Add a query that has a part in that direction."
        )
    x, v = x @ basis, v @ basis
    size = float((v * torch.linalg.solve(x.T @ x, v.T).T).sum(1).max())
    if size == 0.0:
        return 0.0, torch.full((len(x),), 1.0 / len(x), dtype=torch.float64), torch.full((len(v),), 1.0 / len(v)).double()
    v = v / math.sqrt(size)  # in these units rho* lies between 1 and n
    w = torch.full((len(x),), 2.0, dtype=torch.float64)
    weight, before = 1.0, math.inf
    for _ in range(MOST_STEPS):
        slack, gradient, hessian = _barrier(x, v, w, weight)
        step = -torch.linalg.solve(hessian, gradient)
        decrement = float(-(gradient @ step))
        last = (len(x) + len(v)) / weight <= GAP
        rounded = NEAR > decrement > before / 10.0  # no nearer where it should be the square: what is left is rounding
        if last and (decrement < CENTRED or rounded):
            break
        if not last and decrement < NEAR:
            weight *= GROWTH
            continue
        before = decrement
        w = w + _length(x, v, w, step, decrement, slack) * step
    slack = 1.0 - _norms(x, v, w)
    dual = 1.0 / slack
    design = w / w.sum()
    return float(_norms(x, v, design).max()) * size, design, dual / dual.sum()


def _norms(x: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """v_z' A(w)^-1 v_z of each direction; all weights are above 0, so that A(w) has a Cholesky factor."""
    root = torch.linalg.cholesky_ex((x.T * w) @ x)[0]
    return torch.linalg.solve_triangular(root, v.T, upper=False).square().sum(0)


def _barrier(x: Tensor, v: Tensor, w: Tensor, weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """Slacks, gradient and Hessian of  weight sum w - sum log(1 - g_z(w)) - sum log w,  g_z = v_z' A(w)^-1 v_z."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex((x.T * w) @ x)[0])
    seen = x @ inverse
    q = seen @ v.T  # (n, m): x_i' A^-1 v_z
    p = seen @ x.T
    slack = 1.0 - (v * (v @ inverse)).sum(1)
    squared, wide, few = q * q, slack.reciprocal(), w.reciprocal()
    gradient = weight - (squared @ wide + few)
    hessian = 2.0 * p * ((q * wide) @ q.T) + (squared * wide**2) @ squared.T
    hessian.diagonal().add_(few**2)
    return slack, gradient, hessian


def _length(x: Tensor, v: Tensor, w: Tensor, step: Tensor, decrement: float, slack: Tensor) -> float:
    """The damped step of a self-concordant function, longer where that stays inside with room to spare."""
    damped = 1.0 / (1.0 + math.sqrt(decrement))
    steepest = float((-step / w).max())  # one over the length at which a weight falls to 0
    length = min(1.0, 0.95 / steepest) if steepest > 0.0 else 1.0
    while length > damped:
        moved = w + length * step
        if bool((_norms(x, v, moved) + 0.05 * slack < 1.0).all()):
            return length
        length *= 0.6
    return damped


def _basis(x: Tensor) -> Tensor:
    """(d, r) orthonormal: what the queries span."""
    _, values, right = torch.linalg.svd(x.double(), full_matrices=False)
    return right[values > 1e-10 * values[0]].T.to(x.dtype)


def _whitened(x: Tensor, sigma: Any) -> Tensor:
    if sigma is None:
        return x
    noise = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1)
    if not bool((noise > 0).all()) or len(noise) not in (1, len(x)):
        raise ArgumentError(f"difficulty: sigma must be positive, one or one for each of {len(x)} queries, got {sigma!r}.")
    return x / noise


def _matrix(name: str, value: Any) -> Tensor:
    found = torch.as_tensor(value, dtype=torch.float64)
    if found.ndim != 2 or not len(found) or not bool(found.isfinite().all()):
        raise ArgumentError(f"difficulty: {name} must be a matrix of finite numbers, got shape {tuple(found.shape)}.")
    return found


def _tensors(queries: Any, answers: Any, theta: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, z = _matrix("queries", queries), _matrix("answers", answers)
    theta = torch.as_tensor(theta, dtype=torch.float64)
    if x.shape[1] != z.shape[1] or theta.shape != (x.shape[1],) or not bool(theta.isfinite().all()):
        raise ArgumentError(
            f"difficulty: queries (n, d), answers (m, d) and theta (d,) must agree and be finite, got {tuple(x.shape)}, "
            f"{tuple(z.shape)} and {tuple(theta.shape)}."
        )
    return x, z, theta
