"""How bad a query policy can get: an adversary moves instances of bounded difficulty uphill in the policy's expected loss.

    theta <- theta + lr ( grad_theta L + (L - b) grad_theta sum_t log P_theta(y_t | x_t) - kappa grad barrier(theta) )

L: loss of an episode, b: its mean over the episodes of one theta. grad_theta L is z* - z_hat for regret and 0 for identification.
A policy is any callable (counts (B, n), sums (B, n), step, generator) -> probabilities (B, n); `begin(B)` is called where it has one,
and where it has `recommend(counts, sums, generator)` that gives the answer, else the problem does.

Reference: Zhang, Jain & Jamieson (2020), Learning to actively learn: a robust approach, arXiv 2010.15382.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import InputError, check_count, check_range
from everlearn.core.random import generator as seeded
from everlearn.data.query_problem import QueryProblem, pick
from everlearn.measure.particles import MARGINS, Family, Particles

KAPPA = 1e3
SURE = 1e-3  # least probability of an answer in its logarithm
TOLERANCE = 1.05  # of r, for particles that are kept
TOP = 10  # instances over which a worst case is averaged
AGAIN = 5  # times as many episodes for the instances that a worst case is of
BATCH = 20_000  # episodes at once

QueryRule = Callable[[Tensor, Tensor, int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Played:
    """Episodes: counts and sums (B, n) at the end, answer (B,), loss (B,); and before each of T choices, where asked for:
    states (T, B, 2 n) counts beside sums, and index (T, B)."""

    counts: Tensor
    sums: Tensor
    answer: Tensor
    loss: Tensor
    states: Tensor | None = None
    index: Tensor | None = None


@dataclass(frozen=True)
class WorstCase:
    """What an attack found: theta (N, d), losses (N,) expected by fresh episodes, difficulty (N,), the hardest first.

    worst: mean loss of the ten that earlier episodes put first, so that choosing them does not flatter the adversary.
    """

    theta: Tensor
    losses: Tensor
    difficulty: Tensor
    worst: float

    @property
    def mean(self) -> float:
        """Mean loss of all that were found."""
        return float(self.losses.mean())


def play(
    policy: QueryRule, problem: QueryProblem, theta: Tensor, generator: torch.Generator, *, record: bool = False
) -> Played:
    """One episode for each row of theta (B, d), all at once.

    Raises InputError where the policy's probabilities are none.
    """
    count = len(theta)
    counts = torch.zeros(count, problem.size, dtype=torch.float64)
    sums = torch.zeros_like(counts)
    begin = getattr(policy, "begin", None)
    if begin is not None:
        begin(count)
    states, chosen = [], []
    for step in range(problem.horizon):
        chance = policy(counts, sums, step, generator)
        if step == 0:
            _check_probabilities(chance, counts)
        index = pick(chance, generator)
        if record:
            states.append(torch.cat((counts, sums), 1))
            chosen.append(index)
        y = problem.draw(index, theta, generator)
        at = index[:, None]
        counts = counts.scatter_add(1, at, torch.ones_like(sums[:, :1]).expand(-1, 1))
        sums = sums.scatter_add(1, at, y[:, None].to(sums.dtype))
    recommend = getattr(policy, "recommend", None) or problem.recommend
    answer = recommend(counts, sums, generator)
    loss = problem.losses(theta, answer)
    kept = (torch.stack(states), torch.stack(chosen)) if record else (None, None)
    return Played(counts, sums, answer, loss, *kept)


def expected_losses(
    policy: QueryRule, problem: QueryProblem, theta: Tensor, *, episodes: int = 400, generator: torch.Generator
) -> Tensor:
    """(N,) mean loss over so many episodes of each theta (N, d)."""
    check_count("expected_losses", "episodes", episodes)
    theta = theta.double()
    chunk = max(1, BATCH // episodes)
    parts = [
        play(policy, problem, rows.repeat_interleave(episodes, 0), generator).loss.reshape(-1, episodes).mean(1)
        for rows in theta.split(chunk)
    ]
    return torch.cat(parts)


def attack(
    policy: QueryRule,
    start: Particles,
    generator: torch.Generator,
    *,
    steps: int = 40,
    episodes: int = 8,
    lr: float = 0.02,
    kappa: float = KAPPA,
) -> tuple[Particles, Tensor, Tensor]:
    """Move particles uphill by Adam. Returns those that are still in their class (to 5 %), their running loss, their difficulty."""
    problem, family = start.family.problem, start.family
    free = start.free.clone()
    first, second = torch.zeros_like(free), torch.zeros_like(free)
    limited = math.isfinite(family.r)
    found = family.difficulty(start) if limited else None
    running = torch.zeros(len(free), dtype=torch.float64)
    particles = start
    for number in range(1, steps + 1):
        played = play(policy, problem, particles.theta.repeat_interleave(episodes, 0), generator)
        loss = played.loss.reshape(-1, episodes)
        running = loss.mean(1) if number == 1 else 0.8 * running + 0.2 * loss.mean(1)
        uphill = particles.to_free(loss_gradient(problem, particles.theta, played, episodes))
        if found is not None:
            uphill = uphill - kappa * family.barrier_gradient(particles, found)
        first = 0.9 * first + 0.1 * uphill
        second = 0.999 * second + 0.001 * uphill**2
        move = lr * (first / (1 - 0.9**number)) / ((second / (1 - 0.999**number)).sqrt() + 1e-8)
        particles = particles.moved(particles.free + move)
        found = family.difficulty(particles, found.design) if found is not None else None
    if found is None:
        return particles, running, torch.full_like(running, math.nan)
    value = family.difficulty(particles).value
    kept = value <= TOLERANCE * family.r
    return particles[kept], running[kept], value[kept]


def loss_gradient(problem: QueryProblem, theta: Tensor, played: Played, episodes: int) -> Tensor:
    """(N, d) estimate of the gradient of the expected loss in theta: pathwise, and by the score of the answers."""
    repeated = theta.repeat_interleave(episodes, 0)
    loss = played.loss.reshape(-1, episodes)
    advantage = (loss - loss.mean(1, keepdim=True)).reshape(-1, 1)
    gradient = advantage * answers_score(problem, repeated, played.counts, played.sums)
    if problem.loss == "regret":
        gradient = gradient + problem.answers[problem.best(repeated)] - problem.answers[played.answer]
    return gradient.reshape(len(theta), episodes, -1).mean(1)


def answers_score(problem: QueryProblem, theta: Tensor, counts: Tensor, sums: Tensor) -> Tensor:
    """(B, d) gradient in theta of sum_t log P_theta(y_t | x_t); probabilities of answers are held at 0.001 or more."""
    means = problem.mean(theta)
    if problem.noise == "gaussian":
        own = (sums - counts * means) / problem.sigma**2
    elif problem.noise == "sign":
        yes, no = (counts + sums) / 2.0, (counts - sums) / 2.0
        own = yes / (1.0 + means).clamp_min(2.0 * SURE) - no / (1.0 - means).clamp_min(2.0 * SURE)
    else:
        own = sums / means.clamp_min(SURE) - (counts - sums) / (1.0 - means).clamp_min(SURE)
    return own if problem.is_identity else own @ problem.queries


def worst_case(
    policy: QueryRule,
    problem: QueryProblem,
    r: float = math.inf,
    *,
    particles: int = 88,
    steps: int = 100,
    episodes: int = 400,
    margins: tuple[float, float] = MARGINS,
    seed: int = 0,
) -> WorstCase:
    """Attack any query rule within the class of difficulty r, and say how much it loses there.

    particles: instances that the adversary moves, for so many steps of Adam (0.02, eight episodes a step); episodes: those by
    which the expected loss of what it found is told. Built-in rules are bound first: `Policy(rule, problem)`.

    Raises ArgumentError where r is below the smallest possible difficulty, or an argument is out of range.

    >>> from everlearn.data.query_families import thresholds
    >>> problem = thresholds(4, horizon=4)
    >>> def always_the_first(counts, sums, step, generator):
    ...     return torch.eye(4, dtype=torch.float64)[:1].expand(len(counts), 4)
    >>> found = worst_case(always_the_first, problem, r=12.0, particles=10, steps=10, episodes=50)
    >>> found.worst > 0.3, bool((found.difficulty <= 1.05 * 12.0).all())
    (True, True)
    """
    check_count("worst_case", "particles", particles)
    check_count("worst_case", "steps", steps, low=0)
    check_count("worst_case", "episodes", episodes)
    check_range("worst_case", "r", r, 1e-12)
    random = seeded(seed, "worst_case")
    family = Family(problem, r, margins)
    moved, _, value = attack(policy, family.draw(particles, random), random, steps=steps)
    if not len(moved):
        raise InputError(
            f"worst_case: no instance was found with difficulty {r:g} or less; ask for a larger r or more particles."
        )
    theta = moved.theta
    losses, worst = pool_losses(policy, problem, theta, episodes=episodes, generator=random)
    order = losses.argsort(descending=True)
    return WorstCase(theta[order], losses[order], value[order], worst)


def pool_losses(
    policy: QueryRule,
    problem: QueryProblem,
    theta: Tensor,
    *,
    episodes: int = 400,
    generator: torch.Generator,
    top: int = TOP,
) -> tuple[Tensor, float]:
    """((N,) expected losses on a given pool of instances, mean of the `top` hardest on episodes of their own)."""
    losses = expected_losses(policy, problem, theta, episodes=episodes, generator=generator)
    hardest = losses.topk(min(top, len(losses))).indices
    again = expected_losses(policy, problem, theta[hardest], episodes=AGAIN * episodes, generator=generator)
    return losses, float(again.mean())


def _check_probabilities(chance: Any, counts: Tensor) -> None:
    good = isinstance(chance, Tensor) and chance.shape == counts.shape and bool((chance >= 0).all())
    if not (good and bool(((chance.sum(1) - 1.0).abs() < 1e-4).all())):
        got = f"shape {tuple(chance.shape)}" if isinstance(chance, Tensor) else type(chance).__name__
        raise InputError(
            f"query policy: a rule must give probabilities {tuple(counts.shape)} that sum to 1 in each row, got {got}."
        )
