"""A stream yields events and owns the held-out sets on which learners are judged.

It is indexable: `stream[i]` never walks 0..i-1, which is what makes resume and very long streams cheap. It is a pure function
of its data set and its seed. `checkpoints` are the numbers of events after which learners are judged on every held-out set.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from everlearn.core.events import Event, X


@dataclass(frozen=True)
class Schema:
    """What one row looks like: the shape and dtype of x, and the user's own names of classes, columns and targets.

    `shape` leaves the batch out. `classes[y]` is the user's label of class y. Where answers are real numbers, `classes` is empty and
    `targets` names the columns of y. Images are uint8, channels first, 0..255. `encoder` turns raw rows of a table into rows of x
    (`data.encoder.Encoder`), where x comes from a table.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    classes: tuple[str, ...]
    features: tuple[str, ...] = ()
    encoder: Any = None
    targets: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """The number of classes, or of targets: the columns of what a learner predicts."""
        return len(self.classes or self.targets)

    @property
    def answers(self) -> str:
        """What y holds: "values" where there are targets, else "classes"."""
        return "values" if self.targets else "classes"


@dataclass(frozen=True)
class HeldOut:
    """Rows that are never learned from: x (rows, ...), y (rows,) int64 or (rows, targets) float32; `task` where the learner may know it."""

    name: str
    x: X
    y: Tensor
    task: int | None = None


class Stream(ABC):
    """Events by number. A stream sets the attributes below and writes `__len__` and `__getitem__`.

    name: the call string it was made from; schema: what a row is; held_out: the sets for judging (lazy sequences are fine);
    checkpoints: rising event counts in 1..len; boundaries: whether changes are announced by `Boundary` events;
    deployed: the number of events after which the model counts as deployed (what comes before is its first training);
    headline: what a learner is judged by, "held_out" (average accuracy over the held-out sets at the end) or "prequential"
    (accuracy of predictions made before their answers were learned from, after deployment);
    base_classes: where a base session is followed by sessions of a few rows each, the classes of the base session; () elsewhere;
    changes: event numbers at which the world is known to change, for charts and for judging drift alarms, never told learners.
    """

    name: str
    schema: Schema
    held_out: Sequence[HeldOut] = ()
    checkpoints: tuple[int, ...] = ()
    boundaries: bool = False
    deployed: int = 0
    headline: str = "held_out"
    base_classes: tuple[int, ...] = ()
    changes: tuple[int, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """The number of events."""

    def hidden_answers(self, index: int) -> Tensor | None:
        """The answers of an event that learners are never told, by which monitors score what was predicted; None where there are none.

        Such an event is a batch without y: a learner may adapt to its inputs, and no answer of it ever comes.
        """
        return None

    @abstractmethod
    def __getitem__(self, index: int) -> Event:
        """The event of a number, made without those before it."""

    def __iter__(self) -> Iterator[Event]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return self.name
