"""What can be asked, what can be answered, and what a wrong answer costs: the problem that a query policy is made for.

    y_t = <x_i, theta> + noise      z*(theta) = argmax_z <z, theta>      loss = <z* - z, theta>  or  1{z != z*}

Rows of `queries` are the x, rows of `answers` the z; theta is unknown. After `horizon` answers one z is recommended. Where
the distribution of answers is known for each z (twenty questions), `likelihood` holds it, and z* is the z that explains best.

Reference: Zhang, Jain & Jamieson (2020), Learning to actively learn: a robust approach, arXiv 2010.15382.
"""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, InputError, check_count, check_range

NOISES = ("sign", "bernoulli", "gaussian")
LOSSES = ("regret", "identification")
CONSTRAINTS = (None, "realisable")
SLACK = 1e-9  # of means beside their bounds, and of equal values
SPAN_SLACK = 1e-8  # relative to the longest difference of two answers


@dataclass(frozen=True, eq=False, repr=False)
class QueryProblem:
    """Queries, answers, noise, budget and loss of pure exploration. Sums and counts of answers are all that a policy needs.

    queries: (n, d) float64; answers: (m, d) float64; noise: "sign" (y in -1, 1 with P(1) = (1 + <x, theta>) / 2), "bernoulli" (y in
    0, 1 with P(1) = <x, theta>) or "gaussian" (deviation `sigma`); horizon: answers that may be bought; loss: "regret" or
    "identification"; repeat: whether a query may be asked twice (under noise uncertainty sampling asks one query for ever);
    constraint: "realisable" where theta has the signs of one of the answers; likelihood: (m, n) P(yes | answer, query), strictly
    between 0 and 1; prior: (mean (d,), covariance (d, d)) of theta, else a ridge of `ridge` holds it near 0; offset: (n,) known
    part of each mean, which then is offset_i + <x_i, theta> (gaussian noise and queries = answers only); weights: (m,) of the
    answers before any is asked for, all alike where left out; withheld: (n,) bool, queries that may not be asked; spec: the call string
    it was made from, where there is one.

    Raises ArgumentError: fewer than two queries or answers, a horizon below 1, queries that do not span the differences of answers.

    >>> problem = QueryProblem(torch.eye(3), torch.eye(3), noise="gaussian", horizon=6)
    >>> counts, sums = torch.tensor([[2., 2., 2.]]), torch.tensor([[1., 3., 2.]])
    >>> problem.recommend(counts, sums, torch.Generator()).tolist()
    [1]
    """

    queries: Tensor
    answers: Tensor
    noise: str = "sign"
    horizon: int = 20
    loss: str = "regret"
    constraint: str | None = None
    sigma: float = 1.0
    repeat: bool = True
    likelihood: Tensor | None = None
    prior: tuple[Tensor, Tensor] | None = None
    ridge: float = 1e-6
    offset: Tensor | None = None
    weights: Tensor | None = None
    withheld: Tensor | None = None
    query_names: tuple[str, ...] = ()
    answer_names: tuple[str, ...] = ()
    spec: str | None = None
    is_identity: bool = field(init=False)  # each query reads one coordinate of theta
    is_labelling: bool = field(init=False)  # the same, and answers are labels of -1/2 and 1/2
    labels: Tensor = field(init=False)  # (m, n) the sign that each answer expects of each query
    _odds: Tensor | None = field(init=False, default=None)
    _no: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        for name in ("queries", "answers"):
            value = getattr(self, name)
            if not isinstance(value, Tensor) or value.ndim != 2 or not torch.isfinite(value.double()).all():
                got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise ArgumentError(f"query problem: {name} must be a finite tensor (rows, dimensions), got {got}.")
            object.__setattr__(self, name, value.double())
            if len(value) < 2:
                raise ArgumentError(f"query problem: at least two {name} are needed, got {len(value)}.")
        check_count("query problem", "horizon", self.horizon, fix="A policy needs at least one answer.")
        for name, allowed in (("noise", NOISES), ("loss", LOSSES), ("constraint", CONSTRAINTS)):
            if getattr(self, name) not in allowed:
                raise ArgumentError(f"query problem: {name} must be one of {allowed}, got {getattr(self, name)!r}.")
        check_range("query problem", "sigma", self.sigma, 1e-12)
        check_range("query problem", "ridge", self.ridge, 1e-12)
        n, d = self.queries.shape
        object.__setattr__(
            self, "is_identity", n == d and bool(torch.equal(self.queries, torch.eye(n, dtype=torch.float64)))
        )
        self._check_span()
        self._check_tables()
        object.__setattr__(self, "is_labelling", self.is_identity and bool((self.answers.abs() == 0.5).all()))
        table = self.likelihood
        object.__setattr__(self, "labels", (table - 0.5 if table is not None else self.answers @ self.queries.T).sign())
        if table is not None:
            object.__setattr__(self, "_no", torch.log1p(-table))
            object.__setattr__(self, "_odds", table.log() - self._no)

    def _check_span(self) -> None:
        if self.queries.shape[1] != self.answers.shape[1]:
            raise ArgumentError(
                f"query problem: queries and answers must have as many dimensions as each other, got {self.queries.shape[1]} and "
                f"{self.answers.shape[1]}."
            )
        difference = self.answers - self.answers[:1]
        length = float(difference.norm(dim=1).max())
        if length == 0.0:
            raise ArgumentError("query problem: all answers are the same vector; at least two must differ.")
        if self.is_identity:
            return
        _, values, basis = torch.linalg.svd(self.queries, full_matrices=False)
        basis = basis[values > values[0] * 1e-10]
        rest = difference - difference @ basis.T @ basis
        row = int(rest.norm(dim=1).argmax())
        if float(rest[row].norm()) > SPAN_SLACK * length:
            direction = [round(value, 4) + 0.0 for value in (rest[row] / rest[row].norm()).tolist()]
            raise ArgumentError(
                f"query problem: the queries do not span the differences of answers: answers 0 and {row} differ along {direction}, of "
                "which no query tells anything. Add a query that is not orthogonal to it."
            )

    def _check_tables(self) -> None:
        n, m, d = self.size, len(self.answers), self.queries.shape[1]
        if self.likelihood is not None:
            table = self.likelihood.double()
            if tuple(table.shape) != (m, n) or not bool(((table > 0) & (table < 1)).all()):
                raise ArgumentError(f"query problem: likelihood must be ({m}, {n}) probabilities strictly between 0 and 1.")
            if self.noise == "gaussian" or self.loss == "regret":
                raise ArgumentError(
                    "query problem: a likelihood is of yes and no, and knows right from wrong alone; use noise='sign' or 'bernoulli' and "
                    "loss='identification'."
                )
            object.__setattr__(self, "likelihood", table)
        if self.prior is not None:
            mean, covariance = (value.double() for value in self.prior)
            if tuple(mean.shape) != (d,) or tuple(covariance.shape) != (d, d):
                raise ArgumentError(f"query problem: prior must be a mean ({d},) and a covariance ({d}, {d}).")
            object.__setattr__(self, "prior", (mean, covariance))
        if self.offset is not None:
            if self.noise != "gaussian" or not torch.equal(self.queries, self.answers) or tuple(self.offset.shape) != (n,):
                raise ArgumentError(
                    f"query problem: an offset ({n},) goes with gaussian noise and answers that are the queries."
                )
            object.__setattr__(self, "offset", self.offset.double())
        for name, dtype, count in (("weights", torch.float64, m), ("withheld", torch.bool, n)):
            value = getattr(self, name)
            if value is not None and (tuple(value.shape) != (count,) or (name == "weights" and not bool((value > 0).all()))):
                raise ArgumentError(
                    f"query problem: {name} must be ({count},){' numbers above 0' if name == 'weights' else ''}."
                )
            object.__setattr__(self, name, None if value is None else value.to(dtype))
        for name, names, count in (("query", self.query_names, n), ("answer", self.answer_names, m)):
            if names and (len(names) != count or len(set(names)) != count):
                raise ArgumentError(f"query problem: {name}_names must be {count} different names, got {len(names)}.")

    def __repr__(self) -> str:
        return (
            f"QueryProblem({self.size} queries, {len(self.answers)} answers, {self.queries.shape[1]} dimensions, {self.noise} noise, "
            f"horizon {self.horizon})"
        )

    @property
    def size(self) -> int:
        """The number of queries, n."""
        return len(self.queries)

    @property
    def variance(self) -> float:
        """Of one answer: sigma^2, and for yes and no the most that it can be."""
        return {"gaussian": self.sigma**2, "sign": 1.0, "bernoulli": 0.25}[self.noise]

    def with_horizon(self, horizon: int) -> "QueryProblem":
        """The same problem with another budget."""
        return replace(self, horizon=horizon, spec=None)

    def mean(self, theta: Tensor) -> Tensor:
        """(B, n) mean answers for (B, d) unknowns."""
        means = theta if self.is_identity else theta @ self.queries.T
        return means if self.offset is None else means + self.offset

    def check(self, theta: Tensor) -> None:
        """Refuse unknowns that the noise or the constraint does not allow. Raises InputError that names the row and the query."""
        wanted = self.queries.shape[1]
        if theta.ndim != 2 or theta.shape[1] != wanted or not torch.isfinite(theta).all():
            raise InputError(f"query problem: theta must be finite (rows, {wanted}), got shape {tuple(theta.shape)}.")
        if self.noise != "gaussian":
            low = -1.0 if self.noise == "sign" else 0.0
            means = self.mean(theta)
            wrong = (means < low - SLACK) | (means > 1.0 + SLACK)
            if wrong.any():
                row, query = wrong.nonzero()[0].tolist()
                raise InputError(
                    f"query problem: <x, theta> is {float(means[row, query]):.6g} for query {query} of row {row}; {self.noise} noise "
                    f"needs it in {low:g}..1. Scale theta down, or use noise='gaussian'."
                )
        if self.constraint == "realisable":
            agree = (theta[:, None, :] * self.answers[None].sign() >= -SLACK).all(2).any(1)
            if not agree.all():
                row = int((~agree).nonzero()[0])
                raise InputError(
                    f"query problem: row {row} of theta has the signs of no answer, which this problem excludes."
                )

    def draw(self, index: Tensor, theta: Tensor, generator: torch.Generator) -> Tensor:
        """(B,) answers y to the queries `index` (B,) where the unknowns are theta (B, d)."""
        own = theta.gather(1, index[:, None]) if self.is_identity else (self.queries[index] * theta).sum(1, keepdim=True)
        mean = own[:, 0]
        if self.noise == "gaussian":
            known = 0.0 if self.offset is None else self.offset[index]
            return mean + known + self.sigma * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        chance = (1.0 + mean) / 2.0 if self.noise == "sign" else mean
        yes = (torch.rand(mean.shape, generator=generator, dtype=mean.dtype) < chance).to(mean.dtype)
        return 2.0 * yes - 1.0 if self.noise == "sign" else yes

    def values(self, theta: Tensor) -> Tensor:
        """(B, m) what each answer is worth: <z, theta>, or the expected log-likelihood of one answer to each query."""
        if self.likelihood is not None:
            chance = (1.0 + theta) / 2.0 if self.noise == "sign" else theta
            return chance @ self._odds.T + self._no.sum(1)
        worth = theta @ self.answers.T
        return worth if self.offset is None else worth + self.offset

    def best(self, theta: Tensor) -> Tensor:
        """(B,) the right answer z*; of equal ones the lowest index."""
        return self.values(theta).argmax(1)

    def losses(self, theta: Tensor, answer: Tensor) -> Tensor:
        """(B,) loss of recommending `answer` (B,)."""
        values = self.values(theta)
        gap = values.amax(1) - values.gather(1, answer[:, None])[:, 0]
        return gap if self.loss == "regret" else (gap > SLACK).to(gap.dtype)

    @property
    def _before(self) -> Tensor | float:
        return 0.0 if self.weights is None else self.weights.log()

    def signed(self, counts: Tensor, sums: Tensor) -> Tensor:
        """Sums of answers in which no counts -1: what sign noise gives as it is."""
        return (2.0 * sums - counts if self.noise == "bernoulli" else sums).double()

    def estimate(self, counts: Tensor, sums: Tensor) -> Tensor:
        """(B, d) the mean of theta given what was answered: ridge regression, or with the prior."""
        if self.is_identity and self.prior is None:
            return sums.double() / (counts + self.ridge)
        return self.gaussian(counts, sums)[0]

    def gaussian(self, counts: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, d) and covariance (B, d, d) of theta for Gaussian noise of variance sigma^2 and the prior, or the ridge."""
        counts, sums = counts.double(), sums.double()
        variance, d = self.variance, self.queries.shape[1]
        if self.prior is None:
            mean, precision = torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64) * self.ridge / variance
        else:
            mean, precision = self.prior[0], torch.linalg.inv(self.prior[1])
        seen = sums if self.offset is None else sums - counts * self.offset
        information = precision + torch.einsum("bn,nd,ne->bde", counts, self.queries, self.queries) / variance
        covariance = torch.linalg.inv(information)
        right = seen @ self.queries / variance + precision @ mean
        return (covariance @ right[:, :, None])[:, :, 0], covariance

    def log_posterior(self, counts: Tensor, sums: Tensor, flip: float | None = None) -> Tensor:
        """(B, m) log-probability of each answer after what was answered, `weights` before it.

        Where the likelihood is known it is used; else an answer agrees with the label of z with probability 1 - flip.
        """
        if self.likelihood is not None:
            yes = (counts + self.signed(counts, sums)) / 2.0
            return torch.log_softmax(yes @ self._odds.T + counts.double() @ self._no.T + self._before, 1)
        if not self.is_labelling or flip is None:
            raise ArgumentError(f"{self}: answers have no probabilities here; only labellings or a likelihood give them.")
        return torch.log_softmax(
            self.signed(counts, sums) @ self.labels.T * (0.5 * math.log((1.0 - flip) / flip)) + self._before, 1
        )

    def scores(self, counts: Tensor, sums: Tensor) -> Tensor:
        """(B, m) by which the answer is recommended: the posterior, sum_i S_i z_i for labellings, or <z, theta_hat>."""
        if self.likelihood is not None:
            return self.log_posterior(counts, sums)
        if self.is_labelling:
            return self.signed(counts, sums) @ self.answers.T
        worth = self.estimate(counts, sums) @ self.answers.T
        return worth if self.offset is None else worth + self.offset

    def recommend(self, counts: Tensor, sums: Tensor, generator: torch.Generator) -> Tensor:
        """(B,) the answer with the highest score; of equal ones one at random, else the order of answers would tell something."""
        scores = self.scores(counts, sums)
        return pick(leaders(scores), generator)


def leaders(scores: Tensor, among: Tensor | None = None) -> Tensor:
    """(B, k) probabilities: equal for the highest scores (to 1e-9 of their size), 0 elsewhere. among: (B, k) bool, those allowed."""
    if among is not None:
        scores = scores.masked_fill(~among, -math.inf)
    top = scores.amax(1, keepdim=True)
    level = scores >= top - SLACK * top.abs().clamp(min=1.0)
    return level.double() / level.sum(1, keepdim=True)


def pick(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """(B,) one index for each row of (B, k) probabilities, drawn by inversion."""
    edges = probabilities.cumsum(1)
    point = torch.rand(len(probabilities), 1, generator=generator, dtype=edges.dtype) * edges[:, -1:]
    return (edges <= point).sum(1).clamp(max=edges.shape[1] - 1)
