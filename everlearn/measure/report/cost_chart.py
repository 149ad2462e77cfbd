"""The chart that weighs the score against the time of an update."""

from everlearn.measure.report import numbers as say
from everlearn.measure.report.reading import find, mean, measure, role
from everlearn.measure.report.scene import Chart, Scene, color, focused, present, shown_looks, spec, told_learner
from everlearn.measure.report.series import band, columns


def cost(scene: Scene) -> Chart | None:
    """Score against time per update; learners that never update are rules, since their time is nothing."""
    import altair as alt

    rows = []
    for entry in scene.learners:
        found, cost = measure(entry, "score"), mean(entry, "update_ms")
        if found is not None:
            ends = band(found.get("values") or [found["mean"]], (0.0, 1.0))
            ms = cost if cost and role(entry) != "frozen" else None
            rows.append(
                {"learner": entry["label"], "score": found["mean"], "low": ends["low"], "high": ends["high"], "ms": ms}
            )
    timed = [row for row in rows if row["ms"]]
    if len(timed) < 2:
        return None
    rows = [
        {**row, "ms": row["ms"], "timed": row["ms"] is not None}
        for row in rows
        if row["ms"] or role(find(scene.learners, row["learner"])) == "frozen"
    ]
    best, dearest = scene.best, max(timed, key=lambda row: row["ms"])
    title = f"The dearest update, {scene.short(dearest['learner'])}, takes {say.milliseconds(dearest['ms'])}"
    if best is not None and mean(best, "update_ms"):
        own = mean(best, "update_ms")
        title = f"{scene.short(best['label'])} reaches {say.percent(mean(best, 'score'), 0)} at {say.milliseconds(own)} per update"
        if dearest["learner"] != best["label"]:
            title += f"; {scene.short(dearest['learner'])} takes {say.milliseconds(dearest['ms'])}"
    base = alt.Chart(alt.NamedData("table"))
    x = alt.X(
        "ms:Q",
        title="Time per update (ms, logarithmic)",
        scale=alt.Scale(type="log", padding=24),
        axis=alt.Axis(format="~r", tickCount=5),
    )
    scale = alt.Scale(zero=False, nice=True, padding=12)
    y = alt.Y("score:Q", title="Score", scale=scale, axis=alt.Axis(format=".0%", tickCount=5))
    tips = [
        told_learner(),
        alt.Tooltip("score:Q", title="Score", format=".1%"),
        alt.Tooltip("low:Q", title="95 % low", format=".1%"),
        alt.Tooltip("high:Q", title="95 % high", format=".1%"),
        alt.Tooltip("ms:Q", title="Milliseconds per update", format=".3~g"),
    ]
    shapes = [look.shape if look.shape != "stroke" else "circle" for label, look in shown_looks(scene).items()]
    shape = alt.Shape("learner:N", legend=None, scale=alt.Scale(domain=list(shown_looks(scene)), range=shapes))
    still = (
        base.transform_filter("!datum.timed")
        .mark_rule(strokeWidth=1.6)
        .encode(y=y, color=color(scene), opacity=focused(1.0), tooltip=tips[:4])
    )
    bars = (
        base.transform_filter("datum.timed")
        .mark_rule(strokeWidth=1.6)
        .encode(x=x, y=alt.Y("low:Q", title="Score", scale=scale), y2="high:Q", color=color(scene), opacity=focused(0.8))
    )
    dots = (
        base.transform_filter("datum.timed")
        .mark_point(filled=True, size=110)
        .encode(x=x, y=y, color=color(scene), shape=shape, opacity=focused(1.0), tooltip=tips)
    )
    chart = (
        alt.layer(still, bars, dots).properties(width="container", height=300).add_params(alt.param(name="focus", value=""))
    )
    note = "Up is better, left is cheaper. Bars are 95 % intervals over seeds."
    if any(not row["timed"] for row in rows):
        note += " The grey line is the frozen model, which never updates."
    return Chart("cost", title, note, spec(chart, f"{title}. {note}"), columns(rows, 5), present(scene, rows))
