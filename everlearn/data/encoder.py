"""Raw rows of a table as numbers: what `table` did to its columns, kept so that one row at a time can be encoded the same way.

    number x -> (x - mean) / deviation        true, false -> 1, 0        text -> one 0/1 column per category kept

What was estimated when the table was read stands in the encoder; nothing is estimated from the rows that it is given later.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import numpy

from everlearn.core.errors import DataError, InputError, closest
from everlearn.data.scaling import Scale

FORMAT = 1
SHOWN = 60  # characters of a value in a message
NOWHERE = -1  # the slot of what no column of x stands for


@dataclass(frozen=True)
class Numbers:
    """A column of numbers, or of true and false (`flag`), which are not scaled. missing: whether a column says what is missing."""

    name: str
    scale: Scale
    flag: bool = False
    missing: bool = False

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of x that it becomes."""
        return (self.name, *self.missing * (f"{self.name} missing",))


@dataclass(frozen=True)
class Categories:
    """A column of texts. kept: those with a 0/1 column of their own, in order; other: whether the rest share one."""

    name: str
    kept: tuple[str, ...]
    other: bool = False
    missing: bool = False

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of x that it becomes; their places are the slots of values."""
        named = (f"{self.name}={category}" for category in self.kept)
        return (*named, *self.other * (f"{self.name} other",), *self.missing * (f"{self.name} missing",))

    @property
    def rest(self) -> int:
        """The slot of a category that has no column of its own."""
        return len(self.kept) if self.other else NOWHERE

    @property
    def gap(self) -> int:
        """The slot of a missing value."""
        return len(self.kept) + self.other if self.missing else NOWHERE


@dataclass(frozen=True)
class Encoder:
    """Turns raw rows such as {"age": 41, "colour": "red"} into x, bit for bit as `table` did.

    columns: in the order of x; marks: texts that mean "missing", spaces around texts aside (() where texts are taken as they are);
    fill: whether missing values are filled in, which they are where the table was read with missing="fill".

    | value | becomes |
    |---|---|
    | a number in a column of numbers, true or false in one of those | what the table made of it |
    | a text (or a number, true, false as its text) in a column of categories | 1 in the column of that category |
    | a category that the table did not keep, or never had | 1 in the column "other"; where there is none, 0 everywhere |
    | None, NaN, a mark, or no value at all | the median, or no category, and 1 in the column "missing" where there is one |

    With fill=False a missing value is refused.

    >>> encoder = Encoder((Numbers("age", Scale(40.0, 2.0, 41.0)), Categories("colour", ("blue", "red"), missing=True)))
    >>> encoder.features
    ('age', 'colour=blue', 'colour=red', 'colour missing')
    >>> encoder.encode([{"age": 41, "colour": "red"}, {"age": 38}]).tolist()
    [[0.5, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 1.0]]
    """

    columns: tuple[Numbers | Categories, ...]
    marks: tuple[str, ...] = ()
    fill: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of raw rows."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The columns of x."""
        return tuple(feature for column in self.columns for feature in column.features)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> numpy.ndarray:
        """(rows, features) float32 of raw rows. Raises InputError that names the column, and the row where there are several."""
        numbers: list[list[float]] = []
        slots: list[list[int]] = []
        for place, row in enumerate(rows):
            try:
                self._check(row)
                numbers.append([self._number(column, row.get(column.name)) for column in self._numbers])
                slots.append([self._slot(column, row.get(column.name)) for column in self._categories])
            except InputError as error:
                if len(rows) == 1:
                    raise
                raise InputError(f"row {place + 1}: {error}") from error
        return self.transform(
            numpy.array(numbers, numpy.float64).reshape(len(rows), len(self._numbers)),
            numpy.array(slots, numpy.int64).reshape(len(rows), len(self._categories)),
        )

    def transform(self, numbers: numpy.ndarray, slots: numpy.ndarray) -> numpy.ndarray:
        """(rows, features) float32 of what columns hold.

        numbers: (rows, columns of numbers) float64, NaN where missing; slots: (rows, columns of categories) int64, places among the
        features of each, NOWHERE for none of them.
        """
        scale, places, gaps, starts = self._layout
        x = numpy.zeros((len(numbers), len(self.features)), numpy.float32)
        if len(places):
            missing = numpy.isnan(numbers)
            x[:, places] = scale.apply(numpy.where(missing, scale.median, numbers))
            x[:, gaps[gaps != NOWHERE]] = missing[:, gaps != NOWHERE]
        if len(starts):
            row, column = numpy.nonzero(slots != NOWHERE)
            x[row, starts[column] + slots[row, column]] = 1.0
        return x

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "format": FORMAT,
            "columns": [_column_to_json(column) for column in self.columns],
            "marks": list(self.marks),
            "fill": self.fill,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Encoder":
        """The encoder that `to_json` wrote. Raises DataError where it is none."""
        try:
            if record["format"] != FORMAT:
                raise DataError(
                    f"an encoder of format {record['format']!r}; this version of everlearn reads format {FORMAT}."
                )
            columns = tuple(_column_from_json(column) for column in record["columns"])
            return cls(columns, tuple(record["marks"]), bool(record["fill"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"not the record of an encoder: {type(error).__name__}: {error}.") from error

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of one raw row."""
        properties: dict[str, Any] = {}
        for column in self.columns:
            if isinstance(column, Categories):
                types, more = ["string", "number", "boolean"], {"examples": list(column.kept[:10])}
            else:
                types, more = ["boolean" if column.flag else "number"], {}
            properties[column.name] = {"type": [*types, *self.fill * ("null",)], **more}
            if self.marks and "string" not in types and self.fill:
                properties[column.name] = {"anyOf": [properties[column.name], {"enum": list(self.marks)}]}
        required = [] if self.fill else list(self.names)
        return {
            "type": "object", "properties": properties, "required": required, "additionalProperties": False, "minProperties": 1,
        }  # fmt: skip

    @cached_property
    def _numbers(self) -> tuple[Numbers, ...]:
        return tuple(column for column in self.columns if isinstance(column, Numbers))

    @cached_property
    def _categories(self) -> tuple[Categories, ...]:
        return tuple(column for column in self.columns if isinstance(column, Categories))

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names)

    @cached_property
    def _marked(self) -> frozenset[str]:
        return frozenset(self.marks)

    @cached_property
    def _slots(self) -> dict[str, dict[str, int]]:
        """By column, the slot of each category."""
        return {column.name: {text: slot for slot, text in enumerate(column.kept)} for column in self._categories}

    @cached_property
    def _layout(self) -> tuple[Scale, numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        """(one scale for all columns of numbers, their places in x, the places that say they are missing, where categories begin)."""
        starts = numpy.cumsum([0, *(len(column.features) for column in self.columns)])
        begin = {column.name: int(start) for column, start in zip(self.columns, starts, strict=False)}
        scales = [Scale(0.0, 1.0, column.scale.median) if column.flag else column.scale for column in self._numbers]
        together = Scale(
            *(numpy.array([getattr(scale, key) for scale in scales]) for key in ("mean", "deviation", "median"))
        )
        places = numpy.array([begin[column.name] for column in self._numbers], numpy.int64)
        gaps = numpy.array([begin[column.name] + 1 if column.missing else NOWHERE for column in self._numbers], numpy.int64)
        return together, places, gaps, numpy.array([begin[column.name] for column in self._categories], numpy.int64)

    def _check(self, row: Mapping[str, Any]) -> None:
        """Refuse what is no row of these columns."""
        if not isinstance(row, Mapping):
            raise InputError(f"a row must name its columns, such as {{{self.names[0]!r}: ...}}, got {_short(row)}.")
        if not row:
            raise InputError(f"a row must hold at least one of the columns: {', '.join(self.names)}.")
        if not row.keys() <= self._known:
            unknown = next(name for name in row if name not in self._known)
            raise InputError(closest("column", str(unknown)[:SHOWN], self.names))

    def _number(self, column: Numbers, value: Any) -> float:
        """A value of a column of numbers, NaN where it is missing."""
        kind = type(value)
        if kind is bool or kind is numpy.bool_:
            if column.flag:
                return float(value)
        elif not column.flag and isinstance(value, Real):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isinf(number):
                raise InputError(f"column {column.name!r} must be a finite number, got {_short(value)}.")
            if number == number:
                return number
            return self._missing(column, math.nan)
        if self._is_missing(value):
            return self._missing(column, math.nan)
        wanted = "true or false" if column.flag else "a number"
        raise InputError(f"column {column.name!r} must be {wanted}, got {_short(value)}.")

    def _slot(self, column: Categories, value: Any) -> int:
        """Where a value of a column of categories stands among its features."""
        if self._is_missing(value):
            return self._missing(column, column.gap)
        if isinstance(value, str):
            text = value.strip() if self.marks else value
        elif isinstance(value, (bool, numpy.bool_)):
            text = "true" if value else "false"
        elif isinstance(value, Integral):
            text = str(int(value))
        elif isinstance(value, Real):
            text = _text(float(value))
        else:
            raise InputError(f"column {column.name!r} must be a text, a number, true or false, got {_short(value)}.")
        return self._slots[column.name].get(text, column.rest)

    def _is_missing(self, value: Any) -> bool:
        if isinstance(value, str):
            return bool(self.marks) and value.strip() in self._marked
        return value is None or (isinstance(value, Real) and value != value)

    def _missing(self, column: Numbers | Categories, instead: Any) -> Any:
        if not self.fill:
            raise InputError(
                f"column {column.name!r} has no value, and the table was read so that every column must have one."
            )
        return instead


def _column_to_json(column: Numbers | Categories) -> dict[str, Any]:
    if isinstance(column, Categories):
        return {
            "name": column.name, "kind": "category", "kept": list(column.kept), "other": column.other, "missing": column.missing,
        }  # fmt: skip
    scale = column.scale
    return {
        "name": column.name, "kind": "flag" if column.flag else "number", "mean": scale.mean, "deviation": scale.deviation,
        "median": scale.median, "missing": column.missing,
    }  # fmt: skip


def _column_from_json(record: Mapping[str, Any]) -> Numbers | Categories:
    name, kind = str(record["name"]), record["kind"]
    if kind == "category":
        return Categories(name, tuple(map(str, record["kept"])), bool(record["other"]), bool(record["missing"]))
    if kind not in ("number", "flag"):
        raise DataError(closest("kind of column", str(kind), ("number", "flag", "category")))
    scale = Scale(*(float(record[key]) for key in ("mean", "deviation", "median")))
    return Numbers(name, scale, kind == "flag", bool(record["missing"]))


def _text(number: float) -> str:
    """A number as the text that it becomes in a table's column of categories."""
    import pyarrow

    return pyarrow.scalar(number).cast(pyarrow.string()).as_py()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
