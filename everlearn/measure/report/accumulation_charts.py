"""Charts of classes that come back: what stays known of all of them, how it depends on how often and how long ago they came."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.plain_words import answer_of
from everlearn.measure.report.reading import Entry, figures, find, retrained, role
from everlearn.measure.report.recurrence import ACCUMULATION, accumulated, comes_back, mean_of, unit
from everlearn.measure.report.scene import (
    Chart,
    Scene,
    color,
    dash,
    focused,
    present,
    shown_looks,
    spec,
    told_learner,
)
from everlearn.measure.report.series import band, columns, thinned

POINTS = 80  # points of one curve
DOTS = 400  # classes of one learner, all seeds together
SPREAD = 1.5  # most over least frequent class from which on frequencies are drawn
BIN = 2.0  # frequencies within this factor are one point of a line

Row = dict[str, Any]


def accumulation(scene: Scene) -> Chart | None:
    """Accuracy on all classes along the stream, with the level of the task at hand and the yardstick."""
    import altair as alt

    rows = _shown(scene, _curve)
    if len({row["task"] for row in rows}) < 2:
        return None
    kind = unit(scene.record)[0]
    x = alt.X(
        "task:Q",
        title=f"{kind.capitalize()}s",
        scale=alt.Scale(nice=False, zero=False),
        axis=alt.Axis(tickCount=6, grid=False),
    )
    base = alt.Chart(alt.NamedData("table"))
    style = alt.Axis(format=".0%", tickCount=5)
    y = alt.Y("mean:Q", title="Accuracy on all classes", scale=alt.Scale(domainMin=0.0, nice=True), axis=style)
    tips = [
        told_learner(),
        alt.Tooltip("task:Q", title=kind.capitalize(), format=","),
        alt.Tooltip("mean:Q", title="Accuracy", format=".1%"),
        alt.Tooltip("low:Q", title="95 % low", format=".1%"),
        alt.Tooltip("high:Q", title="95 % high", format=".1%"),
    ]
    area = base.mark_area(interpolate="linear").encode(
        x=x, y=alt.Y("low:Q"), y2="high:Q", color=color(scene), opacity=focused(0.14, 0.02), detail="learner:N"
    )
    line = base.mark_line(strokeWidth=2.2).encode(
        x=x, y=y, color=color(scene), strokeDash=dash(scene), opacity=focused(1.0), detail="learner:N"
    )
    near = alt.selection_point(name="near", on="pointerover", clear="pointerout", fields=["task", "learner"], empty=False)
    dots = base.mark_point(filled=True, size=200).encode(
        x=x,
        y=y,
        color=color(scene),
        opacity=alt.when(near).then(alt.value(0.4)).otherwise(alt.value(0)),
        tooltip=tips,
    )
    marks = [_level(share, told) for share, told in _levels(scene, kind)]
    layers = [*(layer for mark in marks for layer in mark), area, line, dots.add_params(near)]
    chart = alt.layer(*layers).properties(width="container", height=300).add_params(alt.param(name="focus", value=""))
    title = _kept(scene)
    note = (
        "Accuracy on all held-out rows, whichever classes came last: mean over seeds, with its 95 % interval. "
        f"The dotted line is what knowing the {kind} at hand, and nothing else, would give"
        + ("; the dash-dotted one is where retraining on all data so far ends." if retrained(scene.learners) else ".")
    )
    return Chart("accumulation", title, note, spec(chart, f"{title}. {note}"), columns(rows), present(scene, rows))


def _curve(entry: Entry) -> list[Row]:
    """(task, mean, low, high) at the checkpoints; seeds agree on tasks where they do not agree on events."""
    found: dict[int, list[float]] = {}
    runs = figures(entry, ACCUMULATION)
    for run in runs:
        for tasks, accuracy in dict(run.get("curve") or []).items():
            found.setdefault(tasks, []).append(accuracy)
    tasks = sorted(task for task, values in found.items() if len(values) == len(runs))
    return [{"task": task, **band(found[task], (0.0, 1.0))} for task in thinned(tasks, POINTS)]


def _levels(scene: Scene, kind: str) -> list[tuple[float, str]]:
    """Horizontal lines: the task at hand, and the end of the yardstick."""
    found = [(mean_of(next(iter(_entries(scene)), None), "level"), f"the {kind} at hand alone")]
    found.append((mean_of(retrained(scene.learners), "end"), "retraining, at its end"))
    return [(share, told) for share, told in found if share is not None]


def _level(share: float, told: str) -> list[Any]:
    import altair as alt

    pattern = [1, 3] if "alone" in told else [8, 3, 2, 3]
    data = alt.Chart(alt.InlineData(values=[{"share": round(share, 4), "what": told}]))
    tips = [alt.Tooltip("what:N", title="Line"), alt.Tooltip("share:Q", title="Accuracy", format=".1%")]
    return [data.mark_rule(color="var(--muted)", strokeDash=pattern, strokeWidth=1.6).encode(y="share:Q", tooltip=tips)]


def _kept(scene: Scene) -> str:
    """The title: how far plain SGD and the best learner come between the two lines."""
    reference, entries = retrained(scene.learners), _entries(scene)
    told = [(entry, accumulated(entry, reference)) for entry in entries if entry is not reference]
    texts = [f"{scene.short(entry['label'])} {say.decimal(found['mean'], 2)}" for entry, found in told if found]
    if texts:
        return (
            f"Knowledge kept beyond the {unit(scene.record)[0]} at hand, where retraining is 1: {say.listing(texts, most=3)}"
        )
    ends = [(mean_of(entry, "end"), entry) for entry in entries]
    best = max((pair for pair in ends if pair[0] is not None), key=lambda pair: pair[0], default=None)
    return f"{scene.short(best[1]['label'])} ends highest on all classes, at {say.percent(best[0], 0)}" if best else ""


def frequency(scene: Scene) -> Chart | None:
    """Accuracy of each class at the end against how often it came, on a logarithmic axis."""
    import altair as alt

    rows = _shown(scene, _by_frequency, frozen=False)
    shares = [row["frequency"] for row in rows]
    if not shares or max(shares) < SPREAD * min(shares):
        return None
    kind = unit(scene.record)[0]
    reach = alt.Scale(type="log", domain=[min(shares) / 1.15, min(1.0, max(shares)) * 1.15], nice=False)
    axis = alt.Axis(format="~%", values=_ticks(shares))
    x = alt.X("frequency:Q", title=f"Share of the {kind}s in which a class came (logarithmic)", scale=reach, axis=axis)
    y = alt.Y(
        "accuracy:Q", title="Accuracy at the end", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%", tickCount=5)
    )
    tips = [
        told_learner(),
        alt.Tooltip("label:N", title="Class"),
        alt.Tooltip("frequency:Q", title=f"Share of {kind}s", format=".1%"),
        alt.Tooltip("accuracy:Q", title="Accuracy", format=".1%"),
        alt.Tooltip("seed:N", title="Seed"),
    ]
    shapes = {label: look.shape for label, look in shown_looks(scene).items()}
    shape = alt.Shape("learner:N", legend=None, scale=alt.Scale(domain=list(shapes), range=list(shapes.values())))
    base = alt.Chart(alt.NamedData("table"))
    dots = base.mark_point(filled=True, size=45).encode(
        x=x, y=y, color=color(scene), shape=shape, opacity=focused(0.45, 0.06), tooltip=tips
    )
    trend = base.transform_aggregate(
        frequency="mean(frequency)", accuracy="mean(accuracy)", groupby=["learner", "bin"]
    ).mark_line(strokeWidth=2.2)
    trend = trend.encode(x=x, y=y, color=color(scene), strokeDash=dash(scene), opacity=focused(1.0), detail="learner:N")
    chart = alt.layer(dots, trend).properties(width="container", height=280)
    chart = chart.add_params(alt.param(name="focus", value=""))
    title = _rarest(scene, rows, kind)
    note = "One mark for each class and seed; the lines join the means of classes that came about equally often."
    return Chart("frequency", title, note, spec(chart, f"{title}. {note}"), columns(rows), present(scene, rows))


def _by_frequency(entry: Entry) -> list[Row]:
    """(label, seed, frequency, accuracy, bin) of classes that came; a bin holds frequencies within a factor of 2."""
    rows = [
        {"label": row["label"], "seed": run["seed"], "frequency": row["frequency"], "accuracy": row["accuracy"]}
        for run in entry.get("runs") or []
        for row in (run["figures"].get(ACCUMULATION) or {}).get("by_frequency") or []
        if row["frequency"] > 0
    ]
    step = max(1, -(-len(rows) // DOTS))
    return [{**row, "bin": round(math.log(row["frequency"], BIN))} for row in rows[::step]]


def _ticks(shares: Sequence[float]) -> list[float]:
    steps = [digit * 10.0**power for power in range(-4, 1) for digit in (1, 2, 5)]
    return [step for step in steps if min(shares) / 1.15 <= step <= min(1.0, max(shares) * 1.15)]


def _rarest(scene: Scene, rows: Sequence[Mapping[str, Any]], kind: str) -> str:
    """The title: plain SGD on the classes that came least and on those that came most."""
    plain = (answer_of(scene.record) or {}).get("plain")
    held = [row for row in rows if row["learner"] == plain] or list(rows)
    low, high = min(row["bin"] for row in held), max(row["bin"] for row in held)
    rare, usual = ([row["accuracy"] for row in held if row["bin"] == place] for place in (low, high))
    return (
        f"{scene.short(held[0]['learner'])} is right in {say.percent(sum(rare) / len(rare), 0)} of the rows of the rarest classes, "
        f"in {say.percent(sum(usual) / len(usual), 0)} of the most frequent"
    )


def absence(scene: Scene) -> Chart | None:
    """Accuracy of a class by how long ago it last came."""
    import altair as alt

    rows = _shown(scene, _by_absence, frozen=False)
    order = [told for _, told in sorted({(row["fewest"], row["tasks"]) for row in rows})]
    if len(order) < 2:
        return None
    kind = unit(scene.record)[0]
    base = alt.Chart(alt.NamedData("table"))
    axis = alt.Axis(labelAngle=0, labelOverlap=True, grid=False)
    x = alt.X("tasks:O", title=f"{kind.capitalize()}s since a class last came", sort=order, axis=axis)
    style = alt.Axis(format=".0%", tickCount=5)
    y = alt.Y("mean:Q", title="Accuracy on the class", scale=alt.Scale(domainMin=0.0, nice=True), axis=style)
    tips = [
        told_learner(),
        alt.Tooltip("tasks:N", title=f"{kind.capitalize()}s since"),
        alt.Tooltip("mean:Q", title="Accuracy", format=".1%"),
        alt.Tooltip("low:Q", title="95 % low", format=".1%"),
        alt.Tooltip("high:Q", title="95 % high", format=".1%"),
        alt.Tooltip("count:Q", title="Observations", format=","),
    ]
    area = base.mark_area().encode(
        x=x, y=alt.Y("low:Q"), y2="high:Q", color=color(scene), opacity=focused(0.1, 0.02), detail="learner:N"
    )
    line = base.mark_line(strokeWidth=2.2).encode(
        x=x, y=y, color=color(scene), strokeDash=dash(scene), opacity=focused(1.0), detail="learner:N"
    )
    dots = base.mark_point(filled=True, size=50).encode(x=x, y=y, color=color(scene), opacity=focused(1.0), tooltip=tips)
    chart = alt.layer(area, line, dots).properties(width="container", height=280)
    chart = chart.add_params(alt.param(name="focus", value=""))
    title = _fading(scene, rows, kind)
    note = (
        "Accuracy on held-out rows of single classes at all checkpoints: mean over seeds, with its 95 % interval. Rare classes "
        "make up more of the long absences than of the short ones."
    )
    return Chart("absence", title, note, spec(chart, f"{title}. {note}"), columns(rows), present(scene, rows))


def _by_absence(entry: Entry) -> list[Row]:
    """(tasks, fewest, mean, low, high, count) for every length of absence that all seeds have."""
    runs = figures(entry, ACCUMULATION)
    found: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for run in runs:
        for row in run.get("forgetting_curve") or []:
            found.setdefault(tuple(row["tasks"]), []).append(row)
    return [
        {
            "tasks": str(low) if low == high else f"{low}–{high}",
            "fewest": low,
            "count": sum(row["count"] for row in held),
            **band([row["accuracy"] for row in held], (0.0, 1.0)),
        }
        for (low, high), held in sorted(found.items())
        if len(held) == len(runs)
    ]


def _fading(scene: Scene, rows: Sequence[Mapping[str, Any]], kind: str) -> str:
    plain = (answer_of(scene.record) or {}).get("plain")
    held = [row for row in rows if row["learner"] == plain] or [row for row in rows if row["learner"] == rows[0]["learner"]]
    first, last = held[0], held[-1]
    when = f"in the {kind} at hand" if first["fewest"] == 0 else f"{first['tasks']} {kind}s ago"
    return (
        f"{scene.short(first['learner'])} answers a class right in {say.percent(first['mean'], 0)} where it came {when}, "
        f"in {say.percent(last['mean'], 0)} where it last came {last['tasks']} {kind}s ago"
    )


def _entries(scene: Scene) -> list[Entry]:
    """Learners with figures, plain SGD first."""
    plain = (answer_of(scene.record) or {}).get("plain")
    first = find(scene.learners, plain)
    others = [entry for entry in scene.learners if entry is not first and role(entry) != "frozen"]
    return [entry for entry in ([first] if first else []) + others if figures(entry, ACCUMULATION)]


def _shown(scene: Scene, rows_of: Callable[[Entry], list[Row]], frozen: bool = True) -> list[Row]:
    """Rows of all learners, in the order of the ranking; none where no class ever comes back."""
    if not comes_back(scene.learners):
        return []
    drawn = [entry for entry in scene.learners if frozen or role(entry) != "frozen"]
    return [{"learner": entry["label"], **row} for entry in drawn for row in rows_of(entry)]
