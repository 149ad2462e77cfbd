"""Runs a study: tunes every arm equally, measures every arm on the reported seeds, judges the claims, draws the figure.

Each measured cell is a file, so a study that is stopped goes on where it was.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from everlearn.core.errors import ArgumentError, StateError, closest
from everlearn.core.run import environment
from everlearn.core.state import write_atomic
from everlearn.measure.statistics import mean_interval
from everlearn.studies.shared import forget, keep_in
from everlearn.studies.study import SCALES, TUNING_SEEDS, Arm, Measured, Study, overall, study_named

Cell = tuple[str, str, str, int]  # arm, setting as JSON, scale, seed
Watch = Callable[[float, int, int], None]
SHARED = "shared"  # the folder, beside the cells, of what arms share


@dataclass
class StudyResult:
    """The record of a study (the content of its result.json)."""

    record: dict[str, Any]

    @property
    def verdict(self) -> str:
        """HOLDS, DOES NOT HOLD or TOO SMALL TO TELL."""
        return self.record["verdict"]

    def text(self) -> str:
        """The study in words: every arm with its interval, every claim with its verdict."""
        record = self.record
        lines = [f"{record['title']} ({record['scale']} scale, {len(record['seeds'])} seeds)"]
        for measure, told in record["measures"].items():
            lines += ["", f"{told}:"]
            for arm in record["arms"]:
                found = arm["measures"].get(measure)
                if found is None:
                    continue
                setting = ", ".join(f"{key} {value}" for key, value in arm["setting"].items())
                interval = "" if found["low"] is None else f"  [{found['low']:.3f}, {found['high']:.3f}]"
                lines.append(f"  {arm['label']:<42} {arm['role']:<9} {found['mean']:.3f}{interval}  {setting}")
        lines.append("")
        for claim in record["claims"]:
            kind = "control (must not hold)" if claim["control"] else "claim"
            span = "" if claim["low"] is None else f" [{claim['low']:+.3f}, {claim['high']:+.3f}]"
            means = "met" if claim["met"] else "not met"
            told = f"  difference {claim['difference']:+.3f}{span}, asked {claim['margin']:+.3f}"
            lines.append(f"{kind}: {claim['text']}\n{told}: {claim['verdict']} ({means} by the means)")
        return "\n".join([*lines, "", f"verdict: {record['verdict']}"])


def run_study(
    study: Study, scale: str, folder: Path, *, resume: bool = True, workers: int | None = None, watch: Watch | None = None
) -> StudyResult:
    """Run a study at one scale and leave result.json, figure.png, one file per cell, and what arms share, in the folder."""
    if scale not in SCALES:
        raise ArgumentError(closest("scale", scale, SCALES))
    arms = study.arms(scale)
    reported = study.seeds(scale)
    if set(reported) & set(TUNING_SEEDS):
        raise ArgumentError(f"{study.name}: the reported seeds {reported} must not contain the tuning seeds {TUNING_SEEDS}.")
    cells = folder / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    if not resume:
        for path in cells.glob("*.json"):
            path.unlink()
        forget(folder / SHARED)
    trials = [
        _cell(arm.label, setting, scale, seed)
        for arm in arms
        if len(arm.settings) > 1
        for setting in arm.settings
        for seed in TUNING_SEEDS
    ]
    total = len(trials) + len(arms) * len(reported)
    pool = _Pool(study.name, cells, workers or os.cpu_count() or 1, total, watch)
    tuned = pool.measure(trials)
    chosen = {arm.label: _best(arm, tuned, scale, next(iter(study.measures))) for arm in arms}
    final = [_cell(label, chosen[label], scale, seed) for label, seed in in_order([arm.label for arm in arms], reported)]
    measured = pool.measure(final)
    found = {arm.label: [measured[_cell(arm.label, chosen[arm.label], scale, seed)] for seed in reported] for arm in arms}
    main = next(iter(study.measures))
    judged = [
        claim.judge({label: _scores(cells, claim.measure or main) for label, cells in found.items()})
        for claim in study.claims(scale)
    ]
    rows = [
        {"label": arm.label, "role": arm.role, "setting": dict(chosen[arm.label])}
        | {"measures": {measure: _interval(_scores(found[arm.label], measure)) for measure in found[arm.label][0].scores}}
        | {"curves": {name: _mean_curve(found[arm.label], name) for name in found[arm.label][0].curves}}
        for arm in arms
    ]
    record = {
        "kind": "study",
        "format": 2,
        "name": study.name,
        "title": study.title,
        "reference": study.reference,
        "measures": {name: told for name, told in study.measures.items() if any(name in row["measures"] for row in rows)},
        "axes": dict(study.axes),
        "scale": scale,
        "seeds": list(reported),
        "tuning_seeds": list(TUNING_SEEDS),
        "arms": rows,
        "claims": judged,
        "verdict": overall(judged),
        "environment": environment(),
    }
    write_atomic(folder / "result.json", json.dumps(record, indent=1).encode())
    from everlearn.studies.figure import draw

    draw(record, folder / "figure.png")
    return StudyResult(record)


def in_order(arms: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """(arm, seed) as they are measured: the first arm on every seed, then the others seed by seed.

    The first cell of a seed makes what its arms share (`studies.shared`), and the others wait for it. In this order two processes have
    other seeds to measure in the meantime.

    >>> in_order(["system", "frozen", "tuned"], (0, 1))
    [('system', 0), ('system', 1), ('frozen', 0), ('tuned', 0), ('frozen', 1), ('tuned', 1)]
    """
    first, *others = arms
    return [(first, seed) for seed in seeds] + [(arm, seed) for seed in seeds for arm in others]


def _scores(cells: Sequence[Measured], measure: str) -> list[float]:
    """One measure, seed by seed; empty where the arm does not have it."""
    return [cell.scores[measure] for cell in cells if measure in cell.scores]


def _interval(values: Sequence[float]) -> dict[str, Any]:
    mean, low, high = mean_interval(values)
    return {"values": list(values), "mean": mean, "low": low, "high": high}


def _mean_curve(cells: Sequence[Measured], name: str) -> list[list[float]]:
    """[x, mean over seeds, lowest, highest] at each x; curves of different lengths are cut to the shortest."""
    points = []
    for group in zip(*(cell.curves[name] for cell in cells), strict=False):
        heights = [point[1] for point in group]
        points.append([group[0][0], sum(heights) / len(heights), min(heights), max(heights)])
    return points


def _cell(arm: str, setting: Mapping[str, Any], scale: str, seed: int) -> Cell:
    return arm, json.dumps(dict(setting), sort_keys=True), scale, seed


def _best(arm: Arm, tuned: Mapping[Cell, Measured], scale: str, main: str) -> Mapping[str, Any]:
    """The setting with the best mean over the tuning seeds; the first of equals."""
    if len(arm.settings) == 1:
        return arm.settings[0]

    def mean(setting: Mapping[str, Any]) -> float:
        scores = [tuned[_cell(arm.label, setting, scale, seed)].scores[main] for seed in TUNING_SEEDS]
        return sum(scores) / len(scores)

    return max(arm.settings, key=mean)


class _Pool:
    """Measures cells in processes of one thread each, and keeps what was measured on disk."""

    def __init__(self, study: str, folder: Path, workers: int, total: int, watch: Watch | None):
        self.study = study
        self.folder = folder
        self.workers = workers
        self.total = total
        self.done = 0
        self.watch = watch

    def measure(self, cells: Sequence[Cell]) -> dict[Cell, Measured]:
        found: dict[Cell, Measured] = {}
        for cell in cells:
            path = self._path(cell)
            if path.exists():
                found[cell] = _read(path, cell)
                self._tell()
        missing = [cell for cell in cells if cell not in found]
        if missing:
            with ProcessPoolExecutor(
                min(self.workers, len(missing)),
                mp_context=get_context("spawn"),
                initializer=_begin,
                initargs=(self.folder.parent / SHARED,),
            ) as pool:
                futures = {pool.submit(_measure, self.study, cell): cell for cell in missing}
                for future in as_completed(futures):
                    cell = futures[future]
                    found[cell] = future.result()
                    write_atomic(self._path(cell), json.dumps({"cell": list(cell), **asdict(found[cell])}).encode())
                    self._tell()
        return found

    def _tell(self) -> None:
        self.done += 1
        if self.watch is not None:
            self.watch(self.done / self.total, self.done, self.total)

    def _path(self, cell: Cell) -> Path:
        return self.folder / f"{hashlib.sha256(repr(cell).encode()).hexdigest()[:16]}.json"


def _read(path: Path, cell: Cell) -> Measured:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StateError(f"{path} cannot be read: {error}. Remove it and run again.") from error
    if found["cell"] != list(cell):
        raise StateError(f"{path} belongs to another cell: {found['cell']}.")
    return Measured(found["scores"], found["curves"])


def _begin(shared: Path) -> None:
    torch.set_num_threads(1)
    keep_in(shared)


def _measure(study: str, cell: Cell) -> Measured:
    arm, setting, scale, seed = cell
    return study_named(study).measure(arm, json.loads(setting), scale, seed)
