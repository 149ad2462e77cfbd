"""Schedules made of schedules: one after the other, a share of one, two multiplied, one that begins again and again.

    join(first, 100, second)       first, and from step 100 on second, from its own 0
    scaled(schedule, 0.5)          0.5 schedule(n)                     product(first, second)      first(n) second(n)
    restarted(schedule, T, K)      schedule((n floor(T / K)) mod T)    all of a schedule of T steps in every K steps

Reference: Chen et al. (2023), Improving language plasticity via pretraining with active forgetting, NeurIPS, arXiv 2307.01163 (restarted).
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.spec import Described


class Schedule(Protocol):
    """A function from the number of a step to a value."""

    name: ClassVar[str]

    def __call__(self, step: int) -> float:
        """The value at a step, counted from 0."""
        ...


@dataclass(frozen=True, repr=False)
class Join(Described):
    """One schedule for a number of steps, then another, which counts from its own 0.

    >>> from everlearn.optim.schedules import Decay, Warmup
    >>> schedule = Join(Warmup(0.1, steps=10), 10, Decay(0.1, 0.0, steps=20, shape="linear"))
    >>> [round(schedule(step), 3) for step in (5, 10, 20, 40)]
    [0.05, 0.1, 0.05, 0.0]
    """

    first: Schedule
    steps: int
    second: Schedule
    name: ClassVar[str] = "join"

    def __post_init__(self) -> None:
        check_count(self.name, "steps", self.steps)
        _check_schedules(self.name, first=self.first, second=self.second)

    def __call__(self, step: int) -> float:
        """The first one's value before `steps`, the second one's from there on."""
        return self.first(step) if step < self.steps else self.second(step - self.steps)


@dataclass(frozen=True, repr=False)
class Scaled(Described):
    """A share, or a multiple, of a schedule."""

    schedule: Schedule
    factor: float
    name: ClassVar[str] = "scaled"

    def __post_init__(self) -> None:
        check_range(self.name, "factor", self.factor, 0.0)
        _check_schedules(self.name, schedule=self.schedule)

    def __call__(self, step: int) -> float:
        """factor times the value."""
        return self.factor * self.schedule(step)


@dataclass(frozen=True, repr=False)
class Product(Described):
    """Two schedules multiplied: a warm-up in front of any other, say.

    >>> from everlearn.optim.schedules import Constant, Warmup
    >>> Product(Warmup(1.0, steps=10), Constant(0.1))(5)
    0.05
    """

    first: Schedule
    second: Schedule
    name: ClassVar[str] = "product"

    def __post_init__(self) -> None:
        _check_schedules(self.name, first=self.first, second=self.second)

    def __call__(self, step: int) -> float:
        """The product of both values at the step."""
        return self.first(step) * self.second(step)


@dataclass(frozen=True, repr=False)
class Restarted(Described):
    """The whole of a schedule in every interval, sped up to fit: for parameters that are made anew at its beginning.

    schedule: of `steps` updates; every: updates between two resets, at most `steps`; stop: resets end before this update (None: without
    end), and after the last interval the schedule goes on as it does for everything else.

    >>> from everlearn.optim.schedules import Decay, Warmup
    >>> rate = Restarted(Join(Warmup(1.0, steps=40), 40, Decay(1.0, 0.0, steps=80, shape="linear")), steps=120, every=12)
    >>> [rate(step) for step in (0, 2, 4, 8, 11, 12, 14, 16)]
    [0.0, 0.5, 1.0, 0.5, 0.125, 0.0, 0.5, 1.0]

    Reference: Chen et al. (2023), arXiv 2307.01163.
    Differs from the paper in: where `every` does not divide `steps`, an interval begins with its reset all the same.
    """

    schedule: Schedule
    steps: int
    every: int
    stop: int | None = None
    name: ClassVar[str] = "restarted"

    def __post_init__(self) -> None:
        check_count(self.name, "steps", self.steps)
        check_count(self.name, "every", self.every)
        if self.stop is not None:
            check_count(self.name, "stop", self.stop, low=0)
        _check_schedules(self.name, schedule=self.schedule)
        if self.every > self.steps:
            raise ArgumentError(
                f"restarted: every must be at most steps, got every={self.every} and steps={self.steps}; no interval would end."
            )

    def __call__(self, step: int) -> float:
        """The schedule's value at (step mod every) floor(steps / every): (step floor(steps / every)) mod steps, where that divides."""
        if self.stop is not None and (self.stop <= self.every or step >= self.every * math.ceil(self.stop / self.every)):
            return self.schedule(step)  # no reset, or none any more
        return self.schedule(step % self.every * (self.steps // self.every))


def _check_schedules(owner: str, **schedules: Schedule) -> None:
    for key, value in schedules.items():
        if not callable(value):
            raise ArgumentError(f"{owner}: {key} must be a schedule such as constant(0.1), got {value!r}.")
