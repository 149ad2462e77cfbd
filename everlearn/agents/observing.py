"""What a bandit is shown and told, checked before anything changes.

x (rows, columns), or {"x": (rows, columns), "offered": (rows, actions) bool}, or x with `actions` columns of 0 and 1 behind it
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import InputError
from everlearn.core.events import X

Array = numpy.ndarray


@dataclass(slots=True)
class Seen:
    """x: (rows, columns) as it came; offered: (actions, rows) bool."""

    x: Array
    offered: Array


class Rules(Protocol):
    """What feedback is checked against."""

    actions: int
    bounded: bool
    weights: str
    train_on: str
    gate: bool


def observed(observation: X, actions: int, masked: bool, features: int) -> Seen:
    """Take an observation apart. features: the number of columns learned from so far, 0 where it is open. Raises InputError."""
    offered = None
    x = observation
    if isinstance(observation, Mapping):
        if set(observation) != {"x", "offered"}:
            raise InputError(f"bandit: an observation as a dict holds x and offered, got {sorted(map(str, observation))}.")
        x, offered = observation["x"], observation["offered"]
    if not isinstance(x, Tensor) or x.ndim != 2 or 0 in x.shape:
        got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"bandit: x must be a tensor (rows, columns), got {got}.")
    values = x.numpy()
    if values.dtype.kind != "f":
        values = values.astype(numpy.float32)
    if masked and offered is None:
        values, mask = values[:, :-actions], values[:, -actions:]
        if values.shape[1] == 0:
            raise InputError(f"bandit: with masked=True the last {actions} columns say what is on offer; x has no others.")
        if not ((mask == 0.0) | (mask == 1.0)).all():
            raise InputError(
                f"bandit: with masked=True the last {actions} columns of x must be 0 or 1, got {mask[0].tolist()}; "
                "in a table write true and false, which are not scaled."
            )
        allowed = numpy.ascontiguousarray((mask == 1.0).T)
    elif offered is None:
        allowed = numpy.ones((actions, len(values)), bool)
    else:
        if not isinstance(offered, Tensor) or offered.dtype != torch.bool or offered.shape != (len(values), actions):
            got = f"{offered.dtype} {tuple(offered.shape)}" if isinstance(offered, Tensor) else type(offered).__name__
            raise InputError(f"bandit: offered must be a bool tensor ({len(values)}, {actions}), got {got}.")
        allowed = numpy.ascontiguousarray(offered.numpy().T)
    if features and values.shape[1] != features:
        raise InputError(f"bandit: x has {values.shape[1]} columns; it learned from {features}.")
    if not math.isfinite(values.sum(dtype=numpy.float64)) and not numpy.isfinite(values).all():
        row = int(numpy.argmin(numpy.isfinite(values).all(axis=1)))
        raise InputError(f"bandit: row {row} of x holds NaN or infinite values; fill or drop missing values first.")
    if not allowed.any(axis=0).all():
        row = int(numpy.argmin(allowed.any(axis=0)))
        raise InputError(f"bandit: row {row} has no action on offer; each row needs 1..{actions}.")
    return Seen(values, allowed)


def told(rules: Rules, action: Any, reward: Any, propensity: Any, seen: Seen, row: int = 0) -> tuple[int, float, float]:
    """(action, reward, propensity) of one row, NaN where no propensity is known. Raises InputError with the row and what is allowed."""
    if not isinstance(action, int) or isinstance(action, bool) or not 0 <= action < rules.actions:
        raise InputError(f"bandit: row {row}: action must be an int in 0..{rules.actions - 1}, got {action!r}.")
    if not seen.offered[action, row]:
        raise InputError(
            f"bandit: row {row}: action {action} was not on offer; allowed: {numpy.flatnonzero(seen.offered[:, row]).tolist()}."
        )
    if not _number(reward) or not math.isfinite(reward):
        raise InputError(f"bandit: row {row}: reward must be a finite number, got {reward!r}.")
    if rules.bounded and not 0.0 <= reward <= 1.0:
        raise InputError(f"bandit: row {row}: reward must lie in [0, 1], got {reward!r}; rescale it, or set bounded=False.")
    if propensity is None:
        if rules.weights != "none" or rules.train_on != "all" or rules.gate:
            raise InputError(
                f"bandit: row {row}: weights={rules.weights!r}, train_on={rules.train_on!r} and gate={rules.gate!r} need a "
                "propensity, got None."
            )
        return action, float(reward), math.nan
    if not _number(propensity) or not 0.0 < propensity <= 1.0 + 1e-6:
        raise InputError(f"bandit: row {row}: propensity must be above 0 and at most 1, got {propensity!r}.")
    return action, float(reward), min(float(propensity), 1.0)


def period_of(generation: Any, row: int = 0) -> int | None:
    """The period that decided a row, None where it is not known. Raises InputError."""
    if generation is not None and (not isinstance(generation, int) or isinstance(generation, bool) or generation < 0):
        raise InputError(f"bandit: row {row}: generation must be an int >= 0, or None, got {generation!r}.")
    return generation


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
