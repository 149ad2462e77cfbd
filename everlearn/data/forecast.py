"""A table of series as a stream of forecasts: the last values of some columns, and what comes after them.

    x[i] = values[t_i - window + 1 .. t_i]        y[i] = targets[t_i + horizon]        at every row t_i

Each window is forecast before its answer is known: with horizon=1 the answer comes with its window, with a longer one later. Times that
are not there count as samples that were lost, and x then tells the time between those that are (`dt`).
"""

import inspect
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import torch

from everlearn.core.errors import ArgumentError, DataError, check_count, check_range, closest
from everlearn.core.spec import describe
from everlearn.core.stream import Stream
from everlearn.data.naming import fraction_of
from everlearn.data.window_stream import Windows, WindowStream

MISSING_RULES = ("error", "gap")
NEAR = 0.01  # part of a step by which a time may miss the grid
SPARSE = 100  # times per row from which the step is taken to be wrong


def forecast(
    path: str | Path,
    *,
    target: str | Sequence[str],
    time: str | None = None,
    columns: Sequence[str] = (),
    window: int = 24,
    horizon: int = 1,
    batch: int = 1,
    step: float | None = None,
    missing: str = "error",
    changes: Sequence[float | str] = (),
    first: float = 0.5,
    null: tuple[str, ...] = (),
    encoding: str = "utf8",
) -> Stream:
    """Forecast columns of a CSV or Parquet table from their own past.

    path: .csv, .tsv (also .gz) or .parquet, one row a sample; target: the column to forecast, or several; time: the column of times, which
    must rise (numbers, ISO dates or timestamps), without it rows are one step apart; columns: others that windows show beside the
    targets; window: samples in x; horizon: steps from the end of a window to its answer; batch: windows that arrive together; step: time
    between two samples, in seconds or in the units of `time`, None takes the least there is; missing: what an empty cell is, "error" or
    "gap" (the row counts as a sample that was lost); changes: times from which the world is known to be another, rising, numbers or ISO
    dates as in the column (learners are not told; the report says how soon each recovered); first: part of the stream that is the
    model's first training; null, encoding: as of `table`.

    x: (batch, window, targets and columns) float32, or a dict of `values` and `dt`, the steps since the sample before, where samples are
    missing; y: (batch, targets) float32; time: seconds since 1970, or the numbers given. Raises DataError that names file, line and column;
    ArgumentError.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "sales.csv")
    >>> _ = path.write_text("day,sold\\n1,5\\n2,7\\n3,6\\n4,8\\n")
    >>> stream = forecast(path, target="sold", time="day", window=2)
    >>> len(stream), stream[0].x.flatten().tolist(), stream[0].y.tolist()
    (2, [5.0, 7.0], [[6.0]])
    """
    from everlearn.data.table_files import read

    targets, others, null = (_names(key, value) for key, value in (("target", target), ("columns", columns), ("null", null)))
    for argument, count in (("window", window), ("horizon", horizon), ("batch", batch)):
        check_count("forecast", argument, count)
    check_range("forecast", "first", first, 0.0, 1.0)
    if step is not None:
        check_range("forecast", "step", step, 1e-300)
    if missing not in MISSING_RULES:
        raise ArgumentError(f"forecast: missing must be 'error' or 'gap', got {missing!r}.")
    source = read(path, encoding=encoding, null=null)
    shown = _shown(source, targets, others, time)
    values = numpy.stack([_values(source, name, missing) for name in shown], axis=1)
    places, origin, step_length = _grid(source, time, len(values), step)
    seen = ~numpy.isnan(values).any(axis=1)
    if not seen.any():
        raise DataError(f"{path}: no row has a value in every one of {', '.join(shown)}.")
    length = int(places[-1]) + 1
    turns = _changes(changes, origin, step_length, length)
    kept = numpy.zeros(length, dtype=bool)
    kept[places[seen]] = True
    if kept.sum() < window + horizon:
        raise DataError(
            f"{path}: {int(kept.sum())} samples are too few; window={window} and horizon={horizon} need {window + horizon}. "
            "Use a shorter window."
        )
    series = numpy.zeros((length, len(shown)))
    series[places[seen]] = values[seen]
    every = tuple(range(len(shown)))
    layout = Windows(every, every[: len(targets)], window, horizon, gaps=not kept.all())
    stream = WindowStream(
        torch.from_numpy(series), kept, layout, features=shown, targets=targets, batch=batch, minutes=step_length, origin=origin,
        changes=turns, states=range(len(turns) + 1),
    )  # fmt: skip
    stream.deployed = fraction_of(len(stream), first)
    given = {
        "target": target, "time": time, "columns": columns, "window": window, "horizon": horizon, "batch": batch, "step": step,
        "missing": missing, "changes": changes, "first": first, "null": null, "encoding": encoding,
    }  # fmt: skip
    defaults = inspect.signature(forecast).parameters
    texts = [f"{key}={describe(value)}" for key, value in given.items() if value != defaults[key].default]
    stream.name = f"forecast({', '.join([repr(str(path)), *texts])})"
    return stream


def _names(argument: str, value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ArgumentError(f"forecast: {argument} must be a name or names such as ('load', 'price'), got {value!r}.")
    if len(set(names)) < len(names):
        raise ArgumentError(f"forecast: {argument}={value!r} names a column twice.")
    return tuple(names)


def _shown(source: Any, targets: tuple[str, ...], others: tuple[str, ...], time: str | None) -> tuple[str, ...]:
    """The columns of x: the targets, then the others. Refuses names that are not there, and the time among them."""
    if not targets:
        raise ArgumentError("forecast: target must name a column, got none.")
    known = source.table.column_names
    for name in (*targets, *others, *(() if time is None else (time,))):
        if name not in known:
            raise DataError(f"{source.name}: {closest('column', name, known)}")
    shown = (*targets, *(name for name in others if name not in targets))
    if time in shown:
        raise ArgumentError(f"forecast: {time!r} is the time, and cannot be forecast or shown as well.")
    return shown


def _values(source: Any, name: str, missing: str) -> numpy.ndarray:
    """(rows,) float64 of a column of numbers, NaN where it is empty and that is allowed."""
    from everlearn.data.columns import understand

    column = understand(source, name, categorical=False, max_categories=2**31)
    if column.categories is not None:
        raise DataError(
            f"{source.name}: column {name!r} holds text such as {column.categories[0]!r}; only numbers can be forecast."
        )
    if missing == "error" and column.missing.any():
        raise source.fault(
            name,
            int(column.missing.argmax()),
            "the value is missing. Fill it in, or use missing='gap' for samples that were lost.",
        )
    return column.values.astype(numpy.float64)


def _grid(source: Any, time: str | None, rows: int, step: float | None) -> tuple[numpy.ndarray, float, float]:
    """(place of each row on the grid of times, the first time, the step). Refuses times that do not rise, or miss the grid."""
    from everlearn.data.columns import times

    if time is None:
        return numpy.arange(rows), 0.0, 1.0 if step is None else step
    moments = times(source, time)
    steps = numpy.diff(moments)
    if (steps <= 0).any():
        row = int((steps <= 0).argmax()) + 1
        again = "comes a second time" if steps[row - 1] == 0 else f"comes after {_told(source, time, row - 1)}"
        raise source.fault(
            time,
            row,
            f"the time {_told(source, time, row)} {again}. Times must rise; sort the rows and leave out repetitions.",
        )
    length = float(steps.min()) if step is None and rows > 1 else (step or 1.0)
    exact = (moments - moments[0]) / length
    places = numpy.round(exact)
    off = numpy.abs(exact - places) > NEAR
    if off.any() and step is None:  # the usual step, not the least, shows which row is off it
        kinds, counts = numpy.unique(steps, return_counts=True)
        length = float(kinds[counts.argmax()])
        exact = (moments - moments[0]) / length
        off = numpy.abs(exact - numpy.round(exact)) > NEAR
    if off.any() or (numpy.diff(places) == 0).any():
        row = int(off.argmax()) if off.any() else int((numpy.diff(places) == 0).argmax()) + 1
        raise source.fault(
            time, row, f"the time {_told(source, time, row)} lies {exact[row]:.4g} steps of {length:g} after the first; samples must be "
            "whole steps apart. Give step=, or resample the table.",
        )  # fmt: skip
    if places[-1] + 1 > SPARSE * rows:
        raise DataError(
            f"{source.name}: column {time!r} spans {places[-1] + 1:.0f} steps of {length:g} with {rows} rows. Give step=, the time between "
            "samples."
        )
    return places.astype(numpy.int64), float(moments[0]), length


def _changes(changes: Sequence[float | str], origin: float, step: float, length: int) -> tuple[int, ...]:
    """The first place on the grid at or after each time. Refuses times that do not rise or lie outside of the table."""
    if isinstance(changes, (str, int, float)):
        raise ArgumentError(f"forecast: changes must be times such as ('2024-05-31',), got {changes!r}.")
    places: list[int] = []
    for change in changes:
        place = math.ceil((_moment(change) - origin) / step - NEAR)
        if not 0 < place < length:
            raise ArgumentError(
                f"forecast: the change {change!r} lies outside of the times of the table, or at their beginning."
            )
        if places and place <= places[-1]:
            raise ArgumentError(f"forecast: the change {change!r} does not come after the one before it. Times must rise.")
        places.append(place)
    return tuple(places)


def _moment(change: float | str) -> float:
    """A number as it is, a date as seconds since 1970 (UTC where no zone is given)."""
    if isinstance(change, (int, float)) and not isinstance(change, bool) and math.isfinite(change):
        return float(change)
    try:
        found = datetime.fromisoformat(change)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"forecast: the change {change!r} cannot be read as a time. Use a number, or an ISO date such as '2024-05-31'."
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _told(source: Any, time: str, row: int) -> str:
    return repr(str(source.table.column(time)[row].as_py()))
