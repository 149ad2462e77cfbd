"""Forecasts in the report: the error along the stream, beside known changes, and how soon each learner recovered from them.

The figures are those of the monitor "forecast"; records without it have neither chart nor paragraph.
"""

import math
from collections.abc import Mapping
from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.numbers import code, known
from everlearn.measure.report.reading import Entry, figures, find, short_names, still
from everlearn.measure.report.scene import (
    Chart,
    Scene,
    color,
    dash,
    event_axis,
    focused,
    present,
    rules,
    rules_note,
    spec,
    told_event,
    told_learner,
)
from everlearn.measure.report.series import columns, curve

FORECAST = "forecast"
POINTS = 80  # of one curve
CHANGES = 6  # changes that are told one by one


def forecast(scene: Scene) -> Chart | None:
    """Root mean squared error of forecasts along the stream, on a logarithmic axis."""
    import altair as alt

    rows = [
        {"learner": entry["label"], **row} for entry in scene.learners for row in errors(entry, POINTS) if row["mean"] > 0
    ]
    if len({row["event"] for row in rows}) < 2:
        return None
    least = min(row["mean"] for row in rows)
    for row in rows:
        row["low"] = max(row["low"], least)  # a logarithmic axis has no room for intervals that reach 0
    reach = alt.Scale(type="log", nice=True)
    x, y = event_axis(), alt.Y("mean:Q", title="RMSE", scale=reach, axis=alt.Axis(format="~s", tickCount=5))
    look = {"color": color(scene), "detail": "learner:N"}
    base = alt.Chart(alt.NamedData("table"))
    tips = [
        told_learner(),
        told_event(),
        alt.Tooltip("mean:Q", title="RMSE", format=".3~g"),
        alt.Tooltip("low:Q", title="95 % low", format=".3~g"),
        alt.Tooltip("high:Q", title="95 % high", format=".3~g"),
    ]
    area = base.mark_area().encode(
        x=x, y=alt.Y("low:Q", title="RMSE", scale=reach), y2="high:Q", opacity=focused(0.14, 0.02), **look
    )
    line = base.mark_line(strokeWidth=2.2).encode(x=x, y=y, strokeDash=dash(scene), opacity=focused(1.0), **look)
    dots = base.mark_point(filled=True, size=160, opacity=0).encode(x=x, y=y, color=color(scene), tooltip=tips)
    chart = alt.layer(*rules(scene), area, line, dots)
    chart = chart.properties(width="container", height=300).add_params(alt.param(name="focus", value=""))
    title = _title(scene)
    note = (
        "Error of forecasts given before their answers were known, in units of the target, over the rows since the point before, "
        "on a logarithmic axis: mean over seeds, with its 95 % interval."
    )
    return Chart(
        "forecast", title, note + rules_note(scene), spec(chart, f"{title}. {note}"), columns(rows, 5), present(scene, rows)
    )


def errors(entry: Entry, most: int) -> list[dict[str, Any]]:
    """RMSE along the stream in at most so many points. Neighbours are pooled, so that no error between two points is lost.

    Each point of the curve stands for the rows since the one before, about as many at each: RMSE = sqrt(mean RMSE_i^2).
    """
    points = curve(entry, FORECAST, "rmse", most=100_000)
    count = math.ceil(len(points) / most)
    groups = [points[start : start + count] for start in range(0, len(points), count or 1)]
    return [
        {"event": group[-1]["event"]}
        | {key: math.sqrt(sum(max(0.0, row[key]) ** 2 for row in group) / len(group)) for key in ("mean", "low", "high")}
        for group in groups
    ]


def _title(scene: Scene) -> str:
    best, frozen = scene.best, find(scene.learners, scene.verdict["frozen"])
    told = [
        f"{scene.short(entry['label']) if entry is best else still(entry)} is off by {say.significant(value)}"
        for entry in ([best] if best is frozen else [best, frozen])
        if entry is not None and (value := _mean(entry, "rmse")) is not None
    ]
    return ", ".join(told) + " on average" if told else "Errors of forecasts along the stream"


def _mean(entry: Entry, key: str) -> float | None:
    values = [run[key] for run in figures(entry, FORECAST) if known(run.get(key))]
    return sum(values) / len(values) if values else None


def recoveries(entry: Entry) -> list[dict[str, Any]]:
    """By known change: event, early RMSE, and rows until recovery, means over seeds; `never`: seeds that did not recover."""
    runs = [[part for part in run.get("segments") or [] if part.get("change")] for run in figures(entry, FORECAST)]
    found = []
    for parts in zip(*runs, strict=False):
        times = [part["recovered"] for part in parts if known(part.get("recovered"))]
        early = [part["early"]["rmse"] for part in parts if known(part["early"].get("rmse"))]
        found.append(
            {
                "event": parts[0]["from"],
                "early": sum(early) / len(early) if early else None,
                "rows": sum(times) / len(times) if times else None,
                "never": len(parts) - len(times),
                "seeds": len(parts),
            }
        )
    return found


def recovered(record: Mapping[str, Any], verdict: Mapping[str, Any]) -> list[str]:
    """How soon the learner of the verdict, the runner-up and what never learns recovered from each known change, in words."""
    learners = record["learners"]
    short = short_names(learners)
    shown = [find(learners, verdict[key]) for key in ("learner", "runner_up", "frozen")]
    told = [(entry, recoveries(entry)) for entry in shown if entry is not None]
    told = [(entry, found) for entry, found in told if found]
    if not told:
        return []
    paragraphs = []
    for number, first in enumerate(told[0][1][:CHANGES]):
        parts = [
            f"{code(short[entry['label']])} {_recovered(found[number])}" for entry, found in told if number < len(found)
        ]
        paragraphs.append(f"After the change at event {say.count(first['event'])}: {'; '.join(parts)}.")
    left = len(told[0][1]) - CHANGES
    return paragraphs + ([f"{say.plural(left, 'more change')} are in result.json."] if left > 0 else [])


def _recovered(found: Mapping[str, Any]) -> str:
    early = "" if found["early"] is None else f" (RMSE {say.significant(found['early'])} at first)"
    if found["rows"] is None:
        return f"did not recover{early}"
    some = f", in {say.count(found['never'])} of {say.count(found['seeds'])} seeds never" if found["never"] else ""
    rows = math.ceil(found["rows"])
    how = f"recovered within {say.plural(rows, 'row')}" if rows else "needed no time to recover"
    return f"{how}{some}{early}"
