"""What an object holds beside its state: each attribute that `parts` do not name, printed.

Two objects into which the same state was loaded can be told apart by it, and what differs is what was forgotten.
"""

import hashlib
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor, nn

DEPTH = 8  # how deep objects inside objects are looked into


@dataclass(frozen=True)
class Leftover:
    """An attribute that is not state: its print, and whether its owner has no way (`restored`) to make it anew."""

    print: str
    strict: bool


def leftovers(value: Any) -> dict[str, Leftover]:
    """{dotted name: print} of every attribute, of an object and of its parts, that `parts` do not name."""
    claimed: set[int] = set()
    _claim(value, claimed)
    found: dict[str, Leftover] = {}
    _collect(value, "", claimed, found)
    return found


def _claim(value: Any, claimed: set[int]) -> None:
    """Note every object that is state, so that a second name for it is not taken for something forgotten."""
    if isinstance(value, nn.Module):
        claimed.update(map(id, value.modules()))
        claimed.update(map(id, value.parameters()))
        claimed.update(map(id, value.buffers()))
    elif isinstance(value, Mapping):
        for item in value.values():
            _claim(item, claimed)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _claim(item, claimed)
    elif hasattr(value, "parts"):
        for name in value.parts:
            _claim(getattr(value, name), claimed)
    if not (value is None or isinstance(value, (bool, int, float, str, tuple))):
        claimed.add(id(value))


def _collect(value: Any, path: str, claimed: set[int], found: dict[str, Leftover]) -> None:
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _collect(item, f"{path[:-1]}[{index}].", claimed, found)
    if not hasattr(value, "parts"):
        return
    for name, item in vars(value).items():
        if name in value.parts:
            _collect(item, f"{path}{name}.", claimed, found)
        elif id(item) not in claimed:
            strict = not name.startswith("_") and not hasattr(value, "restored")
            text = hashlib.sha256(_print(item, claimed, set(), DEPTH).encode()).hexdigest()
            found[path + name] = Leftover(text, strict)


def _print(value: Any, claimed: set[int], seen: set[int], depth: int) -> str:
    """The content of a value as text; what cannot be looked into is printed by its type."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return repr(value)
    if id(value) in claimed or id(value) in seen or depth == 0:
        return "..."
    seen.add(id(value))
    if isinstance(value, Tensor):
        return (
            f"{value.dtype}{tuple(value.shape)}{value.detach().cpu().double().tolist() if not value.is_complex() else value}"
        )
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        return f"{value.dtype}{value.shape}{value.tobytes()!r}" if value.dtype != object else str(value)
    if isinstance(value, torch.Generator):
        return repr(value.get_state().numpy().tobytes())
    if isinstance(value, numpy.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, random.Random):
        return repr(value.getstate())
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if isinstance(value, Mapping):
        items = [f"{key!r}: {_print(item, claimed, seen, depth - 1)}" for key, item in list(value.items())]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        items = [_print(item, claimed, seen, depth - 1) for item in value]
        return "[" + ", ".join(sorted(items) if isinstance(value, (set, frozenset)) else items) + "]"
    if callable(value) and hasattr(value, "__qualname__"):
        return value.__qualname__
    return type(value).__name__ + _print(getattr(value, "__dict__", None), claimed, seen, depth - 1)
