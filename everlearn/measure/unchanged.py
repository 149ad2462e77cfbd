"""Whether old answers stand: the share of a task's scores that are to the bit what they were when the task had been learned.

    unchanged = mean over earlier held-out sets of (rows whose scores are the same / rows), at the last checkpoint

Accuracy that stays says little of single answers; methods that freeze what they learned can promise this instead.
"""

from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import check_count
from everlearn.core.events import Event
from everlearn.core.learner import Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.stream import HeldOut, Stream


class Unchanged(Monitor):
    """Holds the scores on each held-out set against those at its own checkpoint, the one with its number.

    rows: of each set that are compared, the first so many. Figures: unchanged (mean over the sets that have been learned, the one
    learned last left out; None while there is none) and by_set. Scores, not only answers: a change in the last digit counts.

    >>> import torch
    >>> from everlearn.core.stream import HeldOut
    >>> watch, rows = Unchanged(), HeldOut("first", torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    >>> watch.judge(0, 0, rows, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    >>> watch.judge(1, 0, rows, torch.tensor([[1.0, 0.0], [0.9, 0.0]]))
    >>> watch.figures()
    {'unchanged': 0.5, 'by_set': [0.5]}
    """

    name = "unchanged"
    parts = ("first", "shares")

    def __init__(self, rows: int = 100):
        check_count(self.name, "rows", rows)
        self.rows = rows
        self.first: dict[str, Tensor] = {}  # scores at the set's own checkpoint
        self.shares: dict[str, float] = {}  # by set, at the last checkpoint after it

    def start(self, learner: Learner, stream: Stream) -> None:
        """Nothing is needed of either."""

    def wants_prediction(self, event: Event) -> bool:
        return False

    def observe(self, step: Step, learner: Learner) -> None:
        """Only checkpoints are looked at."""

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        part = scores[: self.rows].detach().cpu()
        if checkpoint == index:
            self.first[str(index)] = part.clone()
        elif checkpoint > index and str(index) in self.first:
            before = self.first[str(index)]
            same = torch.zeros(0) if before.shape != part.shape else (before == part).all(1)
            self.shares[str(index)] = float(same.double().mean()) if len(same) else 0.0

    def record(self, learner: Learner) -> dict[str, Any]:
        """Nothing to draw between checkpoints."""
        return {}

    def figures(self) -> dict[str, Any]:
        shares = [self.shares[key] for key in sorted(self.shares, key=int)]
        return {"unchanged": sum(shares) / len(shares) if shares else None, "by_set": shares}
