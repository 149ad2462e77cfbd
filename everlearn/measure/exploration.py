"""Whether a policy still tries things: the least probability of an action taken, and the effective sample size of its log.

    effective = (sum_i w_i)^2 / (n sum_i w_i^2),    w_i = 1 / propensity_i      1 where all are equal, 1/n where one row outweighs all

Off-policy estimates from a log with rare actions of tiny probability have a variance that no amount of such rows mends.
Reference: Kong (1992), A note on importance sampling using standardized weights. Owen (2013), Monte Carlo theory, ch. 9.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from everlearn.measure.reading import Reading, below


def effective_size(weights: Tensor) -> float:
    """The number of rounds of equal weight that (rows,) importance weights are worth; 0 where all are 0.

    >>> round(effective_size(torch.tensor([1.8, 0.2, 0.2, 0.75], dtype=torch.float64)), 6)
    2.241468
    """
    weights = weights.double()
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares > 0.0 else 0.0


def effective_share(weights: Sequence[float]) -> float:
    """The effective sample size of importance weights as a share 0..1 of their number.

    >>> effective_share([1.0, 1.0]), effective_share([1.0, 3.0])
    (1.0, 0.8)
    """
    return effective_size(torch.tensor(weights, dtype=torch.float64)) / len(weights)


class Exploration:
    """Watches propensities window by window. least: the smallest that is tolerated; effective: the smallest effective share."""

    parts = ("propensities", "figures")

    def __init__(self, *, least: float | None = 0.001, effective: float | None = 0.05, window: int = 250):
        self.least = least
        self.effective = effective
        self.window = window
        self.propensities: list[float] = []
        self.figures: list[float] = []  # (least, effective share) of the last full window

    def add(self, propensities: Iterable[float]) -> list[Reading]:
        """Take propensities of actions as they were chosen. Readings come with each full window."""
        self.propensities += propensities
        readings: list[Reading] = []
        while len(self.propensities) >= self.window:
            newest, self.propensities = self.propensities[: self.window], self.propensities[self.window :]
            readings += self._read(newest)
        return readings

    def _read(self, newest: Sequence[float]) -> list[Reading]:
        smallest = min(newest)
        share = effective_share([1.0 / value for value in newest]) if smallest > 0.0 else 0.0
        self.figures = [smallest, share]
        advice = "Look at the policy's exploration: a floor under its probabilities keeps what it logs of use."
        readings = []
        if self.least is not None:
            told = f"an action was taken with probability {smallest:.3g} (limit {self.least:.3g})"
            readings.append(below(smallest, self.least, f"Exploration is failing: {told}. {advice}"))
        if self.effective is not None:
            told = f"{self.window} decisions are worth {share:.1%} of that number for estimates (limit {self.effective:.1%})"
            readings.append(below(share, self.effective, f"Exploration is failing: {told}. {advice}"))
        return readings
