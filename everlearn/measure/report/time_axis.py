"""Drift on one time axis: the error of the best learner beside what never learns, alarms, recovery, and the price of it all.

    recovery    events after a known change until the error is back at what it was before, within two points of accuracy (never,
                where it was not back from the change before and this one did no more harm); for forecasts what the monitor "forecast" found
    price       milliseconds per event in predict and update

A change before deployment, or one that no point of the curve tells of, is left out. Records without errors along the stream, or
without any change or alarm, have no such chart.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.forecast_charts import errors
from everlearn.measure.report.numbers import known
from everlearn.measure.report.reading import SKILL, Entry, figures, find, still
from everlearn.measure.report.scene import (
    MANY,
    Chart,
    Scene,
    color,
    event_axis,
    header,
    present,
    spec,
    told_event,
    told_learner,
)
from everlearn.measure.report.series import alarms, columns, curve, thinned

POINTS, MARKS = 120, 80  # of one line; changes and alarms that are marked
WITHIN = 0.02  # of the accuracy before a change counts as back
PRICE = "Price (ms per event)"
DUMMY = "every"  # alarms of a detector that sees nothing are not drawn

Row = dict[str, Any]


def time_axis(scene: Scene) -> Chart | None:
    """Error with alarms and recovery above, the price of adapting below, along the same events."""
    import altair as alt

    shown = [find(scene.learners, scene.verdict[key]) for key in ("learner", "frozen")]
    entries = [entry for entry in shown if entry is not None]
    kind = "Error (RMSE)" if scene.verdict["headline"] == SKILL else "Error (%)"
    if not entries:
        return None
    changes = [event for event in scene.stream.get("changes") or [] if event > 0]
    told = _alarms(entries)
    if not (changes or told):
        return None
    lines = [{"panel": kind, "learner": entry["label"], **row} for entry in entries for row in _errors(entry, scene)]
    lines += [{"panel": PRICE, "learner": entry["label"], **row} for entry in entries for row in price(entry)]
    panels = [name for name in (kind, PRICE) if sum(row["panel"] == name for row in lines) > 1]
    if kind not in panels:
        return None
    back = {entry["label"]: recoveries(entry, scene.stream, scene.verdict["headline"]) for entry in entries}
    rows = [{"kind": "line", "end": None, **row} for row in lines if row["panel"] in panels]
    rows += [_mark("change", panel, event) for panel in panels for event in thinned(changes, MARKS)]
    rows += [_mark("alarm", kind, event) for event in thinned(told, MARKS)]
    rows += [
        _mark("back", kind, row["event"])
        | {"learner": entry["label"], "end": row["event"] + row["events"], "value": float(lane)}
        for lane, entry in enumerate(entries)
        for row in back[entry["label"]][:MARKS]
        if row["events"] is not None
    ]
    base = alt.Chart()
    x, y = event_axis(), alt.Y("value:Q", title=None, axis=alt.Axis(tickCount=4, format="~s"), scale=alt.Scale(zero=True))
    tips = [told_learner(), told_event(), alt.Tooltip("value:Q", title="Value", format=".3~g")]
    of = {name: base.transform_filter(f"datum.kind == '{name}'") for name in ("line", "change", "alarm", "back")}
    layers = [
        *(  # a layer without rows has no extent, of which charts complain
            [
                of["change"]
                .mark_rule(color="var(--muted)", strokeDash=[4, 4], opacity=0.7 if len(changes) <= MANY else 0.25)
                .encode(x=x, tooltip=[told_event()])
            ]
            if changes
            else []
        ),
        of["line"].mark_line(strokeWidth=2).encode(x=x, y=y, color=color(scene), detail="learner:N"),
        of["line"].mark_point(filled=True, size=80, opacity=0).encode(x=x, y=y, color=color(scene), tooltip=tips),
        *(
            [
                of["alarm"]
                .mark_tick(thickness=2, size=12, color="var(--accent)")
                .encode(x=x, y=alt.value(6), tooltip=[told_event()])
            ]
            if told
            else []
        ),
        *(
            of["back"]
            .transform_filter(f"datum.value == {number}")
            .mark_rule(strokeWidth=5, opacity=0.55)
            .encode(
                x=x, x2="end:Q", y=alt.value(18 + 8 * number), color=color(scene), tooltip=[told_learner(), told_event()]
            )
            for number in sorted({int(row["value"]) for row in rows if row["kind"] == "back"})
        ),
    ]
    faceted = (
        alt.layer(*layers, data=alt.NamedData("table"))
        .properties(width=600, height=150)
        .facet(facet=alt.Facet("panel:N", sort=panels, title=None, header=header()), columns=1)
        .resolve_scale(y="independent")
        .add_params(alt.param(name="focus", value=""))
    )
    title = _title(scene, entries, back)
    note = (
        "Dashed lines: known changes of the data. Ticks on top: alarms of drift detectors on the errors. Bars under them: the events until "
        "the error was back at what it was before a change. Below: what predicting and learning took."
    )
    table, labels = columns(rows, 5), [label for label in present(scene, rows) if label]
    return Chart(
        "time_axis", title, note, spec(faceted, f"{title}. {note}"), table, labels, wide=True, panel=560, panels=len(panels)
    )


def _mark(kind: str, panel: str, event: float) -> Row:
    return {"kind": kind, "end": None, "panel": panel, "learner": "", "event": event, "value": None}


def _errors(entry: Entry, scene: Scene) -> list[Row]:
    if scene.verdict["headline"] == SKILL:
        return [{"event": row["event"], "value": row["mean"]} for row in errors(entry, POINTS)]
    found = curve(entry, "prequential", "accuracy", most=POINTS)
    return [{"event": row["event"], "value": 100 * (1 - row["mean"])} for row in found]


def _alarms(entries: list[Entry]) -> list[int]:
    """Events at which a detector that looks at errors raised an alarm, on the first of the learners that has any."""
    for entry in reversed(entries):  # what never learns shows the world's changes best
        found = {name: runs for name, runs in alarms(entry).items() if not name.startswith(DUMMY)}
        events = sorted({event for runs in found.values() for events in runs for event in events})
        if events:
            return events
    return []


def price(entry: Entry) -> list[Row]:
    """Milliseconds per event between the points of the stream at which the time so far was noted, mean over seeds."""
    found: dict[int, list[float]] = {}
    for cost in figures(entry, "cost"):
        along = thinned([[0, 0.0], *(cost.get("along") or [])], POINTS)  # before differences: what is dear must not be lost
        for (begun, before), (event, seconds) in pairwise(along):
            if event > begun:
                found.setdefault(event, []).append(1000 * (seconds - before) / (event - begun))
    most = max(map(len, found.values()), default=0)
    events = sorted(event for event, values in found.items() if len(values) == most)
    return [{"event": event, "value": sum(found[event]) / most} for event in events]


def recoveries(entry: Entry, stream: Mapping[str, Any], headline: str) -> list[Row]:
    """By known change: events until the error was back (None: never), mean over seeds that came back."""
    deployed = stream.get("deployed") or 0
    changes = [event for event in stream.get("changes") or [] if event > 0 and event >= deployed]
    by_seed = (
        [_forecast_back(run) for run in figures(entry, "forecast")] if headline == SKILL else _accuracy_back(entry, changes)
    )
    found = []
    for event in changes:
        if not any(event in seed for seed in by_seed):
            continue
        values = [seed[event] for seed in by_seed if known(seed.get(event))]
        found.append({"event": event, "events": sum(values) / len(values) if values else None})
    return found


def _forecast_back(run: Mapping[str, Any]) -> dict[int, float | None]:
    """{change: events until recovery}, of changes after which an answer came."""
    segments = [part for part in run.get("segments") or [] if part.get("change") and part["scored"]]
    return {part["from"]: part.get("recovered_events") for part in segments}


def _accuracy_back(entry: Entry, changes: list[int]) -> list[dict[int, float | None]]:
    """{change: events until the accuracy of the curve is back}, seed by seed, of changes with points before and after."""
    found = []
    for run in entry.get("runs") or []:
        points = [(point["event"], (point.get("prequential") or {}).get("accuracy")) for point in run.get("curve") or []]
        points = [(event, value) for event, value in points if known(value)]
        seed: dict[int, float | None] = {}
        lost = (
            False  # whether it never came back from the change before: then a change that does it no more harm does no good
        )
        for number, change in enumerate(changes):
            before = [value for event, value in points if event <= change]
            end = changes[number + 1] if number + 1 < len(changes) else float("inf")
            after = [(event, value) for event, value in points if change < event <= end]
            if not before or not after:
                continue
            low = [place for place, (_, value) in enumerate(after) if value < before[-1] - WITHIN]
            later = after[low[-1] + 1 :] if low else after  # back for good, not for a moment
            lost = not later or (lost and not low)
            seed[change] = None if lost else (later[0][0] - change if low else 0)
        found.append(seed)
    return found


def _title(scene: Scene, entries: list[Entry], back: Mapping[str, list[Row]]) -> str:
    """How soon each was back on average, and at what price."""
    parts = []
    for entry in entries:
        times = [row["events"] for row in back[entry["label"]] if row["events"] is not None]
        missed = len(back[entry["label"]]) - len(times)
        paid = price(entry)
        spent = f" at {say.milliseconds(sum(row['value'] for row in paid) / len(paid))} per event" if paid else ""
        name = still(entry) if entry["label"] == scene.verdict["frozen"] else scene.short(entry["label"])
        if not back[entry["label"]]:
            parts.append(f"{name} works{spent}")
        elif not times:
            parts.append(f"{name} is never back{spent}")
        else:
            some = f" of {len(times)} of {len(times) + missed} changes" if missed else " of a change"
            events = sum(times) / len(times)
            how = f"is back within {say.plural(math.ceil(events), 'event')}" if events else "needs no time to be back"
            parts.append(f"{name} {how}{some if events else some.replace(' of ', ' after ', 1)}{spent}")
    return "; ".join(parts)
