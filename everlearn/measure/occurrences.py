"""Which classes come in which task: how often, after what absence, and which of them ever meet.

    frequency of a class = tasks in which it came / tasks        expected gap = 1 / frequency, in tasks

A task is the span between two boundaries or between two task numbers of batches; where neither is known, a window of events.
Classes meet where they come in one task (where tasks are windows: in one batch). A loss that is masked to the classes at hand
never compares classes that no chain of meetings joins. State grows with the number of classes, not with the stream.
"""

from typing import Any

import torch
from torch import Tensor

from everlearn.core.events import Batch, Boundary, Event


class Occurrences:
    """Counts by class, taken from the labels of a stream, event by event.

    classes: how many there are; window: events of a task where no task is told, None where boundaries tell them.

    >>> import torch
    >>> from everlearn import Batch
    >>> found = Occurrences(classes=3, window=None)
    >>> for task, labels in enumerate([[0, 1], [1, 2], [0, 1]]):
    ...     found.see(Batch(torch.zeros(2, 1), torch.tensor(labels), task=task), task)
    >>> found.count.tolist(), found.returns.tolist(), found.components()  # class 0 came back after an absence
    ([2, 3, 1], [1, 0, 0], [[0, 1, 2]])
    """

    parts = ("tasks", "task", "opened", "here", "count", "last", "returns", "group")

    def __init__(self, classes: int, window: int | None):
        self.window = window
        self.tasks = 0  # begun so far
        self.task: int | None = None  # the number that the stream gives to the task at hand
        self.opened = -1  # the window at hand, where tasks are windows
        self.here = torch.zeros(classes, dtype=torch.bool)  # classes that came in the task at hand
        self.count = torch.zeros(classes, dtype=torch.int64)  # tasks in which a class came
        self.last = torch.full((classes,), -1)  # the last of them, counted from 0
        self.returns = torch.zeros(classes, dtype=torch.int64)  # times that it came back after at least one task without it
        self.group = torch.arange(classes)  # classes that meet, also through others, have the same number

    def see(self, event: Event, position: int) -> None:
        """Count one event; position: its number in the stream."""
        if isinstance(event, Boundary):
            self._begin(event.task)
        if not isinstance(event, Batch):
            return
        if event.task is not None and event.task != self.task:
            if self.tasks and self.task is None and not bool(self.here.any()):
                self.task = event.task  # a boundary without a number began it
            else:
                self._begin(event.task)
        elif self.window is not None and event.task is None and position // self.window != self.opened:
            self.opened = position // self.window
            self._begin(None)
        if event.y is not None:
            self._count(torch.bincount(event.y.cpu(), minlength=len(self.count)) > 0)

    def _begin(self, task: int | None) -> None:
        self.task = task
        self.tasks += 1
        self.here = torch.zeros_like(self.here)

    def _count(self, came: Tensor) -> None:
        if not self.tasks:
            self._begin(None)  # rows before the first boundary
        fresh = came & ~self.here
        if bool(fresh.any()):
            self.here |= came
            self.count += fresh
            self.returns += fresh & (self.last >= 0) & (self.last < self.tasks - 2)
            self.last[fresh] = self.tasks - 1
            if self.opened < 0:
                self._join(self.here)
        if self.opened >= 0:
            self._join(came)

    def _join(self, met: Tensor) -> None:
        groups = self.group[met]
        lowest = groups.min()
        if bool((groups != lowest).any()):
            self.group[torch.isin(self.group, groups)] = lowest

    def absences(self) -> Tensor:
        """(classes,) tasks since a class last came: 0 in the task at hand, -1 where it never came."""
        return torch.where(self.last < 0, -1, self.tasks - 1 - self.last)

    def frequencies(self) -> Tensor:
        """(classes,) share of the tasks in which a class came."""
        return self.count.double() / max(1, self.tasks)

    def components(self) -> list[list[int]]:
        """Groups of classes that meet, also through others; classes that never came are left out."""
        came = self.count > 0
        return [
            ((self.group == number) & came).nonzero().flatten().tolist() for number in sorted(set(self.group[came].tolist()))
        ]

    def facts(self) -> dict[str, Any]:
        """tasks, classes_per_task, expected_gaps (tasks, None for classes that never came), connected, components."""
        components = self.components()
        return {
            "tasks": self.tasks,
            "classes_per_task": int(self.count.sum()) / self.tasks if self.tasks else None,
            "expected_gaps": [self.tasks / count if count else None for count in self.count.tolist()],
            "connected": len(components) <= 1,
            "components": components,
        }
