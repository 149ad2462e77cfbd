"""When to fit a model anew: policies that a learner asks after each batch.

    every(n)             n rows have come since the last fit
    grown(factor)        the rows seen are `factor` times those of the last fit (so re-fitting costs O(rows) in all)
    on_drift(detector)   the detector raises an alarm on the errors made
    never()              not at all

`due(rows_seen, error)` answers once per batch, and where it says yes it counts the fit as made. A policy has state (`parts`),
so a learner takes a `fresh()` one of the same settings for itself.
"""

from copy import deepcopy
from typing import Any, Self

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.spec import describe


class Every:
    """Re-fit after every n rows; the first fit comes after n rows too.

    >>> policy = Every(100)
    >>> [policy.due(rows, None) for rows in (60, 120, 180, 240)]
    [False, True, False, True]
    """

    name = "every"
    parts = ("fitted",)
    needs_error = False

    def __init__(self, n: int):
        check_count(self.name, "n", n)
        self.n = n
        self.fitted = 0  # rows seen at the last fit

    def due(self, rows_seen: int, error: float | None) -> bool:
        """Whether to fit now. rows_seen: rows since the beginning; error: not used."""
        ripe = rows_seen - self.fitted >= self.n
        if ripe:
            self.fitted = rows_seen
        return ripe

    def fresh(self) -> Self:
        """The same policy with nothing seen."""
        return type(self)(self.n)

    def __repr__(self) -> str:
        return describe(self)


class Grown:
    """Re-fit whenever the data has grown by a factor; the first rows are fitted at once.

    The fits of N rows in all cost at most N * factor / (factor - 1) rows per epoch: 3 N at 1.5, 11 N at 1.1.

    >>> policy = Grown(2.0)
    >>> [policy.due(rows, None) for rows in (10, 19, 20, 39, 45, 89)]
    [True, False, True, False, True, False]
    """

    name = "grown"
    parts = ("fitted",)
    needs_error = False

    def __init__(self, factor: float):
        check_range(self.name, "factor", factor, 1.0, fix="Use every(1) to fit after each batch.")
        self.factor = factor
        self.fitted = 0  # rows seen at the last fit

    def due(self, rows_seen: int, error: float | None) -> bool:
        """Whether to fit now. rows_seen: rows since the beginning; error: not used."""
        ripe = rows_seen > self.fitted and rows_seen >= self.factor * self.fitted
        if ripe:
            self.fitted = rows_seen
        return ripe

    def fresh(self) -> Self:
        """The same policy with nothing seen."""
        return type(self)(self.factor)

    def __repr__(self) -> str:
        return describe(self)


class Never:
    """Do not fit anew.

    >>> Never().due(1_000_000, 1.0)
    False
    """

    name = "never"
    parts = ()
    needs_error = False

    def due(self, rows_seen: int, error: float | None) -> bool:
        """False."""
        return False

    def fresh(self) -> Self:
        """The same policy."""
        return type(self)()

    def __repr__(self) -> str:
        return describe(self)


class OnDrift:
    """Re-fit when a drift detector raises an alarm, and once at the start.

    detector: an object with `update(error: float) -> bool` (True is an alarm) and `parts`; it is told the share of wrong answers
    in each batch, 0..1, from the first fit on. first: rows before the first fit, without which no answer means anything.

    >>> class Jump:
    ...     parts = ()
    ...     def update(self, error):
    ...         return error > 0.5
    >>> policy = OnDrift(Jump(), first=20)
    >>> [policy.due(rows, error) for rows, error in ((10, 0.9), (20, 0.9), (30, 0.1), (40, 0.8))]
    [False, True, False, True]
    """

    name = "on_drift"
    parts = ("detector", "fitted")
    needs_error = True

    def __init__(self, detector: Any, *, first: int = 200):
        check_count(self.name, "first", first)
        if not callable(getattr(detector, "update", None)) or not isinstance(getattr(detector, "parts", None), tuple):
            raise ArgumentError(
                f"on_drift: detector must have update(error) -> bool and parts, got {type(detector).__name__}. "
                "Use a detector such as adwin()."
            )
        self.detector = deepcopy(detector)
        self.first = first
        self.fitted = 0  # rows seen at the last fit
        self._untouched = deepcopy(detector)

    def due(self, rows_seen: int, error: float | None) -> bool:
        """Whether to fit now. rows_seen: rows since the beginning; error: wrong answers among this batch, as a share, 0..1.

        Raises ArgumentError where error is None: this policy cannot tell without it.
        """
        if error is None:
            raise ArgumentError("on_drift: error must be the share of wrong answers in the batch, got None.")
        alarm = rows_seen >= self.first if self.fitted == 0 else bool(self.detector.update(error))
        if alarm:
            self.fitted = rows_seen
        return alarm

    def fresh(self) -> Self:
        """The same policy with a detector that has seen nothing."""
        return type(self)(self._untouched, first=self.first)

    def __repr__(self) -> str:
        return describe(self)


Refit = Every | Grown | Never | OnDrift
REFIT = {"every": Every, "grown": Grown, "never": Never, "on_drift": OnDrift}
