"""Charts along the stream: accuracy, memory, plasticity, and the alarms of drift detectors."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.changes import lost_plasticity
from everlearn.measure.report.numbers import code
from everlearn.measure.report.reading import find, still
from everlearn.measure.report.scene import (
    Chart,
    Scene,
    color,
    dash,
    event_axis,
    focused,
    header,
    names_axis,
    present,
    rules,
    rules_note,
    spec,
    told_event,
    told_learner,
)
from everlearn.measure.report.series import alarms, columns, curve, first_and_last, thinned

POINTS = 80  # points of one curve
ALARMS = 200  # alarms of one detector and seed


def held_out(scene: Scene) -> Chart | None:
    """Average accuracy over the held-out sets at each checkpoint."""
    checkpoints = scene.stream.get("checkpoints") or []
    rows = _curves(scene, "matrix", "average_accuracy", only=checkpoints, bounds=(0.0, 1.0))
    single = len(scene.stream.get("held_out") or []) == 1
    title = _ends(scene, rows, "on the held-out set" if single else "on average over the held-out sets")
    note = "Average accuracy over the held-out sets each time they were judged: mean over seeds, with its 95 % interval."
    return _lines(
        scene, "held_out", rows, title, note, "Accuracy on held-out sets", accuracy=True, marked=len(checkpoints) <= 12
    )


def prequential(scene: Scene) -> Chart | None:
    """Accuracy on incoming rows, over a sliding window."""
    rows = _curves(scene, "prequential", "accuracy", bounds=(0.0, 1.0))
    title = _ends(scene, rows, "on the data that came last")
    note = "Accuracy of answers given before their labels were known, over a sliding window: mean over seeds, with its 95 % interval."
    return _lines(scene, "prequential", rows, title, note, "Accuracy on incoming data", accuracy=True)


def _ends(scene: Scene, rows: Sequence[Mapping[str, Any]], where: str) -> str:
    last = {row["learner"]: row["mean"] for row in rows}
    best, frozen = scene.verdict["learner"], scene.verdict["frozen"]
    if best in last and frozen in last:
        beside = f"{still(find(scene.learners, frozen))} at {say.percent(last[frozen], 0)}"
        return f"{scene.short(best)} ends at {say.percent(last[best], 0)} {where}, {beside}"
    leader = max(last, key=last.__getitem__, default=None)
    return f"{scene.short(leader)} ends highest, at {say.percent(last[leader], 0)} {where}" if leader else ""


def memory(scene: Scene) -> Chart | None:
    """Bytes held for replay as the stream goes."""
    rows = _curves(scene, "memory", "bytes")
    users = {row["learner"] for row in rows if row["mean"] > 0}
    rows = [row for row in rows if row["learner"] in users]
    if not rows:
        return None
    peaks = {label: max(row["mean"] for row in rows if row["learner"] == label) for label in users}
    largest = [label for label, peak in peaks.items() if peak >= 0.99 * max(peaks.values())]
    whose = scene.short(largest[0]) if len(largest) == 1 else f"{len(largest)} learners"
    title = f"Replay memory peaks at {say.size(max(peaks.values()))}, with {whose}"
    note = "Bytes held for replay. Learners that keep nothing are not drawn."
    return _lines(scene, "memory", rows, title, note, "Replay memory", digits=0)


def plasticity(scene: Scene) -> Chart | None:
    """Active units, effective rank and weight norm as the stream goes."""
    import altair as alt

    measures = {"active_units": "Active units (%)", "effective_rank": "Effective rank", "weight_norm": "Weight norm"}
    rows = [
        {
            "measure": told,
            "learner": row["learner"],
            "event": row["event"],
            "value": row["mean"] * (100 if "%" in told else 1),
        }
        for key, told in measures.items()
        for row in _curves(scene, "plasticity", key, most=40)
    ]
    if not rows:
        return None
    shown = [told for told in measures.values() if any(row["measure"] == told for row in rows)]
    since = scene.stream.get("deployed") or 0
    rank = first_and_last(scene.best, "plasticity", "effective_rank", since)
    title = "How much of each network is still in use"
    if rank is not None:
        yardstick = find(scene.learners, scene.verdict["retrain"])
        lost, beside = (
            lost_plasticity(scene.best, yardstick, since),
            first_and_last(yardstick, "plasticity", "effective_rank"),
        )
        kept = "loses some of" if lost else "keeps"
        change = f"effective rank {say.decimal(rank[0], 0)} when deployed, {say.decimal(rank[1], 0)} at the end"
        change += f", {say.decimal(beside[1], 0)} after retraining" if beside is not None else ""
        title = f"{scene.short(scene.best['label'])} {kept} its capacity to learn: {change}"
    x, y = (
        event_axis(),
        alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4, labelFlush=True)),
    )
    tips = [alt.Tooltip("measure:N", title="Measure"), alt.Tooltip("value:Q", title="Value", format=".3~g")]
    look = {"color": color(scene), "strokeDash": dash(scene), "opacity": focused(1.0), "detail": "learner:N"}
    line = alt.Chart().mark_line(strokeWidth=2).encode(x=x, y=y, **look)
    dots = alt.Chart().mark_point(filled=True, size=90, opacity=0)  # not seen: they are what a pointer finds
    dots = dots.encode(x=x, y=y, color=color(scene), tooltip=[told_learner(), told_event(), *tips])
    faceted = (
        alt.layer(line, dots, data=alt.NamedData("table"))
        .properties(width=280, height=150)
        .facet(facet=alt.Facet("measure:N", sort=shown, title=None, header=header()), columns=3)
        .resolve_scale(y="independent")
        .add_params(alt.param(name="focus", value=""))
    )
    note = "Share of hidden units that ever fire, effective rank of the last features, and norm of all weights, along the stream."
    table, labels = columns(rows), present(scene, rows)
    return Chart("plasticity", title, note, spec(faceted, note), table, labels, wide=True, panel=200, panels=len(shown))


def drift(scene: Scene) -> Chart | None:
    """Alarms of the detectors as ticks on the time axis."""
    import altair as alt

    order = [find(scene.learners, scene.verdict[key]) for key in ("frozen", "learner")]
    watched = next((entry for entry in order if entry is not None and alarms(entry)), None)
    if watched is None:
        return None
    found = alarms(watched)
    rows = [
        {"detector": detector, "seed": seed, "event": event}
        for detector, runs in found.items()
        for seed, events in enumerate(runs)
        for event in thinned(events, ALARMS)
    ]
    if not rows:
        return None
    base = alt.Chart(alt.NamedData("table"))
    ticks = base.mark_tick(thickness=2, size=20, color="var(--accent)", opacity=0.75).encode(
        x=event_axis(domain=[0, scene.stream.get("events") or max(row["event"] for row in rows)]),
        y=alt.Y("detector:N", sort=list(found), title=None, axis=names_axis(), scale=alt.Scale(domain=list(found))),
        tooltip=[alt.Tooltip("detector:N", title="Detector"), told_event(), alt.Tooltip("seed:Q", title="Seed number")],
    )
    chart = alt.layer(*rules(scene), ticks).properties(width="container", height=44 * len(found) + 10)
    counts = {detector: sum(map(len, runs)) / max(1, len(runs)) for detector, runs in found.items()}
    told = say.listing(
        [f"{code(detector)} {say.decimal(number, 1).removesuffix('.0')}" for detector, number in counts.items()]
    )
    title = f"Alarms per seed: {told}"
    note = f"Each tick is an alarm of a drift detector that watches the errors of {scene.short(watched['label'])}, all seeds together."
    return Chart("drift", title, note + rules_note(scene), spec(chart, f"{title}. {note}"), columns(rows), wide=True)


def _curves(scene: Scene, monitor: str, key: str, most: int = POINTS, **options: Any) -> list[dict[str, Any]]:
    return [
        {"learner": entry["label"], **row}
        for entry in scene.learners
        for row in curve(entry, monitor, key, most=most, **options)
    ]


def _lines(
    scene: Scene,
    name: str,
    rows: list[dict[str, Any]],
    title: str,
    note: str,
    axis: str,
    accuracy: bool = False,
    marked: bool = False,
    digits: int = 4,
) -> Chart | None:
    """Mean lines with bands over seeds, rules at known changes, and the values at the event under the pointer."""
    import altair as alt

    if len({row["event"] for row in rows}) < 2:
        return None
    base = alt.Chart(alt.NamedData("table"))
    if accuracy:
        style = alt.Axis(format=".0%", tickCount=5)
        floor = math.floor(10 * min(row["low"] for row in rows)) / 10
        start = floor if floor >= 0.3 else 0.0
        y = alt.Y("mean:Q", title=axis, scale=alt.Scale(domainMin=start, nice=True), axis=style)
        told = alt.Tooltip("mean:Q", title="Accuracy", format=".1%")
        low, high = (alt.Tooltip(f"{key}:Q", title=f"95 % {key}", format=".1%") for key in ("low", "high"))
    else:
        style = alt.Axis(labelExpr="datum.value == 0 ? '0' : format(datum.value, '~s') + 'B'", tickCount=5)
        y = alt.Y("mean:Q", title=axis, scale=alt.Scale(domainMin=0), axis=style)
        told = alt.Tooltip("mean:Q", title="Bytes", format=",.0f")
        low, high = (alt.Tooltip(f"{key}:Q", title=f"95 % {key}", format=",.0f") for key in ("low", "high"))
    tips = [told_learner(), told_event(), told, low, high]
    area = base.mark_area(interpolate="linear").encode(
        x=event_axis(),
        y=alt.Y("low:Q", title=axis),
        y2="high:Q",
        color=color(scene),
        opacity=focused(0.14, 0.02),
        detail="learner:N",
    )
    point = alt.OverlayMarkDef(size=24, filled=True) if marked else False
    line = base.mark_line(strokeWidth=2.2, interpolate="linear", point=point).encode(
        x=event_axis(), y=y, color=color(scene), strokeDash=dash(scene), opacity=focused(1.0), detail="learner:N"
    )
    near = alt.selection_point(name="near", on="pointerover", clear="pointerout", fields=["event", "learner"], empty=False)
    dots = base.mark_point(filled=True, size=200).encode(  # wide, so that a pointer finds them; seen only under it
        x=event_axis(),
        y=y,
        color=color(scene),
        opacity=alt.when(near).then(alt.value(0.4)).otherwise(alt.value(0)),
        tooltip=tips,
    )
    layers = [*rules(scene), area, line, dots.add_params(near)]
    chart = alt.layer(*layers).properties(width="container", height=300).add_params(alt.param(name="focus", value=""))
    return Chart(
        name, title, note + rules_note(scene), spec(chart, f"{title}. {note}"), columns(rows, digits), present(scene, rows)
    )
