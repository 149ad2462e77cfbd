"""Data sets in the folders that the environment variable EVERLEARN_DATA names (several, separated by ':').

    NAME          the one npz of the folder NAME                 mnist10k
    NAME/FILE     one of several                                 bandit_classification/letter (or bandit_classification.letter)
    FILE          the same, where only one folder has it         letter

How a file is read stands in `everlearn.json` beside it: {"decoder": "plain", "x": "images", "y": "labels", "standardise": true,
"test_rows": 2000, "seed": 0, "file": "mnist10k", "description": "..."}, each key optional. Folders that the house knows need
none. What was read last stays in memory.
"""

import json
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from everlearn.core.errors import DataError, closest
from everlearn.core.spec import invoke
from everlearn.data.arrays import assemble, read_npz
from everlearn.data.dataset import Data
from everlearn.data.decoders import DECODERS, hold_out, readable

VARIABLE = "EVERLEARN_DATA"
RECIPE = "everlearn.json"
KNOWN: dict[str, dict[str, Any]] = {
    "cifar100_12k": {"decoder": "residual"},
    "mnist10k": {"decoder": "plain", "test_rows": 2000},
    "omniglot_small": {"decoder": "per_class"},
    "bandit_classification": {"decoder": "plain", "standardise": True},
    "libsvm_binary": {"decoder": "sparse", "standardise": None},
}
_PART = re.compile(r"[A-Za-z0-9_][\w.+-]*")


@dataclass(frozen=True)
class Found:
    """A file, and how to read it."""

    file: Path
    recipe: tuple[tuple[str, Any], ...]


def roots() -> list[Path]:
    """The folders of EVERLEARN_DATA, in order."""
    return [Path(item) for item in os.environ.get(VARIABLE, "").split(os.pathsep) if item]


def where() -> str:
    """EVERLEARN_DATA in words, for messages."""
    if not roots():
        return f"{VARIABLE} (not set)"
    return f"{VARIABLE} ({', '.join(str(root) if root.is_dir() else f'{root}, which is no folder' for root in roots())})"


def find(name: str) -> Found | None:
    """The file of a name, None where no folder has it. Raises DataError where a name fits several files or none of a folder's."""
    for text in dict.fromkeys((name, name.replace(".", "/", 1))):
        parts = text.split("/")
        if len(parts) > 2 or not all(_PART.fullmatch(part) for part in parts):
            continue
        for root in roots():
            folder = root / parts[0]
            if folder.is_dir():
                return _in_folder(folder, parts[1] if len(parts) == 2 else None)
            if len(parts) == 1 and (root / f"{text}.npz").is_file():
                return Found(root / f"{text}.npz", ())
    if not _PART.fullmatch(name):
        return None
    files = [file for root in roots() for file in sorted(root.glob(f"*/{name}.npz"))]
    if len(files) > 1:
        names = " or ".join(repr(f"{file.parent.name}/{file.stem}") for file in files)
        raise DataError(f"several folders have a data set {name!r}: write {names}.")
    return Found(files[0], tuple(recipe(files[0].parent).items())) if files else None


def _in_folder(folder: Path, file: str | None) -> Found:
    settings = recipe(folder)
    stems = [path.stem for path in sorted(folder.glob("*.npz"))]
    if not stems:
        raise DataError(f"{folder}: holds no npz file. Tables are read with table(...), images with images(...).")
    if file is None:
        file = settings.get("file") or (stems[0] if len(stems) == 1 else None)
        if file is None:
            names = ", ".join(f"{folder.name}/{stem}" for stem in stems)
            raise DataError(f"{folder.name} holds {len(stems)} data sets; name one: {names}.")
    if file.removesuffix(".npz") not in stems:
        raise DataError(f"{folder}: {closest('data set', file, stems)}")
    return Found(folder / f"{file.removesuffix('.npz')}.npz", tuple(settings.items()))


def recipe(folder: Path) -> dict[str, Any]:
    """How the files of a folder are read: its everlearn.json, else what the house knows, else nothing in particular."""
    path = folder / RECIPE
    if not path.is_file():
        return dict(KNOWN.get(folder.name, {}))
    try:
        settings = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}.") from error
    if not isinstance(settings, dict) or not all(
        value is None or isinstance(value, (str, int, bool)) for value in settings.values()
    ):
        raise DataError(f'{path}: must be an object of texts and numbers such as {{"decoder": "plain", "x": "images"}}.')
    return settings


def read(found: Found, name: str, **options: Any) -> Data:
    """The data set in a file. options: settings that go before those of the folder."""
    settings = tuple(sorted({**dict(found.recipe), **options}.items()))
    stamp = found.file.stat()
    return replace(_read(found.file, stamp.st_mtime_ns, stamp.st_size, settings), name=name)


@lru_cache(maxsize=8)
def _read(file: Path, changed: int, size: int, settings: tuple[tuple[str, Any], ...]) -> Data:
    """Read and decode; kept as long as the file does not change (its time and size are part of the key)."""
    options = dict(settings)
    owner = str(file)
    for key in ("description", "file"):
        options.pop(key, None)
    standardise, test_rows, seed = options.pop("standardise", False), options.pop("test_rows", None), options.pop("seed", 0)
    decoder = options.pop("decoder", "plain")
    if decoder not in DECODERS:
        raise DataError(f"{owner}: {closest('decoder', str(decoder), DECODERS)}")
    fields = invoke(f"{owner}: decoder {decoder}", DECODERS[decoder], [read_npz(file), owner], options)
    if test_rows is not None:
        fields = hold_out(fields, test_rows, seed, owner)
    return assemble(owner, fields, standardise=standardise)


def names() -> list[str]:
    """The names of all data sets in the folders that can be read, without reading them."""
    return [name for name, _ in described()]


def described() -> list[tuple[str, str]]:
    """(name, one line) of all data sets in the folders that can be read."""
    rows: dict[str, str] = {}
    for root in roots():
        for file in sorted(root.glob("*.npz")):
            if _looks_readable(file, {}):
                rows.setdefault(file.stem, f"{_size(file)} in {file.name}")
        for folder in sorted(path for path in root.glob("*") if path.is_dir()):
            settings = recipe(folder)
            files = [file for file in sorted(folder.glob("*.npz")) if _looks_readable(file, settings)]
            for file in files:
                alone = len(files) == 1 or settings.get("file") == file.stem
                rows.setdefault(folder.name if alone else f"{folder.name}/{file.stem}", _line(folder, file, settings))
    return list(rows.items())


def _looks_readable(file: Path, settings: Mapping[str, Any]) -> bool:
    if "decoder" in settings or "x" in settings:
        return True
    try:
        with zipfile.ZipFile(file) as archive:
            return readable({member.removesuffix(".npy") for member in archive.namelist()})
    except (OSError, zipfile.BadZipFile):
        return False


def _line(folder: Path, file: Path, settings: Mapping[str, Any]) -> str:
    """The description of the folder's recipe, or the first line of its README."""
    if settings.get("description"):
        return str(settings["description"])
    readme = folder / "README.md"
    if not readme.is_file():
        return f"{_size(file)} in {folder.name}/{file.name}"
    lines = [line.strip("# \n") for line in readme.read_text(encoding="utf8", errors="replace").splitlines()]
    lines = [line for line in lines if line and line != folder.name and not line.startswith("|")]
    return lines[0].removeprefix(folder.name).lstrip(" -—:") if lines else _size(file)


def _size(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.1f} MB"
