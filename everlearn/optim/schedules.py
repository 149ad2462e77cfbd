"""Schedules: how a rate, or a factor, moves with the number of steps. Each is a pure function of the step n = 0, 1, 2, ...

    infinite         eta_max n / N_w                                     until N_w    warm-up
                     eta_const + (eta_max - eta_const) cool(p)           until N_c    cool-down, p = (n - N_w) / (N_c - N_w)
                     eta_const                                           until N_d    as long as wanted
                     eta_const (eta_min / eta_const)^p                   until N_e    annealing, p = (n - N_d) / (N_e - N_d)
    wsd              infinite without a cool-down: warm-up, stable, decay
    repeated_cosine  in each phase: warm-up from 0, half a cosine down
    inverse_sqrt     warm-up, then eta_max sqrt(N_w / n)
    cosine_cycle     (high - low) / 2 (1 - cos(2 pi n / period)) + low   up and down again, for ever

What a cool-down, an annealing or a decay may look like stands in `optim.shapes`, schedules made of schedules in `optim.composed`.
`optim.rates` turns a schedule into a scheduler for any optimiser.

References: Singh et al. (2025), Beyond cosine decay, CoLLAs, arXiv 2503.02844. Ibrahim et al. (2024), Simple and scalable strategies to
continually pre-train large language models, TMLR, arXiv 2403.08763. Loshchilov & Hutter (2017), SGDR, arXiv 1608.03983.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.spec import Described
from everlearn.optim.composed import Join, Product, Restarted, Scaled, Schedule
from everlearn.optim.shapes import ANNEALS, COOLDOWNS, SHAPES, check_shape, cosine_decay

__all__ = [
    "SCHEDULES", "Constant", "CosineCycle", "Decay", "Infinite", "InverseSqrt", "Join", "Product", "RepeatedCosine", "Restarted",
    "Scaled", "Schedule", "Warmup", "wsd",
]  # fmt: skip


@dataclass(frozen=True, repr=False)
class CosineCycle(Described):
    """From low (at step 0) to high (at half a period) and back, again and again.

    >>> cycle = CosineCycle(low=0.5625, high=1.8, period=500)
    >>> [round(cycle(step), 5) for step in (0, 125, 250, 500)]
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

    def __call__(self, step: int) -> float:
        """The value at a step."""
        return (self.high - self.low) * 0.5 * (1.0 - math.cos(2.0 * math.pi * step / self.period)) + self.low


@dataclass(frozen=True, repr=False)
class Constant(Described):
    """One value for ever."""

    value: float
    name: ClassVar[str] = "constant"

    def __post_init__(self) -> None:
        check_range(self.name, "value", self.value, 0.0)

    def __call__(self, step: int) -> float:
        """The value."""
        return self.value


@dataclass(frozen=True, repr=False)
class Warmup(Described):
    """From 0 to a value in equal steps, then that value.

    >>> [Warmup(0.1, steps=4)(step) for step in (0, 1, 4, 9)]
    [0.0, 0.025, 0.1, 0.1]
    """

    value: float
    steps: int
    name: ClassVar[str] = "warmup"

    def __post_init__(self) -> None:
        check_range(self.name, "value", self.value, 0.0)
        check_count(self.name, "steps", self.steps)

    def __call__(self, step: int) -> float:
        """value n / steps until `steps`."""
        return self.value * min(step, self.steps) / self.steps


@dataclass(frozen=True, repr=False)
class Decay(Described):
    """From high to low in a number of steps, along a shape, then low.

    shape: cosine, linear, exponential, one_minus_sqrt, reciprocal or inv_sqrt.

    >>> [round(Decay(1.0, 0.0, steps=4, shape="one_minus_sqrt")(step), 4) for step in (0, 1, 4, 5)]
    [1.0, 0.5, 0.0, 0.0]
    """

    high: float
    low: float
    steps: int
    shape: str = "cosine"
    name: ClassVar[str] = "decay"

    def __post_init__(self) -> None:
        check_count(self.name, "steps", self.steps)
        _check_order(self.name, high=self.high, low=self.low)
        check_shape(self.name, "shape", self.shape, tuple(SHAPES), low=self.low)

    def __call__(self, step: int) -> float:
        """The value at a step."""
        return self.low if step >= self.steps else SHAPES[self.shape](self.high, self.low, step / self.steps)


@dataclass(frozen=True, repr=False)
class InverseSqrt(Described):
    """Warm-up to max_lr, then a fall with the root of the step; needs no total length.

    >>> [InverseSqrt(0.1, warmup=100)(step) for step in (50, 100, 400)]
    [0.05, 0.1, 0.05]
    """

    max_lr: float
    warmup: int
    name: ClassVar[str] = "inverse_sqrt"

    def __post_init__(self) -> None:
        check_range(self.name, "max_lr", self.max_lr, 0.0)
        check_count(self.name, "warmup", self.warmup)

    def __call__(self, step: int) -> float:
        """max_lr sqrt(warmup / n) once it is warm."""
        return self.max_lr * (step / self.warmup if step < self.warmup else math.sqrt(self.warmup / step))


@dataclass(frozen=True, repr=False)
class RepeatedCosine(Described):
    """Phases of one length: warm-up from 0, then half a cosine down to min_lr; every phase warms up again.

    min_lr: the end of a phase, by default min_ratio of max_lr.

    >>> [round(RepeatedCosine(1e-3, steps=1000, warmup=50, min_lr=1e-5)(step), 6) for step in (0, 25, 50, 525, 1000)]
    [0.0, 0.0005, 0.001, 0.000505, 0.0]
    """

    max_lr: float
    steps: int
    warmup: int = 0
    min_lr: float | None = None
    min_ratio: float = 0.1
    name: ClassVar[str] = "repeated_cosine"

    def __post_init__(self) -> None:
        check_count(self.name, "steps", self.steps)
        check_count(self.name, "warmup", self.warmup, low=0)
        if self.warmup >= self.steps:
            raise ArgumentError(
                f"repeated_cosine: warmup must be below steps, got warmup={self.warmup} and steps={self.steps}."
            )
        check_range(self.name, "min_ratio", self.min_ratio, 0.0, 1.0)
        _check_order(self.name, max_lr=self.max_lr, min_lr=self.low)

    @property
    def low(self) -> float:
        """The rate at the end of a phase."""
        return self.min_ratio * self.max_lr if self.min_lr is None else self.min_lr

    def phase(self, step: int) -> float:
        """The rate within one phase, its last step (n = steps, at min_lr) included."""
        if step < self.warmup:
            return self.max_lr * step / self.warmup
        return self.low + (self.max_lr - self.low) * cosine_decay((step - self.warmup) / (self.steps - self.warmup))

    def __call__(self, step: int) -> float:
        """The rate at a step of any phase; a phase begins at its multiple of `steps`."""
        return self.phase(step % self.steps)


@dataclass(frozen=True, repr=False)
class Infinite(Described):
    """Warm-up, cool-down to a constant rate, that rate for ever, and an annealing once its start is set.

    max_lr, const_lr, min_lr: rates; the last two by default const_ratio and min_ratio of max_lr. warmup, cooldown_end: steps at which
    those end (positions, not lengths). cooldown: cosine, linear or inv_sqrt; anneal: exponential, linear, cosine, one_minus_sqrt or
    reciprocal. anneal_start, anneal_end: steps between which it anneals; without them it never does, and needs no total length.

    >>> rate = Infinite(1e-3, warmup=50, cooldown_end=300, min_lr=1e-5, anneal_start=800, anneal_end=1000)
    >>> [f"{rate(step):.6e}" for step in (25, 100, 300, 850, 1000)]
    ['5.000000e-04', '9.522542e-04', '5.000000e-04', '1.880302e-04', '1.000000e-05']
    """

    max_lr: float
    warmup: int
    cooldown_end: int
    const_lr: float | None = None
    min_lr: float | None = None
    const_ratio: float = 0.5
    min_ratio: float = 0.1
    cooldown: str = "cosine"
    anneal: str = "exponential"
    anneal_start: int | None = None
    anneal_end: int | None = None
    name: ClassVar[str] = "infinite"

    def __post_init__(self) -> None:
        check_count(self.name, "warmup", self.warmup, low=0)
        check_count(self.name, "cooldown_end", self.cooldown_end, low=0)
        if self.warmup > self.cooldown_end:
            raise ArgumentError(
                f"infinite: warmup must be at most cooldown_end (both are steps counted from 0), got warmup={self.warmup} and "
                f"cooldown_end={self.cooldown_end}."
            )
        check_range(self.name, "const_ratio", self.const_ratio, 0.0, 1.0)
        check_range(self.name, "min_ratio", self.min_ratio, 0.0, 1.0)
        _check_order(self.name, max_lr=self.max_lr, const_lr=self.constant, min_lr=self.low)
        check_shape(self.name, "cooldown", self.cooldown, COOLDOWNS)
        check_shape(self.name, "anneal", self.anneal, ANNEALS, min_lr=self.low)
        self._check_anneal()

    def _check_anneal(self) -> None:
        start, end = self.anneal_start, self.anneal_end
        if (start is None) != (end is None):
            raise ArgumentError(
                f"infinite: anneal_start and anneal_end go together, got anneal_start={start} and anneal_end={end}."
            )
        if start is not None and not self.warmup <= start < end:
            raise ArgumentError(
                f"infinite: annealing must start after the warm-up and end later than it starts, got warmup={self.warmup}, "
                f"anneal_start={start} and anneal_end={end}."
            )

    @property
    def constant(self) -> float:
        """The rate between cool-down and annealing."""
        return self.const_ratio * self.max_lr if self.const_lr is None else self.const_lr

    @property
    def low(self) -> float:
        """The rate at the end of an annealing."""
        return self.min_ratio * self.max_lr if self.min_lr is None else self.min_lr

    def line(self, step: int) -> float:
        """The rate of the main line, which never anneals."""
        if step < self.warmup:
            return self.max_lr * step / self.warmup
        if step < self.cooldown_end:
            share = (step - self.warmup) / (self.cooldown_end - self.warmup)
            return SHAPES[self.cooldown](self.max_lr, self.constant, share)
        return self.constant

    def annealed(self, high: float, share: float) -> float:
        """The rate after a share of an annealing that began at `high`; after all of it the least."""
        return SHAPES[self.anneal](high, self.low, share) if share < 1.0 else self.low

    def phase(self, step: int) -> str:
        """warmup, cooldown, constant, anneal or end."""
        if self.anneal_start is not None and step >= self.anneal_start:
            return "anneal" if step <= self.anneal_end else "end"
        return "warmup" if step < self.warmup else "cooldown" if step < self.cooldown_end else "constant"

    def __call__(self, step: int) -> float:
        """The rate at a step; after an annealing it stays at min_lr."""
        if self.anneal_start is None or step < self.anneal_start:
            return self.line(step)
        share = (step - self.anneal_start) / (self.anneal_end - self.anneal_start)
        return self.annealed(self.line(self.anneal_start), share)


def wsd(
    max_lr: float,
    warmup: int,
    decay_start: int | None = None,
    decay_end: int | None = None,
    *,
    min_lr: float = 0.0,
    decay: str = "one_minus_sqrt",
) -> Infinite:
    """Warm-up, stable, decay: the infinite schedule whose constant rate is its highest one.

    decay_start, decay_end: steps between which it decays, along linear, one_minus_sqrt or another shape; without them it never does.
    Reference: Hu et al. (2024), MiniCPM, arXiv 2404.06395.

    >>> rate = wsd(0.1, warmup=10, decay_start=100, decay_end=120)
    >>> [round(rate(step), 4) for step in (5, 10, 99, 105, 120)]
    [0.05, 0.1, 0.1, 0.05, 0.0]
    """
    return Infinite(
        max_lr, warmup, warmup, max_lr, min_lr, 1.0, anneal=decay, anneal_start=decay_start, anneal_end=decay_end
    )


_KINDS = (CosineCycle, Constant, Warmup, Decay, InverseSqrt, RepeatedCosine, Infinite, Join, Scaled, Product, Restarted)
SCHEDULES: dict[str, Callable[..., Schedule]] = {**{cls.name: cls for cls in _KINDS}, "wsd": wsd}


def _check_order(owner: str, **rates: float) -> None:
    """Refuse rates that are not finite, below 0, or rise from left to right; all of them are printed."""
    told = " and ".join(f"{key}={value!r}" for key, value in rates.items())
    for key, value in rates.items():
        check_range(owner, key, value, 0.0)
    values = list(rates.values())
    if math.inf in values or values != sorted(values, reverse=True):
        raise ArgumentError(f"{owner}: {' >= '.join(rates)} must hold, got {told}.")
