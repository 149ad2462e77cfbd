"""The accuracy matrix: the learner judged on every held-out set at every checkpoint, and all figures that follow from it.

R[t][i] is the accuracy on held-out set i after checkpoint t. Formulas: `measure.metrics`. Where a held-out set names its task
(task-incremental streams), only the classes that occur in the set compete for the answer; elsewhere all classes do.
Reference: Lopez-Paz & Ranzato (2017), Gradient episodic memory for continual learning, arXiv 1706.08840.
"""

from typing import Any

import torch
from torch import Tensor

from everlearn.core.events import Batch, Boundary, Event, map_x, rows, size
from everlearn.core.learner import Learner, ask
from everlearn.core.monitor import Monitor, Step
from everlearn.core.run import JUDGE_ROWS
from everlearn.core.stream import HeldOut, Stream
from everlearn.measure import metrics
from everlearn.measure.contents import device_of


def mark_classes(seen: Tensor, event: Event) -> None:
    """Set the flags of the classes that an event brings: those that a boundary announces, and those of labels."""
    if isinstance(event, Boundary):
        seen[list(event.classes)] = True
    elif isinstance(event, Batch) and event.y is not None:
        seen[event.y.cpu()] = True


class AccuracyMatrix(Monitor):
    """Accuracy on held-out sets along the stream.

    Figures: matrix, names, average_accuracy, anytime_accuracy, forgetting, backward_transfer, forward_transfer (against the
    learner before its first event), baseline, task_accuracy (average accuracy at the end where only the classes of a held-out set
    may be the answer to its rows, as if the task were told), per_class (one dict per checkpoint, all sets together). Curve, at checkpoints:
    average_accuracy, seen_accuracy (sets learned so far only), per_class.

    seen_only: whether only classes that have come may be the answer, for every learner alike (classes announced by a boundary
    have come). Some learners do so themselves; where one of them is compared with others, this makes the comparison fair.
    """

    name = "matrix"
    parts = ("names", "matrix", "within", "right", "labelled", "baseline", "shown", "seen")

    def __init__(self, seen_only: bool = False) -> None:
        self.seen_only = seen_only
        self._begin(())

    def _begin(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.names: list[str] = []
        self.matrix: list[list[float]] = []
        self.within: list[float] = []  # at the last checkpoint, by set
        self.right: list[list[int]] = []  # [checkpoint][class]
        self.labelled: list[list[int]] = []
        self.baseline: list[float] = []
        self.shown = 0  # checkpoints that are on the curve
        self.seen = torch.zeros(len(classes) if self.seen_only else 0, dtype=torch.bool)

    def start(self, learner: Learner, stream: Stream) -> None:
        self._begin(stream.schema.classes)
        if len(stream.held_out) == len(stream.checkpoints) > 1:  # forward transfer is defined
            device = device_of(learner)
            self.baseline = [_accuracy_of(learner, stream.held_out[index], device) for index in range(len(stream.held_out))]

    def wants_prediction(self, event: Event) -> bool:
        return False

    def observe(self, step: Step, learner: Learner) -> None:
        """Only held-out sets count here, and which classes have come where that matters."""
        if self.seen_only:
            mark_classes(self.seen, step.event)

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        if index == 0:
            self.names = []
            self.within = []
            self.matrix.append([])
            self.right.append([0] * len(self.classes))
            self.labelled.append([0] * len(self.classes))
        if self.seen_only and bool(self.seen.any()):
            scores = scores.masked_fill(~self.seen, -torch.inf)
        within = metrics.guesses(scores, held_out.y, masked=True) == held_out.y
        hits = within if held_out.task is not None else metrics.guesses(scores, held_out.y) == held_out.y
        self.names.append(held_out.name)
        self.within.append(_mean(within))
        self.matrix[-1].append(_mean(hits))
        self.right[-1] = _add(self.right[-1], held_out.y[hits])
        self.labelled[-1] = _add(self.labelled[-1], held_out.y)

    def record(self, learner: Learner) -> dict[str, Any]:
        if len(self.matrix) == self.shown:
            return {}
        self.shown = len(self.matrix)
        seen = self.matrix[-1]
        if len(self.baseline) == len(self.names):  # as many sets as checkpoints: checkpoint t comes after learning set t
            seen = seen[: len(self.matrix)]
        return {
            "average_accuracy": metrics.average_accuracy(self.matrix),
            "seen_accuracy": sum(seen) / len(seen),
            "per_class": self._by_class(-1),
        }

    def figures(self) -> dict[str, Any]:
        return {
            "matrix": self.matrix,
            "names": self.names,
            "average_accuracy": metrics.average_accuracy(self.matrix),
            "anytime_accuracy": metrics.anytime_accuracy(self.matrix),
            "forgetting": metrics.forgetting(self.matrix),
            "backward_transfer": metrics.backward_transfer(self.matrix),
            "forward_transfer": metrics.forward_transfer(self.matrix, self.baseline) if self.baseline else None,
            "baseline": self.baseline,
            "task_accuracy": metrics.average_accuracy([self.within]) if self.within else None,
            "per_class": [self._by_class(index) for index in range(len(self.matrix))],
        }

    def _by_class(self, checkpoint: int) -> dict[str, float]:
        return metrics.class_accuracy(self.right[checkpoint], self.labelled[checkpoint], self.classes)


def _accuracy_of(learner: Learner, held_out: HeldOut, device: torch.device) -> float:
    """The accuracy of a learner as it stands on one set."""
    chunks = []
    for begin in range(0, size(held_out.x), JUDGE_ROWS):
        part = rows(held_out.x, slice(begin, begin + JUDGE_ROWS))
        chunks.append(ask(learner, map_x(lambda value: value.to(device), part), held_out.task).cpu())
    return _mean(metrics.guesses(torch.cat(chunks), held_out.y, masked=held_out.task is not None) == held_out.y)


def _mean(hits: Tensor) -> float:
    return int(hits.sum()) / len(hits)


def _add(counts: list[int], labels: Tensor) -> list[int]:
    found = torch.bincount(labels, minlength=len(counts)).tolist()
    return [count + more for count, more in zip(counts, found, strict=True)]
