"""The adversary of the published trainer: instances and the weights of a mixture over them, moved together with the policy.

    draw I_1..I_M ~ P = softmax(w),  b_m mean loss of L episodes at theta_{I_m} (less V_k in the last stage),  b mean of b_m
    w     <- w     + lr_w mean_m (b_m - b) grad_w log P(I_m)         + bonus for the entropy of P
    theta <- theta + lr_t mean_m [ grad of the loss - kappa grad barrier ]

Reference: Zhang, Jain & Jamieson (2020), Learning to actively learn: a robust approach, arXiv 2010.15382.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from everlearn.agents.learned_query import Learned
from everlearn.agents.query_steps import descend, policy_objective
from everlearn.measure.particles import Family, Particles
from everlearn.measure.worst_case import KAPPA, loss_gradient, play

RATE, WEIGHT_ENTROPY = 1e-3, 0.05
DECAYS = (0.9, 0.999)


class Mixture:
    """A mixed strategy over so many instances of a family; its state is tensors."""

    parts = ("free", "index", "weights", "design", "value", "loss", "moments", "count")

    def __init__(self, size: int, family: Family):
        self.size = size
        self.family = family
        width = family.problem.queries.shape[1]
        self.free = torch.zeros(0, width, dtype=torch.float64)
        self.index = torch.zeros(0, dtype=torch.int64)
        self.weights = torch.zeros(size, dtype=torch.float64)
        self.design: Tensor | None = None
        self.value = torch.zeros(size, dtype=torch.float64)
        self.loss = torch.zeros(size, dtype=torch.float64)
        self.moments: list[Tensor] = []
        self.count = 0

    @property
    def probabilities(self) -> Tensor:
        """P = softmax(w); uniform at w = 0."""
        return self.weights.softmax(0)

    def begin(self, family: Family, random: torch.Generator) -> None:
        """Fresh instances of a family with equal weights."""
        start = family.draw(self.size, random)
        found = family.difficulty(start)
        self.family = family
        self.free, self.index, self.design, self.value = start.free, start.index, found.design, found.value
        self.weights, self.loss = torch.zeros(self.size, dtype=torch.float64), torch.zeros(self.size, dtype=torch.float64)
        self.moments = [torch.zeros_like(x) for x in (self.free, self.free, self.weights, self.weights)]
        self.count = 0

    def levels(self, r: Sequence[float]) -> Tensor:
        """(N,) the smallest k with difficulty <= r_k (the last one beyond them)."""
        return torch.bucketize(self.value, torch.tensor(r, dtype=torch.float64)).clamp(max=len(r) - 1)

    def step(
        self,
        policy: Learned,
        optimizer: torch.optim.Optimizer,
        r: Sequence[float],
        values: Sequence[float] | None,
        schedule: Any,
        moves: bool,
        random: torch.Generator,
    ) -> float:
        """One iteration; `moves` False leaves instances and weights as they began. Returns the mean loss."""
        chosen = torch.multinomial(self.probabilities, schedule.problems, replacement=True, generator=random)
        drawn = Particles(self.family, self.free, self.index)[chosen]
        theta = drawn.theta
        played = play(policy, policy.problem, theta.repeat_interleave(schedule.episodes, 0), random, record=True)
        descend(policy.scores, optimizer, policy_objective(policy, played, schedule.episodes, schedule.entropy))
        loss = played.loss.reshape(-1, schedule.episodes).mean(1)
        self.loss = self.loss.scatter(0, chosen, loss)
        if moves:
            base = 0.0 if values is None else torch.tensor(list(values), dtype=torch.float64)[self.levels(r)[chosen]]
            gradient = drawn.to_free(loss_gradient(policy.problem, theta, played, schedule.episodes)) / len(chosen)
            self._move(chosen, loss - base, gradient)
        return float(loss.mean())

    def _move(self, chosen: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Ascend: w by the score function and its entropy, theta by the loss within the barrier."""
        p = self.probabilities
        advantage = (loss - loss.mean()) / len(loss)
        of_weights = torch.zeros_like(self.weights).scatter_add(0, chosen, advantage) - p * advantage.sum()
        log_p = p.clamp_min(1e-12).log()
        of_weights = of_weights - WEIGHT_ENTROPY * p * (log_p - (p * log_p).sum())
        particles = Particles(self.family, self.free, self.index)
        found = self.family.difficulty(particles, self.design)
        of_free = torch.zeros_like(self.free).index_add(0, chosen, gradient)
        of_free = of_free - KAPPA / len(self.free) * self.family.barrier_gradient(particles, found)
        self.count += 1
        free = self.free + self._adam(0, of_free)
        self.weights = self.weights + self._adam(2, of_weights)
        self.free = particles.moved(free).free
        self.design, self.value = found.design, found.value

    def _adam(self, place: int, gradient: Tensor) -> Tensor:
        first, second = DECAYS
        self.moments[place] = first * self.moments[place] + (1.0 - first) * gradient
        self.moments[place + 1] = second * self.moments[place + 1] + (1.0 - second) * gradient**2
        mean = self.moments[place] / (1.0 - first**self.count)
        return RATE * mean / ((self.moments[place + 1] / (1.0 - second**self.count)).sqrt() + 1e-8)
