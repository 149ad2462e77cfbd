"""The events of a log: what a learner or an agent is told, one step at a time.

`Batch` is one step of learning, `Boundary` a change point that is known, `Feedback` the consequence of an agent's choice.
An input `X` is a tensor, or a dict of tensors (tokens with a mask, say), with the batch first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

X = Tensor | Mapping[str, Tensor]
Metrics = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that arrive together.

    x: (batch, ...) tensor or dict of such; y: (batch,) int64 labels, or (batch, targets) float32 values, absent until they are known;
    task: id of the task where it is known; time: (batch,) of each row; id: names that join a late label to its input.
    """

    x: X
    y: Tensor | None = None
    task: int | None = None
    time: Tensor | None = None
    id: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return size(self.x)


@dataclass(frozen=True, slots=True)
class Boundary:
    """A change that is known: the task that begins, the classes it brings, and (if the setting allows) all its rows."""

    task: int | None
    classes: tuple[int, ...] = ()
    data: Batch | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """The consequence of one decision: `id` joins it to the decision, `propensity` is the probability of the action taken,
    `generation` the period of the policy that decided, where it is known."""

    id: str
    observation: X
    action: Any
    propensity: float | None
    reward: float
    next_observation: X | None = None
    done: bool = False
    generation: int | None = None


Event = Batch | Boundary | Feedback


def size(x: X) -> int:
    """The number of rows in x."""
    return len(x) if isinstance(x, Tensor) else len(next(iter(x.values())))


def map_x(function: Callable[[Tensor], Tensor], x: X) -> X:
    """Apply a function to the tensor, or to each tensor of the dict."""
    return function(x) if isinstance(x, Tensor) else {key: function(value) for key, value in x.items()}


def rows(x: X, index: Tensor | slice) -> X:
    """The rows of x that an index names."""
    return x[index] if isinstance(x, Tensor) else {key: value[index] for key, value in x.items()}


def join(first: X, second: X) -> X:
    """The rows of two inputs, one after the other."""
    if isinstance(first, Tensor):
        return torch.cat([first, second])
    return {key: torch.cat([first[key], second[key]]) for key in first}


def to_device(event: Event, device: torch.device | str) -> Event:
    """The same event with its tensors on a device."""
    if isinstance(event, Boundary):
        return event if event.data is None else replace(event, data=to_device(event.data, device))
    if not isinstance(event, Batch):
        return event
    y = None if event.y is None else event.y.to(device)
    return replace(event, x=map_x(lambda value: value.to(device), event.x), y=y)
