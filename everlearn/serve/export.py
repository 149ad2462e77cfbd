"""The log as a Parquet file, for `served(path)` and for any tool that reads tables.

Steps are written as they come, in row groups, so that memory holds one group however long the log is; the file appears under its
name when it is whole and on the disk.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from everlearn.core.errors import StateError
from everlearn.data.served_layout import ANSWER, FORMAT, INPUT, KEY, OPTIONAL, Layout
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.records import Answer, Input, Moment

GROUP_ROWS, GROUP_BYTES = 8192, 8 << 20  # a row group is as large as the first of them allows


@dataclass(frozen=True)
class Exported:
    """What was written: the file, and how many steps, predictions and answers are in it."""

    path: Path
    steps: int
    inputs: int
    answers: int
    bytes: int


def export(
    moments: Iterable[Moment], path: str | Path, spec: InputSpec, *, model: str, seed: int, force: bool = False
) -> Exported:
    """Write the steps of a server, from its first, to a Parquet file that `served(path)` reads.

    moments: along the lineage of a version, in order; model: call string of the learner; seed: it was made with; force: whether a
    file of that name may be replaced. Raises StateError where it stands and may not, where it cannot be written (nothing is left
    behind then), and where there is nothing to write.
    """
    path = Path(path)
    if path.suffix.lower() not in (".parquet", ".pq"):
        raise StateError(f"an export is a Parquet file, and {path} is named otherwise; use {path.with_suffix('.parquet')}.")
    _refuse_standing(path, force)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        writer = _Writer(temporary, spec)
        try:
            for moment in moments:
                writer.add(moment)
            writer.finish({"format": FORMAT, "spec": spec.to_json(), "model": model, "seed": seed, "steps": writer.steps})
        finally:
            writer.close()
        if writer.inputs + writer.answers == 0:
            raise StateError("the log holds no steps yet, so there is nothing to export.")
        _settle(temporary)
        _refuse_standing(path, force)
        os.replace(temporary, path)
        _settle(path.parent)
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(path, writer.steps, writer.inputs, writer.answers, path.stat().st_size)


class _Writer:
    """Gathers rows and writes them group by group."""

    def __init__(self, path: Path, spec: InputSpec):
        import pyarrow.parquet

        self.spec = spec
        self.layout = Layout.from_json(spec.to_json())
        self.columns = self.layout.columns
        self.steps = self.inputs = self.answers = 0
        self._rows: list[tuple[int, Input | Answer]] = []
        self._most = max(1, min(GROUP_ROWS, GROUP_BYTES // max(spec.row_bytes, 1)))
        coded = [name for name in ("kind", "y", "answer", "action") if name in self.columns.names]
        coded = [name for name in coded if self.columns.field(name).type == pyarrow.string()]
        self._file = pyarrow.parquet.ParquetWriter(
            path, self.columns, compression="zstd", use_dictionary=coded, write_page_checksum=True
        )

    def add(self, moment: Moment) -> None:
        """The rows of one step, inputs first."""
        self.steps += 1
        self.inputs += len(moment.inputs)
        self.answers += len(moment.answers)
        for row in (*moment.inputs, *moment.answers):
            if len(row.x) != self.spec.row_bytes:
                raise StateError(
                    f"the log is damaged: x of number {row.seq} has {len(row.x)} bytes, and a row has {self.spec.row_bytes}."
                )
            self._rows.append((self.steps, row))
            if len(self._rows) == self._most:
                self._write()

    def finish(self, description: dict[str, Any]) -> None:
        """Write what waits, and what the file is."""
        self._write()
        self._file.add_key_value_metadata({KEY.decode(): json.dumps(description)})

    def close(self) -> None:
        """End the file."""
        self._file.close()

    def _write(self) -> None:
        import pyarrow

        if self._rows:
            self._file.write_table(pyarrow.table(self._table(), schema=self.columns))
            self._rows = []

    def _table(self) -> dict[str, Any]:
        steps, rows = zip(*self._rows, strict=True)
        answered = [isinstance(row, Answer) for row in rows]
        table: dict[str, Any] = {
            "step": steps,
            "seq": [row.seq for row in rows],
            "id": [row.id for row in rows],
            "kind": [ANSWER if answer else INPUT for answer in answered],
            "revision": [row.revision if isinstance(row, Answer) else 0 for row in rows],
            "time": [row.created for row in rows],
            "version": [row.version for row in rows],
            "default": [isinstance(row, Answer) and row.default for row in rows],
        }
        told = [row.y if isinstance(row, Answer) else None for row in rows]
        given = [row.output["answer"] for row in rows]
        if self.layout.kind == "actions":
            table["action"] = [json.dumps(action) for action in given]
            table["propensity"] = [row.output["propensity"] for row in rows]
            table["reward"] = told
            table |= {name: [row.output.get(name) for row in rows] for name in OPTIONAL}
        elif self.layout.kind == "classes":
            table["y"] = [None if label is None else self.layout.classes[label] for label in told]
            table["answer"] = given
        else:
            one = len(self.layout.targets) == 1
            table["y"], table["answer"] = (
                [None if item is None else item[0] if one else item for item in column] for column in (told, given)
            )
        return table | self._x(rows)

    def _x(self, rows: tuple[Input | Answer, ...]) -> dict[str, Any]:
        import pyarrow

        x = numpy.frombuffer(b"".join(row.x for row in rows), numpy.dtype(self.layout.dtype)).reshape(len(rows), -1)
        names = self.layout.x_columns
        if names == ("x",):
            return {"x": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(x.reshape(-1)), x.shape[1])}
        return {name: numpy.ascontiguousarray(x[:, place]) for place, name in enumerate(names)}


def _refuse_standing(path: Path, force: bool) -> None:
    if path.is_dir():
        raise StateError(f"{path} is a folder; name a file in it, such as {path / 'deployed.parquet'}.")
    if path.exists() and not force:
        raise StateError(f"{path} exists. Name another file, or replace it with --force.")


def _settle(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
