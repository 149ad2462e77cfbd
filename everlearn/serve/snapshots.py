"""Versions on disk: one pair of files each, written whole or not at all, checked by sha256 when it is read.

Reading never runs code: tensors are safetensors, the rest is JSON. A version's file name is its number and nothing else.
"""

from pathlib import Path
from typing import Any

from everlearn.core.errors import StateError
from everlearn.core.state import load_snapshot, sweep, write_snapshot


class Snapshots:
    """The versions in a folder."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def tidy(self) -> None:
        """Remove what a killed process left half-written. For the process that writes versions, before it does."""
        if self.folder.exists():
            sweep(self.folder)

    def save(self, version: int, state: Any) -> int:
        """Write a version; returns its bytes. Raises StateError, with nothing of it left behind."""
        path = write_snapshot(self.folder, version, state)
        return path.stat().st_size + path.with_suffix(".safetensors").stat().st_size

    def load(self, version: int) -> Any | None:
        """The state of a version; None where its files are missing, cut short or garbled."""
        try:
            return load_snapshot(self._path(version))[1]
        except StateError:
            return None

    def numbers(self) -> list[int]:
        """The versions that have files."""
        return sorted(int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdecimal())

    def remove(self, version: int) -> None:
        """Remove a version's files."""
        path = self._path(version)
        path.unlink(missing_ok=True)
        path.with_suffix(".safetensors").unlink(missing_ok=True)

    def _path(self, version: int) -> Path:
        return self.folder / f"{version:09d}.json"
