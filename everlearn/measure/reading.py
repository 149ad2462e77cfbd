"""What a watched figure says against its limit, and the memory that turns many such readings into one alarm.

A latch is set by the first reading beyond its limit and stays set until every reading of a moment is calm again, so a figure that
trembles about its limit, or stays beyond it, is told once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

CALM = 0.8  # of the limit: below, an alarm is over


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure, its limit, and what to look at. over: beyond the limit; calm: far enough on the good side to end an alarm."""

    value: float
    limit: float
    message: str
    over: bool
    calm: bool


def above(value: float, limit: float, message: str) -> Reading:
    """A reading of something that should stay small, limit >= 0.

    >>> [above(value, 1.0, "").over for value in (0.9, 1.1)], [above(value, 1.0, "").calm for value in (0.7, 0.9)]
    ([False, True], [True, False])
    """
    return Reading(value, limit, message, value > limit, value <= CALM * limit)


def below(value: float, limit: float, message: str) -> Reading:
    """A reading of something that should stay large, limit > 0.

    >>> below(0.1, 0.2, "").over, below(0.22, 0.2, "").calm, below(0.25, 0.2, "").calm
    (True, False, True)
    """
    return Reading(value, limit, message, value < limit, value >= limit / CALM)


class Latch:
    """Tells an alarm once. `since` counts the moments with readings since it was set.

    >>> latch = Latch()
    >>> [latch(readings) is not None for readings in ([above(2.0, 1.0, "")], [above(3.0, 1.0, "")], [above(0.5, 1.0, "")])]
    [True, False, False]
    >>> latch.set
    False
    """

    parts = ("set", "since")

    def __init__(self) -> None:
        self.set = False
        self.since = 0

    def __call__(self, readings: Sequence[Reading]) -> Reading | None:
        """The reading to tell, None where there is nothing new. No readings leave everything as it was."""
        if not readings:
            return None
        if self.set:
            self.since += 1
            self.set = not all(reading.calm for reading in readings)
            return None
        worst = next((reading for reading in readings if reading.over), None)
        self.set, self.since = worst is not None, 0
        return worst

    def clear(self) -> None:
        """Forget that an alarm was told."""
        self.set, self.since = False, 0
