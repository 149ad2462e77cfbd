"""A small problem to learn from: normal clouds, or rows drawn from an example; and copies of events, for comparison."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from everlearn.core.events import Batch, Boundary, Event, X, map_x, rows
from everlearn.core.state import capture


@dataclass(frozen=True)
class Problem:
    """Events to learn from, rows to ask about, and the number of classes, or of values in an answer (None where it is not known)."""

    events: tuple[Event, ...]
    probe: X
    classes: int | None
    targets: int | None = None

    @property
    def outputs(self) -> int | None:
        """The columns of what a learner must predict."""
        return self.classes if self.targets is None else self.targets

    @property
    def batches(self) -> list[Batch]:
        """The events that are batches."""
        return [event for event in self.events if isinstance(event, Batch)]


def gaussian_problem(classes: int, announced: bool, batches: int = 12, size: int = 8, features: int = 8) -> Problem:
    """Normal clouds around one random mean per class; two announced tasks where boundaries are needed."""
    source = torch.Generator().manual_seed(2024)
    means = torch.randn(classes, features, generator=source)
    labels = torch.randint(classes, (batches, size), generator=source)
    inputs = means[labels] + 0.5 * torch.randn(batches, size, features, generator=source)
    events: list[Event] = [Batch(x, y) for x, y in zip(inputs, labels, strict=True)]
    if announced:
        known = tuple(range(classes))
        events.insert(batches // 2, Boundary(1, known))
        events.insert(0, Boundary(0, known))
    return Problem(tuple(events), torch.randn(6, features, generator=source), classes)


def sine_problem(targets: int, announced: bool, batches: int = 12, size: int = 8, window: int = 6) -> Problem:
    """Windows of noisy waves, one wave a column, whose next value is the answer: x (size, window, targets), y (size, targets)."""
    source = torch.Generator().manual_seed(2024)
    steps = torch.arange(batches * size + window + 6, dtype=torch.float32)[:, None]
    waves = (
        5.0
        + torch.sin(steps * (0.3 + 0.2 * torch.arange(targets)))
        + 0.1 * torch.randn(len(steps), targets, generator=source)
    )
    windows = waves.unfold(0, window, 1).transpose(1, 2)
    events: list[Event] = [
        Batch(windows[start : start + size].clone(), waves[start + window : start + window + size].clone())
        for start in range(0, batches * size, size)
    ]
    if announced:
        events.insert(batches // 2, Boundary(1))
        events.insert(0, Boundary(0))
    return Problem(tuple(events), windows[-6:].clone(), None, targets)


def sampled_problem(
    example: Batch, classes: int | None, announced: bool, targets: int | None = None, batches: int = 12, size: int = 8
) -> Problem:
    """Batches of rows drawn from an example."""
    source = torch.Generator().manual_seed(2024)
    events: list[Event] = []
    for _ in range(batches):
        index = torch.randint(len(example), (size,), generator=source)
        events.append(Batch(rows(example.x, index), example.y[index]))
    if announced:
        known = tuple(example.y.unique().tolist()) if targets is None else ()
        events.insert(batches // 2, Boundary(1, known))
        events.insert(0, Boundary(0, known))
    return Problem(tuple(events), rows(example.x, slice(0, size)), classes, targets)


def copied(event: Event) -> Event:
    """The same event in tensors of its own."""
    if isinstance(event, Boundary):
        return Boundary(event.task, event.classes, None if event.data is None else copied(event.data))
    y = None if event.y is None else event.y.clone()
    stamp = None if event.time is None else event.time.clone()
    return Batch(map_x(Tensor.clone, event.x), y, event.task, stamp, event.id)


def contents(event: Any) -> Any:
    """The tensors and scalars of an event, copied, for comparison."""
    if isinstance(event, (Tensor, Mapping)):
        return capture(event)
    if isinstance(event, Boundary):
        return [event.task, list(event.classes), None if event.data is None else contents(event.data)]
    return [capture(event.x), capture(event.y), event.task, capture(event.time), capture(event.id)]
