"""The page of a pre-training: the rate and the held-out losses over time, where phases begin and forks leave, and what each phase cost.

Like the report of a comparison it is one file that needs nothing else: its scripts are inside, and a content policy forbids every request.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from everlearn.core.state import write_atomic
from everlearn.measure.report import numbers as say
from everlearn.measure.report.page import embedded, filled, printable, settings

HUES = 6


def write_pretraining_page(record: Mapping[str, Any], path: str | Path) -> None:
    """Write the page to a file, whole or not at all. Raises StateError where it cannot be written."""
    write_atomic(Path(path), render_pretraining(record).encode())


def render_pretraining(record: Mapping[str, Any]) -> str:
    """The page of a pre-training record (`kind` "pretraining") as HTML."""
    record = printable(record)
    return filled(
        "pretraining.html",
        record=record,
        headline=headline(record),
        tiles=tiles_of(record),
        names=record["domains"],
        rows=rows_of(record),
        config=settings(record.get("config") or {}),
        facts=settings({**record["environment"], "processes": record["processes"]}),
        data=embedded({"rate": _rate(record), "held": _held(record), "loss": _loss(record)}),
    )


def headline(record: Mapping[str, Any]) -> str:
    """What the last model loses on all domains, and how much of it was forgotten, in a sentence."""
    names = record["domains"]
    final = say.significant(record["final"], 4)
    if len(names) == 1:
        return f"{say.code(names[0])} learned: held-out loss {final}"
    worst = max(range(len(names) - 1), key=lambda k: record["forgetting"][k])
    lost = record["forgetting"][worst]
    told = (
        f"most forgotten: {say.code(names[worst])}, by {say.significant(lost, 3)}"
        if lost > 0
        else "and nothing was forgotten"
    )
    return f"After {say.count(len(names))} domains the mean held-out loss is {final}; {told}"


def tiles_of(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, figure, beside) of what stands at the top."""
    unit = "tokens" if record["tokens_per_second"] else "images"
    speed = record["tokens_per_second"] or record["rows_per_second"]
    rise = record["rewarming"]
    return [
        ("Mean held-out loss", say.significant(record["final"], 4), "of the last model, over all domains"),
        ("Updates", say.count(record["updates"]), f"{say.count(record['rows'])} rows"),
        (
            "Speed",
            "–" if speed is None else say.count(round(speed)),
            f"{unit} a second, {record['processes']} process{'es' if record['processes'] > 1 else ''}",
        ),
        (
            "Rise within a phase",
            "–" if rise is None else say.significant(rise, 3),
            "of an earlier domain's loss on the main line, above what was delivered before",
        ),
    ]


def rows_of(record: Mapping[str, Any]) -> list[list[str]]:
    """A row for each delivered model, then what was forgotten and what each phase learned."""
    figures = [
        [f"after {name}", *map(_figure, row)] for name, row in zip(record["domains"], record["delivered"], strict=True)
    ]
    forgotten = ["forgotten since", *map(_figure, record["forgetting"])]
    return [*figures, forgotten, ["learned in its phase", *map(_figure, record["learning"])]]


def _figure(value: float | None) -> str:
    """Three decimals, with the sign that prose has."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def _borders(record: Mapping[str, Any]) -> Any:
    """A rule where each phase begins, and a dashed one where a fork leaves the main line."""
    import altair as alt

    steps, anneal = record["steps"], record["anneal"]
    rules = []
    for number, name in enumerate(record["domains"]):
        if number:
            rules.append({"update": number * steps, "kind": f"{name} begins"})
        if anneal:
            rules.append({"update": (number + 1) * steps - anneal, "kind": f"fork, delivered after {name}"})
    chart = alt.Chart(alt.Data(values=rules))
    begins = chart.transform_filter("indexof(datum.kind, 'fork') != 0").mark_rule(color="var(--muted)", opacity=0.7)
    forks = chart.transform_filter("indexof(datum.kind, 'fork') == 0").mark_rule(
        color="var(--muted)", opacity=0.5, strokeDash=[3, 4]
    )
    tip = [alt.Tooltip("kind:N", title="here"), alt.Tooltip("update:Q")]
    return begins.encode(x="update:Q", tooltip=tip) + forks.encode(x="update:Q", tooltip=tip)


def _axis() -> Any:
    import altair as alt

    return alt.X("update:Q", title="Update", axis=alt.Axis(tickCount=6, labelOverlap=True))


def _rate(record: Mapping[str, Any]) -> dict[str, Any]:
    """The rate of each update; a fork's own in dashes."""
    import altair as alt

    rows = [
        {"update": p["update"], "lr": p["lr"], "line": "fork" if p["fork"] else "main line", "of": p["phase"]}
        for p in record["curve"]
    ]
    chart = alt.Chart(alt.Data(values=rows)).mark_line(color="var(--accent)", strokeWidth=2, point=len(rows) < 9)
    drawn = chart.encode(
        x=_axis(),
        y=alt.Y("lr:Q", title="Learning rate", axis=alt.Axis(tickCount=4, format="~g")),
        strokeDash=alt.StrokeDash(
            "line:N",
            scale=alt.Scale(domain=["main line", "fork"], range=[[1, 0], [4, 3]]),
            legend=alt.Legend(title=None, orient="top", labelColor="var(--ink)", labelFontSize=12),
        ),
        detail="of:N",
        tooltip=[alt.Tooltip("update:Q"), alt.Tooltip("lr:Q", title="rate"), alt.Tooltip("line:N")],
    )
    return (_borders(record) + drawn).properties(width="container", height=170).to_dict()


def _held(record: Mapping[str, Any]) -> dict[str, Any]:
    """The held-out loss of every domain: the main line as a line, delivered models as points."""
    import altair as alt

    names = record["domains"]
    rows = [
        {"update": p["update"], "domain": name, "loss": value, "delivered": bool(p.get("delivered"))}
        for p in record["curve"]
        for name, value in p.get("held_out", {}).items()
    ]
    colors = [f"var(--hue-{number % HUES + 1})" for number in range(len(names))]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=_axis(),
        y=alt.Y("loss:Q", title="Held-out loss", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6)),
        color=alt.Color(
            "domain:N",
            sort=names,
            scale=alt.Scale(domain=names, range=colors),
            legend=alt.Legend(title=None, orient="top", labelColor="var(--ink)", labelFontSize=12, columns=3),
        ),
        tooltip=[
            alt.Tooltip("domain:N"),
            alt.Tooltip("update:Q"),
            alt.Tooltip("loss:Q", format=".4f"),
            alt.Tooltip("delivered:N"),
        ],
    )
    line = base.transform_filter("!datum.delivered" if record["anneal"] else "true").mark_line(strokeWidth=2)
    points = base.transform_filter("datum.delivered").mark_point(filled=True, size=70, opacity=1)
    return (_borders(record) + line + points).properties(width="container", height=300).to_dict()


def _loss(record: Mapping[str, Any]) -> dict[str, Any]:
    """The training loss, as it came."""
    import altair as alt

    rows = [{"update": p["update"], "loss": p["loss"], "of": f"{p['phase']}{p['fork']}"} for p in record["curve"]]
    chart = alt.Chart(alt.Data(values=rows)).mark_line(color="var(--accent)", strokeWidth=2)
    drawn = chart.encode(
        x=_axis(),
        y=alt.Y("loss:Q", title="Training loss", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
        detail="of:N",
        tooltip=[alt.Tooltip("update:Q"), alt.Tooltip("loss:Q", format=".4f")],
    )
    return (_borders(record) + drawn).properties(width="container", height=170).to_dict()
