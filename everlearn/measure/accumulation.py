"""Knowledge accumulation: whether accuracy on all classes rises along a stream on which each task brings only some of them.

    A(t)   accuracy on all held-out rows at checkpoint t            A_end   mean of A over the last tenth of the checkpoints
    level  what knowing nothing but the task at hand can reach: the share of the held-out rows that belong to its classes,
           averaged over tasks (n/N for n of N classes in each task and as many held-out rows of each class)

    score = (A_end - level) / (A_iid - level)       0: nothing is kept beyond the task at hand, 1: as good as A_iid

A_iid is the accuracy of the same model where nothing comes in tasks. Single points of the curve are noisy, so ends are means.
Reference: Lesort et al. (2023), Challenging common assumptions about catastrophic forgetting and knowledge accumulation, CoLLAs,
arXiv 2207.04543.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import check_count
from everlearn.core.events import Batch, Event
from everlearn.core.learner import Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.stream import HeldOut, Stream
from everlearn.measure.metrics import class_accuracy, guesses
from everlearn.measure.occurrences import Occurrences

WINDOWS = 100  # tasks into which a stream without tasks is cut, at most
PER_CLASS = 10  # rows of such a task for each class: drawn evenly, it is missing in one of 22,000 (e^-10)
END, LATE = 0.1, 0.2  # parts of the checkpoints behind A_end and behind the instability


def accumulation_score(end: float, level: float, iid: float) -> float | None:
    """(end - level) / (iid - level); None where iid leaves no room above the level.

    >>> accumulation_score(end=0.5, level=0.25, iid=0.75)
    0.5
    """
    return (end - level) / (iid - level) if iid > level else None


class KnowledgeAccumulation(Monitor):
    """What stays known of all classes while tasks bring only some of them, judged on all held-out rows together.

    window: events that count as one task where the stream tells no tasks; None cuts such a stream into 100, or into fewer where
    those would have under ten rows for each class.

    Figures: curve, a list of [tasks begun, A(t)]; end, A_end; level; instability, the standard deviation of A over the last fifth
    of the checkpoints; per_class {label: accuracy over the last tenth}; by_frequency; forgetting_curve; returning, the number of
    classes that came back after at least one task without them; recurrence (see `Occurrences.facts`); unit, "task" or "window";
    window; passes, gradient steps that the learner makes on a batch, None where it has no such argument. Curve, at checkpoints:
    accuracy, tasks. Classes count as trained where their labels come, whether or not a budget let the learner use them.

    >>> import torch
    >>> from everlearn import FineTune, load, run
    >>> from everlearn.data.scenarios import split
    >>> monitor = KnowledgeAccumulation()
    >>> result = run(FineTune(torch.nn.Linear(64, 10)), split(load("digits"), batch=100), monitors=[monitor])
    >>> round(monitor.level(), 2), monitor.curve()[0][0], monitor.figures()["recurrence"]["classes_per_task"]
    (0.2, 1, 2.0)
    """

    name = "accumulation"
    parts = ("seen", "right", "labelled", "absent", "begun", "shown")

    def __init__(self, window: int | None = None):
        if window is not None:
            check_count(self.name, "window", window)
        self.window = window
        self._begin((), None)

    def _begin(self, classes: tuple[str, ...], window: int | None) -> None:
        self.classes = classes
        self.passes: int | None = None
        self.seen = Occurrences(len(classes), window)
        self.right: list[Tensor] = []  # right answers by class, for every checkpoint
        self.labelled: list[Tensor] = []  # held-out rows by class
        self.absent: list[Tensor] = []  # tasks since a class last came
        self.begun: list[int] = []  # tasks begun
        self.shown = 0  # checkpoints that are on the curve

    def start(self, learner: Learner, stream: Stream) -> None:
        self._begin(stream.schema.classes, None if stream.boundaries else self.window or _window(stream))
        self.passes = getattr(learner, "passes", None)

    def wants_prediction(self, event: Event) -> bool:
        return False

    def observe(self, step: Step, learner: Learner) -> None:
        self.seen.see(step.event, step.position)

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        if index == 0:
            nothing = torch.zeros(len(self.classes), dtype=torch.int64)
            self.right.append(nothing)
            self.labelled.append(nothing)
            self.absent.append(self.seen.absences())
            self.begun.append(self.seen.tasks)
        y = held_out.y
        hits = guesses(scores, y, masked=held_out.task is not None) == y
        self.right[-1] = self.right[-1] + torch.bincount(y[hits], minlength=len(self.classes))
        self.labelled[-1] = self.labelled[-1] + torch.bincount(y, minlength=len(self.classes))

    def record(self, learner: Learner) -> dict[str, Any]:
        if len(self.right) == self.shown:
            return {}
        self.shown = len(self.right)
        tasks, accuracy = self.curve()[-1]
        return {"accuracy": accuracy, "tasks": tasks}

    def curve(self) -> list[list[Any]]:
        """[tasks begun, accuracy on all held-out rows] at every checkpoint."""
        return [
            [tasks, int(right.sum()) / int(labelled.sum())]
            for tasks, right, labelled in zip(self.begun, self.right, self.labelled, strict=True)
        ]

    def end(self) -> float | None:
        """A_end: the mean accuracy over the last tenth of the checkpoints; None where nothing was judged."""
        late = _last([accuracy for _, accuracy in self.curve()], END)
        return sum(late) / len(late) if late else None

    def instability(self) -> float | None:
        """The standard deviation (n - 1) of the accuracy over the last fifth of the checkpoints; None for fewer than two."""
        late = _last([accuracy for _, accuracy in self.curve()], LATE)
        return float(torch.tensor(late, dtype=torch.float64).std()) if len(late) > 1 else None

    def level(self) -> float | None:
        """The accuracy of one who knows the classes of the task at hand, all of them, and nothing else."""
        if not self.labelled or not self.seen.tasks:
            return None
        rows = self.labelled[-1].double()
        return float(rows @ self.seen.count.double()) / (float(rows.sum()) * self.seen.tasks)

    def score(self, iid_accuracy: float) -> float | None:
        """Knowledge accumulation between the level (0) and an accuracy reached where nothing comes in tasks (1)."""
        end, level = self.end(), self.level()
        return None if end is None or level is None else accumulation_score(end, level, iid_accuracy)

    def per_class(self) -> dict[str, float]:
        """{label: accuracy over the last tenth of the checkpoints}."""
        right, labelled = _last(self.right, END), _last(self.labelled, END)
        if not right:
            return {}
        return class_accuracy(sum(right).tolist(), sum(labelled).tolist(), self.classes)

    def by_frequency(self) -> list[dict[str, Any]]:
        """For every judged class: label, frequency (share of the tasks in which it came), accuracy over the last tenth."""
        accuracy = self.per_class()
        shares = self.seen.frequencies().tolist()
        return [
            {"label": str(label), "frequency": share, "accuracy": accuracy[str(label)]}
            for label, share in zip(self.classes, shares, strict=True)
            if str(label) in accuracy
        ]

    def forgetting_curve(self) -> list[dict[str, Any]]:
        """Accuracy of a class by the number of tasks since it last came: 0, 1, 2 to 3, 4 to 7, and so on.

        tasks: [fewest, most]; accuracy: mean over all classes and checkpoints with such an absence; count: how many they are.
        Classes that never came are left out. Rare classes make up more of the long absences than of the short ones.
        """
        sums: dict[int, list[float]] = {}
        for right, labelled, absent in zip(self.right, self.labelled, self.absent, strict=True):
            counts = zip(right.tolist(), labelled.tolist(), absent.tolist(), strict=True)
            for hits, rows, tasks in counts:
                if rows and tasks >= 0:
                    sums.setdefault(tasks.bit_length(), []).append(hits / rows)
        return [
            {
                "tasks": [2**place // 2, 2**place - 1],
                "accuracy": sum(sums[place]) / len(sums[place]),
                "count": len(sums[place]),
            }
            for place in sorted(sums)
        ]

    def figures(self) -> dict[str, Any]:
        return {
            "curve": self.curve(),
            "end": self.end(),
            "level": self.level(),
            "instability": self.instability(),
            "per_class": self.per_class(),
            "by_frequency": self.by_frequency(),
            "forgetting_curve": self.forgetting_curve(),
            "returning": int((self.seen.returns > 0).sum()),
            "recurrence": self.seen.facts(),
            "unit": "task" if self.seen.opened < 0 else "window",
            "window": self.seen.window,
            "passes": self.passes,
        }


def _window(stream: Stream) -> int:
    """Events of a window, taking every event to be as large as the first batch."""
    first = next((event for event in stream if isinstance(event, Batch)), None)
    rows = 1 if first is None else max(1, len(first))
    return max(1, len(stream) // WINDOWS, -(-PER_CLASS * stream.schema.outputs // rows))


def _last(items: Sequence[Any], share: float) -> Sequence[Any]:
    """The last part of some items, one at least where there is one."""
    return items[len(items) - math.ceil(round(share * len(items), 9)) :]
