"""Charts of what is known of which data: the accuracy matrix, forgetting by held-out set, accuracy by class."""

from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.changes import FORGOTTEN
from everlearn.measure.report.reading import Entry, find
from everlearn.measure.report.reading import plain as is_plain
from everlearn.measure.report.scene import (
    NUMBER,
    Chart,
    Scene,
    color,
    focused,
    header,
    names_axis,
    present,
    shade,
    spec,
    told_event,
    told_learner,
)
from everlearn.measure.report.series import (
    best_and_last,
    class_curves,
    classes_at_end,
    columns,
    mean_matrix,
    set_names,
    thinned,
)

SETS = 24  # rows and columns of one accuracy matrix
PANELS = 12  # classes with a panel of their own; more become a heat map
FEW = 10  # points of a line that are marked
CLASSES = 60  # rows of that heat map
LOST = 10  # held-out sets in the chart of forgetting


def matrix(scene: Scene) -> Chart | None:
    """The accuracy matrix, one learner at a time."""
    import altair as alt

    rows, orders, shown = [], ([], []), []
    checkpoints = scene.stream.get("checkpoints") or []
    for entry in _best_first(scene):
        known, names = mean_matrix(entry), set_names(entry)
        if len(known) < 2:
            continue
        steps, sets = thinned(range(len(known)), SETS), thinned(range(len(known[0])), SETS)
        after = [f"{step + 1}" for step in steps]
        if not orders[0]:
            orders = ([names[column] for column in sets], after)
        shown.append(entry["label"])
        rows += [
            {
                "learner": entry["label"],
                "after": label,
                "event": checkpoints[step] if step < len(checkpoints) else step + 1,
                "set": names[column],
                "accuracy": known[step][column],
            }
            for step, label in zip(steps, after, strict=True)
            for column in sets
            if known[step][column] is not None
        ]
    if not rows:
        return None
    sets, steps = orders
    base = alt.Chart(alt.NamedData("table")).transform_filter("datum.learner == shown")
    x = alt.X(
        "after:O",
        sort=steps,
        title="After checkpoint",
        axis=alt.Axis(labelAngle=0, ticks=False, domain=False, labelOverlap=True),
    )
    y = alt.Y("set:N", sort=sets, title=None, axis=names_axis())
    tips = [
        told_learner(),
        alt.Tooltip("set:N", title="Held-out set"),
        alt.Tooltip("event:Q", title="After event", format=","),
        alt.Tooltip("accuracy:Q", title="Accuracy", format=".1%"),
    ]
    cells = base.mark_rect(color="var(--heat)", cornerRadius=2, stroke="var(--card)", strokeWidth=1.5).encode(
        x=x, y=y, opacity=shade("accuracy"), tooltip=tips
    )
    layers = [cells]
    if len(steps) <= 10:
        layers.append(
            base.mark_text(fontSize=11, color="var(--ink)").encode(
                x=x, y=y, text=alt.Text("accuracy:Q", format=".0%"), tooltip=tips
            )
        )
    height = len(sets) * max(20, min(64, 330 // len(sets)))
    chart = (
        alt.layer(*layers).properties(width="container", height=height).add_params(alt.param(name="shown", value=shown[0]))
    )
    lost = best_and_last(find(scene.learners, shown[0]))
    worst = max(lost, key=lambda row: row["mean"], default=None)
    title = f"What {scene.short(shown[0])} knew of each held-out set, and when"
    if worst is not None and worst["mean"] > 0.02:
        told = f"{say.percent(worst['best'], 0)} at best, {say.percent(worst['last'], 0)} at the end"
        title = f"{scene.short(shown[0])} forgot most on {say.quoted(worst['name'])}: {told}"
    note = (
        "Each cell is the accuracy on one held-out set (row) after one checkpoint (column), mean over seeds. "
        "A row that fades is forgetting."
    )
    return Chart("matrix", title, note, spec(chart, f"{title}. {note}"), columns(rows, 3), choices=shown)


def forgetting(scene: Scene) -> Chart | None:
    """How much of each held-out set was lost, for the learners that matter most to the verdict."""
    import altair as alt

    labels = [scene.verdict["learner"], scene.verdict["runner_up"]]
    labels += [entry["label"] for entry in scene.learners if entry["name"] == "fine_tune"]
    chosen = [find(scene.learners, label) for label in dict.fromkeys(labels)]
    lost = {entry["label"]: best_and_last(entry) for entry in chosen if entry is not None}
    lost = {label: found for label, found in lost.items() if found}
    if not lost:
        return None
    first = next(iter(lost.values()))
    worst = sorted(first, key=lambda row: -row["mean"])[:LOST]
    sets = [row["name"] for row in first if row in worst]
    rows = [
        {"learner": label, "set": row["name"], **{key: row[key] for key in ("mean", "low", "high", "best", "last")}}
        for label, found in lost.items()
        for row in found
        if row["name"] in sets
    ]
    order = list(lost)
    base = alt.Chart(alt.NamedData("table"))
    y = alt.Y("set:N", sort=sets, title=None, axis=names_axis(), scale=alt.Scale(paddingInner=0.3))
    offset = alt.YOffset("learner:N", sort=order, scale=alt.Scale(domain=order, paddingInner=0.15))
    tips = [
        told_learner(),
        alt.Tooltip("set:N", title="Held-out set"),
        alt.Tooltip("best:Q", title="At its best", format=".1%"),
        alt.Tooltip("last:Q", title="At the end", format=".1%"),
        alt.Tooltip("mean:Q", title="Forgotten", format=".1%"),
    ]
    axis = alt.Axis(format=".0%", tickCount=5)
    bars = base.mark_bar(cornerRadiusEnd=2).encode(
        x=alt.X("mean:Q", title="Forgotten (best minus end)", axis=axis),
        y=y,
        yOffset=offset,
        color=color(scene),
        opacity=focused(1.0),
        tooltip=tips,
    )
    height = len(sets) * (len(order) * 13 + 10)
    chart = alt.layer(bars).properties(width="container", height=height).add_params(alt.param(name="focus", value=""))
    label = order[0]
    average = sum(row["mean"] for row in first) / len(first)
    title = f"{scene.short(label)} forgot {say.points(average, 0) if average >= FORGOTTEN else 'next to nothing'} on average"
    plain = next((key for key in order if key != label and is_plain(find(scene.learners, key))), None)
    if plain is not None:
        title += f", plain fine-tuning {say.points(sum(row['mean'] for row in lost[plain]) / len(lost[plain]), 0)}"
    note = "Best accuracy at an earlier checkpoint minus accuracy at the end, mean over seeds."
    if len(first) > LOST:
        note += f" The {LOST} most forgotten of {len(first)} sets."
    return Chart("forgetting", title, note, spec(chart, f"{title}. {note}"), columns(rows), present(scene, rows))


def classes(scene: Scene) -> Chart | None:
    """Learning curves of single classes for the learner of the verdict: panels for a few, a heat map for many."""
    if scene.best is None:
        return None
    rows = class_curves(scene.best, scene.stream.get("checkpoints") or [])
    events = sorted({row["event"] for row in rows})
    if len(events) < 2:
        return None
    kept = set(thinned(events, SETS))
    rows = [row for row in rows if row["event"] in kept]
    last: dict[str, list[float]] = {}
    for row in rows:
        if row["event"] == events[-1]:
            last.setdefault(row["label"], []).append(row["accuracy"])
    ends = {label: sum(values) / len(values) for label, values in last.items()}
    if not ends:
        return None
    lowest = min(ends, key=ends.__getitem__)
    title = f"{scene.short(scene.best['label'])} ends lowest on {say.quoted(lowest)}, at {say.percent(ends[lowest], 0)}"
    return _panels(scene, rows, title) if len(ends) <= PANELS else _class_map(scene, rows, ends, title)


def _kind(scene: Scene) -> str:
    kind = "Held-out accuracy" if set_names(scene.best) else "Accuracy of incoming rows"
    return f"{kind} of each class along the stream, for {scene.short(scene.best['label'])}"


def _class_tips() -> list[Any]:
    import altair as alt

    told = [alt.Tooltip("label:N", title="Class"), told_event(), alt.Tooltip("accuracy:Q", title="Accuracy", format=".1%")]
    return [*told, alt.Tooltip("seed:Q", title="Seed")]


def _panels(scene: Scene, rows: list[dict[str, Any]], title: str) -> Chart:
    """A panel for every class with a line for every seed."""
    import altair as alt

    labels = list(dict.fromkeys(row["label"] for row in rows))
    hue = scene.looks[scene.best["label"]].color
    x = alt.X("event:Q", title=None, axis=alt.Axis(tickCount=3, labelExpr=NUMBER, grid=False))
    y = alt.Y(
        "accuracy:Q",
        title=None,
        scale=alt.Scale(domain=[-0.05, 1.05], nice=False),
        axis=alt.Axis(format=".0%", values=[0, 0.5, 1]),
    )
    few = len({row["event"] for row in rows}) <= FEW
    line = alt.Chart().mark_line(color=hue, strokeWidth=1.8, opacity=0.7).encode(x=x, y=y, detail="seed:N")
    dots = alt.Chart().mark_point(color=hue, filled=True, size=24 if few else 90, opacity=1.0 if few else 0.0)
    chart = (
        alt.layer(line, dots.encode(x=x, y=y, tooltip=_class_tips()), data=alt.NamedData("table"))
        .properties(width=180, height=84)
        .facet(facet=alt.Facet("label:N", sort=labels, title=None, header=header()), columns=4)
        .resolve_axis(x="independent")
    )
    note = f"{_kind(scene)}; a line for every seed."
    described = spec(chart, f"{title}. {note}")
    return Chart("classes", title, note, described, columns(rows, 3), wide=True, panel=118, panels=len(labels))


def _class_map(scene: Scene, rows: list[dict[str, Any]], ends: dict[str, float], title: str) -> Chart:
    """A heat map of classes along the stream, of the first seed."""
    import altair as alt

    seed = rows[0]["seed"]
    note = f"{_kind(scene)}; seed {seed}."
    labels = [row["label"] for row in rows if row["seed"] == seed]
    labels = [label for label in dict.fromkeys(labels) if label in sorted(ends, key=ends.__getitem__)[:CLASSES]]
    rows = [row for row in rows if row["seed"] == seed and row["label"] in set(labels)]
    if len(ends) > CLASSES:
        note += f" The {CLASSES} classes that end lowest of {len(ends)}."
    axis = alt.Axis(labelAngle=0, labelOverlap=True, ticks=False, domain=False, labelExpr=NUMBER)
    cells = alt.Chart(alt.NamedData("table")).mark_rect(color="var(--heat)", stroke="var(--card)", strokeWidth=0.5)
    cells = cells.encode(
        x=alt.X("event:O", title="Event", axis=axis),
        y=alt.Y("label:N", sort=labels, title=None, axis=names_axis(10)),
        opacity=shade("accuracy"),
        tooltip=_class_tips(),
    )
    chart = alt.layer(cells).properties(width="container", height=13 * len(labels))
    return Chart("classes", title, note, spec(chart, f"{title}. {note}"), columns(rows, 3), wide=True)


def final_classes(scene: Scene) -> Chart | None:
    """Accuracy of each class over the stream, best learner beside the frozen one, where nothing was held out."""
    import altair as alt

    if scene.best is None or set_names(scene.best):
        return None
    chosen = [find(scene.learners, scene.verdict[key]) for key in ("learner", "frozen", "runner_up")]
    found = {entry["label"]: classes_at_end(entry) for entry in chosen if entry is not None}
    rows = [
        {"learner": label, "label": name, "accuracy": value} for label, held in found.items() for name, value in held.items()
    ]
    own = found.get(scene.best["label"]) or {}
    if len(own) < 2:
        return None
    labels = sorted(own, key=own.__getitem__)[:CLASSES]
    rows = [row for row in rows if row["label"] in labels]
    base = alt.Chart(alt.NamedData("table"))
    y = alt.Y("label:N", sort=labels, title=None, axis=names_axis())
    spread = base.mark_rule(color="var(--line)", strokeWidth=3).encode(
        x=alt.X("min(accuracy):Q", title="Accuracy"), x2="max(accuracy):Q", y=y
    )
    dots = base.mark_point(filled=True, size=90, opacity=1).encode(
        x=alt.X(
            "accuracy:Q", title="Accuracy", axis=alt.Axis(format=".0%", tickCount=5), scale=alt.Scale(zero=False, nice=True)
        ),
        y=y,
        color=color(scene),
        opacity=focused(1.0),
        tooltip=[
            told_learner(),
            alt.Tooltip("label:N", title="Class"),
            alt.Tooltip("accuracy:Q", title="Accuracy", format=".1%"),
        ],
    )
    chart = alt.layer(spread, dots).properties(width="container", height=max(90, 26 * len(labels)))
    chart = chart.add_params(alt.param(name="focus", value=""))
    lowest = labels[0]
    title = f"{scene.short(scene.best['label'])} is weakest on {say.quoted(lowest)} since deployment, at {say.percent(own[lowest], 0)}"
    note = "Accuracy of answers given before their labels were known, class by class, mean over seeds."
    return Chart(
        "final_classes", title, note, spec(chart, f"{title}. {note}"), columns(rows), present(scene, rows), wide=True
    )


def _best_first(scene: Scene) -> list[Entry]:
    best = [] if scene.best is None else [scene.best]
    return best + [entry for entry in scene.learners if entry not in best]
