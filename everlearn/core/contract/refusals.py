"""Bad input is refused with an error of Everlearn's, and nothing changes: not the state, and not what is learned afterwards."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from everlearn.core.contract.problem import contents
from everlearn.core.contract.trial import Trial, differing, fault, fold, state_of
from everlearn.core.errors import EverlearnError
from everlearn.core.events import Batch, X, map_x, rows
from everlearn.core.learner import Adapter, ask_latest
from everlearn.core.state import same


def bad_input_is_refused(trial: Trial) -> None:
    """bad input is refused with one of Everlearn's errors, and nothing changes"""
    problem = trial.problem
    good = problem.batches[0]
    half = len(problem.events) // 2
    for begun in (0, half):
        clean, tried = trial.fresh(), trial.fresh()
        for learner in (clean, tried):
            fold(learner, problem.events[:begun])
        for what, batch in bad_batches(good, problem.outputs, learned=begun > 0):
            refused(tried, f"update with {what}", partial(tried.update, batch))
        for what, x in bad_inputs(good.x, learned=begun > 0):
            refused(tried, f"predict with {what}", partial(ask_latest, tried, x))
            if isinstance(tried, Adapter):
                refused(tried, f"adapt with {what}", partial(tried.adapt, x))
        _refused_or_taken(trial, good, begun)
        if not same(fold(clean, problem.events[begun:], problem.probe), fold(tried, problem.events[begun:], problem.probe)):
            raise fault(
                tried, "after refusing bad input it learned something else than without; check before any attribute changes."
            )


def refused(value: Any, what: str, call: Callable[[], Any]) -> None:
    """Demand that a call raises an EverlearnError and leaves the state as it was."""
    before = state_of(value)
    try:
        call()
    except EverlearnError:
        pass
    except Exception as error:
        raise fault(
            value,
            f"{what} raised {type(error).__name__} ({str(error).splitlines()[0] if str(error) else ''}); refuse it with an "
            "InputError before anything changes (core.guard.Guard does).",
        ) from error
    else:
        raise fault(value, f"{what} was accepted; refuse it with an InputError (core.guard.Guard does).")
    if not same(before, state_of(value)):
        raise fault(
            value, f"{what} was refused, but only after the state had changed ({differing(before, state_of(value))})."
        )


def _refused_or_taken(trial: Trial, good: Batch, begun: int) -> None:
    """What only the first batch can tell: rows of another width are refused cleanly, or learned from, never half and half."""
    if begun:
        return
    learner = trial.fresh()
    wide = replace(good, x=map_x(_wider, good.x))
    try:
        learner.update(wide)
        ask_latest(learner, wide.x)
    except EverlearnError:
        pending = trial.fresh()
        refused(pending, "a first update with rows of another shape", partial(pending.update, wide))
        fold(pending, trial.problem.events)
    except Exception as error:
        raise fault(
            learner,
            f"a first update with rows of another shape raised {type(error).__name__} ({str(error).splitlines()[0]}); "
            "let the guard try the network: Guard(name, classes, model=model).",
        ) from error


def bad_inputs(x: X, learned: bool) -> list[tuple[str, Any]]:
    """(what is wrong, x) for predict and update; `learned`: whether the right shape and dtype are known."""
    cases: list[tuple[str, Any]] = [
        ("zero rows", rows(x, slice(0, 0))),
        ("x that is a list", [1.0, 2.0]),
        ("x that is a scalar tensor", torch.tensor(1.0)),
    ]
    floating = isinstance(x, Tensor) and x.dtype.is_floating_point
    if floating or not isinstance(x, Tensor):
        for word, value in (("NaN", math.nan), ("Inf", math.inf), ("-Inf", -math.inf)):
            broken = map_x(lambda tensor, value=value: _poisoned(tensor, value), x)
            if not same(contents(broken), contents(x)):
                cases.append((f"{word} in x", broken))
    if learned:
        cases.append(("rows of another shape", map_x(_wider, x)))
        cases.append(("x of another dtype", map_x(_recast, x)))
    return cases


def bad_batches(good: Batch, outputs: int | None, learned: bool) -> list[tuple[str, Any]]:
    """(what is wrong, batch) for update. outputs: the number of classes, or of values in an answer; None where it is not known."""
    y = good.y
    values = y.dtype.is_floating_point
    cases: list[tuple[str, Any]] = [(what, replace(good, x=x)) for what, x in bad_inputs(good.x, learned)]
    cases += [(f"{what} and no y", replace(good, x=x, y=None)) for what, x in bad_inputs(good.x, learned)]
    cases[0] = ("zero rows", Batch(rows(good.x, slice(0, 0)), y[:0]))
    cases += [
        ("a pair (x, y) in the place of a Batch", (good.x, y)),
        ("y that is a list", replace(good, y=y.tolist())),
        ("fewer answers than rows", replace(good, y=y[:-1])),
        ("fewer ids than rows", replace(good, id=("only one",))),
    ]
    if values:
        cases += [
            ("y of dtype int64", replace(good, y=y.long())),
            ("y of dtype float64", replace(good, y=y.double())),
            ("y of shape (rows,)", replace(good, y=y[:, 0])),
            ("NaN in y", replace(good, y=_poisoned(y, math.nan))),
            ("Inf in y", replace(good, y=_poisoned(y, math.inf))),
        ]
        if learned:  # who is not told takes the first batch's width for the rule
            cases.append(("y of another width", replace(good, y=_wider(y))))
        return cases
    cases += [
        ("y of dtype float32", replace(good, y=y.float())),
        ("y of shape (rows, 1)", replace(good, y=y[:, None])),
        ("the label -1", replace(good, y=torch.cat([y[:-1], torch.tensor([-1])]))),
    ]
    if outputs is not None:
        cases.append(
            (f"the label {outputs} of {outputs} classes", replace(good, y=torch.cat([y[:-1], torch.tensor([outputs])])))
        )
    return cases


def _poisoned(tensor: Tensor, value: float) -> Tensor:
    if not tensor.dtype.is_floating_point:
        return tensor
    broken = tensor.clone()
    broken.view(-1)[-1] = value
    return broken


def _wider(tensor: Tensor) -> Tensor:
    return torch.cat([tensor, tensor[..., :1]], dim=-1) if tensor.ndim > 1 else torch.stack([tensor, tensor], dim=1)


def _recast(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.dtype != torch.float64 else tensor.float()
