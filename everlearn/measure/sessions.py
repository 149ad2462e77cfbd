"""Few-shot sessions judged: accuracy on all classes so far, on base and on new ones apart, and what was lost along the way.

    A_s                mean over the classes seen by session s of (right answers / rows of the class); answers are among these classes
    base, new          the same over the classes of session 0, and over those that came later
    harmonic mean      2 base new / (base + new)
    average, drop      mean of A_0..A_S, and A_0 - A_S

Every class counts alike, however many rows it has. With 60 base classes of 100, A_s hides that new classes are lost: look at
`new` and the harmonic mean.
Reference: Tao et al. (2020), Few-shot class-incremental learning, arXiv 2004.10956; Roy et al. (2024), arXiv 2403.14392.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from everlearn.core.events import Event
from everlearn.core.learner import Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.stream import HeldOut, Stream
from everlearn.measure.matrix import mark_classes


def harmonic_mean(base: float, new: float) -> float:
    """2 base new / (base + new), 0 where both are 0: high only where both are.

    >>> round(harmonic_mean(0.6, 0.4), 12)
    0.48
    """
    return 2.0 * base * new / (base + new) if base + new else 0.0


def performance_drop(accuracies: Sequence[float]) -> float | None:
    """A_0 - A_S: the accuracy after the first session, less that after the last. None without sessions.

    >>> performance_drop([0.75, 0.5])
    0.25
    """
    return accuracies[0] - accuracies[-1] if len(accuracies) else None


class Sessions(Monitor):
    """Accuracy after each session, a session ending with each checkpoint; base classes are those that came by the first one.

    Figures, one number for each session: all, base, new and harmonic_mean (None until a new class has come), classes (how many
    were seen); average and performance_drop of `all`, None before the first checkpoint. Curve, at checkpoints: all, base, new,
    harmonic_mean. Classes announced by a boundary, and those of labelled rows, have come; test rows of others do not count.
    `measure.monitors.standard` has it for streams that name `base_classes`.

    >>> import torch
    >>> from everlearn import FewShot, load, run
    >>> from everlearn.data.few_shot import few_shot
    >>> torch.manual_seed(0) and None
    >>> stream = few_shot(load("digits"), base_classes=6, way=2, sessions=2, epochs=2)
    >>> learner = FewShot(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)))
    >>> figures = run(learner, stream, monitors=[Sessions()]).figures["sessions"]
    >>> figures["classes"], figures["new"][0], figures["performance_drop"] == figures["all"][0] - figures["all"][2]
    ([6, 8, 10], None, True)
    """

    name = "sessions"
    parts = ("seen", "known", "right", "labelled", "shown")

    def __init__(self) -> None:
        self._begin(0)

    def _begin(self, classes: int) -> None:
        self.seen = torch.zeros(classes, dtype=torch.bool)
        self.known: list[list[int]] = []  # classes seen, by session
        self.right: list[list[int]] = []  # [session][class]
        self.labelled: list[list[int]] = []
        self.shown = 0  # sessions that are on the curve

    def start(self, learner: Learner, stream: Stream) -> None:
        self._begin(len(stream.schema.classes))

    def wants_prediction(self, event: Event) -> bool:
        return False

    def observe(self, step: Step, learner: Learner) -> None:
        """Note the classes that come."""
        mark_classes(self.seen, step.event)

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        if index == 0:
            self.known.append(self.seen.nonzero().flatten().tolist())
            self.right.append([0] * len(self.seen))
            self.labelled.append([0] * len(self.seen))
        y = held_out.y.cpu()
        among = self.seen[y]
        y, scores = y[among], scores[among].masked_fill(~self.seen, -torch.inf)
        self.labelled[-1] = _add(self.labelled[-1], y)
        self.right[-1] = _add(self.right[-1], y[scores.argmax(dim=1) == y])

    def record(self, learner: Learner) -> dict[str, Any]:
        if len(self.known) == self.shown:
            return {}
        self.shown = len(self.known)
        return self._session(-1)

    def figures(self) -> dict[str, Any]:
        sessions = [self._session(number) for number in range(len(self.known))]
        keys = ("all", "base", "new", "harmonic_mean")
        columns: dict[str, Any] = {key: [session[key] for session in sessions] for key in keys}
        accuracies = [value for value in columns["all"] if value is not None]
        return columns | {
            "classes": [len(known) for known in self.known],
            "average": fmean(accuracies) if accuracies else None,
            "performance_drop": performance_drop(accuracies),
        }

    def _session(self, number: int) -> dict[str, float | None]:
        first = set(self.known[0])
        base = self._accuracy(number, self.known[0])
        new = self._accuracy(number, [label for label in self.known[number] if label not in first])
        return {
            "all": self._accuracy(number, self.known[number]),
            "base": base,
            "new": new,
            "harmonic_mean": None if base is None or new is None else harmonic_mean(base, new),
        }

    def _accuracy(self, number: int, classes: Sequence[int]) -> float | None:
        """The mean over some classes of their accuracy, None where none of them has a test row."""
        right, labelled = self.right[number], self.labelled[number]
        shares = [right[label] / labelled[label] for label in classes if labelled[label]]
        return fmean(shares) if shares else None


def _add(counts: list[int], labels: Tensor) -> list[int]:
    found = torch.bincount(labels, minlength=len(counts)).tolist()
    return [count + more for count, more in zip(counts, found, strict=True)]
