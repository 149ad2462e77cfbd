"""The full call strings behind short ones: a data set's bare name, a table and its columns, a folder of images, the log of a server."""

from pathlib import Path
from typing import Any

from everlearn.comparison.catalog import scenarios, sources
from everlearn.core.errors import SpecError, closest
from everlearn.core.spec import parse

TABLES = ("csv", "csv.gz", "tsv", "tsv.gz", "parquet", "pq")
TASKS = ("classify", "forecast")  # what a table may be read for


def stream_text(
    text: str,
    *,
    target: str | None = None,
    time: str | None = None,
    task: str = "classify",
    window: int = 24,
    horizon: int = 1,
) -> str:
    """The full call string behind a short one.

    `my.csv` with a target becomes prequential(table(...)), with task="forecast" forecast(...); the exported log of a server served(...);
    a folder becomes split(images(FOLDER), ...), a data set's bare name split(NAME, experiences=5, epochs=3).
    """
    if task not in TASKS:
        raise SpecError(closest("task", task, TASKS))
    is_table = any(text.lower().endswith("." + ending) for ending in TABLES)
    if task == "forecast":
        return _forecast_text(text, is_table, target, time, window, horizon)
    kind = _served_kind(text)
    if kind is not None:
        if kind == "actions":
            raise SpecError(
                f"{text} is the log of a server that answers with {kind}; learners here answer with classes or values. "
                f"`everlearn evaluate {text}` judges other policies on it."
            )
        if target is not None or time is not None:
            raise SpecError(
                f"{text} is the log of a server, which knows its answers and times; leave --target and --time out."
            )
        return f"served({text!r})"
    if is_table:
        if not Path(text).exists():
            raise SpecError(f"{text}: there is no such file.")
        if target is None:
            raise SpecError(f"{text}: name the column to predict with --target COLUMN.")
        moment = f", time={time!r}" if time is not None else ""
        return f"prequential(table({text!r}, target={target!r}{moment}))"
    if target is not None or time is not None:
        raise SpecError(
            f"{text}: --target and --time name columns of a CSV or Parquet file, and this is none; leave them out."
        )
    if Path(text).is_dir() and text not in sources():
        return f"split(images({text!r}), experiences=5, epochs=3)"
    call = parse(text)
    if call.name in scenarios() or ":" in call.name:
        return str(call)
    timed = call.name == "table"
    return f"prequential({call})" if timed else f"split({call}, experiences=5, epochs=3)"


def _forecast_text(text: str, is_table: bool, target: str | None, time: str | None, window: int, horizon: int) -> str:
    """forecast(...) of a table. Its target may be several columns, between commas."""
    if not is_table:
        if parse(text).name in ("forecast", "link_forecast"):
            return text
        raise SpecError(
            f"{text}: only a CSV or Parquet file can be forecast by --task forecast, or a stream such as link_forecast(...)."
        )
    if not Path(text).exists():
        raise SpecError(f"{text}: there is no such file.")
    if target is None:
        raise SpecError(f"{text}: name the column to forecast with --target COLUMN (several between commas).")
    names = tuple(name.strip() for name in target.split(","))
    shown: dict[str, Any] = {
        "target": names[0] if len(names) == 1 else names,
        "time": time,
        "window": window,
        "horizon": horizon,
    }
    usual = {"time": None, "window": 24, "horizon": 1}
    given = [f"{key}={value!r}" for key, value in shown.items() if key not in usual or value != usual[key]]
    return f"forecast({', '.join([repr(text), *given])})"


def _served_kind(text: str) -> str | None:
    """What the server behind an exported log answers with; None where a text names no such file."""
    from everlearn.data.served_file import served_kind

    is_file = text.lower().endswith((".parquet", ".pq")) and Path(text).is_file()
    return served_kind(text) if is_file else None
