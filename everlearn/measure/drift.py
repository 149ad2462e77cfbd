"""Detectors of change in a stream of numbers, and the score of their alarms. For errors, 1 means a wrong answer and 0 a right one.

ADWIN keeps a window of the newest values as an exponential histogram and raises an alarm where two parts of it differ:

    |mean0 - mean1| > sqrt(2 m v log(2 ln(n) / delta)) + 2/3 m log(2 ln(n) / delta),   m = 1/n0 + 1/n1

with v the window's variance and n its length. Page-Hinkley sums deviations from the running mean. Both give the alarms of River
0.26, index by index: after an alarm a detector starts anew. `every_n` sees nothing and alarms anyway: one that does not
beat it is of no use. State is JSON scalars.
Reference: Bifet & Gavalda (2007), Learning from time-changing data with adaptive windowing, SDM. Page (1954), Biometrika 41.
"""

from collections.abc import Sequence
from math import log, sqrt
from typing import Any, Protocol

from everlearn.core.errors import ArgumentError, InputError, check_count, check_range, closest
from everlearn.core.spec import describe


class Detector(Protocol):
    """What looks at one number at a time and says whether the stream has changed; `parts` are its state."""

    name: str
    parts: tuple[str, ...]

    def update(self, value: float) -> bool: ...


class ADWIN:
    """Adaptive windowing: O(log n) memory, a check every `clock` values.

    delta: bound on the probability of a false alarm per check; clock: values between checks; max_buckets: buckets of each
    size before two are merged; min_window: least length of either part; grace: no check before the window is longer.
    The defaults are River's.

    >>> detector = ADWIN()
    >>> [step for step in range(400) if detector.update(float(step >= 200))]
    [223]
    """

    name = "adwin"
    parts = ("totals", "variances", "total", "variance", "width", "tick", "alarmed")

    def __init__(self, delta: float = 0.002, *, clock: int = 32, max_buckets: int = 5, min_window: int = 5, grace: int = 10):
        check_range(self.name, "delta", delta, 1e-300, 1.0)
        check_count(self.name, "clock", clock)
        check_count(self.name, "max_buckets", max_buckets, low=2)
        check_count(self.name, "min_window", min_window)
        check_count(self.name, "grace", grace, low=0)
        self.delta = delta
        self.clock = clock
        self.max_buckets = max_buckets
        self.min_window = min_window
        self.grace = grace
        self._start()

    def _start(self) -> None:
        # totals[level] holds the sums of buckets of 2**level values, the oldest first; variances their sums of squared deviations
        self.totals: list[list[float]] = [[]]
        self.variances: list[list[float]] = [[]]
        self.total = 0.0
        self.variance = 0.0  # sum of squared deviations of the window
        self.width = 0
        self.tick = 0
        self.alarmed = False

    @property
    def mean(self) -> float:
        """The mean of the window, 0 while it is empty."""
        return self.total / self.width if self.width else 0.0

    def update(self, value: float) -> bool:
        """Take one value; True where the stream has changed. Raises InputError where it is not a finite number."""
        value = _finite(self.name, value)
        if self.alarmed:
            self._start()
        if self.width:
            deviation = value - self.total / self.width
            self.variance += self.width * deviation * deviation / (self.width + 1.0)
        self.width += 1
        self.total += value
        self.totals[0].append(value)
        self.variances[0].append(0.0)
        if len(self.totals[0]) > self.max_buckets:
            self._merge()
        self.tick += 1
        if self.tick % self.clock == 0 and self.width > self.grace:
            while self._cut():
                self.alarmed = True
        return self.alarmed

    def _merge(self) -> None:
        """Where a level is full, its two oldest buckets become one of the next level."""
        level = 0
        while level < len(self.totals) and len(self.totals[level]) > self.max_buckets:
            if level + 1 == len(self.totals):
                self.totals.append([])
                self.variances.append([])
            length = 2.0**level
            first, second = self.totals[level][:2]
            between = length * length * (first / length - second / length) ** 2 / (length + length)
            self.totals[level + 1].append(first + second)
            self.variances[level + 1].append(sum(self.variances[level][:2]) + between)
            del self.totals[level][:2], self.variances[level][:2]
            level += 1

    def _cut(self) -> bool:
        """Try every cut between buckets, the oldest first; where the two sides differ, drop the oldest bucket."""
        spread = log(2.0 * log(self.width) / self.delta)
        variance = max(0.0, self.variance) / self.width  # differences of large sums may leave it a little below zero
        old, new = 0.0, float(self.width)
        old_total, new_total = 0.0, self.total
        for level in range(len(self.totals) - 1, -1, -1):
            length = 2.0**level
            totals = self.totals[level]
            for index in range(len(totals)):
                old += length
                new -= length
                old_total += totals[index]
                new_total -= totals[index]
                if level == 0 and index == len(totals) - 1:
                    return False
                if old < self.min_window or new < self.min_window:
                    continue
                scale = 1.0 / (old - self.min_window + 1.0) + 1.0 / (new - self.min_window + 1.0)
                bound = sqrt(2.0 * scale * variance * spread) + 2.0 / 3.0 * spread * scale
                if abs(old_total / old - new_total / new) > bound:
                    self._drop()
                    return True
        return False

    def _drop(self) -> None:
        """Forget the oldest bucket."""
        level = len(self.totals) - 1
        length = 2.0**level
        total, variance = self.totals[level].pop(0), self.variances[level].pop(0)
        self.width -= 2**level
        self.total -= total
        difference = total / length - self.total / self.width
        self.variance -= variance + length * self.width * difference * difference / (length + self.width)
        if not self.totals[level]:
            self.totals.pop()
            self.variances.pop()

    def __repr__(self) -> str:
        return describe(self)


class PageHinkley:
    """Page-Hinkley: an alarm where the sum of deviations from the running mean has risen (or fallen) by more than `threshold`.

    threshold: in units of the values; delta: drift per step that is tolerated; alpha: forgetting of the sum; minimum: values
    before the first alarm; mode: "up", "down" or "both". The defaults are River's.

    >>> detector = PageHinkley(threshold=5.0)
    >>> [step for step in range(120) if detector.update(float(step >= 100))]
    [105]
    """

    name = "page_hinkley"
    parts = ("count", "mean", "rise", "fall", "lowest", "highest", "alarmed")
    MODES = ("up", "down", "both")

    def __init__(
        self,
        threshold: float = 50.0,
        *,
        delta: float = 0.005,
        alpha: float = 0.9999,
        minimum: int = 30,
        mode: str = "both",
    ):
        check_range(self.name, "threshold", threshold, 0.0)
        check_range(self.name, "delta", delta, 0.0)
        check_range(self.name, "alpha", alpha, 0.0, 1.0)
        check_count(self.name, "minimum", minimum)
        if mode not in self.MODES:
            raise ArgumentError(f"{self.name}: {closest('mode', str(mode), self.MODES)}")
        self.threshold = threshold
        self.delta = delta
        self.alpha = alpha
        self.minimum = minimum
        self.mode = mode
        self._start()

    def _start(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.rise = 0.0
        self.fall = 0.0
        self.lowest = 0.0
        self.highest = -1.0  # where River's starts too, so that the alarms agree
        self.alarmed = False

    def update(self, value: float) -> bool:
        """Take one value; True where the stream has changed. Raises InputError where it is not a finite number."""
        value = _finite(self.name, value)
        if self.alarmed:
            self._start()
        self.count += 1
        self.mean += (1.0 / self.count) * (value - self.mean)
        deviation = value - self.mean
        self.rise = self.alpha * self.rise + deviation - self.delta
        self.fall = self.alpha * self.fall + deviation + self.delta
        self.lowest = self.rise if self.count == 1 else min(self.lowest, self.rise)
        self.highest = max(self.highest, self.fall)
        if self.count >= self.minimum:
            up = self.mode != "down" and self.rise - self.lowest > self.threshold
            down = self.mode != "up" and self.highest - self.fall > self.threshold
            self.alarmed = up or down
        return self.alarmed

    def __repr__(self) -> str:
        return describe(self)


class Every:
    """An alarm after every `n` values, whatever they are: the dummy that a real detector has to beat.

    >>> detector = Every(3)
    >>> [step for step in range(8) if detector.update(0.0)]
    [2, 5]
    """

    name = "every_n"
    parts = ("count",)

    def __init__(self, n: int = 1000):
        check_count(self.name, "n", n)
        self.n = n
        self.count = 0

    def update(self, value: float) -> bool:
        """Count one value; True for every n-th. Raises InputError where it is not a finite number."""
        _finite(self.name, value)
        self.count = (self.count + 1) % self.n
        return self.count == 0

    def __repr__(self) -> str:
        return describe(self)


DETECTORS = {"adwin": ADWIN, "page_hinkley": PageHinkley, "every_n": Every}


def score_alarms(alarms: Sequence[int], changes: Sequence[int], length: int, tolerance: int) -> dict[str, Any]:
    """Judge alarms against known changes, all of them step numbers in a stream of `length` steps.

    A change at step c is found by the first alarm in c..c + tolerance that comes before the next change. Every other alarm is
    false: one that comes too early, too late, or that reports the same change a second time.

    Returns found: the number of changes found; delay: mean steps from a change to the alarm that found it (None where none
    was found); false_per_1000: false alarms per 1,000 steps.

    >>> score_alarms([90, 105, 130, 400], changes=[100, 300], length=500, tolerance=50)
    {'found': 1, 'delay': 5.0, 'false_per_1000': 6.0}
    """
    check_count("score_alarms", "length", length)
    check_count("score_alarms", "tolerance", tolerance, low=0)
    rising, known = sorted(alarms), sorted(set(changes))
    outside = [step for step in (*rising, *known) if not 0 <= step < length]
    if outside:
        raise ArgumentError(f"score_alarms: steps must lie in 0..{length - 1} for length={length}, got {outside[0]}.")
    delays = []
    for change, following in zip(known, [*known[1:], length], strict=False):
        end = min(change + tolerance, following - 1)
        first = next((alarm for alarm in rising if change <= alarm <= end), None)
        if first is not None:
            delays.append(first - change)
    return {
        "found": len(delays),
        "delay": sum(delays) / len(delays) if delays else None,
        "false_per_1000": 1000.0 * (len(rising) - len(delays)) / length,
    }


def _finite(owner: str, value: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if number - number != 0.0:  # true of NaN and of both infinities
        raise InputError(f"{owner}: update takes one finite number (1 for an error, 0 for a right answer), got {value!r}.")
    return number
