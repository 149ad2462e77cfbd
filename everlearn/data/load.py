"""The front door to data: `load(name)` gives a data set, `SOURCES` names the functions that give one with options.

A name is looked for, in this order: among the sets bundled with scikit-learn, in the folders of EVERLEARN_DATA, on the Hugging
Face hub. The last sets read stay in memory.
"""

import difflib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from everlearn.core.errors import DataError, EverlearnError
from everlearn.data import folders, known_sets, published
from everlearn.data.arrays import from_arrays, npz
from everlearn.data.bundled import BUNDLED
from everlearn.data.dataset import Data
from everlearn.data.demands import Traffic, abilene, euro28
from everlearn.data.hub import hub
from everlearn.data.images import images
from everlearn.data.pooled import pooled
from everlearn.data.tables import table
from everlearn.data.torch_data import from_torch

__all__ = ["SOURCES", "Data", "from_arrays", "from_torch", "images", "known", "load", "npz", "pooled", "table"]

TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq")


def load(name: str) -> Data:
    """A data set by name: `digits`, `mnist10k`, `bandit_classification/letter`, `letter`, `user/name` of the hub.

    Looks among the bundled sets, then in the folders of EVERLEARN_DATA, then on the Hugging Face hub. Tensors are shared with
    whoever loads the same name again: do not write into them. Raises DataError that says where was looked, with the closest name.

    >>> data = load("digits")
    >>> tuple(data.x.shape), data.classes[:3]
    ((1797, 64), ('0', '1', '2'))
    """
    if not isinstance(name, str) or not name:
        raise DataError(
            f"load takes a name such as 'digits', got {name!r}. Use from_arrays(x, y) or from_torch(dataset) for data in memory."
        )
    if name in BUNDLED:
        return _bundled(name)
    _refuse_path(name)
    found = folders.find(name)
    if found is not None:
        return folders.read(found, name if name.isidentifier() else f"load({name!r})")
    if name in folders.KNOWN:
        raise DataError(
            f"{name}: not found in {folders.where()}. Set {folders.VARIABLE} to the folder that holds the folder {name}."
        )
    return _from_hub(name)


def known() -> list[tuple[str, str]]:
    """(name, one line) of every data set that `load` finds without a network."""
    rows = {name: _first_line(source) for name, source in BUNDLED.items()}
    for name, line in folders.described():
        source = SOURCES.get(name.split("/")[0])
        rows.setdefault(name, line if source is None else _first_line(source))
    return list(rows.items())


SOURCES: dict[str, Callable[..., Data | Traffic]] = {
    **BUNDLED,
    "cifar100_12k": known_sets.cifar100_12k,
    "cifar100": published.cifar100,
    "mini_imagenet": published.mini_imagenet,
    "cub200": published.cub200,
    "mnist10k": known_sets.mnist10k,
    "omniglot_small": known_sets.omniglot_small,
    "bandit_classification": known_sets.bandit_classification,
    "libsvm_binary": known_sets.libsvm_binary,
    "abilene": abilene,
    "euro28": euro28,
    "table": table,
    "images": images,
    "pooled": pooled,
    "npz": npz,
    "hub": hub,
    "load": load,
}


@cache
def _bundled(name: str) -> Data:
    return BUNDLED[name]()


def _refuse_path(name: str) -> None:
    """A file or a folder is no name; say which function reads it."""
    lower = name.lower()
    if lower.endswith(TABLES):
        raise DataError(f"{name} is a table; read it with table({name!r}, target='COLUMN').")
    if lower.endswith(".npz"):
        raise DataError(f"{name} is an npz file; read it with npz({name!r}).")
    if ("/" in name or name.startswith(".")) and Path(name).is_dir():
        raise DataError(
            f"{name} is a folder; read its images with images({name!r}), or name its parent in {folders.VARIABLE}."
        )


def _from_hub(name: str) -> Data:
    try:
        return hub(name)
    except EverlearnError as error:
        raise DataError(
            f"unknown data set {name!r}{_near(name)} It is not bundled ({', '.join(BUNDLED)}), not in {folders.where()}, "
            f"and not on the hub: {error}"
        ) from error


def _near(name: str) -> str:
    """The closest name that is there, as a question; folders' files count with and without their folder."""
    names = [*BUNDLED, *folders.names()]
    short = {item.rpartition("/")[2]: item for item in reversed(names)}
    near = difflib.get_close_matches(name, [*names, *short], n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else "."


def _first_line(source: Callable[..., Data | Traffic]) -> str:
    return (source.__doc__ or "").strip().split("\n")[0]
