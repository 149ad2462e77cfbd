"""From the rows of a window to a model: which rows count and how much, calibration on rows held out, and the gate.

    weight = 1, 1 / p or min(1 / p, clip), with a mean of 1;     gate: the lower bound of DR above the other's value

Rows that exploration drew are found without a mark in the log: where the choice is uniform with probability u whatever the scores, a
row of action a was drawn so with probability (u / k) / p_a, and a draw from its id with that probability is as good as the mark.
References: Vangara & Egg (2024), arXiv 2412.00569; Dudik et al. (2011), arXiv 1103.4601 (DR); Platt (1999); Zadrozny & Elkan (2002).
"""

from collections.abc import Callable, Sequence

import numpy
import torch
from scipy import special
from torch import Tensor

from everlearn.agents.draws import uniforms
from everlearn.agents.oracles import Model, Ridge, Rows
from everlearn.agents.window import Window
from everlearn.core.random import derive
from everlearn.measure.off_policy_estimators import Terms, dr

Array = numpy.ndarray
WEIGHTS = ("none", "ips", "clipped")
TRAIN_ON = ("all", "exploration_only")
CALIBRATIONS = ("none", "platt", "isotonic")
HELD_OUT = 0.25  # of the rows, for calibration and for the gate
CONFIDENCE = 1.6449  # standard errors below the mean: a one-sided bound of 95 %
NEWTON_STEPS = 50


def draws_of(seed: int, label: str, ids: Sequence[str]) -> Array:
    """(rows,) numbers in [0, 1) that hang on the id of a row alone, so not on the order in which rows came."""
    return uniforms(derive(seed, label), [derive(0, id) for id in ids])


def weights_of(kind: str, propensity: Array, clip: float) -> Array:
    """(rows,) weights with a mean of 1."""
    if kind == "none" or not len(propensity):
        return numpy.ones(len(propensity))
    weights = 1.0 / propensity if kind == "ips" else numpy.minimum(1.0 / propensity, clip)
    return weights / weights.mean()


def explored(window: Window, uniform_part: float, seed: int) -> Array:
    """(rows,) bool: the rows that count as drawn by the uniform part of the policy."""
    chance = uniform_part / window["offered"].sum(axis=1) / window["propensity"]
    return draws_of(seed, "explored", window.ids) < chance


def rows_of(window: Window, kept: Array, weights: str, clip: float) -> Rows:
    """The rows of a window as what a model is fitted to."""
    return Rows(
        window["x"][kept].astype(numpy.float64),
        window["action"][kept],
        window["reward"][kept],
        weights_of(weights, window["propensity"][kept], clip),
    )


class Calibration:
    """A rising map of scores: sigmoid(slope * logit(score) + offset), or steps between knots. Without knots or slope, the identity.

    State: knots (2, n) float64 of an isotonic map, or slope and offset.
    """

    parts = ("slope", "offset", "places", "values")

    def __init__(self) -> None:
        self.slope, self.offset = 1.0, 0.0
        self.places: list[float] = []
        self.values: list[float] = []

    def fit(self, kind: str, scores: Array, reward: Array, weight: Array) -> None:
        """Fit to scores (rows,) and what came, on rows that the model was not fitted to."""
        if kind == "platt":
            self.slope, self.offset = platt(scores, reward, weight)
        elif len(scores):
            from sklearn.isotonic import IsotonicRegression

            found = IsotonicRegression(out_of_bounds="clip").fit(scores, reward, sample_weight=weight)
            self.places, self.values = found.X_thresholds_.tolist(), found.y_thresholds_.tolist()

    def __call__(self, scores: Array) -> Array:
        """The calibrated scores."""
        if self.places:
            return numpy.interp(scores, self.places, self.values)
        if (self.slope, self.offset) == (1.0, 0.0):
            return scores
        return special.expit(self.slope * logit(scores) + self.offset)


def platt(scores: Array, reward: Array, weight: Array) -> tuple[float, float]:
    """(slope, offset) of the least log loss of sigmoid(slope logit(score) + offset), by Newton's steps; a weak pull towards (1, 0)."""
    columns = numpy.stack([logit(scores), numpy.ones(len(scores))])
    found, middle, pull = numpy.array([1.0, 0.0]), numpy.array([1.0, 0.0]), 1e-3
    for _ in range(NEWTON_STEPS):
        chance = special.expit(found @ columns)
        slope = columns @ (weight * (chance - reward)) + pull * (found - middle)
        curve = (columns * (weight * chance * (1.0 - chance))) @ columns.T + pull * numpy.eye(2)
        step = numpy.linalg.solve(curve, slope)
        found = found - step * min(1.0, 2.0 / max(abs(step).max(), 1e-12))
        if abs(step).max() < 1e-10:
            break
    return float(found[0]), float(found[1])


def logit(scores: Array) -> Array:
    """log(p / (1 - p)), of probabilities kept a millionth away from 0 and 1."""
    return special.logit(numpy.clip(scores, 1e-6, 1.0 - 1e-6))


def is_better(
    policy: Callable[[Array, Array], Array], current: Callable[[Array, Array], Array], window: Window, held: Array
) -> bool:
    """Whether the lower bound of a candidate's value is above the value of the current policy, on the rows `held` out."""
    rest = rows_of(window, ~held, "none", 1.0)
    actions = window["offered"].shape[1]
    judge: Model = Ridge().start(actions, 0)
    judge.fit(rest)
    x, offered = window["x"][held].astype(numpy.float64), numpy.ascontiguousarray(window["offered"][held].T)
    q, action, rows = judge.scores(x), window["action"][held], numpy.arange(int(held.sum()))
    reward, propensity = window["reward"][held], window["propensity"][held]

    def values(asked: Callable[[Array, Array], Array]) -> Tensor:
        chosen = asked(x, offered)
        weight, expected = chosen[action, rows] / propensity, (chosen * q).sum(axis=0)
        parts = numpy.ones(len(rows)), weight, reward, numpy.zeros(len(rows)), q[action, rows], expected
        return dr().ratios(Terms(*(torch.from_numpy(part).double() for part in parts)))[0][0]

    candidate, standing = values(policy), values(current)
    if len(candidate) < 2:
        return False
    lower = candidate.mean() - CONFIDENCE * candidate.std() / len(candidate) ** 0.5
    return bool(lower > standing.mean())
