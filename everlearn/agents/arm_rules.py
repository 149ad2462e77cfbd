"""Which query next where the answers are the queries themselves: arms, or a linear bandit.

    ucb                 argmax <x, theta_hat> + width sqrt(x^T Cov x)
    thompson            argmax <x, theta~>,  theta~ ~ N(theta_hat, Cov)
    top_two             the leader of one draw, or with probability 1 - share the leader of another that differs from it
    lucb                the less known of the leader and the challenger with the highest upper bound
    sequential_halving  ceil(log2 n) rounds; each surviving arm floor(T / (|S| ceil(log2 n))) times, then the better half stays

References: Auer (2002), Using confidence bounds for exploitation-exploration trade-offs; Russo (2016), Simple Bayesian algorithms for
best arm identification, arXiv 1602.08448; Kalyanakrishnan et al. (2012), PAC subset selection in stochastic multi-armed bandits;
Karnin, Koren & Somekh (2013), Almost optimal exploration in multi-armed bandits, ICML.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from everlearn.agents.query_rules import ByScore, Memoryless, Rule, askable, spread
from everlearn.core.errors import ArgumentError, check_range
from everlearn.data.query_problem import QueryProblem, leaders, pick

DRAWS = 20  # of theta, among which top_two looks for another leader


def needs_arms(rule: Rule, problem: QueryProblem, separate: bool = False) -> None:
    """Refuse a problem whose answers are not its queries; separate: whether each must be read on its own."""
    same = problem.likelihood is None and torch.equal(problem.queries, problem.answers)
    if not same or (separate and not problem.is_identity):
        what = "separate arms, as best_arm gives" if separate else "the queries themselves, as best_arm and linear give"
        raise ArgumentError(f"{rule.name}: the answers must be {what}; {problem} has others. Use rage or static.")


def worth(problem: QueryProblem, counts: Tensor, sums: Tensor) -> Tensor:
    """(B, n) estimated mean of each query."""
    means = problem.estimate(counts, sums) @ problem.queries.T
    return means if problem.offset is None else means + problem.offset


def draw_worth(problem: QueryProblem, counts: Tensor, sums: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """(draws, B, n) means of the queries under theta from its posterior."""
    shape = (draws, len(counts), problem.queries.shape[1])
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    if problem.is_identity and problem.prior is None:
        theta = problem.estimate(counts, sums) + noise * (problem.variance / (counts.double() + problem.ridge)).sqrt()
    else:
        mean, covariance = problem.gaussian(counts, sums)
        theta = mean + torch.einsum("bde,sbe->sbd", torch.linalg.cholesky(covariance), noise)
    means = theta @ problem.queries.T
    return means if problem.offset is None else means + problem.offset


def deviation(problem: QueryProblem, counts: Tensor, sums: Tensor) -> Tensor:
    """(B, n) posterior deviation of each query's mean."""
    scale = problem.variance if problem.is_identity and problem.prior is None else 1.0
    return (scale * spread(problem, counts, sums)).sqrt()


@dataclass(frozen=True, repr=False)
class Ucb(ByScore):
    """The query that could be best: `width` posterior deviations above its estimate."""

    width: float = 1.0
    name: ClassVar[str] = "ucb"

    def __post_init__(self) -> None:
        check_range(self.name, "width", self.width, 0.0)

    def check(self, problem: QueryProblem) -> None:
        """Answers that are the queries."""
        needs_arms(self, problem)

    def probabilities(self, problem, counts, sums, step, generator, memory) -> Tensor:
        """Shared by those of the highest bound."""
        bound = worth(problem, counts, sums) + self.width * deviation(problem, counts, sums)
        return leaders(bound, askable(problem, counts))


@dataclass(frozen=True, repr=False)
class Thompson(ByScore):
    """The best query under one theta drawn from what is known of it. Its probabilities are one draw, not those of the choice."""

    name: ClassVar[str] = "thompson"
    exact: ClassVar[bool] = False

    def check(self, problem: QueryProblem) -> None:
        """Answers that are the queries."""
        needs_arms(self, problem)

    def probabilities(self, problem, counts, sums, step, generator, memory) -> Tensor:
        """1 for the query that was drawn."""
        return leaders(draw_worth(problem, counts, sums, 1, generator)[0], askable(problem, counts))


@dataclass(frozen=True, repr=False)
class TopTwo(ByScore):
    """Top-two Thompson sampling: the leader of a draw with probability `share`, else the leader of a draw that has another.

    Where 20 more draws have the same leader, the second of the last one is the challenger.
    """

    share: float = 0.5
    name: ClassVar[str] = "top_two"
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range(self.name, "share", self.share, 0.0, 1.0)

    def check(self, problem: QueryProblem) -> None:
        """Answers that are the queries."""
        needs_arms(self, problem)

    def probabilities(self, problem, counts, sums, step, generator, memory) -> Tensor:
        """`share` for the leader and the rest for the challenger of these draws."""
        allowed = askable(problem, counts)
        drawn = draw_worth(problem, counts, sums, DRAWS + 1, generator).masked_fill(~allowed, -math.inf)
        leader = drawn[0].argmax(1)
        first = torch.nn.functional.one_hot(leader, counts.shape[1]).double()
        others = drawn[1:].argmax(2)  # (draws, B)
        differs = torch.cat([others != leader, torch.ones(1, len(leader), dtype=torch.bool)])
        second = drawn[-1].masked_fill(first.bool(), -math.inf).argmax(1)
        challenger = torch.cat([others, second[None]]).gather(0, differs.int().argmax(0)[None])[0]
        only = (allowed.sum(1, keepdim=True) == 1).double()
        share = self.share + (1.0 - self.share) * only
        return share * first + (1.0 - share) * torch.nn.functional.one_hot(challenger, counts.shape[1]).double()


@dataclass(frozen=True, repr=False)
class Lucb(ByScore):
    """Leader and challenger by upper bounds, whichever of the two is less known; radius sqrt(2 variance log(n T) / N).

    Differs from the paper in: the horizon is fixed, so that the radius is too, and one arm is pulled at a time instead of both.
    """

    name: ClassVar[str] = "lucb"

    def check(self, problem: QueryProblem) -> None:
        """Separate arms."""
        needs_arms(self, problem, separate=True)

    def probabilities(self, problem, counts, sums, step, generator, memory) -> Tensor:
        """Shared by the less pulled of the two."""
        mean = worth(problem, counts, sums).masked_fill(counts == 0, -math.inf)
        radius = (2.0 * problem.variance * math.log(problem.size * problem.horizon) / counts.double()).sqrt()
        leader = leaders(mean.masked_fill(counts == 0, -1e300)) > 0
        leader = torch.nn.functional.one_hot(pick(leader.double(), generator), counts.shape[1]).bool()
        bound = torch.where(counts == 0, 1e300, mean + radius)
        challenger = leaders(bound.masked_fill(leader, -math.inf)) > 0
        pair = (leader | challenger) & askable(problem, counts)
        pair = torch.where(pair.any(1, keepdim=True), pair, askable(problem, counts))
        return leaders(-counts.double(), pair)


@dataclass(frozen=True, repr=False)
class SequentialHalving(Memoryless):
    """Halving of the arms, round by round; the last that stays is the answer. Answers beyond the last whole round go to it.

    It reads its place off the counts: arms that were dropped have those of the round in which they were.
    """

    name: ClassVar[str] = "sequential_halving"

    def check(self, problem: QueryProblem) -> None:
        """Separate arms that may be asked again, and an answer for each arm and round."""
        needs_arms(self, problem, separate=True)
        least = problem.size * rounds(problem.size)
        if not problem.repeat or problem.horizon < least:
            raise ArgumentError(
                f"sequential_halving: queries must be allowed to repeat, and a horizon of {least} at least is needed for "
                f"{problem.size} arms; got repeat={problem.repeat}, horizon={problem.horizon}."
            )

    def probabilities(self, problem, counts, sums, step, generator, memory) -> Tensor:
        """Shared by the least pulled of the surviving arms."""
        alive, pulls = self._place(problem, counts, sums, int(counts[0].sum()))
        begun = alive & (counts > pulls)  # pulled in this round: surely alive
        waiting = alive & ~begun
        left = self._size(problem, int(counts[0].sum())) - begun.sum(1, keepdim=True)
        mean = sums.double() / counts.clamp(min=1)
        fresh = leaders(mean, waiting)
        return torch.where(left > 0, fresh, leaders(-counts.double(), alive & begun))

    def recommend(self, problem, counts, sums, generator, memory) -> Tensor:
        """The last that stays: the one that was chosen already, where answers were left over for it."""
        alive, pulls = self._place(problem, counts, sums, int(counts[0].sum()))
        chosen = alive & (counts > pulls)
        alive = torch.where(chosen.any(1, keepdim=True), chosen, alive)
        return pick(leaders(sums.double() / counts.clamp(min=1), alive), generator)

    def _size(self, problem: QueryProblem, asked: int) -> int:
        return [size for size, start, _ in schedule(problem) if start <= asked][-1]

    def _place(self, problem: QueryProblem, counts: Tensor, sums: Tensor, asked: int) -> tuple[Tensor, int]:
        """(arms that may be alive (B, n), pulls of each alive arm before this round)."""
        before = [pulls for _, start, pulls in schedule(problem) if start <= asked][-1]
        return counts >= before, before


def rounds(arms: int) -> int:
    """ceil(log2 n)."""
    return max(1, (arms - 1).bit_length())


def schedule(problem: QueryProblem) -> list[tuple[int, int, int]]:
    """(arms, answers before, pulls of each surviving arm before) of each round; behind the last one arm is left.

    >>> from everlearn.data.query_families import best_arm
    >>> schedule(best_arm(8, horizon=48))
    [(8, 0, 0), (4, 16, 2), (2, 32, 6), (1, 48, 14)]
    """
    size, start, pulls, found = problem.size, 0, 0, []
    number = rounds(problem.size)
    for _ in range(number):
        found.append((size, start, pulls))
        each = problem.horizon // (size * number)
        start, pulls, size = start + each * size, pulls + each, -(-size // 2)
    return [*found, (1, start, pulls)]
