"""What the replay memories of a learner hold: counters that show at once whether a memory is filled, and used at all."""

from typing import Any

from torch import Tensor

from everlearn.core.events import Event
from everlearn.core.learner import Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.store import stores
from everlearn.core.stream import HeldOut, Stream


class MemoryUse(Monitor):
    """Rows and bytes in all memories of a learner together.

    Figures: seen (rows offered), stored (rows held now), replayed (rows drawn), bytes (held now), capacity (rows, None where a
    memory has no limit). Curve: stored, bytes. A learner without a memory has zeros.
    """

    name = "memory"
    parts = ("last",)

    def __init__(self) -> None:
        self.last = _counters(None)

    def start(self, learner: Learner, stream: Stream) -> None:
        self.last = _counters(learner)

    def wants_prediction(self, event: Event) -> bool:
        return False

    def observe(self, step: Step, learner: Learner) -> None:
        """Counters are read when the curve is drawn."""

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        """Judging stores nothing."""

    def record(self, learner: Learner) -> dict[str, Any]:
        self.last = _counters(learner)
        return {"stored": self.last["stored"], "bytes": self.last["bytes"]}

    def figures(self) -> dict[str, Any]:
        return self.last


def _counters(learner: Learner | None) -> dict[str, Any]:
    found = stores(learner)
    limits = [store.capacity for store in found if store.capacity is not None]
    return {
        "seen": sum(store.seen for store in found),
        "stored": sum(store.stored for store in found),
        "replayed": sum(store.replayed for store in found),
        "bytes": sum(store.nbytes for store in found),
        "capacity": sum(limits) if len(limits) == len(found) else None,
    }
