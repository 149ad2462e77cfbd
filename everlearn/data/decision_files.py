"""Logs of decisions on disk: our own Parquet and JSONL, and the formats of others, told apart by name and content.

    id | x_hash | x | mask | p | a | p_a | reward | generation | time | weight        one row (or line) for each decision

`p` are the probabilities of all actions, null where only that of the action taken was kept. `read_decisions` also takes Vowpal
Wabbit's dsjson, the Open Bandit Dataset (CSV or npz), and the exported log of a server whose model is an agent.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.events import Feedback
from everlearn.core.state import write_atomic
from everlearn.data.decision_log import DecisionLog
from everlearn.data.open_bandit import read_open_bandit
from everlearn.data.served import Served
from everlearn.data.served_file import served_kind
from everlearn.data.vowpal import is_dsjson, read_dsjson, write_dsjson

NEEDED = ("x", "mask", "a", "p_a", "reward")
ENDINGS = ".parquet, .jsonl, .dsjson, .csv (Open Bandit Dataset), .npz (its samples)"


def read_decisions(path: str | Path, *, masked: bool | int = False) -> DecisionLog:
    """The log in a file or, for the Open Bandit Dataset, in a folder.

    masked: for the log of a server, whether the last columns of x, one for each action, say which were on offer; a number names how
    many they are, where the server kept no probabilities of all actions.
    Raises DataError where the file is missing, damaged or of another kind, or a row cannot be right.
    """
    path = Path(path)
    if path.is_dir() or path.suffix in (".csv", ".npz"):
        return read_open_bandit(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file. Logs of decisions are {ENDINGS}.")
    if path.suffix in (".parquet", ".pq"):
        return _blamed(path, lambda: _served(path, masked) if served_kind(path) else _from_columns(path, _parquet(path)))
    if path.suffix in (".json", ".jsonl", ".dsjson", ".log", ".txt"):
        first = next(iter(lines(path)), (1, {}))[1]
        return read_dsjson(path) if is_dsjson(first) else _blamed(path, lambda: _from_columns(path, _json_columns(path)))
    raise DataError(f"{path}: the ending {path.suffix!r} is not that of a log of decisions; known: {ENDINGS}.")


def write_decisions(log: DecisionLog, path: str | Path) -> Path:
    """Write a log as .parquet, .jsonl or .dsjson, whole or not at all. Raises ArgumentError for another ending."""
    path = Path(path)
    if path.suffix == ".dsjson":
        return write_dsjson(log, path)
    if path.suffix == ".jsonl":
        columns = _columns(log)
        rows = zip(*columns.values(), strict=True)
        text = "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
        write_atomic(path, text.encode())
        return path
    if path.suffix not in (".parquet", ".pq"):
        raise ArgumentError(f"write_decisions: the file must end in .parquet, .jsonl or .dsjson, got {path.name!r}.")
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(_table(log), sink, compression="zstd", write_page_checksum=True)
    write_atomic(path, sink.getvalue().to_pybytes())
    return path


def lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of each line of a JSONL file that is not empty. Raises DataError that names the line."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: no JSON ({error}).") from error
            if not isinstance(found, dict):
                raise DataError(f"{path}, line {number}: an object is expected, got {type(found).__name__}.")
            yield number, found


# ---- our own layout --------------------------------------------------------------------------------------------------------


def _columns(log: DecisionLog) -> dict[str, list]:
    empty = [None] * len(log)
    return {
        "id": list(log.id),
        "x_hash": list(log.hashes()),
        "x": log.x.tolist(),
        "mask": log.offered.tolist(),
        "p": empty if log.probabilities is None else log.probabilities.tolist(),
        "a": log.action.tolist(),
        "p_a": log.propensity.tolist(),
        "reward": log.reward.tolist(),
        "generation": log.generation.tolist(),
        "time": empty if log.time is None else log.time.tolist(),
        "weight": empty if log.weight is None else log.weight.tolist(),
    }


def _table(log: DecisionLog) -> Any:
    import pyarrow

    def rows_of(tensor: torch.Tensor | None, kind: Any) -> Any:
        if tensor is None:
            return pyarrow.nulls(len(log), pyarrow.list_(kind))
        offsets = numpy.arange(0, tensor.numel() + 1, max(tensor.shape[1], 1), dtype=numpy.int32)[: len(log) + 1]
        flat = pyarrow.array(tensor.contiguous().numpy().reshape(-1), type=kind)
        return pyarrow.ListArray.from_arrays(pyarrow.array(offsets), flat)

    def one(tensor: torch.Tensor | None) -> Any:
        return pyarrow.nulls(len(log), pyarrow.float64()) if tensor is None else pyarrow.array(tensor.numpy())

    return pyarrow.table(
        {
            "id": list(log.id),
            "x_hash": list(log.hashes()),
            "x": rows_of(log.x, pyarrow.float32()),
            "mask": rows_of(log.offered, pyarrow.bool_()),
            "p": rows_of(log.probabilities, pyarrow.float64()),
            "a": one(log.action),
            "p_a": one(log.propensity),
            "reward": one(log.reward),
            "generation": one(log.generation),
            "time": one(log.time),
            "weight": one(log.weight),
        }
    )


def _parquet(path: Path) -> dict[str, Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path, page_checksum_verification=True)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]}).") from error
    return {name: _arrow(table.column(name)) for name in table.column_names}


def _arrow(column: Any) -> Any:
    """A column as an array, (n, width) where it holds lists of one length without gaps; else a list."""
    import pyarrow.types

    if column.null_count == len(column):
        return None
    if column.null_count or not pyarrow.types.is_list(column.type):
        return column.to_pylist() if column.null_count or pyarrow.types.is_string(column.type) else column.to_numpy()
    flat = column.combine_chunks()
    width = len(flat[0])
    values = flat.flatten().to_numpy(zero_copy_only=False)
    even = width * len(flat) == len(values) and bool((flat.value_lengths().to_numpy() == width).all())
    return values.reshape(len(flat), width) if even else flat.to_pylist()


def _json_columns(path: Path) -> dict[str, list]:
    columns: dict[str, list] = {}
    for count, (number, row) in enumerate(lines(path)):
        missing = [name for name in NEEDED if name not in row]
        if missing:
            raise DataError(f"{path}, line {number}: {missing[0]!r} is missing; each line holds {', '.join(NEEDED)}.")
        for name, value in row.items():
            columns.setdefault(name, [None] * count).append(value)
        for values in columns.values():
            if len(values) <= count:
                values.append(None)
    return columns


def _from_columns(path: Path, columns: Mapping[str, Any]) -> DecisionLog:
    missing = [name for name in NEEDED if columns.get(name) is None]
    if missing:
        raise DataError(
            f"{path}: the column {missing[0]!r} is missing or empty; a log of decisions has {', '.join(NEEDED)}, and may have "
            "id, p, generation, time and weight."
        )

    def tensor(name: str, dtype: torch.dtype) -> torch.Tensor | None:
        values = columns.get(name)
        if values is None or (isinstance(values, list) and all(item is None for item in values)):
            return None
        if isinstance(values, list) and any(item is None for item in values):
            raise DataError(f"row {values.index(None)}: {name!r} has no value, and other rows have one.")
        try:
            array = numpy.asarray(values)
            array.setflags(write=False)
            return torch.tensor(array if array.dtype != object else values).to(dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"the column {name!r} holds rows of different length or no numbers ({error}).") from error

    names = columns.get("id")
    return DecisionLog.of(
        tensor("x", torch.float32),
        offered=tensor("mask", torch.bool),
        action=tensor("a", torch.int64),
        propensity=tensor("p_a", torch.float64),
        reward=tensor("reward", torch.float64),
        probabilities=tensor("p", torch.float64),
        id=None if names is None else tuple(map(str, names)),
        generation=tensor("generation", torch.int64),
        time=tensor("time", torch.float64),
        weight=tensor("weight", torch.float64),
    )


def _served(path: Path, masked: bool | int) -> DecisionLog:
    """The decisions of a server with an agent, from the log that it exported."""
    stream = Served(path)
    if stream.kind != "actions":
        raise DataError(f"the server answers with {stream.kind}, so its log holds no decisions; learners compare on it.")
    told = [event for event in stream if isinstance(event, Feedback)]
    for row, event in enumerate(told):
        if not isinstance(event.action, int) or isinstance(event.action, bool):
            raise DataError(f"row {row} (id {event.id!r}): the action is {event.action!r}; a number 0, 1, ... is needed.")
        if event.propensity is None:
            raise DataError(
                f"row {row} (id {event.id!r}): the propensity was not kept; without it no other policy can be judged."
            )
    x = torch.cat([event.observation.reshape(1, -1).to(torch.float32) for event in told])
    spread = _spread(path, [event.id for event in told])
    width = masked if masked is not True else None if spread is None else spread.shape[1]
    if width is None:
        raise DataError(
            "masked=True needs the probabilities of all actions, which were not kept; name the number of actions."
        )
    if width >= x.shape[1] + (not masked):
        raise DataError(f"masked={width} leaves no column of x, which has {x.shape[1]}.")
    x, offered = (x[:, :-width], x[:, -width:] != 0) if masked else (x, None)
    return DecisionLog.of(
        x,
        offered=offered,
        action=torch.tensor([event.action for event in told]),
        actions=None if spread is None else spread.shape[1],
        probabilities=spread,
        generation=torch.tensor([event.generation or 0 for event in told]),
        propensity=torch.tensor([event.propensity for event in told], dtype=torch.float64),
        reward=torch.tensor([event.reward for event in told], dtype=torch.float64),
        id=tuple(event.id for event in told),
    )


def _spread(path: Path, ids: list[str]) -> torch.Tensor | None:
    """(decisions, actions) of the probabilities that a server kept; None where it did not keep those of every decision."""
    import pyarrow.parquet

    if "probabilities" not in pyarrow.parquet.read_schema(path).names:
        return None
    table = pyarrow.parquet.read_table(path, columns=["id", "probabilities"]).drop_null().to_pydict()
    kept = dict(zip(table["id"], table["probabilities"], strict=True))
    return torch.tensor([kept[id] for id in ids], dtype=torch.float64) if ids and set(ids) <= kept.keys() else None


def _blamed(path: Path, read: Callable[[], DecisionLog]) -> DecisionLog:
    """The log, with the file named in what is wrong with it."""
    try:
        return read()
    except DataError as error:
        raise error if str(path) in str(error) else DataError(f"{path}: {error}") from error
