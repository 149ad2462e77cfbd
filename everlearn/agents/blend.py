"""What a bandit expects of actions: the newest fit of its oracle, calibrated, with older fits beside it.

    f = sum_j mix^j f_j / sum_j mix^j        over the newest fit (j = 0) and those before it that still count

An exponential mean over periods damps the swings of policies that are each fitted to the log of the one before.
Reference: Vangara & Egg (2024), arXiv 2412.00569 (oscillation).
"""

import math

import numpy

from everlearn.agents.fitting import Calibration
from everlearn.agents.oracles import Array, Model, Oracle

FORGOTTEN = 0.05  # a fit whose weight relative to the newest is below this is let go


class Blend:
    """State: models and calibrations, the newest first, and how many of them were fitted."""

    parts = ("models", "calibrations", "fits")

    def __init__(self, oracle: Oracle, actions: int, mix: float, clipped: bool, seed: int):
        depth = 1 if mix == 0.0 else math.ceil(math.log(FORGOTTEN) / math.log(mix))
        self.mix, self.clipped = mix, clipped
        self.models: list[Model] = [oracle.start(actions, seed) for _ in range(depth)]
        self.calibrations = [Calibration() for _ in range(depth)]
        self.fits = 0

    @property
    def newest(self) -> Model:
        """The model that was fitted last, and that learns online."""
        return self.models[0]

    def push(self, model: Model, calibration: Calibration) -> None:
        """A new fit; the oldest goes."""
        self.models = [model, *self.models[:-1]]
        self.calibrations = [calibration, *self.calibrations[:-1]]
        self.fits += 1

    def scores(self, x: Array) -> Array:
        """(actions, rows) of what is expected, of x (rows, columns) float64."""
        known = max(min(self.fits, len(self.models)), 1)
        share = numpy.array([self.mix**age for age in range(known)])
        share /= share.sum()
        total = share[0] * self.calibrations[0](self.models[0].scores(x))
        for age in range(1, known):
            total = total + share[age] * self.calibrations[age](self.models[age].scores(x))
        return numpy.clip(total, 0.0, 1.0) if self.clipped else total

    def alone(self, model: Model, calibration: Calibration, x: Array) -> Array:
        """(actions, rows) of what one model expects."""
        scores = calibration(model.scores(x))
        return numpy.clip(scores, 0.0, 1.0) if self.clipped else scores
