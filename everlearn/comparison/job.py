"""One cell of a comparison: one learner, one seed, one stream. A job is plain data, so that it can run in any process."""

import hashlib
import json
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from everlearn.comparison.building import build_learner, build_stream, told
from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, BudgetError, ContractError, EverlearnError, InputError, StateError
from everlearn.core.events import Batch, Boundary
from everlearn.core.learner import Learner
from everlearn.core.run import run
from everlearn.core.state import capture, digest, write_atomic
from everlearn.core.stream import Stream
from everlearn.measure.monitors import standard

LEARNER_FAULTS = (InputError, ArgumentError, BudgetError, ContractError)  # the learner's own; the other learners go on

Progress = Callable[[int, float], None]
LearnerSource = str | Callable[[Any, int], Learner]
StreamSource = str | Callable[[int], Stream]


@dataclass(frozen=True)
class Job:
    """learner: a call string, or a function (schema, seed) -> Learner; stream: a call string, or a function seed -> Stream."""

    number: int
    label: str
    learner: LearnerSource
    stream: StreamSource
    model: str
    seed: int
    budget: Budget
    folder: str | None
    resume: bool = True
    device: str = "cpu"
    path: tuple[str, ...] = ()


def run_job(job: Job, progress: Progress | None = None) -> dict[str, Any]:
    """Run one cell and give its record (plain JSON). A fault of the learner's own is a record with `error`.

    A record on disk is used again only if the stream still gives the same events.
    """
    reach(job.path)
    stream = stream_of(job.stream, job.seed)
    fingerprint = fingerprint_of(stream)
    place = run_folder(job)
    done = None if place is None or not job.resume else _finished(place / "record.json", fingerprint, job)
    if done is not None:
        return done
    record: dict[str, Any] = {"label": job.label, "seed": job.seed, "fingerprint": fingerprint, "budget": asdict(job.budget)}
    record |= {"model": job.model, "device": job.device}
    try:
        if isinstance(job.learner, str):
            learner = build_learner(job.learner, stream, job.model, job.seed)
        else:
            learner = job.learner(stream.schema, job.seed)
            if not isinstance(learner, Learner):
                raise ArgumentError(f"the function of {job.label!r} must give a learner, got {type(learner).__name__}.")
        move(learner, job.device)
        result = run(
            learner,
            stream,
            budget=job.budget,
            monitors=standard(stream, learner),
            folder=place,
            resume=job.resume,
            device=job.device,
            config={"label": job.label, "seed": job.seed, "model": job.model, "events": fingerprint},
            progress=None if progress is None else lambda at, total: progress(job.number, at / total),
        )
        record |= {"name": learner.name, "reference": learner.reference, "figures": result.figures, "curve": result.curve}
        record |= {"used": result.used, "sha256": result.sha256, "error": None}
    except LEARNER_FAULTS as error:
        record |= _failure(job, str(error), type(error))
    except (OSError, MemoryError, EverlearnError):
        raise
    except Exception as error:  # a fault in a learner's or a network's code, most often the user's own
        record |= _failure(job, told(error), ContractError)
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
            write_atomic(place / "traceback.txt", "".join(traceback.format_exception(error)).encode())
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
        write_atomic(place / "record.json", json.dumps(record).encode())
    return record


def stream_of(source: StreamSource, seed: int) -> Stream:
    """The stream of a call string, or of a function of a seed."""
    if not isinstance(source, str) and not callable(source):
        kind = type(source).__name__
        raise ArgumentError(
            f"a stream must be a call string such as 'split(digits)' or a function seed -> Stream, got {kind}."
        )
    stream = build_stream(source, seed) if isinstance(source, str) else source(seed)
    if not isinstance(stream, Stream):
        raise ArgumentError(f"the function that makes the stream must give a Stream, got {type(stream).__name__}.")
    return stream


def reach(folders: Sequence[str]) -> None:
    """Let modules in these folders be imported, the first folder first."""
    for folder in reversed(folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)


def _failure(job: Job, message: str, kind: type[EverlearnError]) -> dict[str, Any]:
    name = re.split(r"\W", job.label)[0]
    nothing = {"name": name, "reference": False, "figures": {}, "curve": [], "used": {}, "sha256": ""}
    return {**nothing, "error": message, "fault": kind.__name__}


def raise_fault(record: dict[str, Any], told: str = "") -> NoReturn:
    """Raise the error that a record holds, of the kind it was."""
    kind = next(kind for kind in LEARNER_FAULTS if kind.__name__ == record["fault"])
    raise kind(told + record["error"])


def run_folder(job: Job) -> Path | None:
    """Where a cell keeps its snapshots and record."""
    return None if job.folder is None else Path(job.folder) / "runs" / slug(job.label) / f"seed-{job.seed}"


def _finished(path: Path, fingerprint: str, job: Job) -> dict[str, Any] | None:
    """The record of a cell that was finished before on the same events and settings; None where there is none."""
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StateError(f"{path} cannot be read: {error}. Remove it and run again.") from error
    wanted = {"fingerprint": fingerprint, "budget": asdict(job.budget), "model": job.model, "device": job.device}
    return record if record["error"] is None and all(record.get(key) == value for key, value in wanted.items()) else None


def fingerprint_of(stream: Stream) -> str:
    """A digest of what the stream is and of its first, middle and last events: another data set or seed shows in it."""
    total = len(stream)
    parts: list[Any] = [stream.name, total, list(stream.schema.classes)]
    for index in sorted({0, total // 2, total - 1}) if total else ():
        event = stream[index]
        if isinstance(event, Batch):
            parts.append(capture([event.x, event.y]))
        elif isinstance(event, Boundary):
            parts.append(list(event.classes))
    return digest(parts)[:16]


def slug(label: str) -> str:
    """A folder name for a label: readable, and different for different labels."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")[:48]
    return f"{plain}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def move(learner: Any, device: str) -> None:
    """Put every module among a learner's parts on a device, before it has learned anything."""
    if device == "cpu":
        return
    if isinstance(learner, torch.nn.Module):
        learner.to(device)
    for part in getattr(learner, "parts", ()):
        value = getattr(learner, part)
        for item in value if isinstance(value, (list, tuple)) else (value,):
            move(item, device)
