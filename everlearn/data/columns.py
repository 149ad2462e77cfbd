"""Table columns as numbers: what a column holds, and how it becomes columns of x.

| column | becomes |
|---|---|
| numbers | standardised (see `scaling`); missing: the median, with a column that says so |
| true / false | 0 and 1; missing: the same |
| text, or named as categorical | one 0/1 column per category; missing is a category |

Everything that is estimated (mean, deviation, median, which categories are frequent) comes from the first rows only.
"""

from dataclasses import dataclass

import numpy
import pyarrow
import pyarrow.compute

from everlearn.core.errors import DataError
from everlearn.data.encoder import Categories, Encoder, Numbers
from everlearn.data.labels import natural
from everlearn.data.scaling import measure
from everlearn.data.table_files import Source

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
TYPE_SHARE = 0.1  # share of numbers from which a column with text in it counts as one whose type changes
IDENTIFIER_SHARE = 0.5  # different texts per row from which a column counts as one of identifiers
EPOCH = pyarrow.timestamp("us")
CHUNK = 65_536  # rows encoded at once


@dataclass(frozen=True)
class Column:
    """One column understood. values: (rows,) float64 with NaN, or codes int64 with -1, where missing; codes index categories."""

    name: str
    values: numpy.ndarray
    categories: tuple[str, ...] | None = None
    flag: bool = False  # true / false: not standardised

    @property
    def missing(self) -> numpy.ndarray:
        """(rows,) bool: whether the cell is empty."""
        return numpy.isnan(self.values) if self.categories is None else self.values < 0


def understand(source: Source, name: str, *, categorical: bool, max_categories: int) -> Column:
    """What one column of a table holds. Raises DataError where that cannot be told, with the row."""
    cells = _cells(source, name)
    kind = cells.type
    if cells.null_count == len(cells):
        raise DataError(f"{source.name}: column {name!r} has no values. Leave it out with drop=({name!r},).")
    if categorical:
        return _categories(source, name, _texts(cells), max_categories, named=True)
    if pyarrow.types.is_boolean(kind):
        return Column(name, _floats(cells), flag=True)
    if _is_number(kind):
        return Column(name, _finite(source, name, _floats(cells)))
    if not _is_text(kind):
        advice = f"Use it with time={name!r}, or leave" if pyarrow.types.is_temporal(kind) else "Leave"
        raise DataError(f"{source.name}: column {name!r} holds {kind} values. {advice} it out with drop=({name!r},).")
    if source.text:
        try:
            return Column(name, _finite(source, name, _floats(pyarrow.compute.cast(cells, pyarrow.float64()))))
        except pyarrow.ArrowInvalid:
            pass
        if _all_flags(cells):
            return Column(name, _floats(pyarrow.compute.equal(pyarrow.compute.utf8_lower(cells), "true")), flag=True)
        _refuse_mixture(source, name, cells)
    return _categories(source, name, cells, max_categories, named=False)


def fit(columns: list[Column], first: int, max_categories: int, marks: tuple[str, ...] = (), fill: bool = True) -> Encoder:
    """What is done to columns (rows,) in the order of learning. first: rows that estimates may see; marks, fill: see `Encoder`."""
    fitted = (
        _fit_numbers(column, first) if column.categories is None else _fit_categories(column, first, max_categories)
        for column in columns
    )
    return Encoder(tuple(fitted), marks, fill)


def apply(encoder: Encoder, columns: list[Column]) -> numpy.ndarray:
    """(rows, features) float32 of the columns that an encoder was fitted to."""
    numbers = [column.values for column in columns if column.categories is None]
    pairs = zip(columns, encoder.columns, strict=True)
    slots = [_slots(column, fitted) for column, fitted in pairs if column.categories is not None]
    rows = len(columns[0].values)
    x = numpy.empty((rows, len(encoder.features)), numpy.float32)
    for start in range(0, rows, CHUNK):
        part = slice(start, min(start + CHUNK, rows))
        x[part] = encoder.transform(
            _matrix(numbers, part, numpy.float64),
            _matrix(slots, part, numpy.int64),
        )
    return x


def encode(columns: list[Column], first: int, max_categories: int) -> tuple[numpy.ndarray, tuple[str, ...]]:
    """(x, features): columns (rows,) in the order of learning as (rows, features) float32. first: rows that estimates may see."""
    encoder = fit(columns, first, max_categories)
    return apply(encoder, columns), encoder.features


def _fit_numbers(column: Column, first: int) -> Numbers:
    return Numbers(column.name, measure(column.values, first), column.flag, bool(column.missing.any()))


def _fit_categories(column: Column, first: int, most: int) -> Categories:
    codes, names = column.values, column.categories
    kept = list(range(len(names)))
    if len(names) > most:
        counts = numpy.bincount(codes[:first][codes[:first] >= 0], minlength=len(names))
        present, where = numpy.unique(codes, return_index=True)
        came = numpy.zeros(len(names), numpy.int64)
        came[present[present >= 0]] = where[present >= 0]
        kept = sorted(kept, key=lambda code: (-counts[code], came[code]))[: most - 1]
    texts = tuple(sorted((names[code] for code in kept), key=natural))
    return Categories(column.name, texts, len(kept) < len(names), bool(column.missing.any()))


def _slots(column: Column, fitted: Categories) -> numpy.ndarray:
    """(rows,) places of codes among the features of their column."""
    place = {text: slot for slot, text in enumerate(fitted.kept)}
    slots = [place.get(text, fitted.rest) for text in column.categories]
    return numpy.array([*slots, fitted.gap], numpy.int64)[column.values]


def _matrix(columns: list[numpy.ndarray], part: slice, kind: type) -> numpy.ndarray:
    rows = part.stop - part.start
    return numpy.stack([column[part] for column in columns], axis=1) if columns else numpy.empty((rows, 0), kind)


def times(source: Source, name: str) -> numpy.ndarray:
    """(rows,) float64: numbers as they are, dates and timestamps as seconds since 1970 (UTC where no zone is given)."""
    cells = _cells(source, name)
    if cells.null_count:
        row = int(numpy.argmin(cells.is_valid().to_numpy(zero_copy_only=False)))
        raise source.fault(name, row, "the time is missing. Every row needs one; remove the row or fill it in.")
    if _is_number(cells.type):
        return _finite(source, name, _floats(cells), whole="time")
    if pyarrow.types.is_timestamp(cells.type) or pyarrow.types.is_date(cells.type):
        return _seconds(cells.cast(pyarrow.timestamp("us", getattr(cells.type, "tz", None)), safe=False))
    if not _is_text(cells.type):
        raise DataError(f"{source.name}: column {name!r} holds {cells.type} values, which are no times.")
    for kind in (pyarrow.float64(), EPOCH, pyarrow.timestamp("us", "UTC")):
        try:
            parsed = pyarrow.compute.cast(cells, kind)
        except pyarrow.ArrowInvalid:
            continue
        return _finite(source, name, _floats(parsed), whole="time") if kind == pyarrow.float64() else _seconds(parsed)
    row = _first_unlike(cells)
    raise source.fault(
        name,
        row,
        f"{cells[row].as_py()!r} cannot be read as a time{_like_the_others(cells, row)}. "
        "Use numbers, or ISO dates such as 2024-05-31 or 2024-05-31T10:30:00, one kind throughout.",
    )


def answers(source: Source, name: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(labels, present): the target column, and where it has values. Labels are float64, bool, or str as the user wrote them."""
    cells = _cells(source, name)
    present = cells.is_valid().to_numpy(zero_copy_only=False)
    if not present.any():
        raise DataError(f"{source.name}: the target column {name!r} has no values.")
    if pyarrow.types.is_boolean(cells.type):
        return cells.fill_null(False).to_numpy(zero_copy_only=False), present
    if source.text:
        try:
            cells = pyarrow.compute.cast(cells, pyarrow.float64())
        except pyarrow.ArrowInvalid:
            _refuse_mixture(source, name, cells, label=True)
    if _is_number(cells.type):
        values = _finite(source, name, _floats(cells))
        return values, ~numpy.isnan(values)
    if not _is_text(cells.type) and not pyarrow.types.is_date(cells.type):
        raise DataError(f"{source.name}: the target column {name!r} holds {cells.type} values, which are no classes.")
    return _texts(cells).fill_null("").to_numpy(zero_copy_only=False).astype(str), present


def _cells(source: Source, name: str) -> pyarrow.Array:
    cells = source.table.column(name).combine_chunks()
    if isinstance(cells, pyarrow.ChunkedArray):
        cells = cells.chunk(0) if cells.num_chunks else pyarrow.array([], cells.type)
    if pyarrow.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    return cells


def _floats(cells: pyarrow.Array) -> numpy.ndarray:
    return pyarrow.compute.cast(cells, pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)


def _seconds(cells: pyarrow.Array) -> numpy.ndarray:
    return cells.cast(pyarrow.int64()).to_numpy(zero_copy_only=False) / 1e6


def _texts(cells: pyarrow.Array) -> pyarrow.Array:
    return cells if pyarrow.types.is_string(cells.type) else cells.cast(pyarrow.string())


def _is_number(kind: pyarrow.DataType) -> bool:
    return pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_decimal(kind)


def _is_text(kind: pyarrow.DataType) -> bool:
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_string_view(kind)


def _all_flags(cells: pyarrow.Array) -> bool:
    flags = pyarrow.array(["true", "false"])
    return bool(
        pyarrow.compute.all(pyarrow.compute.is_in(pyarrow.compute.utf8_lower(cells.drop_null()), value_set=flags)).as_py()
    )


def _finite(source: Source, name: str, values: numpy.ndarray, whole: str = "value") -> numpy.ndarray:
    """Refuse infinities (and NaN in times); elsewhere NaN counts as missing."""
    wrong = numpy.isinf(values) if whole == "value" else ~numpy.isfinite(values)
    if wrong.any():
        row = int(numpy.argmax(wrong))
        raise source.fault(
            name, row, f"the {whole} is {values[row]}; only finite numbers can be used. Mend or empty the cell."
        )
    return values


def _refuse_mixture(source: Source, name: str, cells: pyarrow.Array, label: bool = False) -> None:
    """Raise where numbers and text share a column; a few numbers among texts are categories."""
    numeric = pyarrow.compute.match_substring_regex(cells, NUMBER)
    numeric = numeric.fill_null(False).to_numpy(zero_copy_only=False)
    present = cells.is_valid().to_numpy(zero_copy_only=False)
    if numeric.sum() < TYPE_SHARE * present.sum() or (label and len(pyarrow.compute.unique(cells)) <= 20):
        return
    begin = int(numpy.argmax(present))
    row = int(numpy.argmax(present & (numeric != numeric[begin])))
    value, before = cells[row].as_py(), cells[begin].as_py()
    text = before if numeric[row] else value
    was = f"numbers such as {before!r}" if numeric[begin] else f"text such as {before!r}"
    words = f"it holds {was} before, and here {'the number' if numeric[row] else 'the text'} {value!r}. Mend the cell, "
    if label:
        raise source.fault(name, row, f"{words}or name the mark for missing with null=({text!r},).")
    raise source.fault(
        name,
        row,
        f"{words}take all of it as text with categorical=({name!r},), or name the mark for missing with null=({text!r},).",
    )


def _categories(source: Source, name: str, cells: pyarrow.Array, most: int, named: bool) -> Column:
    """Codes of texts. Raises DataError where nearly every row has a text of its own."""
    coded = _texts(cells).dictionary_encode()
    names = tuple(coded.dictionary.to_pylist())
    present = len(cells) - cells.null_count
    if not named and len(names) > most and len(names) > IDENTIFIER_SHARE * present:
        raise DataError(
            f"{source.name}: column {name!r} has {len(names)} different texts in {present} rows, such as {names[0]!r}; that looks "
            f"like an identifier, a date or free text. Leave it out with drop=({name!r},), use it with time={name!r}, or keep the "
            f"{most - 1} most frequent with categorical=({name!r},)."
        )
    return Column(name, coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(numpy.int64), names)


def _first_unlike(cells: pyarrow.Array) -> int:
    """The first row that is not the kind of time that most rows are."""
    texts = cells.to_pylist()
    best: tuple[int, int] = (-1, 0)
    for kind in (pyarrow.float64(), EPOCH, pyarrow.timestamp("us", "UTC")):
        good = [_reads(text, kind) for text in texts]
        count = sum(good)
        if count > best[0]:
            best = (count, good.index(False))
    return best[1]


def _like_the_others(cells: pyarrow.Array, row: int) -> str:
    other = cells[1 if row == 0 and len(cells) > 1 else 0].as_py()
    return f" like {other!r}" if row and other else ""


def _reads(text: str, kind: pyarrow.DataType) -> bool:
    try:
        pyarrow.scalar(text).cast(kind)
    except pyarrow.ArrowInvalid:
        return False
    return True
