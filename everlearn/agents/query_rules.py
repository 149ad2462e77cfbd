"""Which question next: rules that look at the posterior over answers, and the two that do not look at all.

    random        any askable query                      static       the one furthest behind its share of a design
    uncertainty   argmax H(E p(y))                       bald         argmax H(E p(y)) - E H(p(y))
    sgbs          argmin |sum_z p(z) sign z(x)|          p(z): 1 - beta for each answer that agrees with z, beta for each other

A rule is a value with a call string. Bound to a problem it is a policy: a callable (counts, sums, step, generator) -> (B, n)
probabilities of the next query, for B episodes at once. Equal scores share the probability.

References: Nowak (2011), The geometry of generalized binary search; Houlsby et al. (2011), Bayesian active learning for
classification and preference learning, arXiv 1112.5745; Zhang, Jain & Jamieson (2020), arXiv 2010.15382.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from everlearn.agents.query_design import allocate, spread_design
from everlearn.core.errors import ArgumentError, check_range
from everlearn.core.spec import describe
from everlearn.data.query_problem import QueryProblem, leaders

BETA = 0.2315  # log((1 - beta) / beta) = 1.2
Memory = dict[str, Tensor]


class Rule(ABC):
    """What a rule must say. `exact`: whether its probabilities are those of its choice, and not one draw of it.

    Most rules need counts and sums alone; `begin` and `advance` are for those with a memory (Memoryless has none), `recommend` for
    those that answer otherwise than the problem does (ByScore).
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True

    @abstractmethod
    def check(self, problem: QueryProblem) -> None:
        """Refuse a problem for which the rule means nothing."""

    @abstractmethod
    def probabilities(
        self, problem: QueryProblem, counts: Tensor, sums: Tensor, step: int, generator: torch.Generator, memory: Memory
    ) -> Tensor:
        """(B, n) probabilities of the next query."""

    @abstractmethod
    def begin(self, problem: QueryProblem, episodes: int) -> Memory:
        """What is remembered at the start of so many episodes; tensors with the episodes first."""

    @abstractmethod
    def advance(self, problem: QueryProblem, counts: Tensor, sums: Tensor, memory: Memory) -> Memory:
        """What is remembered once these answers are known. A pure function: memory is replaced and never written into."""

    @abstractmethod
    def recommend(
        self, problem: QueryProblem, counts: Tensor, sums: Tensor, generator: torch.Generator, memory: Memory
    ) -> Tensor:
        """(B,) the answer that is given."""

    def __repr__(self) -> str:
        return describe(self)


class Memoryless(Rule):
    """Rules to which counts and sums say all."""

    def begin(self, problem: QueryProblem, episodes: int) -> Memory:
        """Nothing."""
        return {}

    def advance(self, problem: QueryProblem, counts: Tensor, sums: Tensor, memory: Memory) -> Memory:
        """Nothing."""
        return memory


class ByScore(Memoryless):
    """Memoryless rules that answer as the problem does: with the most probable, or the best by estimate."""

    def recommend(
        self, problem: QueryProblem, counts: Tensor, sums: Tensor, generator: torch.Generator, memory: Memory
    ) -> Tensor:
        """The problem's own recommendation."""
        return problem.recommend(counts, sums, generator)


@runtime_checkable
class FromPosterior(Protocol):
    """Rules whose score is a formula of the posterior alone, so that they serve any pool with a committee."""

    def of(self, weight: Tensor, chance: Tensor) -> Tensor:
        """(B, n) scores for (B, m) probabilities of the members and the (m, n) chance of yes that each gives each query."""
        ...


def askable(problem: QueryProblem, counts: Tensor) -> Tensor:
    """(B, n) which queries may be asked: all, or those not asked so far; all again where none is left; none that is withheld."""
    allowed = (
        torch.ones_like(counts, dtype=torch.bool) if problem.withheld is None else ~problem.withheld.expand(counts.shape)
    )
    if problem.repeat:
        return allowed
    fresh = (counts == 0) & allowed
    return torch.where(fresh.any(1, keepdim=True), fresh, allowed)


def needs_labels(rule: Rule, problem: QueryProblem) -> None:
    """Refuse a problem whose answers give no probabilities to yes and no."""
    if problem.likelihood is None and not problem.is_labelling:
        raise ArgumentError(
            f"{rule.name}: answers must be labellings of the queries, or come with a likelihood; {problem} has neither. "
            "Use uncertainty, ucb, lucb or rage."
        )


def posterior(problem: QueryProblem, counts: Tensor, sums: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(B, m) probabilities of answers, and (m, n) the chance of yes that each of them gives each query."""
    chance = problem.likelihood
    if chance is None:
        chance = beta + (1.0 - 2.0 * beta) * (problem.labels > 0).double()
    return problem.log_posterior(counts, sums, beta).exp(), chance


def entropy(chance: Tensor) -> Tensor:
    """Of yes and no, in nats."""
    return torch.special.entr(chance) + torch.special.entr(1.0 - chance)


def spread(problem: QueryProblem, counts: Tensor, sums: Tensor) -> Tensor:
    """(B, n) x^T Cov x, the variance of each query's mean."""
    if problem.is_identity and problem.prior is None:
        return 1.0 / (counts.double() + problem.ridge)
    covariance = problem.gaussian(counts, sums)[1]
    return torch.einsum("nd,bde,ne->bn", problem.queries, covariance, problem.queries)


@dataclass(frozen=True, repr=False)
class Random(ByScore):
    """Any askable query, all alike: the control."""

    name: ClassVar[str] = "random_query"

    def check(self, problem: QueryProblem) -> None:
        """Any problem."""

    def probabilities(self, problem, counts, sums, step, generator, memory) -> Tensor:
        """Equal for each askable query."""
        allowed = askable(problem, counts).double()
        return allowed / allowed.sum(1, keepdim=True)

    def of(self, weight: Tensor, chance: Tensor) -> Tensor:
        """All alike."""
        return torch.zeros(len(weight), chance.shape[1], dtype=torch.float64)


@dataclass(frozen=True, repr=False)
class Uncertainty(ByScore):
    """The query whose answer is least certain: highest predictive entropy, or variance where theta is Gaussian.

    beta: how often an answer differs from the label of the true z, where the problem has no likelihood of its own. Under noise the
    same ambiguous query is asked again and again wherever the problem lets queries repeat.
    """

    beta: float = BETA
    name: ClassVar[str] = "uncertainty"

    def __post_init__(self) -> None:
        check_range(self.name, "beta", self.beta, 1e-9, 0.5 - 1e-9)

    def check(self, problem: QueryProblem) -> None:
        """Any problem."""

    def scores(self, problem: QueryProblem, counts: Tensor, sums: Tensor) -> Tensor:
        """(B, n) entropies in nats, or variances."""
        if problem.likelihood is None and not problem.is_labelling:
            return spread(problem, counts, sums)
        return self.of(*posterior(problem, counts, sums, self.beta))

    def of(self, weight: Tensor, chance: Tensor) -> Tensor:
        """H(E p)."""
        return entropy((weight @ chance).clamp(0.0, 1.0))

    def probabilities(self, problem, counts, sums, step, generator, memory) -> Tensor:
        """Shared by the least certain."""
        return leaders(self.scores(problem, counts, sums), askable(problem, counts))


@dataclass(frozen=True, repr=False)
class Bald(ByScore):
    """The query whose answer tells most of z: mutual information; half of log(1 + x^T Cov x / sigma^2) where theta is Gaussian.

    beta: as for uncertainty.
    """

    beta: float = BETA
    name: ClassVar[str] = "bald"

    def __post_init__(self) -> None:
        check_range(self.name, "beta", self.beta, 1e-9, 0.5 - 1e-9)

    def check(self, problem: QueryProblem) -> None:
        """Any problem."""

    def scores(self, problem: QueryProblem, counts: Tensor, sums: Tensor) -> Tensor:
        """(B, n) information in nats."""
        if problem.likelihood is None and not problem.is_labelling:
            return 0.5 * torch.log1p(spread(problem, counts, sums) / problem.variance)
        return self.of(*posterior(problem, counts, sums, self.beta))

    def of(self, weight: Tensor, chance: Tensor) -> Tensor:
        """H(E p) - E H(p)."""
        return entropy((weight @ chance).clamp(0.0, 1.0)) - weight @ entropy(chance)

    def probabilities(self, problem, counts, sums, step, generator, memory) -> Tensor:
        """Shared by the most telling."""
        return leaders(self.scores(problem, counts, sums), askable(problem, counts))


@dataclass(frozen=True, repr=False)
class GeneralizedBinarySearch(ByScore):
    """Soft generalized binary search: the query on which the weighted answers are most evenly split.

    beta: as for uncertainty; small for answers that can be trusted.

    >>> from everlearn.data.query_families import thresholds
    >>> import torch
    >>> none = torch.zeros(1, 10)
    >>> GeneralizedBinarySearch().probabilities(thresholds(10), none, none, 0, torch.Generator(), {})[0, 3:7].tolist()
    [0.0, 0.5, 0.5, 0.0]
    """

    beta: float = BETA
    name: ClassVar[str] = "sgbs"

    def __post_init__(self) -> None:
        check_range(self.name, "beta", self.beta, 1e-9, 0.5 - 1e-9)

    def check(self, problem: QueryProblem) -> None:
        """Labellings, or answers with a likelihood."""
        needs_labels(self, problem)

    def scores(self, problem: QueryProblem, counts: Tensor, sums: Tensor) -> Tensor:
        """(B, n) minus the absolute mean label."""
        return self.of(*posterior(problem, counts, sums, self.beta))

    def of(self, weight: Tensor, chance: Tensor) -> Tensor:
        """- |E sign(p - 1/2)|."""
        return -(weight @ (chance - 0.5).sign()).abs()

    def probabilities(self, problem, counts, sums, step, generator, memory) -> Tensor:
        """Shared by the most evenly split."""
        return leaders(self.scores(problem, counts, sums), askable(problem, counts))


@dataclass(frozen=True, repr=False)
class Static(ByScore):
    """A fixed plan: queries in the shares of a design, rounded to the horizon, whatever the answers are.

    design: (n,) shares that sum to 1, such as those that difficulty gives for a known theta; None takes the design by which the worst
    difference of two answers is known best. Reference: Pukelsheim (2006), Optimal design of experiments (rounding).
    """

    design: tuple[float, ...] | None = None
    name: ClassVar[str] = "static"

    def __post_init__(self) -> None:
        good = self.design is None or (
            all(isinstance(share, (int, float)) and share >= 0 for share in self.design)
            and abs(sum(self.design) - 1.0) < 1e-6
        )
        if not good:
            raise ArgumentError(f"static: design must be shares >= 0 that sum to 1, got {self.design!r}.")

    def check(self, problem: QueryProblem) -> None:
        """Any problem with as many queries as the design has shares."""
        if self.design is not None and len(self.design) != problem.size:
            raise ArgumentError(f"static: design must have {problem.size} shares, got {len(self.design)}.")

    def probabilities(self, problem, counts, sums, step, generator, memory) -> Tensor:
        """Shared by the queries that lack most of their share."""
        design = spread_design(problem) if self.design is None else torch.tensor(self.design, dtype=torch.float64)
        plan = allocate(design, problem.horizon)
        return leaders(plan.double() - counts, askable(problem, counts))
