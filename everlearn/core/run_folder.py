"""The folder of a run: config.yaml says of which run it is, metrics.jsonl holds its curve, snapshots/ its states, result.json its end.

A folder belongs to one configuration: the same command goes on with it, any other is refused before anything is overwritten.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from everlearn.core.errors import StateError
from everlearn.core.state import sweep, write_atomic

RESULT, CONFIG, METRICS, SNAPSHOTS = "result.json", "config.yaml", "metrics.jsonl", "snapshots"


def open_folder(folder: Path, settings: dict[str, Any], resume: bool) -> None:
    """Make a run folder, or check that the one that stands belongs to the same configuration; resume=False starts it anew."""
    path = folder / CONFIG
    if not resume:
        shutil.rmtree(folder / SNAPSHOTS, ignore_errors=True)
        for name in (CONFIG, METRICS, RESULT):
            (folder / name).unlink(missing_ok=True)
    if path.exists():
        try:
            standing = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise StateError(f"{path} cannot be read: {error}") from error
        if not isinstance(standing, dict):
            raise StateError(
                f"{path} is not the configuration of a run. Choose another folder, or start it anew with --no-resume."
            )
        wanted = json.loads(json.dumps(settings))
        if standing != wanted:
            keys = sorted(key for key in {*standing, *wanted} if standing.get(key) != wanted.get(key))
            differ = "; ".join(f"{key}: {standing.get(key)!r} there, {wanted.get(key)!r} now" for key in keys)
            raise StateError(
                f"{folder} holds a run of another configuration ({differ}). Choose another folder, or start it anew with --no-resume."
            )
        sweep(folder)
        sweep(folder / SNAPSHOTS)
        return
    if any((folder / SNAPSHOTS).glob("*.json")):
        raise StateError(
            f"{folder} holds snapshots, and no {CONFIG} that says of which run. Choose another folder, or start it anew with --no-resume."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"cannot make the run folder {folder}: {error.strerror}.") from error
    write_atomic(path, yaml.safe_dump(json.loads(json.dumps(settings)), sort_keys=False).encode())


def write_lines(path: Path, curve: list[dict[str, Any]]) -> None:
    """Write points anew, one JSON line each."""
    write_atomic(path, "".join(json.dumps(point) + "\n" for point in curve).encode())


def append_line(path: Path, point: dict[str, Any]) -> None:
    """Add one point. Raises StateError where the disk is full."""
    try:
        with open(path, "a") as file:
            file.write(json.dumps(point) + "\n")
    except OSError as error:
        raise StateError(
            f"cannot write {path}: {error.strerror}. The snapshots so far stand; free space and run again."
        ) from error
