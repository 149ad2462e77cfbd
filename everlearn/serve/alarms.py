"""What an operator is told, and when: limits as values, and a watch over the log that raises an alarm once for each trouble.

    kind             is raised where                                                                        state of
    input_drift      columns (PSI, Kolmogorov-Smirnov) or features (MMD) leave the reference                  the log
    output_drift     the shares of answers (PSI) or their mean entropy leave those of earlier windows         the log
    performance      the error of answers as they were given rises (ADWIN)                                    the log
    label_delay      one answer in ten takes longer than the limit                                            the log
    missing_labels   of predictions old enough, more than usual have no answer                                the log, the clock
    update_norm      a step moves the weights by many times the running median                                the log
    plasticity       few units of the network are active on the newest rows                                   the log
    propensity       actions are too rare for estimates: least propensity, effective sample size              the log
    not_finite       a loss, a weight or an answer is not finite                                              the log
    lag, queue, early    answers wait to be learned from, requests for their turn, answers for predictions    the clock

`observe` is a function of the state and a moment of the log, so a server that was killed raises the same alarms; `look` has the clock.
"""

import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy
import torch
from torch import Tensor

from everlearn.core.agent import Agent
from everlearn.core.errors import ArgumentError, StateError, closest
from everlearn.core.learner import Learner
from everlearn.measure.active_units import ActiveUnits
from everlearn.measure.error_rise import ErrorRise
from everlearn.measure.exploration import Exploration
from everlearn.measure.features_seen import projected, seen_features
from everlearn.measure.late import LabelDelay, MissingLabels
from everlearn.measure.reading import Latch, Reading, above
from everlearn.measure.shift import AnswerShift, ColumnShift, KernelShift
from everlearn.measure.update_size import UpdateSize
from everlearn.serve.alarm_limits import ADOPTED, KINDS, OBSERVED, Alarms
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.records import Alarm, Answer, Input, Moment

LOOKED = ("missing_labels", "lag", "queue", "early")
WIDE = 256  # columns; rows of more, and images, are compared by a kernel
DOUBLE = ("float64", "int64", "int32")  # dtypes whose numbers do not all fit float32
KERNEL_ROWS = 100  # of the reference and of each window
KERNEL_BYTES = 8 * 2**20
TINY = 1e-30  # added to probabilities before their logarithm
ENTROPIES = 4096  # probabilities looked at in one step


class Watch:
    """Watches the log of one server. `observe` after each step; `look` about once a second, with the clock.

    Everything that `observe` depends on is in `parts`. What `look` has told is not: a server that starts again tells it again.
    """

    parts = ("made_for", "trackers", "latches", "answered")

    def __init__(self, alarms: Alarms, spec: InputSpec):
        self.alarms = alarms
        self.spec = spec
        self.made_for = self._made_for()
        self.trackers = _trackers(alarms, spec)
        self.latches = {kind: Latch() for kind in OBSERVED}
        self.answered = 0  # predictions seen
        self._labels = {label: place for place, label in enumerate(spec.classes)}
        self._looked = {kind: Latch() for kind in LOOKED}

    def restored(self) -> None:
        """Raises StateError where the state is that of other limits or other rows."""
        if self.made_for != self._made_for():
            raise StateError(
                f"the state is that of {self.made_for}, and this is {self._made_for()}. Let the alarms begin anew."
            )

    def _made_for(self) -> str:
        spec = self.spec
        return f"{self.alarms!r} for {spec.kind} of {spec.dtype} {list(spec.shape)}, {len(spec.classes or spec.targets)} answers"

    @property
    def raised(self) -> tuple[str, ...]:
        """The kinds of alarms that were raised and are not over."""
        looked = {kind for kind, latch in self._looked.items() if latch.set}
        return tuple(kind for kind in KINDS if kind in looked or (kind in self.latches and self.latches[kind].set))

    @property
    def patience(self) -> float | None:
        """Seconds after which an answer that has not come counts as missing; None while the usual delay is not known."""
        delays = self.trackers.get("delays")
        return None if delays is None else delays.patience

    def renew(self, *kinds: str) -> None:
        """Take what comes next as the reference, for some kinds of drift or for all. A change of the fold's state: log it first.

        Raises ArgumentError for a kind without a reference.
        """
        for kind in kinds or tuple(ADOPTED):
            if kind not in ADOPTED:
                raise ArgumentError(f"alarms: renew: {closest('kind', kind, ADOPTED)}")
            for name in ADOPTED[kind]:
                if name in self.trackers:
                    self.trackers[name].renew()
            self.latches[kind].clear()

    # ---- the log ---------------------------------------------------------------------------------------------------------

    def observe(self, moment: Moment, learner: Learner | Agent, metrics: Mapping[str, Any]) -> list[Alarm]:
        """Take one step that was folded; the learner and the metrics are those after it. At most one alarm of each kind."""
        readings: dict[str, list[Reading]] = {kind: [] for kind in OBSERVED}
        finite = all(map(math.isfinite, _numbers(metrics)))
        if moment.inputs:
            finite &= self._inputs(moment.inputs, learner, readings)
        if moment.answers:
            self._answers(moment.answers, readings)
        missing, sizes = self.trackers.get("missing"), self.trackers.get("sizes")
        if missing is not None:
            readings["missing_labels"] = missing.judge(self.patience)
        if sizes is not None:
            readings["update_norm"] = sizes.add(learner)
            finite &= not sizes.not_finite
        if self.alarms.not_finite:
            readings["not_finite"].append(_finite_reading(finite))
        time = max([row.created for row in (*moment.inputs, *moment.answers)], default=0.0)
        told = self._told(self.latches, readings, moment.last, time)
        self._adopt()
        return told

    def _inputs(self, inputs: tuple[Input, ...], learner: Learner | Agent, readings: dict[str, list[Reading]]) -> bool:
        """Look at rows and at what was answered. Returns whether the answers are finite."""
        trackers = self.trackers
        if "columns" in trackers or "kernel" in trackers or "units" in trackers:
            x = self.spec.tensor([row.x for row in inputs])
            if "columns" in trackers:
                readings["input_drift"] = trackers["columns"].add(x)
            elif "kernel" in trackers:
                readings["input_drift"] = trackers["kernel"].add(x, lambda rows: self._embed(rows, learner))
            if "units" in trackers and isinstance(learner, Learner):
                readings["plasticity"] = trackers["units"].add(x, learner)
        if "missing" in trackers:
            trackers["missing"].ask((row.id, row.created) for row in inputs)
        if "propensity" in trackers:
            given = (row.output.get("propensity") for row in inputs)
            readings["propensity"] = trackers["propensity"].add(value for value in given if value is not None)
        fresh = inputs[max(0, self.alarms.warm - self.answered) :]
        self.answered += len(inputs)
        if "answers" not in trackers and not self.alarms.not_finite:
            return True
        finite, entropies, values = self._outputs(inputs)
        if "answers" in trackers and fresh:
            tracker, frozen = trackers["answers"], self.latches["output_drift"].set
            if values is not None:
                readings["output_drift"] = tracker.measure(values[-len(fresh) :], frozen)
            else:
                labels = [self._label(row.output["answer"]) for row in fresh]
                readings["output_drift"] = tracker.count(labels, entropies[-len(fresh) :], frozen)
        return finite

    def _outputs(self, inputs: tuple[Input, ...]) -> tuple[bool, list[float], Tensor | None]:
        """(whether all is finite, entropies of probabilities as parts of a blind guess's, values)."""
        if self.spec.kind == "values":
            values = torch.tensor([row.output["answer"] for row in inputs], dtype=torch.float32).reshape(len(inputs), -1)
            return math.isfinite(float(values.sum())), [], values
        classes = len(self.spec.classes)
        if self.spec.kind == "actions" or classes < 2:
            return True, [], None
        newest = inputs[-max(1, ENTROPIES // classes) :]
        shares = numpy.array([row.output["probabilities"] for row in newest])
        entropies = -(shares * numpy.log(shares + TINY)).sum(axis=1) / math.log(classes)
        return math.isfinite(entropies.sum()), entropies.tolist(), None

    def _label(self, answer: Any) -> int:
        if self.spec.kind == "classes":
            return self._labels[answer]
        return answer if isinstance(answer, int) else zlib.crc32(repr(answer).encode())

    def _embed(self, rows: Tensor, learner: Learner | Agent) -> Tensor:
        found = seen_features(learner, rows) if self.alarms.features == "network" else None
        return projected(rows) if found is None else found

    def _answers(self, answers: tuple[Answer, ...], readings: dict[str, list[Reading]]) -> None:
        trackers = self.trackers
        first = [answer for answer in answers if answer.revision == 0]
        if "errors" in trackers:
            readings["performance"] = trackers["errors"].add(list(filter(math.isfinite, map(self._error, first))))
        if "answers" in trackers and self.spec.kind == "classes":
            trackers["answers"].tell([answer.y for answer in first])
        elif "answers" in trackers and self.spec.kind == "values":
            right = torch.tensor([answer.y for answer in first], dtype=torch.float32)
            trackers["answers"].tell_values(right.reshape(len(first), len(self.spec.targets)))
        given = [answer for answer in first if not answer.default]
        if "delays" in trackers:
            readings["label_delay"] = trackers["delays"].add(answer.created - answer.asked for answer in given)
        if "missing" in trackers:
            trackers["missing"].tell((answer.id, answer.created) for answer in given)

    def _error(self, answer: Answer) -> float:
        """The error of an answer as it was given: 0 or 1, the mean absolute error, or minus the reward."""
        if self.spec.kind == "actions":
            return -float(answer.y)
        given = answer.output["answer"]
        if self.spec.kind == "classes":
            return float(given != self.spec.classes[answer.y])
        pairs = zip(given, answer.y, strict=True)
        return sum(abs(one - other) for one, other in pairs) / len(given)

    # ---- the clock -------------------------------------------------------------------------------------------------------

    def look(
        self,
        now: float,
        lag: Mapping[str, Any],
        queue: Mapping[str, Any],
        *,
        oldest_early: float | None = None,
        asked: int = 0,
        unanswered: int = 0,
        seq: int = 0,
    ) -> list[Alarm]:
        """What only a clock tells. now: seconds since 1970; lag {"answers", "seconds"}, queue {"waiting", "limit"}: as in the status.

        oldest_early: when the oldest answer without a prediction came; asked, unanswered: the newest predictions that are older than
        `patience` seconds, and those of them without an answer (500 are enough); seq: the newest number of the log.
        """
        alarms, readings = self.alarms, {kind: [] for kind in LOOKED}
        if alarms.lag is not None:
            seconds = float(lag["seconds"])
            readings["lag"].append(
                above(
                    seconds,
                    alarms.lag,
                    f"Learning lags: the oldest answer not learned from is {seconds:.0f} s old (limit {alarms.lag:g} s), "
                    f"{lag.get('answers', 0)} wait. Look at whether learning is paused or failed, and at the time of a step.",
                )
            )
        if alarms.queue is not None:
            share = queue["waiting"] / max(1, queue["limit"])
            readings["queue"].append(
                above(
                    share,
                    alarms.queue,
                    f"Requests pile up: {queue['waiting']} of {queue['limit']} places are taken (limit {alarms.queue:.0%}). Beyond them "
                    "clients are turned away. Look at the rate of requests and at the disk.",
                )
            )
        if alarms.early is not None:
            age = 0.0 if oldest_early is None else now - oldest_early
            readings["early"].append(
                above(
                    age,
                    alarms.early,
                    f"Answers wait for predictions: the oldest has waited {age:.0f} s (limit {alarms.early:g} s). Look at whether "
                    "clients send the ids that the predictions had.",
                )
            )
        missing, patience = self.trackers.get("missing"), self.patience
        known = missing is not None and missing.usual is not None and patience is not None
        if known and asked >= alarms.window and not self.latches["missing_labels"].set:
            readings["missing_labels"].append(missing.read(unanswered / asked, asked, patience))
        return self._told(self._looked, readings, seq, now)

    def _told(
        self, latches: Mapping[str, Latch], readings: Mapping[str, list[Reading]], seq: int, time: float
    ) -> list[Alarm]:
        told = []
        for kind, latch in latches.items():
            reading = latch(readings[kind]) if readings[kind] else None
            if reading is not None:
                told.append(Alarm(kind, reading.value, reading.limit, reading.message, seq, time))
        return told

    def _adopt(self) -> None:
        """Where an alarm has lasted, what has changed becomes the reference."""
        if self.alarms.adopt is not None:
            lasting = [kind for kind in ADOPTED if self.latches[kind].set and self.latches[kind].since >= self.alarms.adopt]
            if lasting:
                self.renew(*lasting)


def _trackers(alarms: Alarms, spec: InputSpec) -> dict[str, Any]:
    """What is watched, by name; what is switched off is not there."""
    found: dict[str, Any] = {}
    sizes = {"level": alarms.level, "window": alarms.window}
    if len(spec.shape) == 1 and spec.shape[0] <= WIDE:
        if alarms.psi is not None or alarms.ks is not None:
            names = spec.features or tuple(f"x[{place}]" for place in range(spec.shape[0]))
            found["columns"] = ColumnShift(
                names, psi=alarms.psi, ks=alarms.ks, reference=alarms.reference, **sizes,
                dtype=torch.float64 if spec.dtype in DOUBLE else torch.float32,
            )  # fmt: skip
    elif alarms.mmd is not None:
        rows = max(20, min(KERNEL_ROWS, alarms.window, KERNEL_BYTES // max(1, 2 * spec.row_bytes)))
        found["kernel"] = KernelShift(
            spec.shape, spec.schema.dtype, least=alarms.mmd, level=alarms.level, reference=rows, window=rows,
            stride=max(1, alarms.window // rows),
        )  # fmt: skip
    if alarms.output is not None or alarms.entropy is not None:
        columns = max(1, len(spec.targets)) if spec.kind == "values" else 1
        found["answers"] = AnswerShift(
            columns=columns, shares=alarms.output, entropy=alarms.entropy, values=spec.kind == "values", **sizes
        )
    if alarms.performance is not None:
        measure = {"classes": "accuracy", "values": "error", "actions": "reward"}[spec.kind]
        found["errors"] = ErrorRise(alarms.performance, measure=measure, window=alarms.window)
    if alarms.delay is not None or alarms.delay_seconds is not None or alarms.missing is not None:
        found["delays"] = LabelDelay(times=alarms.delay, seconds=alarms.delay_seconds, window=alarms.window)
    if alarms.missing is not None:
        found["missing"] = MissingLabels(lost=alarms.missing, window=alarms.window)
    if alarms.update is not None or alarms.not_finite:
        found["sizes"] = UpdateSize(times=alarms.update)
    if alarms.plasticity is not None:
        found["units"] = ActiveUnits(least=alarms.plasticity, row_bytes=spec.row_bytes)
    if spec.kind == "actions" and (alarms.propensity is not None or alarms.effective is not None):
        found["propensity"] = Exploration(least=alarms.propensity, effective=alarms.effective, window=alarms.window)
    return found


def _numbers(metrics: Mapping[str, Any]) -> Iterable[float]:
    return (
        float(value)
        for value in metrics.values()
        if isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.numel() == 1)
    )


def _finite_reading(finite: bool) -> Reading:
    message = (
        "Numbers are no longer finite: a loss, a weight or an answer is infinite or not a number. Go back to an earlier version, "
        "then look at the rows of this step and at the learning rate."
    )
    return Reading(float(not finite), 0.0, message, not finite, finite)
