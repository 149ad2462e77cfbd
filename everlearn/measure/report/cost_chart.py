"""The chart that weighs the score against the time of an update."""

import math
from collections.abc import Sequence
from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.reading import SKILL, find, mean, measure, role, still
from everlearn.measure.report.scene import Chart, Scene, color, focused, present, shown_looks, spec, told_learner
from everlearn.measure.report.series import columns

Row = dict[str, Any]
LOWEST = -1.0  # skill that is drawn


def cost(scene: Scene) -> Chart | None:
    """Score against time per update, on a logarithmic axis; the frozen model, which does not learn once it is deployed, is a line."""
    import altair as alt

    rows = _rows(scene)
    times = [row["ms"] for row in rows if row["timed"]]
    if len(times) < 2:
        return None
    base = alt.Chart(alt.NamedData("table"))
    reach = alt.Scale(type="log", domain=[min(times) / 1.7, max(times) * 1.7], nice=False)
    x = alt.X("ms:Q", title="Time per update (ms)", scale=reach, axis=alt.Axis(format="~r", values=ticks(times)))
    scale = alt.Scale(zero=False, nice=True, padding=12)
    y = alt.Y("score:Q", title="Score", scale=scale, axis=alt.Axis(format=".0%", tickCount=5))
    tips = [
        told_learner(),
        alt.Tooltip("score:Q", title="Score", format=".1%"),
        alt.Tooltip("low:Q", title="95 % low", format=".1%"),
        alt.Tooltip("high:Q", title="95 % high", format=".1%"),
        alt.Tooltip("ms:Q", title="Milliseconds per update", format=".3~g"),
    ]
    shapes = {label: look.shape for label, look in shown_looks(scene).items()}
    shape = alt.Shape("learner:N", legend=None, scale=alt.Scale(domain=list(shapes), range=list(shapes.values())))
    flat = base.transform_filter("!datum.timed").mark_rule(strokeWidth=1.6)
    bars = base.transform_filter("datum.timed").mark_rule(strokeWidth=1.6)
    dots = base.transform_filter("datum.timed").mark_point(filled=True, size=110)
    low = alt.Y("low:Q", title="Score", scale=scale)
    chart = alt.layer(
        flat.encode(y=y, color=color(scene), opacity=focused(1.0), tooltip=tips[:4]),
        bars.encode(x=x, y=low, y2="high:Q", color=color(scene), opacity=focused(0.8)),
        dots.encode(x=x, y=y, color=color(scene), shape=shape, opacity=focused(1.0), tooltip=tips),
    )
    chart = chart.properties(width="container", height=300).add_params(alt.param(name="focus", value=""))
    title = _title(scene, rows)
    note = (
        "Up is better, left is cheaper; each grid line is a step on a logarithmic scale. Bars are 95 % intervals over seeds."
    )
    if len(times) < len(rows):
        name = still(find(scene.learners, scene.verdict["frozen"]))
        note += f" The grey line is {name}, which does not learn once it is deployed."
    left_out = [
        entry["label"] for entry in scene.learners if measure(entry, "score") and _too_low(scene, mean(entry, "score"))
    ]
    if left_out:
        note += f" Below {say.percent(LOWEST, 0)} and not drawn: {say.listing([scene.short(label) for label in left_out])}."
    return Chart("cost", title, note, spec(chart, f"{title}. {note}"), columns(rows, 5), present(scene, rows))


def ticks(times: Sequence[float]) -> list[float]:
    """Powers of ten over the range of some times, and 2 and 5 times them where the range is short."""
    low, high = math.log10(min(times) / 1.7), math.log10(max(times) * 1.7)
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    found = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    return [value for value in found if low <= math.log10(value) <= high]


def _rows(scene: Scene) -> list[Row]:
    """Score with interval and time of every learner whose time is known, and of the frozen model without one."""
    rows = []
    for entry in scene.learners:
        found, ms = measure(entry, "score"), mean(entry, "update_ms")
        fixed = role(entry) == "frozen"
        if found is None or not (ms or fixed) or _too_low(scene, found["mean"]):
            continue
        low, high = (found[key] if say.known(found.get(key)) else found["mean"] for key in ("low", "high"))
        rows.append(
            {
                "learner": entry["label"],
                "score": found["mean"],
                "low": max(LOWEST if scene.verdict["headline"] == SKILL else 0.0, low),
                "high": min(1.0, high),
                "ms": None if fixed else ms,
                "timed": not fixed,
            }
        )
    return rows


def _too_low(scene: Scene, score: float) -> bool:
    """Whether a score has no bound below, and stands so low that drawing it would hide all others."""
    return scene.verdict["headline"] == SKILL and score < LOWEST


def _title(scene: Scene, rows: Sequence[Row]) -> str:
    best, dearest = scene.best, max((row for row in rows if row["timed"]), key=lambda row: row["ms"])
    most = f"{scene.short(dearest['learner'])} takes {say.milliseconds(dearest['ms'])}"
    own = mean(best, "update_ms")
    if best is None or role(best) == "frozen" or not own:
        return f"The dearest update: {most}"
    told = (
        f"{scene.short(best['label'])} reaches {say.percent(mean(best, 'score'), 0)} at {say.milliseconds(own)} per update"
    )
    return told if dearest["learner"] == best["label"] else f"{told}; {most}"
