"""Explorers that ask how uncertain each score is: optimism, and the probability of being the best.

    width_a = sqrt(x' A_a^-1 x),   A_a the Gram matrix of the rows on which action a was taken

References: Li et al. (2010), "A contextual-bandit approach to personalized news article recommendation", arXiv 1003.0146 (LinUCB);
Agrawal & Goyal (2013), arXiv 1209.3352 (LinTS); Foster et al. (2018), "Practical contextual bandits with regression oracles",
arXiv 1803.01088 (RegCB).
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy
import torch

from everlearn.agents.explorer import Array, Explorer, Progress, leader, only
from everlearn.core.errors import check_range

NODES = 64  # of the quadrature


@dataclass(frozen=True, repr=False)
class LinUCB(Explorer):
    """Takes the action with the greatest score + alpha * width.

    alpha: how much uncertainty counts. All the mass lies on one action, so its log judges no other policy; add a `share`.
    """

    name = "linucb"
    alpha: float = 1.0

    def check(self) -> None:
        check_range(self.name, "alpha", self.alpha, 0.0)

    @property
    def needs_widths(self) -> bool:
        return True

    def spread(self, scores: Array, offered: Array, count: Array, progress: Progress) -> Array:
        upper = numpy.where(offered, scores + self.alpha * progress.widths, -numpy.inf)
        return only(leader(upper)[0], scores.shape)


@dataclass(frozen=True, repr=False)
class LinTS(Explorer):
    """Thompson sampling with exact propensities: each action with the probability that it is the best.

        f_a ~ N(score_a, (scale * width_a)^2), independent;   p_a = P(f_a is the greatest), by Gauss-Hermite quadrature

    scale: of the posterior's standard deviation. Differs from the paper in: the probability is computed and then drawn from, in the
    place of drawing weights; so the propensity is known.
    """

    name = "lints"
    scale: float = 1.0

    def check(self) -> None:
        check_range(self.name, "scale", self.scale, 0.0)

    @property
    def needs_widths(self) -> bool:
        return True

    def spread(self, scores: Array, offered: Array, count: Array, progress: Progress) -> Array:
        deviation = numpy.maximum(self.scale * progress.widths, 1e-12)
        places, weights = _quadrature()
        spread = numpy.zeros(scores.shape)
        known = numpy.where(offered, scores, 0.0)
        for action in range(len(scores)):
            drawn = known[action] + deviation[action] * places[:, None]  # (nodes, rows)
            below = numpy.ones(drawn.shape)
            for other in range(len(scores)):
                if other != action:
                    chance = _normal((drawn - known[other]) / deviation[other])
                    below *= numpy.where(offered[other], chance, 1.0)
            spread[action] = weights @ below
        spread *= offered
        return spread / spread.sum(axis=0)


@dataclass(frozen=True, repr=False)
class RegCB(Explorer):
    """Takes the action with the greatest upper bound (optimistic), or any whose upper bound reaches the greatest lower bound.

        bounds = score +- sqrt(c0 log(actions * learned)) * width, the models whose excess squared loss is at most that

    c0: how wide the bounds are; optimistic: which of the two rules.
    """

    name = "regcb"
    c0: float = 0.001
    optimistic: bool = True

    def check(self) -> None:
        check_range(self.name, "c0", self.c0, 0.0)

    @property
    def needs_widths(self) -> bool:
        return True

    def spread(self, scores: Array, offered: Array, count: Array, progress: Progress) -> Array:
        if self.optimistic:
            upper = numpy.where(offered, scores + bound(progress, len(scores), self.c0), -numpy.inf)
            return only(leader(upper)[0], scores.shape)
        left = survivors(scores, offered, progress, self.c0)
        return left / left.sum(axis=0)


def bound(progress: Progress, actions: int, c0: float) -> Array:
    """Half the length of the interval around each score, (actions, rows). Boundless before anything was learned, all alike."""
    if progress.learned == 0:
        return numpy.ones_like(progress.widths) * 1e3
    return math.sqrt(c0 * max(math.log(actions * progress.learned), 0.0)) * progress.widths


def survivors(scores: Array, offered: Array, progress: Progress, c0: float) -> Array:
    """Which actions may still be the best: those whose upper bound reaches the greatest lower bound."""
    half = bound(progress, len(scores), c0)
    lower = numpy.where(offered, scores - half, -numpy.inf).max(axis=0)
    return offered & (scores + half >= lower)


@cache
def _quadrature() -> tuple[Array, Array]:
    """Places and weights for means over a standard normal."""
    places, weights = numpy.polynomial.hermite_e.hermegauss(NODES)
    return places, weights / weights.sum()


def _normal(values: Array) -> Array:
    """The distribution function of the standard normal."""
    return torch.special.ndtr(torch.from_numpy(values)).numpy()
