"""What every scenario does at its door: refuse what it cannot use, and give the stream the call string it was made from."""

import functools
import inspect
from collections.abc import Callable

import torch

from everlearn.core.errors import ArgumentError, DataError, check_count, check_range
from everlearn.core.spec import describe
from everlearn.core.stream import Stream
from everlearn.data.dataset import Data


def named(scenario: Callable[..., Stream]) -> Callable[..., Stream]:
    """Set the name of the stream that a scenario gives: `split(digits, experiences=10)`.

    The first argument appears by its name, the others where they differ from their default; the seed is left out.
    """
    signature = inspect.signature(scenario)
    source, *options = signature.parameters

    @functools.wraps(scenario)
    def call(*args, **kwargs) -> Stream:
        stream = scenario(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        texts = [given[source].name]
        for key in options:
            if key != "seed" and key in given and describe(given[key]) != describe(signature.parameters[key].default):
                texts.append(f"{key}={describe(given[key])}")
        stream.name = f"{scenario.__name__}({', '.join(texts)})"
        return stream

    return call


def check_data(scenario: str, data: Data) -> None:
    """Refuse what is no data set, or one of a single class."""
    if not isinstance(data, Data):
        raise ArgumentError(
            f"{scenario}: the first argument must be a data set such as digits, got {getattr(data, 'name', type(data).__name__)}."
        )
    if len(data.y.unique()) < 2:
        only = data.classes[int(data.y[0])]
        raise DataError(f"{data.name}: every row has the label {only!r}; at least two classes are needed to learn from.")


def check_sizes(scenario: str, *, batch: int, epochs: int = 1, test: float | None = None) -> None:
    """Refuse a batch or epochs below 1, or a test fraction that leaves nothing to learn from or to judge on."""
    check_count(scenario, "batch", batch)
    check_count(scenario, "epochs", epochs)
    if test is not None:
        check_range(scenario, "test", test, 0.0, 1.0)
        if test in (0, 1):
            raise ArgumentError(f"{scenario}: test must lie between 0 and 1, both left out, got {test!r}. Use test=0.2.")


def fraction_of(events: int, fraction: float) -> int:
    """That part of the events, rounded, but never all of them."""
    return min(events - 1, round(events * fraction))


def evenly(events: int, count: int) -> tuple[int, ...]:
    """At most `count` rising event numbers, as evenly spaced as can be; the last is the end."""
    return tuple(sorted({round(events * (step + 1) / count) for step in range(count)} - {0}))


def present(data: Data) -> list[int]:
    """The classes that have rows."""
    return torch.unique(data.y).tolist()
