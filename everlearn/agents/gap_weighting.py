"""Inverse-gap weighting: explore where the scores are close, and log data on which an ordinary model may be fitted.

    p_a = 1 / (k + gamma (f_b - f_a)) for a != b,   p_b = 1 - the rest,      b the best of the k actions on offer

gamma is per unit of score: gaps of probabilities are .01 to .1, so that 10 is nearly uniform, and hundreds are needed.
References: Foster & Rakhlin (2020), "Beyond UCB", arXiv 2002.04926 (SquareCB); Foster & Krishnamurthy (2021), "Efficient first-order
contextual bandits", arXiv 2107.02237 (FastCB); Simchi-Levi & Xu (2020), "Bypassing the monster", arXiv 2003.12699 (FALCON).
"""

import math
from dataclasses import dataclass, replace

import numpy
import torch

from everlearn.agents.confidence import survivors
from everlearn.agents.explorer import Array, Explorer, Progress, leader, led
from everlearn.core.errors import InputError, check_range
from everlearn.measure.policy_generation import effective_actions

LEAST_LOSS = 1e-6  # of the best action, below which FastCB would be greedy
HALVINGS = 60
NEWTON_STEPS = 100


@dataclass(frozen=True, repr=False)
class SquareCB(Explorer):
    """Explores in inverse proportion to the gaps of the scores.

    gamma: the sharpness, 0 is uniform; scale, exponent: where scale is given, gamma = scale * learned ** exponent in its place
    (Vowpal Wabbit's schedule: 10 and 0.5); effective_actions: where it is given, the greatest sharpness up to gamma with which the
    rows of a period keep a mean of exp(entropy) of at least that; elimination: where it is above 0, only actions whose upper bound
    reaches the greatest lower bound take part, with bounds as wide as sqrt(elimination * log(actions * learned)) * width
    (Vowpal Wabbit's --elim: 0.001).

    >>> import torch
    >>> SquareCB(gamma=20.0).probabilities(torch.tensor([[0.9, 0.8, 0.5]], dtype=torch.float64))
    tensor([[0.7091, 0.2000, 0.0909]], dtype=torch.float64)
    """

    name = "squarecb"
    gamma: float = 200.0
    scale: float | None = None
    exponent: float = 0.5
    effective_actions: float | None = None
    elimination: float = 0.0

    def check(self) -> None:
        check_range(self.name, "gamma", self.gamma, 0.0, fix="Negative sharpness would favour the worst.")
        if self.scale is not None:
            check_range(self.name, "scale", self.scale, 0.0)
        check_range(self.name, "exponent", self.exponent, 0.0)
        if self.effective_actions is not None:
            check_range(self.name, "effective_actions", self.effective_actions, 1.0)
        check_range(self.name, "elimination", self.elimination, 0.0)

    @property
    def needs_widths(self) -> bool:
        return self.elimination > 0.0

    def sharpness(self, learned: int) -> float:
        """gamma after so many examples."""
        return self.gamma if self.scale is None else self.scale * learned**self.exponent

    def settled(self, scores: Array, offered: Array) -> Explorer:
        if self.effective_actions is None:
            return self
        gamma = gamma_for(scores, offered, self.effective_actions, self.gamma)
        return replace(self, gamma=gamma, scale=None, effective_actions=None)

    def spread(self, scores: Array, offered: Array, count: Array, progress: Progress) -> Array:
        gamma = self.sharpness(progress.learned)
        if self.elimination and progress.learned:
            offered = survivors(scores, offered, progress, self.elimination)
            scores = numpy.where(offered, scores, -numpy.inf)
            count = offered.sum(axis=0, dtype=numpy.float64)
        if self.effective_actions is not None:
            gamma = gamma_for(scores, offered, self.effective_actions, gamma)
        return inverse_gap(scores, offered, count, gamma)


@dataclass(frozen=True, repr=False)
class SquareCBExact(Explorer):
    """Explores by the minimax form of inverse-gap weighting: p_a = 1 / (lambda + gamma gap_a), lambda in [1, k] such that they sum to 1.

    gamma: the sharpness, 0 is uniform.
    """

    name = "squarecb_exact"
    gamma: float = 200.0

    def check(self) -> None:
        check_range(self.name, "gamma", self.gamma, 0.0)

    def spread(self, scores: Array, offered: Array, count: Array, progress: Progress) -> Array:
        first, best = leader(scores)
        gaps = self.gamma * numpy.where(offered, best - scores, 0.0)
        level = numpy.ones_like(
            count
        )  # the sum is convex and at least 1 here, so Newton's steps rise to the root and stop there
        moving = numpy.ones(count.shape, bool)
        for _ in range(NEWTON_STEPS):
            parts = numpy.where(offered, 1.0 / (level + gaps), 0.0)
            step = (parts.sum(axis=0) - 1.0) / (parts * parts).sum(axis=0)
            moving &= step > 1e-15 * level  # each row stops by itself, so its bits do not hang on the rows beside it
            if not moving.any():
                break
            level = level + numpy.where(moving, step, 0.0)
        return led(numpy.where(offered, 1.0 / (level + gaps), 0.0), first, count)


@dataclass(frozen=True, repr=False)
class FastCB(Explorer):
    """Explores by gaps of losses in units of the least loss: much less where the best action hardly ever fails.

        p_a = l_b / (k l_b + gamma (l_a - l_b)),   l = 1 - score

    gamma: the sharpness; a least loss below 1e-6 counts as that. Scores must lie in [0, 1], from a model of log loss.
    """

    name = "fastcb"
    gamma: float = 200.0

    def check(self) -> None:
        check_range(self.name, "gamma", self.gamma, 0.0)

    def spread(self, scores: Array, offered: Array, count: Array, progress: Progress) -> Array:
        first, best = leader(scores)
        outside = (((scores < 0.0) | (scores > 1.0)) & offered).any(axis=0)
        if outside.any():
            row = int(numpy.argmax(outside))
            raise InputError(
                f"fastcb: scores must lie in [0, 1], got {scores[:, row].tolist()} in row {row}; calibrate or clip them."
            )
        least = numpy.maximum(1.0 - best, LEAST_LOSS)
        others = numpy.where(offered, least / (count * least + self.gamma * numpy.where(offered, best - scores, 0.0)), 0.0)
        return led(others, first, count)


@dataclass(frozen=True, repr=False)
class Falcon(Explorer):
    """Inverse-gap weighting whose sharpness grows with the rows on which the model was fitted: for models fitted in batches.

        gamma = c sqrt(k fitted / log(dimension / delta))

    c: 1/30 in theory, far more in practice; dimension: of the class of models; delta: the probability that the guarantee fails.
    k is that of each row.
    """

    name = "falcon"
    c: float = 1.0 / 30.0
    dimension: float = 100.0
    delta: float = 0.05

    def check(self) -> None:
        check_range(self.name, "c", self.c, 0.0)
        check_range(self.name, "delta", self.delta, 1e-12, 1.0)
        check_range(self.name, "dimension", self.dimension, 1.0)
        check_range(self.name, "dimension / delta", self.dimension / self.delta, 1.0 + 1e-9)

    def spread(self, scores: Array, offered: Array, count: Array, progress: Progress) -> Array:
        gamma = self.c * numpy.sqrt(count * progress.fitted / math.log(self.dimension / self.delta))
        return inverse_gap(scores, offered, count, gamma)


def inverse_gap(scores: Array, offered: Array, count: Array, gamma: float | Array) -> Array:
    """The probabilities (actions, rows) at a sharpness, one for all rows or (rows,). Scores are -inf where nothing is offered."""
    first, best = leader(scores)
    others = best - scores
    if not offered.all():
        others[~offered] = 0.0
    others *= gamma
    others += count
    numpy.reciprocal(others, out=others)
    others *= offered
    return led(others, first, count)


def gamma_for(scores: Array, offered: Array, target: float, highest: float) -> float:
    """The greatest sharpness up to `highest` at which rows (actions, rows) keep a mean exp(entropy) of `target`; 0 where none does.

    Sharper is never more even (mass only moves to the leader, which has the most), so halving finds it.
    """
    scores = numpy.where(offered, scores, -numpy.inf)
    count = offered.sum(axis=0, dtype=numpy.float64)

    def enough(gamma: float) -> bool:
        return bool(effective_actions(torch.from_numpy(inverse_gap(scores, offered, count, gamma).T)).mean() >= target)

    if enough(highest):
        return highest
    low, high = 0.0, highest
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if enough(middle) else (low, middle)
    return low
