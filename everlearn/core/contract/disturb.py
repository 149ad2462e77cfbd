"""A disturbed world: other global random states and another time of day, which a fold must not depend on."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch

CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")


def global_random_state() -> tuple[bytes, str, str]:
    """The state of every generator that a program shares."""
    kind, keys, *rest = numpy.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), f"{kind}{keys.tobytes()!r}{rest}", repr(random.getstate())


@contextmanager
def disturbed(number: int) -> Iterator[None]:
    """Other global random states and another time of day inside the block; all of it is put back behind it."""
    torch_state, numpy_state, python_state = torch.get_rng_state(), numpy.random.get_state(), random.getstate()
    clocks = {name: getattr(time, name) for name in CLOCKS}

    def shifted(name: str) -> Any:
        shift = number * 86_461 * (10**9 if name.endswith("_ns") else 1)
        return lambda: clocks[name]() + shift

    try:
        torch.manual_seed(number)
        numpy.random.seed(number)
        random.seed(number)
        for name in CLOCKS:
            setattr(time, name, shifted(name))
        yield
    finally:
        for name, clock in clocks.items():
            setattr(time, name, clock)
        torch.set_rng_state(torch_state)
        numpy.random.set_state(numpy_state)
        random.setstate(python_state)
