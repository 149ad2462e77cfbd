"""How queries are shared out so that differences of answers become known: designs by Frank-Wolfe, and their rounding.

    min_lambda max_{z, z' active} || z - z' ||^2_{A(lambda)^-1}        A(lambda) = sum_i lambda_i x_i x_i^T
    lambda <- lambda + 2 / (j + 2) (e_i - lambda),   i = argmax_i <x_i, A^-1 (z - z')>^2 at the worst difference

stopped where the value changes by less than 1 % relatively, or after 5,000 steps; shares below 1e-5 are dropped.

References: Fiez, Jain, Jamieson & Ratliff (2019), Sequential experimental design for transductive linear bandits, NeurIPS;
Pukelsheim (2006), Optimal design of experiments (rounding).
"""

import weakref

import torch
from torch import Tensor

from everlearn.data.query_problem import QueryProblem

STEPS, CHANGE, LEAST = 5000, 0.01, 1e-5
TIE = 1e-9  # relative
ROWS = 400_000  # differences kept at once
_KNOWN: "weakref.WeakKeyDictionary[QueryProblem, Tensor]" = weakref.WeakKeyDictionary()


def elimination_design(queries: Tensor, answers: Tensor) -> tuple[Tensor, float]:
    """(shares (n,), rho): by which the worst difference of two answers is known best, and its squared norm.

    >>> share, rho = elimination_design(torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    >>> share.tolist(), round(rho, 9)
    ([0.5, 0.5], 4.0)
    """
    basis = _span(queries)
    queries, differences = queries @ basis, _differences(answers @ basis)
    n, d = queries.shape
    share = torch.full((n,), 1.0 / n, dtype=torch.float64)
    before = float("inf")
    for step in range(1, STEPS + 1):
        solved, values = _solve(queries, share, differences)
        value = float(values.max())
        if step > 2 * d and abs(before - value) < CHANGE * value:
            break
        before = value
        worst = values >= value * (1.0 - TIE)  # all of them at once, so that equal arms keep equal shares
        gain = (queries @ solved[:, worst]).square().sum(1)
        toward = (gain >= gain.max() * (1.0 - TIE)).double()
        share = share + 2.0 / (step + 2.0) * (toward / toward.sum() - share)
    share = torch.where(share < LEAST, 0.0, share)
    share = share / share.sum()
    return share, float(_solve(queries, share, differences)[1].max())


def spread_design(problem: QueryProblem) -> Tensor:
    """(n,) the design for all differences of a problem's answers; made once for each problem."""
    if problem not in _KNOWN:
        _KNOWN[problem] = elimination_design(problem.queries, problem.answers)[0]
    return _KNOWN[problem]


def allocate(share: Tensor, total: int) -> Tensor:
    """(n,) int64 whole numbers that sum to `total`, by efficient rounding: ceil((N - s / 2) lambda_i), then up or down to N.

    >>> allocate(torch.tensor([0.5, 0.3, 0.2, 0.0]), 11).tolist()
    [6, 3, 2, 0]
    """
    support = share > 0
    counts = torch.where(support, torch.ceil((total - 0.5 * support.sum()).clamp(min=0) * share), 0.0)
    while counts.sum() < total:
        behind = torch.where(support, counts / share.clamp(min=1e-300), torch.inf)
        counts[behind.argmin()] += 1
    while counts.sum() > total:
        ahead = torch.where(counts > 0, (counts - 1) / share.clamp(min=1e-300), -torch.inf)
        counts[ahead.argmax()] -= 1
    return counts.long()


def _span(queries: Tensor) -> Tensor:
    """(d, rank) coordinates in which the design's matrix can be inverted."""
    d = queries.shape[1]
    _, values, basis = torch.linalg.svd(queries, full_matrices=False)
    rank = int((values > values[0] * 1e-10).sum())
    return torch.eye(d, dtype=torch.float64) if rank == d else basis[:rank].T


def _differences(answers: Tensor) -> Tensor:
    """(pairs, d) of different answers, or of random pairs where there are too many."""
    first, second = torch.triu_indices(len(answers), len(answers), 1)
    if len(first) > ROWS:
        kept = torch.randperm(len(first), generator=torch.Generator().manual_seed(0))[:ROWS]
        first, second = first[kept], second[kept]
    return answers[first] - answers[second]


def _solve(queries: Tensor, share: Tensor, differences: Tensor) -> tuple[Tensor, Tensor]:
    """A^-1 u (d, pairs) and u^T A^-1 u (pairs,) for each difference u."""
    information = (queries * share[:, None]).T @ queries
    floor = 1e-12 * information.diagonal().mean()
    solved = torch.cholesky_solve(
        differences.T, torch.linalg.cholesky(information + floor * torch.eye(len(information), dtype=torch.float64))
    )
    return solved, (differences.T * solved).sum(0)
