"""Plain descent on a noisy quadratic, whose moments are known exactly: what a rate does to a loss, without a network and without luck.

    loss on a task   h/2 (theta - t)^2,   gradient h (theta - t) + noise of variance s^2,   theta has mean m and variance v
    a step           m <- m - eta h (m - t),   v <- (1 - eta h)^2 v + eta^2 s^2
    expected loss    h/2 ((m - t)^2 + v)
    at one rate      eta s^2 / (2 (2 - eta h)) in the end, so that raising a rate raises the loss, even where no task changes

Reference: Mandt, Hoffman & Blei (2017), Stochastic gradient descent as approximate Bayesian inference, JMLR 18, arXiv 1704.04289.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from everlearn.core.errors import ArgumentError


@dataclass(frozen=True)
class NoisyQuadratic:
    """A quadratic with its minimum at `target`. curvature: h, above 0; noise: standard deviation s of the gradient.

    >>> task = NoisyQuadratic()
    >>> [round(task.stationary(rate), 7) for rate in (0.1, 0.025, 0.001)]
    [0.0263158, 0.0063291, 0.0002501]
    """

    target: float = 0.0
    curvature: float = 1.0
    noise: float = 1.0

    def __post_init__(self) -> None:
        if not self.curvature > 0.0 or not self.noise >= 0.0:
            raise ArgumentError(
                f"noisy_quadratic: curvature must be above 0 and noise at least 0, got curvature={self.curvature!r} and "
                f"noise={self.noise!r}."
            )

    def loss(self, mean: float, variance: float) -> float:
        """The expected loss of weights with this mean and variance."""
        return 0.5 * self.curvature * ((mean - self.target) ** 2 + variance)

    def stationary(self, rate: float) -> float:
        """The expected loss that descent at one rate comes to. Raises ArgumentError where it comes to none (rate * h of 2 or more)."""
        if not 0.0 <= rate * self.curvature < 2.0:
            raise ArgumentError(f"noisy_quadratic: descent diverges unless rate * curvature is below 2, got rate={rate!r}.")
        return 0.5 * rate * self.noise**2 / (2.0 - rate * self.curvature)

    def descend(self, mean: float, variance: float, rates: Sequence[float]) -> list[tuple[float, float]]:
        """(mean, variance) after each step at these rates.

        >>> NoisyQuadratic().descend(5.0, 0.0, [0.5, 0.5])
        [(2.5, 0.25), (1.25, 0.3125)]
        """
        states = []
        for rate in rates:
            mean -= rate * self.curvature * (mean - self.target)
            variance = (1.0 - rate * self.curvature) ** 2 * variance + (rate * self.noise) ** 2
            states.append((mean, variance))
        return states
