"""Whether answers have become worse: ADWIN on their errors, heard only where the error has risen.

A learner's error falls as it learns, and ADWIN says so too: that is no alarm. Errors without bounds (of values, of rewards) are
scaled by the spread of the first ones and cut off at twice that spread, since ADWIN's bound is one for numbers in 0..1.
Reference: Bifet & Gavalda (2007), Learning from time-changing data with adaptive windowing, SDM.
"""

from collections.abc import Sequence

from everlearn.core.errors import ArgumentError, closest
from everlearn.measure.drift import ADWIN
from everlearn.measure.reading import Reading

SCALING = 100  # first errors, whose spread is the unit of the rest
MEASURES = {"accuracy": (1.0, -1.0), "error": (0.0, 1.0), "reward": (0.0, -1.0)}  # figure = a + b * error
BACK = 0.5  # of a rise: once the error is back by so much, the alarm is over


class ErrorRise:
    """Tells of a rise of the mean error. delta: ADWIN's bound on the probability of a false alarm per check.

    measure: what the figure is called and how it follows from the error: "accuracy" (errors 0 or 1), "error" or "reward" (minus the
    error). While an alarm lasts, a reading comes after each `window` answers.

    >>> rise = ErrorRise()
    >>> [len(rise.add([float(start >= 512)] * 32)) for start in range(0, 640, 32)].index(1) * 32
    512
    """

    parts = ("detector", "first", "low", "unit", "usual", "risen", "newest")

    def __init__(self, delta: float = 0.002, *, measure: str = "accuracy", window: int = 250):
        if measure not in MEASURES:
            raise ArgumentError(f"error_rise: {closest('measure', str(measure), MEASURES)}")
        self.delta = delta
        self.measure = measure
        self.window = window
        self.renew()

    def renew(self) -> None:
        """Begin anew, with nothing known of earlier errors."""
        self.detector = ADWIN(self.delta)
        self.first: list[float] = []
        self.low, self.unit = 0.0, 1.0 if self.measure == "accuracy" else 0.0  # unit 0: not known yet
        self._at_ease()

    def _at_ease(self) -> None:
        self.usual = 0.0  # mean error before the alarm
        self.risen = 0.0  # by how much it had risen then; 0 without an alarm
        self.newest: list[float] = []  # errors since

    def add(self, errors: Sequence[float]) -> list[Reading]:
        """Take errors in the order of their answers. Readings come with a rise, and then with each window until it is over."""
        if not self.unit:
            self.first += errors
            if len(self.first) < SCALING:
                return []
            self.low = min(self.first)
            self.unit = (max(self.first) - self.low) or 1.0
            errors, self.first = self.first, []
        if self.measure != "accuracy":
            errors = [min(max((error - self.low) / self.unit, -1.0), 2.0) for error in errors]
        readings: list[Reading] = []
        detector, update = self.detector, self.detector.update
        for error in errors:
            total, width = detector.total, detector.width
            if update(error) and not self.risen:
                readings += self._changed(total + error, width + 1)
            elif self.risen:
                readings += self._lasting(error)
        return readings

    def _changed(self, total: float, width: int) -> list[Reading]:
        """ADWIN says that the newest `width` errors, which sum to `total`, are not of one kind; where do they part, and which way?"""
        new_total, new_width = _newer_part(self.detector, total, width)
        usual, now = (total - new_total) / (width - new_width), new_total / new_width
        if now <= usual:
            return []
        self.usual, self.risen = usual, now - usual
        return [self._reading(now, new_width, True)]

    def _lasting(self, error: float) -> list[Reading]:
        """After each window of an alarm: whether the error is back."""
        self.newest.append(error)
        if len(self.newest) < self.window:
            return []
        mean, count, self.newest = sum(self.newest) / len(self.newest), len(self.newest), []
        reading = self._reading(mean, count, mean > self.usual + BACK * self.risen)
        if reading.calm:
            self._at_ease()
        return [reading]

    def _reading(self, mean: float, count: int, over: bool) -> Reading:
        value, limit = self._figure(mean), self._figure(self.usual)
        name = {"accuracy": "accuracy", "error": "mean absolute error", "reward": "mean reward"}[self.measure]
        told = f"{value:.3g} over the newest {count} answers, {limit:.3g} before"
        message = (
            f"Answers have become worse: {name} {told}. Look at these answers; consider going back to an earlier version."
        )
        return Reading(value, limit, message, over, not over)

    def _figure(self, error: float) -> float:
        shift, sign = MEASURES[self.measure]
        return shift + sign * (self.low + self.unit * error)


def _newer_part(detector: ADWIN, total: float, width: int) -> tuple[float, int]:
    """(sum, count) of what came after the change: of the cuts between buckets that ADWIN kept, the one that parts best.

    The cut of the greatest n0 n1 / (n0 + n1) (mean0 - mean1)^2, which is the likeliest one for a change of the mean.
    """
    sizes = [
        (sums[place], 2**level) for level, sums in reversed(list(enumerate(detector.totals))) for place in range(len(sums))
    ]
    best, found = -1.0, (detector.total, detector.width)
    new_total, new_width = 0.0, 0
    for bucket, length in reversed(sizes):
        new_total += bucket
        new_width += length
        old_width = width - new_width
        if old_width < 1:
            break
        apart = ((total - new_total) / old_width - new_total / new_width) ** 2 * old_width * new_width / width
        if new_width >= detector.min_window and apart > best:
            best, found = apart, (new_total, new_width)
    return found
