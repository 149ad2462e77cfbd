"""The fold: `run(learner, stream)` takes a learner through a log of events, under a budget, watched by monitors.

    state = fold(step, initial(arguments, seed), events)

Everything that the fold depends on is in `Fold.parts`, so a run that is killed and started again gives the same bits as one
that was not. `Fold.step` is the only way in which an event reaches a learner; a server uses the same.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from everlearn.core.agent import Agent
from everlearn.core.budget import Budget, Meter, activation_bytes, refuse_activations
from everlearn.core.errors import InputError, check_count
from everlearn.core.events import Boundary, Event, Feedback, map_x, rows, size, to_device
from everlearn.core.learner import Adapter, Learner, TaskLearner, ask
from everlearn.core.monitor import Monitor, Step
from everlearn.core.run_folder import METRICS, RESULT, SNAPSHOTS, append_line, open_folder, write_lines
from everlearn.core.state import capture, digest, newest_snapshot, restore, save_snapshot, write_atomic
from everlearn.core.stream import Stream

CURVE_POINTS = 200  # how many times along the stream the monitors are asked for the curve
JUDGE_ROWS = 1024  # rows predicted at once on held-out sets


@dataclass
class Result:
    """What a run gave: figures by monitor, the curve, what the budget counted, and the learner as it ended."""

    figures: dict[str, Any]
    curve: list[dict[str, Any]]
    used: dict[str, Any]
    events: int
    sha256: str
    learner: Learner | Agent = field(repr=False)
    folder: Path | None = None


class Fold:
    """A learner on its way through a stream. All state is in `parts`."""

    parts = ("learner", "monitors", "meter", "position", "judged", "curve", "activations")

    def __init__(
        self, learner: Learner | Agent, stream: Stream, budget: Budget, monitors: Sequence[Monitor], device: str = "cpu"
    ):
        self.learner = learner
        self.stream = stream
        self.monitors = list(monitors)
        self.meter = Meter(budget)
        self.device = device
        self.position = 0  # events folded
        self.judged = 0  # checkpoints passed
        self.curve: list[dict[str, Any]] = []
        self.activations = 0  # most bytes that an update kept for its backward passes
        self._free = budget == Budget()
        self._limited = budget.activation_bytes is not None

    def step(self, event: Event) -> None:
        """Fold one event: predict if a monitor asks, learn if the budget allows, then let the monitors look."""
        learner, meter = self.learner, self.meter
        if self.device != "cpu":
            event = to_device(event, self.device)
        prediction, metrics, started, predicted, ended = None, None, 0.0, 0.0, 0.0
        hidden = self.stream.hidden_answers(self.position) if self.monitors else None
        if isinstance(event, Boundary):
            if not meter.closed:
                event = meter.announce(event)
                started = predicted = time.perf_counter()
                learner.boundary(event)
                ended = time.perf_counter()
        elif isinstance(event, Feedback):
            started = predicted = time.perf_counter()
            if meter.admits_feedback():
                metrics = learner.update(event)
            ended = time.perf_counter()
        else:
            wanted = any([monitor.wants_prediction(event) for monitor in self.monitors]) or hidden is not None
            admitted = meter.admit(event)
            started = time.perf_counter()
            if event.y is None and isinstance(learner, Adapter) and admitted is not None:
                prediction = learner.adapt(event.x) if self._free else self._measured(learner.adapt, event.x)
                predicted, admitted = time.perf_counter(), None
                meter.adapted()
            else:
                if wanted:
                    prediction = ask(learner, event.x, event.task)
                predicted = time.perf_counter()
            if admitted is not None:
                metrics = learner.update(admitted) if self._free else self._measured(learner.update, admitted)
            ended = time.perf_counter()
        meter.seconds += ended - started
        if self.monitors:
            seen = Step(self.position, event, prediction, metrics, predicted - started, ended - predicted, hidden)
            for monitor in self.monitors:
                monitor.observe(seen, learner)
        self.position += 1

    def _measured(self, learn: Callable[[Any], Any], given: Any) -> Any:
        """Learn, and hold what is kept for backward passes against the budget (without a limit, only until it is known)."""
        if self.activations and not self._limited:
            return learn(given)
        result, used = activation_bytes(lambda: learn(given))
        self.activations = max(self.activations, used)
        refuse_activations(self.learner, used, self.meter.budget)
        return result

    def judge(self) -> None:
        """Let the monitors judge the learner on every held-out set."""
        for index in range(len(self.stream.held_out) if self.monitors else 0):
            held_out = self.stream.held_out[index]
            chunks = []
            for start in range(0, size(held_out.x), JUDGE_ROWS):
                part = rows(held_out.x, slice(start, start + JUDGE_ROWS))
                if self.device != "cpu":
                    part = map_x(lambda value: value.to(self.device), part)
                chunks.append(ask(self.learner, part, held_out.task).cpu())
            scores = torch.cat(chunks)
            for monitor in self.monitors:
                monitor.judge(self.judged, index, held_out, scores)
        self.judged += 1

    def record(self) -> dict[str, Any]:
        """Add a point to the curve."""
        point: dict[str, Any] = {"event": self.position}
        for monitor in self.monitors:
            figures = monitor.record(self.learner)
            if figures:
                point[monitor.name] = figures
        self.curve.append(point)
        return point


def run(
    learner: Learner | Agent,
    stream: Stream,
    *,
    budget: Budget | None = None,
    monitors: Sequence[Monitor] = (),
    folder: str | Path | None = None,
    resume: bool = True,
    snapshot_every: int | None = None,
    device: str = "cpu",
    config: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Fold a learner over a stream, or an agent over a log of feedback.

    With a folder, the run leaves config.yaml, metrics.jsonl, snapshots/ and result.json there; killed at any moment and
    called again, it continues from the newest snapshot and ends in the same bits (CPU, one thread count). resume=False
    starts the folder anew. snapshot_every: events between snapshots (a tenth of the stream by default, at most 1,000).
    progress: called with (events done, events in all).

    Raises InputError (empty stream, a learner that needs boundaries on a stream without), StateError (a folder of another
    configuration, corrupt snapshots), BudgetError, and what the learner raises.
    """
    total = len(stream)
    if total == 0:
        raise InputError(f"the stream {stream.name} is empty: there is nothing to learn from.")
    if snapshot_every is not None:
        check_count("run", "snapshot_every", snapshot_every)
    if learner.needs_boundaries and not stream.boundaries:
        raise InputError(
            f"{learner.name} needs announced boundaries, and {stream.name} has none. "
            "Use a scenario with boundaries (split, domain), or a learner without that need (replay, derpp)."
        )
    if isinstance(learner, TaskLearner) and not learner.infers_task and _tells_no_task(stream):
        raise InputError(
            f"{learner.name} must be told the task of what it predicts, and the held-out sets of {stream.name} name none. "
            "Use a scenario that tells tasks (tasks), or let it find the task by itself (infer_task='max_output')."
        )
    budget = budget or Budget()
    budget.limit(learner)
    fold = Fold(learner, stream, budget, monitors, device)
    for monitor in fold.monitors:
        monitor.start(learner, stream)
    place = Path(folder) if folder is not None else None
    if place is not None:
        settings = {**(config or {}), "learner": repr(learner), "stream": stream.name, "budget": repr(budget)}
        settings |= {"monitors": [monitor.name for monitor in fold.monitors], "initial_state": digest(capture(fold.learner))}
        open_folder(place, settings, resume)
        found = newest_snapshot(place / SNAPSHOTS)
        if found is not None:
            restore(fold, found[1])
        write_lines(place / METRICS, fold.curve)
    every = snapshot_every or max(1, min(1000, total // 10))
    stride = max(1, total // CURVE_POINTS)
    checkpoints = set(stream.checkpoints)
    for position in range(fold.position, total):
        fold.step(stream[position])
        done = position + 1
        due = done in checkpoints
        if due:
            fold.judge()
        if fold.monitors and (due or done % stride == 0 or done == total):
            point = fold.record()
            if place is not None:
                append_line(place / METRICS, point)
        if place is not None and (done % every == 0 or done == total):
            save_snapshot(place / SNAPSHOTS, done, capture(fold))
        if progress is not None and (done % stride == 0 or done == total):
            progress(done, total)
    result = Result(
        figures={monitor.name: monitor.figures() for monitor in fold.monitors},
        curve=fold.curve,
        used=fold.meter.used() | {"activation_bytes": fold.activations},
        events=total,
        sha256=digest(learner.state_dict()),
        learner=learner,
        folder=place,
    )
    if place is not None:
        write_atomic(place / RESULT, json.dumps(result_record(result, device), indent=1).encode())
    return result


def _tells_no_task(stream: Stream) -> bool:
    return len(stream.held_out) > 0 and stream.held_out[0].task is None


def result_record(result: Result, device: str) -> dict[str, Any]:
    """What result.json holds."""
    return {
        "figures": result.figures,
        "used": result.used,
        "events": result.events,
        "sha256": result.sha256,
        "environment": environment(device),
    }


@cache
def _commit() -> str | None:
    """The commit of the project in the working folder, None outside a repository."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions, commit, device and threads: what a figure depends on beside its configuration."""
    return {
        "everlearn": version("everlearn"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
        "device": device,
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
    }
