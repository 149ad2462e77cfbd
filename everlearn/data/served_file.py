"""The file of a server's log, open for reading (how it is laid out: `served_layout`).

Opening reads two narrow columns, to know where each event begins; the rest is read by row groups as it is asked for. Pages carry
checksums, so that damage is found and not learned from.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import DataError, closest
from everlearn.data.served_layout import ANSWER, FORMAT, INPUT, KEY, OPTIONAL, Layout

if TYPE_CHECKING:
    import pyarrow

HELD = 2  # row groups kept in memory


@dataclass(frozen=True)
class Rows:
    """Some rows of a file. x: (rows, *shape); id, time: of each; the rest as the kind has it, -1 or NaN where there is none.

    y: (rows,) int64, or (rows, targets) float32; action, propensity, reward, generation: lists.
    """

    x: Tensor
    id: tuple[str, ...]
    time: Tensor
    y: Tensor | None = None
    action: tuple[str | None, ...] = ()
    propensity: tuple[float | None, ...] = ()
    reward: tuple[float | None, ...] = ()
    generation: tuple[int | None, ...] = ()


class ServedFile:
    """A file open for reading: `len` counts its events, `span` and `rows` give what one of them holds.

    layout: what its rows hold; about: {"model", "seed", "steps"} of the server. Raises DataError where it is no such file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._metadata, self.layout, self.about = _opened(self.path)
        self._identity = _identity(self.path)
        groups = self._metadata.num_row_groups
        counts = [self._metadata.row_group(group).num_rows for group in range(groups)]
        self._begins = numpy.concatenate([[0], numpy.cumsum(counts, dtype=numpy.int64)])
        self._held: dict[int, Rows] = {}
        self._check_columns()
        self._starts, self._stops, self._answers = self._index()

    def __len__(self) -> int:
        return len(self._starts)

    def span(self, event: int) -> tuple[int, int, bool]:
        """(first row, row after the last, whether they are answers) of an event."""
        return int(self._starts[event]), int(self._stops[event]), bool(self._answers[event])

    def rows(self, start: int, stop: int) -> Rows:
        """The rows of a span, in memory of their own."""
        first, last = (int(numpy.searchsorted(self._begins, row, side="right")) - 1 for row in (start, stop - 1))
        parts = []
        for group in range(first, last + 1):
            begin = int(self._begins[group])
            parts.append(_cut(self._group(group), max(start - begin, 0), stop - begin))
        return parts[0] if len(parts) == 1 else _joined(parts)

    def fault(self, what: str, row: int | None = None) -> DataError:
        """The error for this file; row counts from 0."""
        return DataError(f"{self.path}{'' if row is None else f', row {row + 1}'}: {what}")

    # ---- reading -----------------------------------------------------------------------------------------------------------

    def _check_columns(self) -> None:
        there = self._metadata.schema.to_arrow_schema()
        for field in self.layout.columns:
            place = there.get_field_index(field.name)
            if place < 0 and field.name in OPTIONAL:
                continue
            if place < 0:
                raise self.fault(f"the column {field.name!r} is missing; it is the log of a server no more.")
            found = there.field(place).type
            if found != field.type and getattr(found, "value_type", None) != field.type:
                raise self.fault(f"the column {field.name!r} holds {found} values, and {field.type} is expected.")

    def _index(self) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        """(first row, row after the last, is an answer) of each event."""
        starts, answers = [], []
        before, row = -1, 0
        for group in range(self._metadata.num_row_groups):
            step, answer = self._order(group)
            if not len(step):
                continue
            key = 2 * step + answer
            earlier = numpy.concatenate([[before], key[:-1]])
            if (key < earlier).any():
                place = int(numpy.argmax(key < earlier))
                raise self.fault(f"step {step[place]} comes out of order; rows must stand as they were folded.", row + place)
            begins = numpy.flatnonzero(answer if self.layout.kind == "actions" else key != earlier)
            starts.append(row + begins)
            answers.append(answer[begins])
            before, row = key[-1], row + len(key)
        start = numpy.concatenate([numpy.zeros(0, numpy.int64), *starts])
        if not len(start):
            raise self.fault("the log holds no rewards yet." if row else "the log holds no events.")
        stop = start + 1 if self.layout.kind == "actions" else numpy.append(start[1:], row)
        return start, stop, numpy.concatenate(answers)

    def _order(self, group: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """(step, is an answer) of the rows of a group."""
        import pyarrow.compute

        table = self._read(group, ["step", "kind"])
        kinds = pyarrow.compute.unique(table.column("kind")).to_pylist()
        wrong = [kind for kind in kinds if kind not in (INPUT, ANSWER)]
        if wrong:
            raise self.fault(f"the column 'kind' holds {wrong[0]!r}; it must be {INPUT} or {ANSWER}.")
        answer = pyarrow.compute.equal(table.column("kind"), ANSWER)
        return self._numbers(table, "step", group), answer.to_numpy()

    def _group(self, number: int) -> Rows:
        """The rows of one group; the last groups asked for stay in memory."""
        if number not in self._held:
            while len(self._held) >= HELD:
                del self._held[next(iter(self._held))]
            self._held[number] = self._decoded(number)
        return self._held[number]

    def _decoded(self, number: int) -> Rows:
        layout = self.layout
        told = ["action", "propensity", "reward"] if layout.kind == "actions" else ["y"]
        table = self._read(number, ["id", "time", *layout.x_columns, *told])
        self._full(table, "id", number)
        x, time = self._x(table, number), torch.from_numpy(self._numbers(table, "time", number).copy())
        names = tuple(table.column("id").to_pylist())
        if layout.kind == "actions":
            known = self._metadata.schema.to_arrow_schema().names
            ages = self._read(number, ["generation"]).column(0).to_pylist() if "generation" in known else [None] * len(names)
            return Rows(x, names, time, None, *(tuple(table.column(name).to_pylist()) for name in told), tuple(ages))
        return Rows(x, names, time, self._y(table.column("y"), number))

    def _x(self, table: "pyarrow.Table", number: int) -> Tensor:
        names, kind = self.layout.x_columns, numpy.dtype(self.layout.dtype)
        if names == ("x",):
            self._full(table, "x", number)
            flat = table.column("x").combine_chunks().flatten()
            if flat.null_count:
                raise self.fault("the column 'x' has gaps.", int(self._begins[number]))
            x = flat.to_numpy(zero_copy_only=False).astype(kind).reshape(table.num_rows, *self.layout.shape)
        else:
            x = numpy.empty((table.num_rows, len(names)), kind)
            for place, name in enumerate(names):
                x[:, place] = self._numbers(table, name, number)
        if kind.kind == "f" and not numpy.isfinite(x).all():
            row = int(numpy.argwhere(~numpy.isfinite(x))[0][0])
            raise self.fault("x holds NaN or infinite values.", int(self._begins[number]) + row)
        return torch.from_numpy(x)

    def _y(self, column: "pyarrow.ChunkedArray", number: int) -> Tensor:
        """Class numbers, -1 where there is no answer, or values, NaN where there is none."""
        layout, begin = self.layout, int(self._begins[number])
        if layout.kind == "classes":
            coded = column.combine_chunks().dictionary_encode()
            place = {label: index for index, label in enumerate(layout.classes)}
            codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            for code, label in enumerate(coded.dictionary.to_pylist()):
                if label not in place:
                    raise self.fault(
                        f"y: {closest('label', label, layout.classes)}", begin + int(numpy.argmax(codes == code))
                    )
            labels = [place[label] for label in coded.dictionary.to_pylist()]
            return torch.from_numpy(numpy.array([*labels, -1], numpy.int64)[codes])
        width = len(layout.targets)
        y = numpy.full((len(column), width), numpy.nan)
        for row, values in enumerate(column.to_pylist()):
            if values is not None:
                values = [values] if width == 1 else values
                if len(values) != width:
                    raise self.fault(f"y holds {len(values)} values; there are {width} targets.", begin + row)
                y[row] = values
        return torch.from_numpy(y.astype(numpy.float32))

    def _numbers(self, table: "pyarrow.Table", name: str, group: int) -> numpy.ndarray:
        self._full(table, name, group)
        return table.column(name).to_numpy()

    def _full(self, table: "pyarrow.Table", name: str, group: int) -> None:
        column = table.column(name)
        if column.null_count:
            row = int(numpy.argmin(column.is_valid().to_numpy()))
            raise self.fault(f"the column {name!r} has no value.", int(self._begins[group]) + row)

    def _read(self, group: int, columns: list[str]) -> "pyarrow.Table":
        import pyarrow
        import pyarrow.parquet

        try:
            if _identity(self.path) != self._identity:
                raise self.fault("the file was replaced or removed while it was read; open it again.")
            file = pyarrow.parquet.ParquetFile(self.path, metadata=self._metadata, page_checksum_verification=True)
            with file:
                return file.read_row_group(group, columns=columns)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            begin, end = (int(self._begins[place]) for place in (group, group + 1))
            raise self.fault(f"rows {begin + 1} to {end} are damaged ({_brief(error)}). Export the log again.") from error


def served_kind(path: str | Path) -> str | None:
    """The kind of server ("classes", "values", "actions") behind an exported log; None where the file is another table.

    Raises DataError where it is no Parquet file that can be read, or the description of the log is garbled.
    """
    metadata = _metadata(Path(path))
    return None if KEY not in (metadata.metadata or {}) else _understood(Path(path), metadata)[0].kind


def _opened(path: Path) -> tuple[Any, Layout, dict[str, Any]]:
    """(metadata, layout, about) of a file. Raises DataError where it is missing, or another kind of file."""
    metadata = _metadata(path)
    if KEY not in (metadata.metadata or {}):
        raise DataError(
            f"{path} is a table, and not the log of a server. Learn from it with prequential(table({str(path)!r}, target='COLUMN'))."
        )
    return metadata, *_understood(path, metadata)


def _understood(path: Path, metadata: Any) -> tuple[Layout, dict[str, Any]]:
    """(layout, about) from the description in a file's metadata."""
    try:
        record = json.loads(metadata.metadata[KEY])
        if record["format"] != FORMAT:
            raise DataError(f"a log of format {record['format']!r}, and this version of everlearn reads format {FORMAT}.")
        about = {"model": str(record["model"]), "seed": int(record["seed"]), "steps": int(record["steps"])}
        return Layout.from_json(record["spec"]), about
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: the description of the log is garbled ({type(error).__name__}: {error}).") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _metadata(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        near = sorted(item.name for item in path.parent.glob("*.parquet")) if path.parent.is_dir() else []
        there = f" In that folder: {', '.join(near[:5])}." if near else ""
        raise DataError(f"{path}: there is no such file.{there}")
    try:
        return pyarrow.parquet.read_metadata(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as Parquet; the file is cut short, corrupt or of another kind. ({_brief(error)})"
        ) from error


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from another of its name; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _cut(rows: Rows, start: int, stop: int) -> Rows:
    part = slice(start, stop)
    y = None if rows.y is None else rows.y[part].clone()
    told = (values[part] for values in (rows.action, rows.propensity, rows.reward, rows.generation))
    return Rows(rows.x[part].clone(), rows.id[part], rows.time[part].clone(), y, *told)


def _joined(parts: list[Rows]) -> Rows:
    y = None if parts[0].y is None else torch.cat([part.y for part in parts])
    told = (
        sum((getattr(part, name) for part in parts), ()) for name in ("id", "action", "propensity", "reward", "generation")
    )
    names, *rest = told
    x, time = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "time"))
    return Rows(x, names, time, y, *rest)


def _brief(error: Exception) -> str:
    return (str(error) or type(error).__name__).split("\n")[0].rstrip(".")
