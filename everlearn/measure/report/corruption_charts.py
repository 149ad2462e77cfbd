"""Corruptions in the report: errors of each learner by type, and by round beside its errors on clean images.

The figures are those of the monitor "corruption", seed by seed; records without it have neither chart.
"""

from collections.abc import Mapping
from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.numbers import known
from everlearn.measure.report.reading import Entry, figures
from everlearn.measure.report.scene import (
    Chart,
    Scene,
    color,
    dash,
    focused,
    header,
    names_axis,
    present,
    spec,
    told_learner,
)
from everlearn.measure.report.series import band, columns

CORRUPTION = "corruption"
CLEAN = "clean images, at the end"
PANELS = {"corrupted": "Corrupted images, as they came", "clean": "Clean images, held out"}
HEIGHT = 18  # pixels of one type

Row = dict[str, Any]


def type_errors(entry: Entry) -> list[Row]:
    """(type, mean, low, high) of the errors under each corruption, over the seeds, and of the clean ones at the end."""
    runs = figures(entry, CORRUPTION)
    kinds = [kind for kind in (runs[0]["by_type"] if runs else {}) if all(kind in run["by_type"] for run in runs)]
    rows = [{"type": kind.replace("_", " "), **band([run["by_type"][kind] for run in runs], (0.0, 1.0))} for kind in kinds]
    clean = [run["clean_after"] for run in runs]
    return rows + ([{"type": CLEAN, **band(clean, (0.0, 1.0))}] if rows and all(map(known, clean)) else [])


def round_errors(entry: Entry) -> list[Row]:
    """(panel, round, mean, low, high): the mean error over types in each round, from 1; the clean error after each, from 0."""
    runs = figures(entry, CORRUPTION)
    found: list[Row] = []
    for panel, series in (
        ("corrupted", [[point["mean"] for point in run["by_round"]] for run in runs]),
        ("clean", [run["clean"] for run in runs]),
    ):
        for number in range(min(map(len, series), default=0)):
            values = [one[number] for one in series]
            if all(map(known, values)):
                turn = number + (panel == "corrupted")
                found.append({"panel": PANELS[panel], "round": turn, **band(values, (0.0, 1.0))})
    return found


def corruption_types(scene: Scene) -> Chart | None:
    """The error of each learner under each corruption, in the order in which they came."""
    import altair as alt

    rows = [{"learner": entry["label"], **row} for entry in scene.learners for row in type_errors(entry)]
    if not rows:
        return None
    kinds = list(dict.fromkeys(row["type"] for row in rows))
    y = alt.Y("type:N", sort=kinds, title=None, axis=names_axis())
    x = alt.X("mean:Q", title="Error", axis=alt.Axis(format=".0%", tickCount=6), scale=alt.Scale(domainMin=0))
    look = {"color": color(scene), "detail": "learner:N"}
    line = alt.Chart().mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q"), x2="high:Q", y=y, opacity=focused(0.6), **look)
    tips = [told_learner(), alt.Tooltip("type:N", title="Under"), *_errors()]
    dots = alt.Chart().mark_point(filled=True, size=55).encode(x=x, y=y, opacity=focused(1.0), tooltip=tips, **look)
    layered = (
        alt.layer(line, dots, data=alt.NamedData("table"))
        .properties(width="container", height=HEIGHT * len(kinds))
        .add_params(alt.param(name="focus", value=""))
    )
    note = (
        "Share of wrong answers, given before anything was learned from the images: mean over seeds, with its 95 % interval. The last "
        "line is the error on held-out clean images at the end, which adapting may raise."
    )
    title = _title(scene)
    return Chart("corruption-types", title, note, spec(layered, f"{title}. {note}"), columns(rows), present(scene, rows))


def corruption_rounds(scene: Scene) -> Chart | None:
    """The mean error over types in each round, and the clean error after it, where there is more than one round."""
    import altair as alt

    rows = [{"learner": entry["label"], **row} for entry in scene.learners for row in round_errors(entry)]
    if max((row["round"] for row in rows), default=0) < 2:
        return None
    x = alt.X("round:Q", title="Round", axis=alt.Axis(tickMinStep=1, tickCount=6, format="d", grid=False))
    y = alt.Y("mean:Q", title="Error", axis=alt.Axis(format=".0%", tickCount=5), scale=alt.Scale(domainMin=0))
    look = {"color": color(scene), "detail": "learner:N"}
    area = alt.Chart().mark_area().encode(x=x, y=alt.Y("low:Q"), y2="high:Q", opacity=focused(0.14, 0.02), **look)
    line = alt.Chart().mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=20, filled=True))
    line = line.encode(x=x, y=y, strokeDash=dash(scene), opacity=focused(1.0), **look)
    tips = [told_learner(), alt.Tooltip("round:Q", title="Round"), alt.Tooltip("panel:N", title="On"), *_errors()]
    dots = alt.Chart().mark_point(filled=True, size=120, opacity=0).encode(x=x, y=y, color=color(scene), tooltip=tips)
    faceted = (
        alt.layer(area, line, dots, data=alt.NamedData("table"))
        .properties(width=330, height=220)
        .facet(facet=alt.Facet("panel:N", sort=list(PANELS.values()), title=None, header=header()), columns=2)
        .resolve_scale(y="independent")
        .add_params(alt.param(name="focus", value=""))
    )
    note = (
        "The same corruptions in each round: mean error over types, and the error on held-out clean images after each round (round 0: "
        "at deployment). What rises on the left collapses, what rises on the right forgets."
    )
    title = "Errors round by round"
    chart = spec(faceted, f"{title}. {note}")
    return Chart(
        "corruption-rounds", title, note, chart, columns(rows), present(scene, rows), wide=True, panel=240, panels=2
    )


def _errors() -> list[Any]:
    import altair as alt

    names = {"mean": "Error", "low": "95 % low", "high": "95 % high"}
    return [alt.Tooltip(f"{key}:Q", title=title, format=".1%") for key, title in names.items()]


def _title(scene: Scene) -> str:
    """The error of the learner of the verdict; of the one that errs least where it has no figures."""
    errors: dict[str, Mapping[str, float]] = {}
    for entry in scene.learners:
        found = [run["mean_error"] for run in figures(entry, CORRUPTION)]
        if found and all(map(known, found)):
            errors[entry["label"]] = band(found)
    named = scene.best["label"] if scene.best is not None and scene.best["label"] in errors else None
    label = named or min(errors, key=lambda name: errors[name]["mean"])
    return f"{scene.short(label)} errs on {say.percent(errors[label]['mean'], 0)} of corrupted images"
