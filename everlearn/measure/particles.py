"""Instances of a query problem that an adversary moves: where they start, what bounds them, what they are as theta.

    Theta_r = {theta : rho*(theta) <= r}      barrier(theta) = max(0, log rho*(theta) - log r) + sum_i max(0, |<x_i, theta>| - 1)

Where theta has the signs of an answer (`realisable` labellings), an instance is the answer's index and free margins |theta_i| in
`margins`; every answer is started from equally often. Where theta has a prior, what is free is u in  theta = mean + L u,  L L' the
covariance, begun as a draw and held where ||u||^2 is within 95 % of the prior. Else theta itself is free. r = inf: no limit but
these bounds.

Reference: Zhang, Jain & Jamieson (2020), arXiv 2010.15382.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy.stats import chi2
from torch import Tensor

from everlearn.core.errors import ArgumentError
from everlearn.data.query_problem import QueryProblem
from everlearn.measure.difficulty import Difficulties, difficulties, rho_star

MARGINS = (0.02, 1.0)
WITHIN = 0.95  # of a prior
NARROWING = 6  # halvings on the way to the easiest instance


@dataclass(frozen=True)
class Family:
    """The instances of a problem whose difficulty is at most r, within 95 % of its prior where it has one.

    margins: bounds of |theta_i|, where theta has the signs of an answer (labellings of a problem that says `realisable`).

    Raises ArgumentError where r is below the smallest difficulty that there can be; the message states that value.

    >>> from everlearn.data.query_families import thresholds
    >>> family = Family(thresholds(10, horizon=10), r=12.0)
    >>> start = family.draw(22, torch.Generator().manual_seed(0))
    >>> bool((family.difficulty(start).value <= 12.0).all()), sorted(set(start.index.tolist())) == list(range(11))
    (True, True)
    """

    problem: QueryProblem
    r: float = math.inf
    margins: tuple[float, float] = MARGINS
    realisable: bool = field(init=False)
    root: Tensor | None = field(init=False, default=None, compare=False)  # (d, d) L of the prior's covariance

    def __post_init__(self) -> None:
        problem = self.problem
        low, high = self.margins
        if not 0.0 < low <= high <= 1.0:
            raise ArgumentError(f"particles: margins must be 0 < low <= high <= 1, got {self.margins}.")
        object.__setattr__(self, "realisable", problem.is_labelling and problem.constraint == "realisable")
        if not (isinstance(self.r, (int, float)) and self.r > 0):
            raise ArgumentError(f"particles: r must be a number above 0, or inf, got {self.r!r}.")
        if problem.prior is not None and not self.realisable:
            object.__setattr__(self, "root", torch.linalg.cholesky(problem.prior[1]))
        if math.isfinite(self.r):
            if problem.offset is not None:
                raise ArgumentError(
                    f"particles: difficulty is not known for {problem}, whose means have a known offset; ask for r = inf, which leaves "
                    "the prior as the only bound."
                )
            least = self.easiest()
            if self.r < least * (1.0 - 1e-9):
                raise ArgumentError(
                    f"particles: r = {self.r:g} is below the smallest difficulty of this problem, {least:.6g}. Ask for at least that."
                )

    def easiest(self) -> float:
        """The smallest difficulty: at the largest margins of the best answer; of best arms, with all others alike; else 0 or unknown."""
        problem = self.problem
        if self.realisable:
            signs = problem.answers.sign() * self.margins[1]
            return min(rho_star(problem.queries, problem.answers, theta)[0] for theta in signs)
        if problem.noise != "gaussian" and problem.is_identity and torch.equal(problem.answers, problem.queries):
            span = 2.0 if problem.noise == "sign" else 1.0
            return (1.0 + math.sqrt(problem.size - 1)) ** 2 / span**2
        return 0.0

    def draw(self, count: int, generator: torch.Generator) -> "Particles":
        """Fresh instances, brought inside the class; where theta is free, those that cannot be are left for the barrier."""
        problem = self.problem
        index = torch.arange(count) % len(problem.answers)
        if self.realisable:
            low, high = self.margins
            free = low + (high - low) * torch.rand(count, problem.size, generator=generator, dtype=torch.float64)
        else:
            free = torch.randn(count, problem.queries.shape[1], generator=generator, dtype=torch.float64)
            if self.root is not None:
                return Particles(self, self.confined(free), index)
            free = free / problem.mean(free).abs().amax(1, keepdim=True).clamp_min(1e-9)
            free = self.confined(0.5 + 0.5 * free if problem.noise == "bernoulli" else free)
        start = Particles(self, free, index)
        return start if math.isinf(self.r) else self._inside(start)

    def _inside(self, start: "Particles") -> "Particles":
        """Scaled up by sqrt(C / r) as far as the bounds allow, then, where that is not enough, towards the largest margins."""
        free = start.free
        hard = (self.difficulty(start).value / self.r).clamp_min(1.0).sqrt()
        free = self.confined(free * hard[:, None])
        if not self.realisable:
            return Particles(self, free, start.index)
        low, high = torch.zeros(len(free), 1, dtype=torch.float64), torch.ones(len(free), 1, dtype=torch.float64)
        for _ in range(NARROWING):
            share = (low + high) / 2.0
            value = self.difficulty(Particles(self, free + share * (self.margins[1] - free), start.index)).value
            inside = (value <= self.r)[:, None]
            low, high = torch.where(inside, low, share), torch.where(inside, share, high)
        return Particles(self, free + high * (self.margins[1] - free), start.index)

    def difficulty(self, particles: "Particles", design: Tensor | None = None) -> Difficulties:
        """rho* of each, from above; a design is continued."""
        problem = self.problem
        sigma = problem.sigma if problem.noise == "gaussian" else None
        return difficulties(problem.queries, problem.answers, particles.theta, design, sigma=sigma)

    def confined(self, free: Tensor) -> Tensor:
        """Within the bounds of the margins, or of the noise."""
        if self.realisable:
            return free.clamp(*self.margins)
        if self.root is not None:
            return free * (chi2.ppf(WITHIN, free.shape[1]) ** 0.5 / free.norm(dim=1, keepdim=True)).clamp(max=1.0)
        if self.problem.noise == "gaussian":
            return free
        low = -1.0 if self.problem.noise == "sign" else 0.0
        if self.problem.is_identity:
            return free.clamp(low, 1.0)
        means = self.problem.mean(free)
        return free / means.abs().amax(1, keepdim=True).clamp_min(1.0)

    def barrier_gradient(self, particles: "Particles", found: Difficulties) -> Tensor:
        """(N, free) gradient of the barrier; 0 inside the class."""
        outside = (found.value > self.r).to(found.value.dtype)[:, None]
        gradient = outside * found.gradient / found.value.clamp_min(1e-12)[:, None]
        if self.problem.noise == "sign" and not self.realisable:
            means = self.problem.mean(particles.theta)
            gradient = gradient + (means.sign() * (means.abs() > 1.0)) @ self.problem.queries
        return particles.to_free(gradient)


@dataclass(frozen=True)
class Particles:
    """Instances of a family: free (N, p) what may be moved, index (N,) the answer whose signs are kept."""

    family: Family
    free: Tensor
    index: Tensor

    @property
    def theta(self) -> Tensor:
        """(N, d)."""
        if self.family.root is not None:
            return self.family.problem.prior[0] + self.free @ self.family.root.T
        return self.free * self._signs if self.family.realisable else self.free

    @property
    def _signs(self) -> Tensor:
        return self.family.problem.answers.sign()[self.index]

    def to_free(self, gradient: Tensor) -> Tensor:
        """A gradient in theta as one in what is free."""
        if self.family.root is not None:
            return gradient @ self.family.root
        return gradient * self._signs if self.family.realisable else gradient

    def moved(self, free: Tensor) -> "Particles":
        """The same with other free values, confined."""
        return Particles(self.family, self.family.confined(free), self.index)

    def __getitem__(self, rows: Any) -> "Particles":
        return Particles(self.family, self.free[rows], self.index[rows])

    def __len__(self) -> int:
        return len(self.free)
