"""Tables: a CSV or Parquet file with one row per case becomes rows to learn from, in the order of time.

Nothing is estimated from rows that a model deployed early would not have had: means, deviations, medians and the choice of
frequent categories come from the first `fit_rows` rows. (That a category or a missing value occurs at all is known from the
start, as the number of columns of x; its column is 0 until it comes.)
"""

import inspect
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch

from everlearn.core.errors import ArgumentError, DataError, check_count, closest
from everlearn.core.spec import describe
from everlearn.data.dataset import Data
from everlearn.data.encoder import Encoder
from everlearn.data.labels import Bins
from everlearn.data.labels import encode as encode_labels

MISSING_RULES = ("fill", "error", "drop")
FIT_SHARE, FIT_LEAST = 0.1, 100


def table(
    path: str | Path,
    *,
    target: str,
    time: str | None = None,
    drop: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
    bins: Bins = None,
    missing: str = "fill",
    null: tuple[str, ...] = (),
    max_categories: int = 50,
    fit_rows: int | None = None,
    encoding: str = "utf8",
) -> Data:
    """A CSV or Parquet table: numeric and categorical columns, missing values, a target and, best, a time column.

    path: .csv, .tsv (also .gz) or .parquet; target: the column to predict, whose values are the classes; time: the column by
    which rows are sorted (numbers, ISO dates or timestamps; ties keep their order), without it rows stand in their order of time;
    drop: columns to leave out; categorical: columns whose numbers are names; bins: cut a numeric target into so many intervals of
    about equally many rows, or at given edges, such as (0, 10) (edges come from all rows: they are the question, not an input);
    missing: "fill" (the median, or a category of its own, each with a column that says so), "drop" the row, or "error"; null: texts
    that mean missing, beside NA, NaN, ? and the like; max_categories: columns that one text column may become, rare ones shared;
    fit_rows: rows from which means, deviations and medians are estimated, the first tenth by default and at least 100;
    encoding: of a CSV file.

    Returns Data with x (rows, columns) float32: numbers as (x - mean) / deviation, true/false and categories as 0 and 1; times are
    seconds since 1970 or the numbers given. Its `encoder` does the same to raw rows that come later, such as {"weight": 4.5}. Rows
    without a target are left out, with a warning that counts them.
    Raises DataError that names the file, the line and the column; ArgumentError.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "pets.csv")
    >>> _ = path.write_text("day,weight,fur,kind\\n3,5.0,long,cat\\n1,30.0,short,dog\\n2,4.0,,cat\\n")
    >>> pets = table(path, target="kind", time="day")
    >>> pets.classes, pets.features
    (('cat', 'dog'), ('weight', 'fur=long', 'fur=short', 'fur missing'))
    >>> pets.y.tolist(), pets.time.tolist()
    ([1, 0, 0], [1.0, 2.0, 3.0])
    """
    from everlearn.data.columns import answers, times, understand
    from everlearn.data.table_files import MISSING, read

    drop, categorical, null = (
        _names(key, value) for key, value in (("drop", drop), ("categorical", categorical), ("null", null))
    )
    if missing not in MISSING_RULES:
        raise ArgumentError(f"table: missing must be one of {', '.join(MISSING_RULES)}, got {missing!r}.")
    check_count("table", "max_categories", max_categories, low=2)
    if fit_rows is not None:
        check_count("table", "fit_rows", fit_rows, low=2)
    source = read(path, encoding=encoding, null=null)
    columns = _columns(source, target, time, drop, categorical)
    moments = numpy.arange(source.table.num_rows, dtype=numpy.float64) if time is None else times(source, time)
    labels, kept = answers(source, target)
    if not kept.all():
        warnings.warn(f"{path}: {int((~kept).sum())} of {len(kept)} rows have no {target!r} and are left out.", stacklevel=2)
    found = [understand(source, name, categorical=name in categorical, max_categories=max_categories) for name in columns]
    kept = _rule(source, found, kept, missing)
    order = numpy.argsort(moments, kind="stable")
    order = order[kept[order]]
    owner = f"{path}: column {target!r}"
    y, classes = encode_labels(owner, labels[order], bins)
    first = fit_rows or max(FIT_LEAST, round(FIT_SHARE * len(order)))
    marks = (*MISSING, *null) if source.text else ()
    x, encoder = _encoded(source.name, found, order, min(first, len(order)), max_categories, marks, missing == "fill")
    given = {
        "target": target, "time": time, "drop": drop, "categorical": categorical, "bins": bins, "missing": missing, "null": null,
        "max_categories": max_categories, "fit_rows": fit_rows, "encoding": encoding,
    }  # fmt: skip
    moments = torch.from_numpy(moments[order])
    return Data(_call(path, given), torch.from_numpy(x), y, classes, encoder.features, moments, encoder=encoder)


def _encoded(
    name: str, found: list[Any], order: numpy.ndarray, first: int, most: int, marks: tuple[str, ...], fill: bool
) -> tuple[numpy.ndarray, Encoder]:
    """x in the order of time, and what made it; columns without a value among the rows that stay are refused."""
    from everlearn.data.columns import apply, fit

    placed = [replace(column, values=column.values[order]) for column in found]
    for column in placed:
        if column.missing.all():
            raise DataError(
                f"{name}: column {column.name!r} has no values in the rows kept. Leave it out with drop=({column.name!r},)."
            )
    encoder = fit(placed, first, most, marks, fill)
    return apply(encoder, placed), encoder


def _columns(source: Any, target: str, time: str | None, drop: tuple[str, ...], categorical: tuple[str, ...]) -> list[str]:
    """The columns that become x. Raises DataError for names that the table lacks, with the closest one."""
    there = source.table.column_names
    asked = [("target", target), *([("time", time)] if time is not None else [])]
    asked += [("drop", name) for name in drop] + [("categorical", name) for name in categorical]
    for argument, name in asked:
        if name not in there:
            raise DataError(f"{source.name}: {argument}: {closest('column', str(name), there)}")
    if target == time or target in drop or (time is not None and time in drop):
        raise ArgumentError(f"table: target={target!r}, time={time!r} and drop={drop!r} must name different columns.")
    columns = [name for name in there if name not in (target, time, *drop)]
    if not columns:
        raise DataError(f"{source.name}: no columns are left to learn from beside target {target!r}.")
    return columns


def _rule(source: Any, found: list[Any], kept: numpy.ndarray, missing: str) -> numpy.ndarray:
    """The rows that stay under the rule for missing values."""
    if missing == "fill":
        return kept
    for column in found:
        gaps = column.missing & kept
        if missing == "error" and gaps.any():
            raise source.fault(
                column.name,
                int(numpy.argmax(gaps)),
                f"the value is missing ({int(gaps.sum())} in all). Use missing='fill' or 'drop'.",
            )
    kept = kept & ~numpy.any([column.missing for column in found], axis=0)
    if not kept.any():
        raise DataError(f"{source.name}: every row misses a value, so missing='drop' leaves none. Use missing='fill'.")
    return kept


def _names(argument: str, value: Any) -> tuple[str, ...]:
    """A name or several."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ArgumentError(f"table: {argument} must be names such as ({'a'!r}, {'b'!r}), got {value!r}.")
    return tuple(names)


def _call(path: str | Path, given: dict[str, Any]) -> str:
    """The call string that gives this table again."""
    defaults = inspect.signature(table).parameters
    texts = [f"{key}={describe(value)}" for key, value in given.items() if value != defaults[key].default]
    return f"table({', '.join([repr(str(path)), *texts])})"
