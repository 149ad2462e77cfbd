"""CSV and Parquet files as Arrow tables, or one clear error that names the file, the row and the column.

CSV cells are read as text, so that what a column holds is decided by looking at all of it and not at its first megabyte.
Only when something is wrong is the file walked a second time, slowly, to find the line.
"""

import codecs
import csv
import gzip
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from everlearn.core.errors import DataError

if TYPE_CHECKING:
    import pyarrow

MISSING = (
    *("", "?", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NULL", "null", "None"),
    *("NaN", "nan", "-NaN", "-nan", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN"),
)
SHOWN = 60  # characters of a broken line in a message


@dataclass(frozen=True)
class Source:
    """A table with what messages need: its file's name, and `place(row)` in words. text: cells are text yet to be understood."""

    name: str
    table: "pyarrow.Table"
    text: bool
    place: Callable[[int], str]

    def fault(self, column: str, row: int, what: str) -> DataError:
        """The error for one cell; row counts from 0."""
        return DataError(f"{self.name}: column {column!r}, {self.place(row)}: {what}")


def read(path: str | Path, *, encoding: str = "utf8", null: tuple[str, ...] = ()) -> Source:
    """The table in a file: .csv, .tsv (also .gz) or .parquet. null: texts that mean "missing", beside the usual ones."""
    path = Path(path)
    ending = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending not in ("csv", "tsv", "txt", "parquet", "pq"):
        raise DataError(f"{path}: a table must be .csv, .tsv (both also .gz) or .parquet.")
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a file. Name one file; a folder of images is images({str(path)!r}).")
    if not path.exists():
        near = sorted(item.name for item in path.parent.glob(f"*.{ending}*")) if path.parent.is_dir() else []
        there = f" In that folder: {', '.join(near[:5])}." if near else ""
        raise DataError(f"{path}: there is no such file.{there}")
    source = _parquet(path) if ending in ("parquet", "pq") else _csv(path, encoding, null)
    if source.table.num_rows == 0:
        raise DataError(f"{path}: the table has columns ({', '.join(source.table.column_names[:5])}) but no rows.")
    return source


def _parquet(path: Path) -> Source:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as Parquet; the file is corrupt or of another kind. ({_brief(error)})"
        ) from error
    _check_names(path, table.column_names)
    return Source(str(path), table, False, lambda row: f"row {row + 1}")


def _csv(path: Path, encoding: str, null: tuple[str, ...]) -> Source:
    import pyarrow
    import pyarrow.csv

    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise DataError(f"{path}: unknown encoding {encoding!r}. Use one such as 'utf8', 'latin-1' or 'utf-16'.") from error
    try:
        with _open(path, encoding) as file:
            first = file.readline()
    except UnicodeDecodeError as error:
        raise _not_text(path, encoding) from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {_brief(error)}.") from error
    delimiter = _delimiter(path, first)
    try:
        with _open(path, encoding) as file:
            names = next((record for record in csv.reader(file, delimiter=delimiter) if record), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise _diagnose(path, encoding, delimiter, error) from error
    if not any(names):
        raise DataError(f"{path}: the file is empty; a header line with the names of the columns is expected.")
    _check_names(path, names)
    try:
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(encoding=encoding),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pyarrow.string()), null_values=[*MISSING, *null], strings_can_be_null=True
            ),
        )
    except (pyarrow.ArrowException, OSError, EOFError, ValueError) as error:
        raise _diagnose(path, encoding, delimiter, error) from error
    if table.num_rows and "\n" in (table.column(table.num_columns - 1)[-1].as_py() or ""):
        _refuse_open_quote(path, encoding, delimiter)
    if names[0] == "":  # the index that pandas writes
        table = table.remove_column(0)
    table = pyarrow.table({name: _trimmed(table.column(name), null) for name in table.column_names})
    return Source(str(path), table, True, lambda row: _line_of(path, encoding, delimiter, row))


def _trimmed(column: "pyarrow.ChunkedArray", null: tuple[str, ...]) -> "pyarrow.ChunkedArray":
    """Cells without the spaces around them; what is then a mark for missing is missing."""
    import pyarrow
    import pyarrow.compute

    trimmed = pyarrow.compute.utf8_trim_whitespace(column)
    if trimmed.equals(column):
        return column
    marks = pyarrow.array([*MISSING, *null], pyarrow.string())
    missing = pyarrow.compute.is_in(trimmed, value_set=marks)
    return pyarrow.compute.if_else(missing, pyarrow.scalar(None, pyarrow.string()), trimmed)


def _check_names(path: Path, names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are named {twice!r}; give each column a name of its own.")
    if "" in names[1:]:
        raise DataError(f"{path}: column {names.index('') + 1} has no name; give each column a name in the header line.")


def _delimiter(path: Path, header: str) -> str:
    """A tab in .tsv; else the comma, unless the header has none and has another usual one."""
    if ".tsv" in path.name.lower():
        return "\t"
    return "," if "," in header else next((mark for mark in ";\t|" if mark in header), ",")


def _open(path: Path, encoding: str) -> io.TextIOBase:
    encoding = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return open(path, encoding=encoding, newline="")


def _records(path: Path, encoding: str, delimiter: str, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    """(line on which it begins, cells) of each record that is not empty, the header first."""
    with _open(path, encoding) as file:
        reader = csv.reader(file, delimiter=delimiter, strict=strict)
        line = 1
        for record in reader:
            if record:
                yield line, record
            line = reader.line_num + 1


def _line_of(path: Path, encoding: str, delimiter: str, row: int) -> str:
    for number, (line, _) in enumerate(_records(path, encoding, delimiter)):
        if number == row + 1:
            return f"line {line} (row {row + 1})"
    return f"row {row + 1}"


def _diagnose(path: Path, encoding: str, delimiter: str, error: Exception) -> DataError:
    """What is wrong with a CSV file that Arrow cannot read."""
    width, last = 0, 1
    try:
        for line, record in _records(path, encoding, delimiter):
            width = width or len(record)
            last = line
            if len(record) != width:
                text = delimiter.join(record).replace("\n", "\\n")
                text = text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
                return DataError(
                    f"{path}: line {line} has {len(record)} {'cell' if len(record) == 1 else 'cells'} where the header has {width}: "
                    f"{text!r}. Mend the line, or put cells that contain {delimiter!r} in quotes."
                )
    except UnicodeDecodeError:
        return _not_text(path, encoding)
    except (csv.Error, OSError, EOFError) as fault:
        return DataError(f"{path}: cannot be read past line {last}: {_brief(fault)}.")
    return DataError(f"{path}: cannot be read as CSV. ({_brief(error)})")


def _refuse_open_quote(path: Path, encoding: str, delimiter: str) -> None:
    """Raise where a quote is opened and never closed: the rest of the file would count as one cell."""
    line = 1
    try:
        for begin, _ in _records(path, encoding, delimiter, strict=True):
            line = begin
    except csv.Error as error:
        if "unexpected end" not in str(error):
            return
        raise DataError(
            f'{path}: after line {line} a quote (") is opened and never closed. Close it, or double it.'
        ) from error


def _not_text(path: Path, encoding: str) -> DataError:
    """Name the first line that is not text of this encoding."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as file:
        for line, content in enumerate(file, start=1):
            try:
                content.decode(encoding)
            except UnicodeDecodeError as error:
                return DataError(
                    f"{path}: line {line} is not {encoding} text (byte 0x{content[error.start]:02x}). "
                    "Pass its encoding, such as encoding='latin-1' or 'utf-16', or save the file as UTF-8."
                )
    return DataError(f"{path}: is not {encoding} text. Pass its encoding, such as encoding='latin-1'.")


def _brief(error: Exception) -> str:
    return (str(error) or type(error).__name__).split("\n")[0].rstrip(".")
