"""The monitors that every comparison uses."""

from everlearn.core.learner import Adapter, Learner
from everlearn.core.monitor import Monitor
from everlearn.core.stream import Stream
from everlearn.measure.accumulation import KnowledgeAccumulation
from everlearn.measure.corruption_error import CorruptionError, corruptions_in
from everlearn.measure.cost import Cost
from everlearn.measure.drift_monitor import DriftMonitor
from everlearn.measure.forecast_error import ForecastError
from everlearn.measure.matrix import AccuracyMatrix
from everlearn.measure.memory_use import MemoryUse
from everlearn.measure.plasticity import Plasticity
from everlearn.measure.prequential import Prequential
from everlearn.measure.sessions import Sessions
from everlearn.measure.turned_back import TurnedBack


def standard(stream: Stream, learner: Learner | None = None) -> list[Monitor]:
    """New monitors for one run over a stream: errors of forecasts where answers are values. Else the accuracy matrix where there are
    held-out sets and checkpoints, and with it accuracy by session where few-shot sessions follow a base session; drift where the
    learner is judged by its answers on the stream; turning back where the learner adapts without labels; the others always."""
    if stream.schema.answers == "values":
        return [ForecastError(), Plasticity(), DriftMonitor(), MemoryUse(), Cost()]
    monitors: list[Monitor] = [Prequential()]
    if len(stream.held_out) and len(stream.checkpoints):
        monitors.append(AccuracyMatrix())
        if stream.base_classes:
            monitors.append(Sessions())
    if corruptions_in(stream) is not None:
        monitors.append(CorruptionError())
    monitors += [KnowledgeAccumulation(), Plasticity()]
    if stream.headline == "prequential":
        monitors.append(DriftMonitor())
    if isinstance(learner, Adapter):
        monitors.append(TurnedBack())
    return [*monitors, MemoryUse(), Cost()]
