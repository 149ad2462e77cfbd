"""Schedules: how a factor moves with the number of steps.

    CosineCycle   v(i) = (high - low) / 2 * (1 - cos(2 pi i / period)) + low        up and down again, for ever
    cosine_decay  v(share) = (1 + cos(pi share)) / 2                                from 1 down to 0, once

Reference: Loshchilov & Hutter (2017), SGDR: stochastic gradient descent with warm restarts, arXiv 1608.03983.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.spec import describe


@dataclass(frozen=True, repr=False)
class CosineCycle:
    """From low (at step 0) to high (at half a period) and back, again and again.

    >>> cycle = CosineCycle(low=0.5625, high=1.8, period=500)
    >>> [round(cycle(index), 5) for index in (0, 125, 250, 500)]
    [0.5625, 1.18125, 1.8, 0.5625]
    """

    low: float
    high: float
    period: int
    name: ClassVar[str] = "cosine_cycle"

    def __post_init__(self) -> None:
        check_count(self.name, "period", self.period)
        if not -math.inf < self.low <= self.high < math.inf:
            raise ArgumentError(f"cosine_cycle: low must be at most high, got low={self.low!r} and high={self.high!r}.")

    def __call__(self, index: int) -> float:
        """The value at a step."""
        return (self.high - self.low) * 0.5 * (1.0 - math.cos(2.0 * math.pi * index / self.period)) + self.low

    def __repr__(self) -> str:
        return describe(self)


def cosine_decay(share: float) -> float:
    """What is left of a rate after a share 0..1 of the way.

    >>> [cosine_decay(0.0), round(cosine_decay(0.5), 6), cosine_decay(1.0)]
    [1.0, 0.5, 0.0]
    """
    return 0.5 * (1.0 + math.cos(math.pi * share))
