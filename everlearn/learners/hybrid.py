"""Two forecasters in turn: one that is fitted again and again, and one that bridges the time after a change.

    usual answer: `refitted`.   After an alarm: `bridge`, until `refitted` has been fitted since and its error over the last
    `trailing` rows is below that of `bridge`.

Fitting again needs rows from after a change; a network that adapts through its input alone does not. The alarms are those of a drift
detector on the absolute error of `refitted`, as a share of the mean size of the answers so far.
Reference: Ayoub et al. (2024), arXiv 2404.05304 (proposed as an outlook; the rule of return is ours).
"""

from copy import deepcopy
from typing import Any

from torch import Tensor

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.learner import Learner
from everlearn.measure.drift import ADWIN, Detector

TINY = 1e-12


class Hybrid(Learner):
    """Answers as `refitted` does, and after an alarm as `bridge` does until `refitted` is the better one again.

    bridge, refitted: learners of values, `forecaster(cfc())` and `forecaster(dense(), refit=every(36))` say; the second must count its
    fits (`forecaster` and `boosted` do). detector: tells of a change; trailing: rows over which their errors are compared.
    Raises ArgumentError for learners that give no values.

    >>> from everlearn.learners.forecaster import Forecaster
    >>> from everlearn.nn.series import CfC
    >>> from everlearn.optim.refit import Every
    >>> learner = Hybrid(Forecaster(CfC()), Forecaster(refit=Every(36)))
    >>> learner.bridging
    False
    """

    name = "hybrid"
    parts = ("bridge", "refitted", "detector", "errors", "alarmed_fits", "size", "rows")
    gives = ("values",)

    def __init__(
        self, bridge: Learner, refitted: Learner, *, detector: Detector | None = None, trailing: int = 12, seed: int = 0
    ):
        for argument, given in (("bridge", bridge), ("refitted", refitted)):
            if not isinstance(given, Learner) or "values" not in given.gives:
                raise ArgumentError(
                    f"{self.name}: {argument} must be a learner of values such as forecaster(), got {given!r}."
                )
        if not isinstance(getattr(refitted, "fits", None), int):
            raise ArgumentError(
                f"{self.name}: refitted must count its fits, as forecaster(refit=every(36)) does, got {refitted!r}."
            )
        check_count(self.name, "trailing", trailing)
        self.bridge = bridge
        self.refitted = refitted
        self.detector = deepcopy(ADWIN() if detector is None else detector)
        self.trailing = trailing
        self.seed = seed
        self.errors: list[list[float]] = []  # [of bridge, of refitted] of the newest rows
        self.alarmed_fits = -1  # fits of `refitted` at the alarm; -1 while none is open
        self.size = 0.0  # sum over rows of the mean |y|
        self.rows = 0

    @property
    def bridging(self) -> bool:
        """Whether `bridge` answers now."""
        return self.alarmed_fits >= 0

    def predict(self, x: X) -> Tensor:
        return (self.bridge if self.bridging else self.refitted).predict(x)

    def update(self, batch: Batch) -> Metrics:
        told = isinstance(batch, Batch) and isinstance(batch.y, Tensor) and batch.y.dim() == 2
        pair = [learner.predict(batch.x) for learner in (self.bridge, self.refitted)] if told else []
        fitted = self.refitted.fits > 0  # whether the forecasts are those of a fit
        metrics: dict[str, Any] = {**self.bridge.update(batch), **self.refitted.update(batch)}
        if not pair:
            return metrics
        off = [(answer - batch.y).abs().mean(dim=1).tolist() for answer in pair]
        self.errors = [*self.errors, *map(list, zip(*off, strict=True))][-self.trailing :]
        self._watch(off[1] if fitted else [], batch.y)
        return metrics | {"bridging": self.bridging}

    def _watch(self, errors: list[float], y: Tensor) -> None:
        """Open a bridge at an alarm, and close it where `refitted` was fitted since and is the better one."""
        self.size += float(y.abs().mean(dim=1).double().sum())
        self.rows += len(y)
        usual = max(self.size / self.rows, TINY)
        alarm = False
        for error in errors:
            alarm |= bool(self.detector.update(error / usual))
        if alarm:
            self.alarmed_fits = self.refitted.fits
        elif self.bridging and self.refitted.fits > self.alarmed_fits:
            bridge, refitted = (sum(row[place] for row in self.errors) for place in (0, 1))
            if refitted < bridge:
                self.alarmed_fits = -1

    def boundary(self, boundary: Boundary) -> None:
        self.bridge.boundary(boundary)
        self.refitted.boundary(boundary)
