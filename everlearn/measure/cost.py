"""What adaptation costs: time of each call, and memory.

Times are of whole calls at the stream's own batch size, kept as counts in bins whose edges grow by 2^(1/16), so a percentile is
within 2.2 % of the exact one and the state does not grow. All figures here depend on the machine.
"""

import math
import sys
from bisect import bisect_left
from itertools import accumulate
from typing import Any

from torch import Tensor

from everlearn.core.events import Batch, Event
from everlearn.core.learner import Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.stream import HeldOut, Stream
from everlearn.measure.contents import model_bytes, state_bytes

SHORTEST = 1e-7  # seconds: the lower edge of the first bin
PER_OCTAVE = 16
POINTS = 200  # of time so far along the stream
BINS = 36 * PER_OCTAVE  # up to about 6,900 seconds


class Times:
    """A histogram of durations: counts in bins on a logarithmic scale, and their exact sum."""

    parts = ("counts", "count", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * BINS
        self.count = 0
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one call."""
        place = int(math.log2(max(seconds, SHORTEST) / SHORTEST) * PER_OCTAVE)
        self.counts[min(place, BINS - 1)] += 1
        self.count += 1
        self.seconds += seconds

    def mean_ms(self) -> float | None:
        """Milliseconds per call."""
        return 1000.0 * self.seconds / self.count if self.count else None

    def percentile_ms(self, share: float) -> float | None:
        """The duration in milliseconds that `share` of all calls stayed within: the middle of its bin, on the logarithmic scale."""
        if not self.count:
            return None
        rank = max(1, math.ceil(share * self.count))
        place = bisect_left(list(accumulate(self.counts)), rank)
        return 1000.0 * SHORTEST * 2.0 ** ((place + 0.5) / PER_OCTAVE)


class Cost(Monitor):
    """Time and memory.

    Figures: update_ms (mean) and update_ms_p99, of calls of update that had answers or made use of inputs alone; predict_ms_p50
    and predict_ms_p99, of calls of predict before an event was learned from, with predict_rows, the mean rows of such a call;
    seconds, in predict, update and boundary together, and along, [events, seconds] so far at points of the stream; boundary_seconds,
    in boundary alone (some learners train there); peak_memory_bytes, the most that the learner itself held (weights, gradients,
    optimiser state, memories) at the points of the curve, without activations; process_peak_bytes, the most that the whole process
    held since it began, libraries, data and earlier runs included; model_bytes, weights and buffers.
    """

    name = "cost"
    parts = ("update", "predict", "predicted", "boundary", "peak", "model", "position", "along")
    timed = True

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.update = Times()
        self.predict = Times()
        self.predicted = 0  # rows
        self.boundary = 0.0  # seconds
        self.peak = 0
        self.model = 0
        self.position = 0  # events
        self.along: list[list[float]] = []  # [events, seconds] so far, at points of the curve

    def start(self, learner: Learner, stream: Stream) -> None:
        self._begin()
        self._weigh(learner)

    def wants_prediction(self, event: Event) -> bool:
        return False

    def observe(self, step: Step, learner: Learner) -> None:
        event = step.event
        self.position = step.position + 1
        if not isinstance(event, Batch):
            self.boundary += step.update_seconds
            return
        if step.prediction is not None:
            self.predict.add(step.predict_seconds)
            self.predicted += len(event)
        if step.metrics is not None and (event.y is not None or step.metrics):  # not where the batch was passed over
            self.update.add(step.update_seconds)

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        """Judging is no cost of adaptation."""

    def record(self, learner: Learner) -> dict[str, Any]:
        """Nothing for the curve, which must not depend on the clock; memory is weighed here, and the time so far is noted."""
        self._weigh(learner)
        self.along.append([self.position, self._seconds])
        if len(self.along) > 2 * POINTS:
            self.along = self.along[1::2]
        return {}

    @property
    def _seconds(self) -> float:
        return self.update.seconds + self.predict.seconds + self.boundary

    def _weigh(self, learner: Learner) -> None:
        self.model = model_bytes(learner)
        self.peak = max(self.peak, state_bytes(learner))

    def figures(self) -> dict[str, Any]:
        return {
            "update_ms": self.update.mean_ms(),
            "update_ms_p99": self.update.percentile_ms(0.99),
            "predict_ms_p50": self.predict.percentile_ms(0.50),
            "predict_ms_p99": self.predict.percentile_ms(0.99),
            "predict_rows": self.predicted / self.predict.count if self.predict.count else None,
            "seconds": self._seconds,
            "along": [list(point) for point in self.along],
            "boundary_seconds": self.boundary,
            "peak_memory_bytes": self.peak,
            "process_peak_bytes": process_peak_bytes(),
            "model_bytes": self.model,
        }


def process_peak_bytes() -> int | None:
    """The most resident memory that this process has held; None where the system does not tell (Windows)."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
