"""Whether the networks of a learner can still learn, asked now and then on the newest rows.

Rows are gathered when it is time to ask, the share of units in use is read off them (`plasticity.inspect_networks`), and they are
let go.
"""

import math

import torch
from torch import Tensor

from everlearn.core.learner import Learner, ask_latest
from everlearn.measure.contents import device_of, networks
from everlearn.measure.plasticity import inspect_networks
from everlearn.measure.reading import Reading, below

PROBE_BYTES = 4 * 2**20


class ActiveUnits:
    """Tells where the share of active units is below `least`. every: rows between two looks; rows: of a look, fewer where they are large.

    row_bytes: bytes of one row; threshold: 0 asks whether a unit ever fires.
    """

    parts = ("probe", "waited", "share")

    def __init__(
        self, *, least: float = 0.2, threshold: float = 0.0, every: int = 5000, rows: int = 128, row_bytes: int = 1
    ):
        self.least = least
        self.threshold = threshold
        self.every = every
        self.rows = max(8, min(rows, PROBE_BYTES // max(1, row_bytes)))
        self.probe: Tensor | None = None  # rows gathered for the look that is due
        self.waited = 0  # rows since the last look
        self.share: float | None = None  # what the last look found

    def add(self, x: Tensor, learner: Learner) -> list[Reading]:
        """Take rows (rows, ...). A reading comes when a look was due and its rows are together."""
        self.waited += len(x)
        if self.waited < self.every or not networks(learner):
            return []
        self.probe = x if self.probe is None else torch.cat([self.probe, x])
        if len(self.probe) < self.rows:
            return []
        probe, self.probe, self.waited = self.probe[-self.rows :], None, 0
        probe = probe.to(device_of(learner))
        if not math.isfinite(float(ask_latest(learner, probe).sum())):
            return []  # there is a worse trouble, which is told elsewhere
        self.share = inspect_networks(learner, probe, self.threshold)["active_units"]
        if self.share is None:
            return []
        return [
            below(
                self.share,
                self.least,
                f"The network is losing its ability to learn: {self.share:.0%} of its units are active on the newest {self.rows} rows "
                f"(limit {self.least:.0%}). Consider a fresh start from data, a smaller learning rate, or resets of idle units.",
            )
        ]
