"""Rollback: another learner that adapts without labels, taken back to its last good state where its answers collapse.

    every few batches:  an alarm of `measure.collapse`?   no: the state of one look ago becomes the last good one
                                                         yes: back to the last good one, and again: back to the first one

What collapses is told from answers alone, beside those of the learner as it stood when it was deployed.
References: Niu et al. (2023), SAR, arXiv 2302.12400 (recovery); Press et al. (2023), RDumb, arXiv 2306.05401 (resets).
"""

from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.learner import Adapter, Learner
from everlearn.core.state import capture
from everlearn.learners.tent import Tent
from everlearn.measure.collapse import CollapseWatch


class Rollback(Adapter):
    """Another adapter, watched: it goes back to its last good state where adaptation hurts, and stops where it hurts again and again.

    learner: any that adapts without labels (a network stands for `tent` of it); every: batches from look to look, 5; window: rows
    looked at, 200; variety, crowding, agreement: what is alarming, as in `CollapseWatch`; limit: times that it goes back until
    it stops adapting for good, 3 (0: it stops at the first alarm, in the first state); to: "last_good", or "source", its first state.

    The first state is that after the first batch without labels: deployed, and one step from the source. A state is good once two
    looks after it found nothing wrong. Costs one more forward pass for each batch, and holds the learner four times. `history`: [batch,
    what was wrong, where it went back to] of each time. Metrics are the learner's, with the signals and `rolled_back`, `stopped`.

    >>> import torch
    >>> from everlearn import Batch, Rollback, Tent
    >>> learner = Rollback(Tent(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))))
    >>> x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    >>> metrics = [learner.update(Batch(x)) for _ in range(3)]
    >>> sorted(metrics[-1])
    ['agreement', 'crowding', 'learned_from', 'loss', 'rolled_back', 'stopped', 'surer', 'variety_lost']
    >>> learner
    rollback(tent())

    Reference: Niu et al. (2023), arXiv 2302.12400; Press et al. (2023), arXiv 2306.05401.
    """

    name = "rollback"
    parts = ("learner", "source", "watch", "begun", "seen", "good", "waiting", "again", "history", "stopped")
    needs_batch_norm = True  # of the network that stands for `tent`

    def __init__(
        self,
        learner: Learner | nn.Module,
        *,
        every: int = 5,
        window: int = 200,
        variety: float = 0.15,
        crowding: float = 0.2,
        agreement: float = 0.4,
        limit: int = 3,
        to: str = "last_good",
        seed: int = 0,
    ):
        if isinstance(learner, nn.Module):
            learner = Tent(learner, seed=seed)
        if not isinstance(learner, Adapter):
            raise ArgumentError(
                f"{self.name}: the first argument must be a learner that adapts without labels, such as tent() or cotta(), got "
                f"{learner!r}."
            )
        check_count(self.name, "every", every)
        check_count(self.name, "limit", limit, low=0)
        if to not in ("last_good", "source"):
            raise ArgumentError(f"{self.name}: to must be 'last_good' or 'source', got {to!r}.")
        self.learner = learner
        self.every = every
        self.window = window
        self.variety = variety
        self.crowding = crowding
        self.agreement = agreement
        self.limit = limit
        self.to = to
        self.seed = seed
        self.needs_boundaries = learner.needs_boundaries
        self.source = deepcopy(learner)
        self.watch = CollapseWatch(window, variety=variety, crowding=crowding, agreement=agreement, owner=self.name)
        self.begun = False  # whether the first batch without labels has come
        self.seen = 0  # batches without labels
        self.good: dict[str, Any] | None = None  # the last good state; None for the first one
        self.waiting: dict[str, Any] | None = None  # the state of the last look, good if the next finds nothing
        self.again = False  # whether it went back at the last look
        self.history: list[list[Any]] = []
        self.stopped = False

    def predict(self, x: X) -> Tensor:
        return self.learner.predict(x)

    def update(self, batch: Batch) -> Metrics:
        if not isinstance(batch, Batch) or batch.y is not None:
            return self.learner.update(batch)
        if self.stopped:
            self.learner.predict(batch.x)  # which refuses what it cannot take
            return {"stopped": 1}
        before = self.learner.predict(batch.x) if self.begun else None
        metrics = self.learner.update(batch)
        signals = self._looked(batch.x, before)
        return {**metrics, "rolled_back": 0, **signals, "stopped": int(self.stopped)}

    def adapt(self, x: X) -> Tensor:
        """The learner's scores, of before what this batch taught it."""
        if self.stopped:
            return self.learner.predict(x)
        scores = self.learner.adapt(x)
        self._looked(x, scores)
        return scores

    def boundary(self, boundary: Boundary) -> None:
        """The learner hears of the change."""
        self.learner.boundary(boundary)

    def _looked(self, x: X, scores: Tensor | None) -> Metrics:
        """Note one batch; look where it is time. Returns the signals, and `rolled_back` where it went back."""
        self.seen += 1
        if not self.begun:
            self.begun = True
            self.source.load_state_dict(self.learner.state_dict())
            return {}
        self.watch.observe(scores, self.source.predict(x))
        signals = self.watch.signals()
        if self.seen % self.every:
            return signals
        wrong = self.watch.alarm()
        if wrong is None:
            if self.watch.ready:
                self.good, self.waiting, self.again = self.waiting or self.good, capture(self.learner), False
            return signals
        self._back(wrong)
        return {**signals, "rolled_back": 1}

    def _back(self, wrong: str) -> None:
        """To the last good state, or to the first where that was not good enough."""
        self.stopped = len(self.history) >= self.limit
        first = self.good is None or self.again or self.stopped or self.to == "source"
        self.learner.load_state_dict(self.source.state_dict() if first else self.good)
        if first:
            self.good = None
        self.history = [*self.history, [self.seen, wrong, "source" if first else "last_good"]]
        self.waiting, self.again = None, True
        self.watch.clear()
