"""Schedules at work: torch schedulers that set an optimiser's rates from a schedule, and the infinite one that needs no length.

    update n is made at rate schedule(n), n = 0, 1, 2, ...      rate of a group = schedule(n) * its "lr_scale" (1 by default)

One schedule serves all groups, or each group has its own.

The rate is set before the update: the first one when the scheduler is made, each later one by `step()` after `optimizer.step()`.
With gradients gathered over several batches, count optimiser steps. `InfiniteLR` keeps its constant rate as long as data come; when a
model is wanted, save model, optimiser and scheduler, anneal, deliver, and go on from what was saved: going on from the annealed weights
would need the warm-up again that the schedule is there to avoid.

Reference: Singh et al. (2025), Beyond cosine decay: on the effectiveness of infinite learning rate schedule for continual pre-training,
CoLLAs, arXiv 2503.02844.
"""

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from everlearn.core.errors import ArgumentError, StateError, check_count
from everlearn.optim.schedules import Infinite, Schedule


class ScheduledLR(LRScheduler):
    """Sets the rates of any optimiser from a schedule; Hugging Face trainers take it too (`optimizers=(optimizer, scheduler)`).

    optimizer: any torch optimiser, with any number of groups; schedule: a value such as `RepeatedCosine(...)`, or any function of the
    step; a list of them, one for each group in turn. Its state is JSON. Raises StateError where a state of another schedule is loaded.

    >>> import torch
    >>> from everlearn.optim.schedules import Warmup
    >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=1.0)
    >>> scheduler = ScheduledLR(optimizer, Warmup(0.1, steps=4))
    >>> rates = []
    >>> for _ in range(5):
    ...     rates.append(scheduler.get_last_lr()[0])
    ...     optimizer.step()
    ...     scheduler.step()
    >>> rates
    [0.0, 0.025, 0.05, 0.07500000000000001, 0.1]
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule | Sequence[Schedule]):
        several = isinstance(schedule, Sequence)
        for given in schedule if several else (schedule,):
            if not callable(given):
                raise ArgumentError(f"ScheduledLR: schedule must be a schedule such as constant(0.1), got {given!r}.")
        if several and len(schedule) != len(optimizer.param_groups):
            raise ArgumentError(
                f"ScheduledLR: the optimiser has {len(optimizer.param_groups)} groups, got {len(schedule)} schedules; pass one for each, "
                "or one for all."
            )
        self.schedule = list(schedule) if several else schedule
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        """The rate of each group at the present step."""
        if isinstance(self.schedule, list):
            return _by_group(self.optimizer, *(schedule(self.last_epoch) for schedule in self.schedule))
        return _by_group(self.optimizer, self.schedule(self.last_epoch))

    def state_dict(self) -> dict[str, Any]:
        """The step, and which schedule it is a step of."""
        return {"schedule": repr(self.schedule), "step": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved step, and set the rates to it."""
        _fits("ScheduledLR", repr(self.schedule), state_dict)
        self.last_epoch = int(state_dict["step"])
        _set(self)


class InfiniteLR(LRScheduler):
    """The infinite schedule without an end: it anneals when it is told to, from wherever the constant rate has come.

    max_lr, const_lr or const_ratio, min_lr or min_ratio, warmup, cooldown_end, cooldown, anneal: as of `Infinite`.

    >>> import torch
    >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=1.0)
    >>> scheduler = InfiniteLR(optimizer, 0.1, warmup=2, cooldown_end=4, anneal="linear")
    >>> phases = []
    >>> for step in range(8):
    ...     if step == 6:
    ...         scheduler.start_anneal(steps=2)
    ...     phases.append((scheduler.phase, round(scheduler.get_last_lr()[0], 4)))
    ...     optimizer.step()
    ...     scheduler.step()
    >>> phases[3:]
    [('cooldown', 0.075), ('constant', 0.05), ('constant', 0.05), ('anneal', 0.05), ('anneal', 0.03)]
    >>> scheduler.phase, round(scheduler.get_last_lr()[0], 4)
    ('end', 0.01)
    """

    def __init__(self, optimizer: Optimizer, max_lr: float, *, warmup: int, cooldown_end: int, **options: Any):
        if {"anneal_start", "anneal_end"} & set(options):
            raise ArgumentError(
                "InfiniteLR: call start_anneal(steps) when a model is wanted; the schedule itself has no end."
            )
        self.schedule = Infinite(max_lr, warmup, cooldown_end, **options)
        self.fork: int | None = None  # the step at which the annealing began
        self.steps = 0  # of the annealing
        super().__init__(optimizer)

    @property
    def phase(self) -> str:
        """warmup, cooldown, constant, anneal, or end once an annealing is over."""
        if self.fork is None:
            return self.schedule.phase(self.last_epoch)
        return "anneal" if self.last_epoch < self.fork + self.steps else "end"

    def get_lr(self) -> list[float]:
        """The rate of each group at the present step."""
        if self.fork is None:
            return _by_group(self.optimizer, self.schedule.line(self.last_epoch))
        share = (self.last_epoch - self.fork) / self.steps
        return _by_group(self.optimizer, self.schedule.annealed(self.schedule.line(self.fork), share))

    def start_anneal(self, steps: int) -> None:
        """Fall to the least rate within a number of updates, the next one being the first. Raises ArgumentError during warm-up."""
        check_count("start_anneal", "steps", steps)
        if self.phase == "warmup":
            raise ArgumentError(
                f"start_anneal: the warm-up ends at step {self.schedule.warmup}, and this is step {self.last_epoch}; train on until then."
            )
        if self.fork is not None:
            raise ArgumentError(
                f"start_anneal: an annealing began at step {self.fork} already; load the state saved before it."
            )
        self.fork, self.steps = self.last_epoch, steps

    def resume_constant(self, *, allow_rewarm: bool = False) -> None:
        """Go on at the constant rate.

        Raises ArgumentError after an annealing has begun: load the state of model, optimiser and scheduler that was saved before it.
        allow_rewarm: go on from the annealed weights all the same; the rate then jumps up, which undoes part of what was learned.
        """
        if self.fork is not None and not allow_rewarm:
            raise ArgumentError(
                f"resume_constant: an annealing began at step {self.fork}; load the state of model, optimiser and scheduler saved before "
                "it, or pass allow_rewarm=True to go on from annealed weights."
            )
        if self.fork is not None:
            self.last_epoch, self.fork, self.steps = max(self.fork, self.schedule.cooldown_end), None, 0
        _set(self)

    def state_dict(self) -> dict[str, Any]:
        """The step, where an annealing began and how long it is, and which schedule they belong to."""
        return {"schedule": repr(self.schedule), "step": self.last_epoch, "fork": self.fork, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved step, also one within an annealing, and set the rates to it."""
        _fits("InfiniteLR", repr(self.schedule), state_dict, "fork", "steps")
        fork = state_dict["fork"]
        self.last_epoch, self.fork = int(state_dict["step"]), None if fork is None else int(fork)
        self.steps = int(state_dict["steps"])
        _set(self)


def _by_group(optimizer: Optimizer, *rates: float) -> list[float]:
    """One rate for all groups, or one for each."""
    groups = optimizer.param_groups
    each = rates * len(groups) if len(rates) == 1 else rates
    return [rate * group.get("lr_scale", 1.0) for rate, group in zip(each, groups, strict=True)]


def _set(scheduler: LRScheduler) -> None:
    """Put the rates of the present step into the optimiser."""
    rates = scheduler.get_lr()
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


def _fits(owner: str, schedule: str, state: dict[str, Any], *more: str) -> None:
    if set(state) != {"schedule", "step", *more}:
        raise StateError(f"{owner}: this is the state of another scheduler; it holds {', '.join(sorted(state))}.")
    if state["schedule"] != schedule:
        raise StateError(f"{owner}: the state belongs to {state['schedule']}, not to {schedule}.")
