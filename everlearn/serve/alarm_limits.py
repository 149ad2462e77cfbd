"""The limits of a server's alarms as one value, `alarms(psi=0.25, freeze=("performance",))` in call strings, and the kinds there are."""

import math
from dataclasses import dataclass
from typing import ClassVar

from everlearn.core.errors import ArgumentError, check_count, check_range, closest
from everlearn.core.spec import describe
from everlearn.serve.records import Alarm

OBSERVED = (
    "input_drift", "output_drift", "performance", "label_delay", "missing_labels", "update_norm", "plasticity", "propensity",
    "not_finite",
)  # fmt: skip
KINDS = (*OBSERVED, "lag", "queue", "early")
ADOPTED = {
    "input_drift": ("columns", "kernel"), "output_drift": ("answers",), "performance": ("errors",),
    "label_delay": ("delays",), "missing_labels": ("missing",),
}  # fmt: skip
FEATURES = ("network", "input")


@dataclass(frozen=True)
class Alarms:
    """The limits of a server's alarms. None switches a limit off, and with all of its limits a kind of alarm.

    psi, ks: least distance of a column that matters; mmd: of rows that are images or have more than 256 columns; features: "network"
    compares them as the model sees them, "input" by a fixed projection; output: PSI of the shares of answers; entropy: rise of the
    mean entropy, as a part of a blind guess's; performance: ADWIN's delta; delay: times the usual delay; delay_seconds: a limit of its
    own; missing: part of the usual answers that fail to come; update: times the median step; plasticity: share of active units;
    propensity: least probability of an action taken; effective: effective share of the decisions; not_finite: True;
    lag: seconds that an answer waits to be learned from; queue: share of its limit; early: seconds that an answer waits for its prediction.
    freeze: kinds that stop learning. reference, window: rows; warm: first answers of a young model, not judged for drift;
    adopt: windows after which what has changed for good is the new normal, None for never; level: chance of a false alarm per test.

    >>> Alarms(psi=0.5, freeze=("performance",))
    alarms(psi=0.5, freeze=('performance',))
    """

    psi: float | None = 0.25
    ks: float | None = None
    mmd: float | None = 0.02
    output: float | None = 0.25
    entropy: float | None = 0.15
    performance: float | None = 0.002
    delay: float | None = 3.0
    delay_seconds: float | None = None
    missing: float | None = 0.3
    update: float | None = 10.0
    plasticity: float | None = 0.2
    propensity: float | None = 0.001
    effective: float | None = 0.05
    not_finite: bool | None = True
    lag: float | None = 600.0
    queue: float | None = 0.8
    early: float | None = 900.0
    freeze: tuple[str, ...] = ()
    features: str = "network"
    reference: int = 1000
    window: int = 250
    warm: int = 2000
    adopt: int | None = 10
    level: float = 1e-4
    name: ClassVar[str] = "alarms"

    def __post_init__(self) -> None:
        for argument in ("psi", "output", "delay_seconds", "lag", "early"):
            self._check(argument)
        for argument in ("delay", "update"):
            self._check(argument, low=1.0)
        for argument in ("ks", "entropy", "missing", "plasticity", "propensity", "effective", "queue"):
            self._check(argument, high=1.0)
        self._check("mmd", high=2.0)
        self._check("performance", low=1e-300, high=1.0)
        check_range(self.name, "level", self.level, 1e-300, 1.0)
        check_count(self.name, "window", self.window, low=20)
        check_count(self.name, "reference", self.reference, low=self.window, fix="It may not be shorter than the window.")
        check_count(self.name, "warm", self.warm, low=0)
        if self.adopt is not None:
            check_count(self.name, "adopt", self.adopt)
        if self.not_finite not in (True, False, None):
            raise ArgumentError(f"{self.name}: not_finite must be True or None, got {self.not_finite!r}.")
        if self.features not in FEATURES:
            raise ArgumentError(f"{self.name}: features must be one of {', '.join(FEATURES)}, got {self.features!r}.")
        if not isinstance(self.freeze, (tuple, list)):
            raise ArgumentError(f"{self.name}: freeze must be kinds such as ('performance',), got {self.freeze!r}.")
        for kind in self.freeze:
            if kind not in KINDS:
                raise ArgumentError(f"{self.name}: freeze: {closest('kind', str(kind), KINDS)}")
        object.__setattr__(self, "freeze", tuple(self.freeze))

    def _check(self, argument: str, low: float = 0.0, high: float = math.inf) -> None:
        if getattr(self, argument) is not None:
            check_range(self.name, argument, getattr(self, argument), low, high, "None switches it off.")

    def stops(self, alarm: Alarm) -> bool:
        """Whether learning is to stop at this alarm."""
        return alarm.kind in self.freeze

    def __repr__(self) -> str:
        return describe(self)
