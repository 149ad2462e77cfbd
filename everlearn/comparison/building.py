"""From call strings to streams, networks, learners, agents and budgets: built, tried, and refused in one sentence where they do not fit."""

import importlib
import inspect
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from everlearn.comparison.catalog import agents, learners, networks, policies, scenarios, sources, values
from everlearn.core.agent import Agent
from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, EverlearnError, InputError, SpecError, closest
from everlearn.core.events import Batch, map_x, rows
from everlearn.core.learner import Learner
from everlearn.core.random import isolated
from everlearn.core.spec import Call, build, invoke, lookup, parse
from everlearn.core.store import stores
from everlearn.core.stream import Stream
from everlearn.data.windows import target_columns

PER_CLASS = ("balanced", "herding")  # memory rules that share the rows among the classes


def build_stream(text: str, seed: int) -> Stream:
    """The stream of a call string. The seed reaches every scenario that was not given one of its own."""
    from everlearn.data.load import load
    from everlearn.data.scenarios import VALUES

    stream = _seeded(parse(text), {**VALUES, **scenarios(), **sources()}, load, seed)
    if not isinstance(stream, Stream):
        raise SpecError(
            f"{text} gives {type(stream).__name__}, not a stream; wrap a data set in a scenario such as split({text})."
        )
    return stream


def _seeded(call: Call, names: Mapping[str, Any], unknown: Any, seed: int) -> Any:
    """Build a scenario, handing the seed down."""
    if isinstance(call, tuple):
        return tuple(_seeded(item, names, unknown, seed) for item in call)
    if not isinstance(call, Call):
        return call
    bare = not call.args and not call.kwargs  # only a name alone can be a data set that `load` finds
    target = lookup(call.name, names, "scenario or data set", unknown if bare else None)
    if not callable(target):
        return target
    args = [_seeded(item, names, unknown, seed) for item in call.args]
    kwargs = {key: _seeded(item, names, unknown, seed) for key, item in call.kwargs}
    if "seed" in _parameters(target) and "seed" not in kwargs and call.name not in sources():
        kwargs["seed"] = seed
    return invoke(call.name, target, args, kwargs)


def build_model(text: str, stream: Stream, seed: int) -> nn.Module:
    """A network for the rows of a stream: one of the house's (`mlp(hidden=(64,))`) or the user's (`mymodule:build`).

    The user's callable may take the schema as its one required argument, or none; it may also be a ready nn.Module. For image
    streams (uint8) the user's module gets the pixels scaled to -0.5..0.5.
    """
    call = parse(text)
    own = call.name not in networks()
    target = lookup(call.name, networks(), "network")
    if isinstance(target, nn.Module):
        raise SpecError(
            f"{text} is a module that stands already trained or not; name a function that builds it, so that each seed starts anew."
        )
    with isolated(seed, "network"):
        args = [build(item, networks(), "network") for item in call.args]
        kwargs = {key: build(item, networks(), "network") for key, item in call.kwargs}
        if not own or _needs_schema(target, args, kwargs):
            args = [stream.schema, *args]
        with blame(call):
            model = invoke(call.name, target, args, kwargs)
    if not isinstance(model, nn.Module):
        raise SpecError(f"{text} gives {type(model).__name__}, not a torch.nn.Module.")
    if own and stream.schema.dtype == torch.uint8:
        from everlearn.nn.front import Scale

        model = nn.Sequential(Scale(), model)
    _try(model, text, stream)
    return model


def _needs_schema(target: Any, args: list, kwargs: dict) -> bool:
    required = [
        key
        for key, item in _parameters(target).items()
        if item.default is item.empty and item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
    ]
    return len(required) == len(args) + sum(key in required for key in kwargs) + 1


def _try(model: nn.Module, text: str, stream: Stream) -> None:
    """One forward pass on two rows, so that a network that does not fit is refused before anything runs."""
    from everlearn.optim.descent import evaluate

    batch = next(event for event in stream if isinstance(event, Batch))
    x = rows(batch.x, slice(0, 2))
    shape = map_x(lambda value: tuple(value.shape), x)
    try:
        scores = evaluate(model, x)
    except Exception as error:
        raise InputError(
            f"the network {text} cannot take rows of {stream.name}, x of shape {shape}: {told(error)}"
        ) from error
    wanted = (len(x), stream.schema.outputs)
    if tuple(getattr(scores, "shape", ())) != wanted:
        found = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise InputError(
            f"the network {text} gives {found} for x of shape {shape}; this stream needs {wanted} (rows, classes)."
        )
    if not torch.isfinite(scores).all():
        raise InputError(f"the network {text} gives NaN or infinite scores before it has learned anything.")
    if not any(weight.requires_grad for weight in model.parameters()):
        raise SpecError(f"the network {text} has no weights to learn (no parameter with requires_grad).")


def build_learner(text: str, stream: Stream, model: str, seed: int) -> Learner:
    """The learner of a call string, ready for a stream: its network is built, the seed and what it must know are handed in."""
    learner = _learner(parse(text), stream, model, seed)
    if not isinstance(learner, Learner):
        raise SpecError(f"{text} gives {type(learner).__name__}, not a learner.")
    _gives_answers(text, learner, stream)
    _holds_every_class(text, learner, stream.schema.outputs)
    return learner


def build_agent(text: str, seed: int) -> Agent:
    """The agent of a call string."""
    call = parse(text)
    found = lookup(call.name, agents(), "agent")
    args = [build(item, policies(), "value") for item in call.args]
    kwargs = {key: build(item, policies(), "value") for key, item in call.kwargs}
    if "seed" in _parameters(found):
        kwargs.setdefault("seed", seed)
    with blame(call):
        made = invoke(call.name, found, args, kwargs)
    if not isinstance(made, Agent):
        raise SpecError(f"{text} gives {type(made).__name__}, not an agent.")
    return made


def _gives_answers(text: str, learner: Learner, stream: Stream) -> None:
    """Refuse a learner of classes where values are asked for, and one of values where classes are."""
    asked = stream.schema.answers
    if asked not in learner.gives:
        able = sorted(name for name, found in learners().items() if asked in getattr(found, "gives", ()))
        raise ArgumentError(
            f"{text} gives {' and '.join(learner.gives)}, and {stream.name} asks for {asked}. Learners of {asked}: "
            f"{', '.join(able) or 'none'}."
        )


def _holds_every_class(text: str, learner: Learner, classes: int) -> None:
    """Refuse a memory that shares its rows among the classes and has fewer rows than there are classes."""
    for memory in stores(learner):
        rule = getattr(getattr(memory, "keep", None), "name", "")
        if rule in PER_CLASS and memory.capacity is not None and memory.capacity < classes:
            raise ArgumentError(
                f"{text}: {rule}() keeps rows of every class, and capacity={memory.capacity} is less than the {classes} classes. "
                f"Use capacity={classes} or more, or keep=reservoir()."
            )


def warn_of_mask(learner: Learner, stream: Stream) -> None:
    """Warn of a loss masked by batch or task on a stream some of whose classes never meet."""
    from everlearn.data.occurrence import mask_warning
    from everlearn.nn.criteria import Masked

    loss = getattr(learner, "loss", None)
    told = mask_warning(stream) if isinstance(loss, Masked) and loss.scope != "seen" else None
    if told is not None:
        warnings.warn(f"{learner!r} on {told}", UserWarning, stacklevel=2)


@contextmanager
def blame(call: Call) -> Iterator[None]:
    """Turn a fault inside the user's own code (`module:name`) into one sentence with the file and line where it happened."""
    try:
        yield
    except EverlearnError:
        raise
    except Exception as error:
        if ":" not in call.name:
            raise
        raise SpecError(f"{call.name} failed: {told(error)}") from error


def told(error: BaseException) -> str:
    """A fault in words: its type, its message, and the innermost line of code outside the installed libraries."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if "site-packages" not in frame.filename and "everlearn" not in Path(frame.filename).parts
    ]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if message else ''}{message}{place}"


def _learner(call: Any, stream: Stream, model: str, seed: int) -> Any:
    """Build a learner call; learners inside (for those that wrap one) are built the same way."""
    if not isinstance(call, Call):
        return call
    if call.name not in learners() and ":" not in call.name:
        return build(call, {**values(), **networks()}, "learner", lambda name: _refuse(name))
    target = lookup(call.name, learners(), "learner")
    if not (isinstance(target, type) and issubclass(target, Learner)):
        return build(call, {**values(), **networks()}, "learner")
    parameters = _parameters(target)
    kwargs = {key: _learner(item, stream, model, seed) for key, item in call.kwargs}
    if getattr(target, "takes", "network") == "estimator":
        args = [_estimator(target, item) for item in call.args] or [None]
    elif {"model", "learner"} & set(parameters) and not any(_is_learner(item) for item in call.args):
        own = not call.args or (isinstance(call.args[0], Call) and call.args[0].name in values())  # the network of the run
        given = (build_model(model, stream, seed),) if own else ()
        args = [*given, *(_argument(item, stream, seed) for item in call.args)]
    else:
        args = [_learner(item, stream, model, seed) for item in call.args]
    known = {
        "seed": seed, "classes": stream.schema.outputs, "updates": _deployed_batches, "features": None,
        "window": _window_length, "columns": lambda stream: target_columns(stream.schema),
    }  # fmt: skip
    for key, value in known.items():
        if key in parameters and key not in kwargs and value is not None and parameters[key].default in (None, 0):
            kwargs[key] = value(stream) if callable(value) else value
    with blame(call):
        return invoke(call.name, target, args, kwargs)


def _refuse(name: str) -> Any:
    raise SpecError(closest("learner", name, learners()))


def _is_learner(item: Any) -> bool:
    return isinstance(item, Call) and item.name in learners()


def _argument(item: Any, stream: Stream, seed: int) -> Any:
    """A network, or a value such as the objective of `unified(preset('ewc'))`."""
    if isinstance(item, Call) and item.name in values():
        return build(item, values(), "value")
    return build_model(str(item), stream, seed) if isinstance(item, Call) else item


def _estimator(target: type, item: Any) -> Any:
    """The estimator inside sklearn(...) or river(...), found by name in that library."""
    names = importlib.import_module(target.__module__).estimator_named
    return build(item, {}, "estimator", names)


def _window_length(stream: Stream) -> int | None:
    """The number of steps in a window of several series; None where rows are no windows."""
    return stream.schema.shape[0] if stream.schema.answers == "values" and len(stream.schema.shape) == 2 else None


def _deployed_batches(stream: Stream) -> int | None:
    """The number of labelled batches before deployment; None where changes are announced (the first boundary tells then)."""
    if stream.deployed == 0:
        return None
    events = (stream[index] for index in range(stream.deployed))
    return sum(isinstance(event, Batch) and event.y is not None for event in events)


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except ValueError:
        return {}


def build_budget(text: str) -> Budget:
    """The budget of a call string such as budget(replay=500, labels=1000)."""
    return build(parse(text, "budget(labels=1000)"), {"budget": Budget}, "budget")
