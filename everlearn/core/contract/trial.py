"""One learner under trial: making it, handing it events, and turning whatever goes wrong into one sentence."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import isabstract
from typing import Any

import torch
from torch import Tensor

from everlearn.core.contract.disturb import disturbed
from everlearn.core.contract.problem import Problem, copied
from everlearn.core.errors import ContractError, SpecError
from everlearn.core.events import Batch, Boundary, Event, X, map_x
from everlearn.core.learner import Adapter, Learner, ask_latest
from everlearn.core.spec import parse
from everlearn.core.state import capture, same

SEED = 0


@dataclass(frozen=True)
class Trial:
    """How to make the learner, and what to try it on."""

    make: Callable[[int], Learner]
    problem: Problem

    def fresh(self, number: int = 1) -> Learner:
        """A new learner, made while the global random state and the clock are those of `number`."""
        with disturbed(number):
            return self.make(SEED)


def fault(learner: Any, sentence: str) -> ContractError:
    """The error of a learner or agent that breaks the contract."""
    name = getattr(learner, "name", None)
    return ContractError(f"{name if isinstance(name, str) else type(learner).__name__}: {sentence}")


def attempt(learner: Any, what: str, call: Callable[[], Any]) -> Any:
    """Do what the contract says must work; an error of any kind is a broken contract."""
    try:
        return call()
    except ContractError:
        raise
    except Exception as error:
        raise fault(learner, f"{what} raised {type(error).__name__}: {error}") from error


def step(learner: Learner, event: Event) -> Any:
    """Hand a copy of one event to a learner and give what it returned, in comparable form."""
    return lend(learner, copied(event))


def lend(learner: Learner, event: Event) -> Any:
    """Hand one event itself to a learner and give what it returned, in comparable form."""
    if isinstance(event, Boundary):
        return attempt(learner, f"boundary({short(event)})", lambda: learner.boundary(event))
    metrics = attempt(learner, f"update with {short(event)}", lambda: learner.update(event))
    if not isinstance(metrics, dict):
        raise fault(learner, f"update must return a dict of metrics, got {type(metrics).__name__}; return {{}} for none.")
    result = [attempt(learner, "reading the metrics of update", lambda: capture(metrics))]
    if isinstance(learner, Adapter):
        result.append(capture(attempt(learner, f"adapt with {short(event)}", lambda: learner.adapt(event.x))))
    return result


def answer(learner: Learner, x: X) -> Tensor:
    """A learner's scores for a copy of x, in the task announced last where it must be told one."""
    return attempt(learner, f"predict with {short(Batch(x))}", lambda: ask_latest(learner, map_x(Tensor.clone, x)))


def state_of(value: Any) -> Any:
    """The state of a learner or agent, copied even if `state_dict` forgot to."""
    return attempt(value, "state_dict()", lambda: capture(value.state_dict()))


def fold(learner: Learner, events: Iterable[Event], probe: X | None = None) -> list[Any]:
    """What a learner returned for each event, with its answers for the probe in between, and its state at the end."""
    trace = []
    for event in events:
        trace.append(step(learner, event))
        if probe is not None:
            trace.append(answer(learner, probe).detach().clone())
    return [*trace, state_of(learner)]


def check_class(value: Any, base: type) -> None:
    """Refuse what is not a final class of the contract with a name, parts that exist, and a readable text."""
    word = base.__name__
    article = "an" if word[0] in "AEIOU" else "a"
    if not isinstance(value, base):
        raise fault(value, f"make(seed) must give {article} {word}, got {type(value).__name__}; subclass everlearn.{word}.")
    finals = [cls.__name__ for cls in type(value).__mro__[1:] if issubclass(cls, base) and not isabstract(cls)]
    if finals:
        raise fault(value, f"it inherits from the final class {finals[0]}; take one as an argument instead.")
    if not isinstance(getattr(value, "name", None), str) or not value.name.isidentifier():
        raise fault(value, f"`name` must be an identifier such as 'my_method', got {getattr(value, 'name', None)!r}.")
    parts = getattr(value, "parts", None)
    if not isinstance(parts, tuple) or not all(isinstance(part, str) for part in parts):
        raise fault(value, f"`parts` must be a tuple of attribute names, got {parts!r}; write ('model',) with the comma.")
    for part in parts:
        if not hasattr(value, part):
            raise fault(value, f"`parts` names {part!r}, and there is no such attribute after __init__; set it there.")
    state_of(value)
    try:
        parse(repr(value))
    except SpecError as error:
        raise fault(value, f"its text {value!r} is not a call string ({error}); keep arguments as attributes.") from error


def check_scores(learner: Learner, scores: Any, count: int, problem: Problem) -> None:
    """Refuse scores that are not (rows, classes) or values (rows, targets), finite, and free of gradients."""
    outputs = problem.outputs
    wanted = f"({count}, {outputs or ('classes' if problem.targets is None else 'targets')})"
    if not isinstance(scores, Tensor) or not scores.dtype.is_floating_point:
        kind = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise fault(learner, f"predict must return a floating-point tensor of scores {wanted}, got {kind}.")
    good = scores.ndim == 2 and len(scores) == count and outputs in (None, scores.shape[1])
    if not good:
        raise fault(learner, f"predict must return scores of shape {wanted} for {count} rows, got {tuple(scores.shape)}.")
    if not torch.isfinite(scores).all():
        raise fault(learner, f"predict returned scores that are not finite, such as {scores[~torch.isfinite(scores)][0]}.")
    if scores.requires_grad:
        raise fault(learner, "predict returned scores that carry a gradient; compute them inside torch.no_grad().")


def differing(first: Any, second: Any, path: str = "") -> str:
    """Where two states differ, by dotted name."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in first:
            if key not in second or not same(first[key], second[key]):
                return differing(first[key], second.get(key), f"{path}.{key}" if path else str(key))
    return path or "the answers"


def short(event: Event) -> str:
    """An event in a message: shapes and dtypes."""
    if isinstance(event, Boundary):
        return f"task={event.task}, classes={event.classes}{', data' if event.data is not None else ''}"
    if isinstance(event.x, Tensor):
        inside = f"x {tuple(event.x.shape)} {event.x.dtype}"
    else:
        inside = ", ".join(f"x[{key!r}] {tuple(value.shape)}" for key, value in event.x.items())
    return inside + (f", y {tuple(event.y.shape)}" if event.y is not None else "")
