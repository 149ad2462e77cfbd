"""The Open Bandit Dataset: what a shop showed, by which policy, with which probability, and whether it was clicked.

    CSV of its authors: timestamp, item_id, position, click, propensity_score, user_feature_*, user-item_affinity_*
    npz of a sample:    timestamp_us, item_id, position, click, propensity, user_features, n_user_categories, affinity

x holds the categories of the user as 0/1 columns, the position as 0/1 columns, and the affinities. Every item is on offer, and only
the propensity of the one that was shown is known. Reference: Saito, Aihara, Matsutani & Narita (2020), arXiv 2008.07146.
"""

from pathlib import Path
from typing import Any

import numpy
import torch

from everlearn.core.errors import DataError
from everlearn.data.decision_log import DecisionLog

POSITIONS = 3
NPZ = ("timestamp_us", "item_id", "position", "click", "propensity", "user_features", "n_user_categories", "affinity")
CSV = ("timestamp", "item_id", "position", "click", "propensity_score")


def read_open_bandit(path: str | Path, *, items: int | None = None) -> DecisionLog:
    """The log in a CSV of the data set, an npz of its sample, or a folder that holds one CSV beside `item_context.csv`.

    items: the number of items, where neither affinities nor `item_context.csv` tell it. Raises DataError.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(item for item in path.glob("*.csv") if item.name != "item_context.csv")
        if len(found) != 1:
            raise DataError(
                f"{path}: a folder of the data set holds one CSV beside item_context.csv, and here are {len(found)}."
            )
        path = found[0]
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    try:
        return _npz(path) if path.suffix == ".npz" else _csv(path, items)
    except DataError as error:
        raise error if str(path) in str(error) else DataError(f"{path}: {error}") from error


def _npz(path: Path) -> DecisionLog:
    try:
        with numpy.load(path) as file:
            columns = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as npz ({error}).") from error
    _need(path, columns, NPZ)
    users = [
        _indicators(columns["user_features"][:, place], int(count))
        for place, count in enumerate(columns["n_user_categories"])
    ]
    return _log(columns, users, columns["affinity"], columns["propensity"], columns["timestamp_us"] / 1e6)


def _csv(path: Path, items: int | None) -> DecisionLog:
    import pyarrow
    import pyarrow.csv

    try:
        table = pyarrow.csv.read_csv(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({str(error).splitlines()[0]}).") from error
    columns: dict[str, Any] = {name: table.column(name) for name in table.column_names if name}
    _need(path, columns, CSV)
    users = []
    for name in sorted(name for name in columns if name.startswith("user_feature")):
        texts = columns[name].cast(pyarrow.string()).to_pylist()
        order = {text: number for number, text in enumerate(sorted(set(texts), key=str))}
        users.append(_indicators(numpy.array([order[text] for text in texts]), len(order)))
    close = [name for name in columns if name.startswith("user-item_affinity")]
    close.sort(key=lambda name: int(name.rsplit("_", 1)[1]))
    affinity = numpy.stack([columns[name].to_numpy() for name in close], axis=1) if close else None
    context = path.with_name("item_context.csv")
    if affinity is None and items is None and context.is_file():
        items = pyarrow.csv.read_csv(context).num_rows
    plain = {name: columns[name].to_numpy() for name in ("item_id", "position", "click")}
    stamps = columns["timestamp"].cast(pyarrow.string()).to_numpy(zero_copy_only=False)
    seconds = (
        numpy.array([text.split("+")[0].removesuffix("Z") for text in stamps], dtype="datetime64[us]").astype(numpy.float64)
        / 1e6
    )
    return _log(plain, users, affinity, columns["propensity_score"].to_numpy(), seconds, items)


def _log(
    columns: dict[str, Any],
    users: list[numpy.ndarray],
    affinity: numpy.ndarray | None,
    propensity: numpy.ndarray,
    time: numpy.ndarray,
    items: int | None = None,
) -> DecisionLog:
    """A log, its rows ordered by time as they happened."""
    order = numpy.argsort(time, kind="stable")
    position = columns["position"].astype(numpy.int64) - 1
    if ((position < 0) | (position >= POSITIONS)).any():
        raise DataError(
            f"row {int(((position < 0) | (position >= POSITIONS)).argmax())}: the position must lie in 1..{POSITIONS}."
        )
    blocks = [*users, _indicators(position, POSITIONS), *([] if affinity is None else [affinity])]
    x = numpy.concatenate(blocks, axis=1).astype(numpy.float32)[order]
    action = torch.from_numpy(columns["item_id"].astype(numpy.int64)[order])
    count = items or (affinity.shape[1] if affinity is not None else int(action.max()) + 1)
    return DecisionLog.of(
        torch.from_numpy(x),
        action=action,
        actions=count,
        propensity=torch.from_numpy(propensity.astype(numpy.float64)[order]),
        reward=torch.from_numpy(columns["click"].astype(numpy.float64)[order]),
        time=torch.from_numpy(time[order]),
    )


def _indicators(values: numpy.ndarray, count: int) -> numpy.ndarray:
    """(n, count): 1 in the column that each value names."""
    return (values.astype(numpy.int64)[:, None] == numpy.arange(count)).astype(numpy.float32)


def _need(path: Path, columns: dict[str, Any], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in columns]
    if missing:
        raise DataError(f"{path}: the column {missing[0]!r} is missing; the Open Bandit Dataset has {', '.join(names)}.")
