"""The page of an evaluation: what a policy would have earned, how far that can be trusted, and which actions it would take.

Like the report of a comparison it is one file that needs nothing else: its scripts are inside, and a content policy forbids every request.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from everlearn.core.state import write_atomic
from everlearn.measure.report import numbers as say
from everlearn.measure.report.page import embedded, filled, printable, settings

MOST = 40  # actions that are drawn


def write_policy_page(record: Mapping[str, Any], path: str | Path) -> None:
    """Write the page to a file, whole or not at all. Raises StateError where it cannot be written."""
    write_atomic(Path(path), render_policy(record).encode())


def render_policy(record: Mapping[str, Any]) -> str:
    """The page of an evaluation record (`kind` "evaluation") as HTML."""
    record = printable(record)
    found, log = record["overlap"], record["log"]
    return filled(
        "policy.html",
        record=record,
        badge="Can be trusted" if record["trusted"] else "Not to be trusted",
        verdict="adapt" if record["trusted"] else "do_not_adapt",
        headline=headline(record),
        warnings=warnings_of(record),
        rows=rows_of(record),
        tiles=[
            ("Mean reward of the log", say.significant(record["logged"], 4), f"over {say.count(log['judged'])} rounds"),
            ("Effective rounds", say.significant(found["ess"], 4), f"{say.percent(found['share'])} of those that judge"),
            (
                "Largest weight",
                say.significant(found["max_weight"], 4),
                f"mean {say.significant(found['mean_weight'], 3)}; 1 is expected",
            ),
            ("Never done by the policy", say.percent(found["never"]), "rounds whose action it would never take"),
        ],
        config=settings(record.get("config") or {}),
        facts=settings({**log, **record["environment"]}),
        data=embedded({"estimates": _estimates(record), "actions": _actions(record)}),
    )


def headline(record: Mapping[str, Any]) -> str:
    """The verdict in one sentence: the first estimate that has an interval, beside the mean of the log."""
    known = [item for item in record["estimates"] if item["low"] is not None] or record["estimates"]
    item, logged = known[0], record["logged"]
    name = say.code(record["policy"])
    if not record["trusted"]:
        return f"This log cannot tell what {name} would earn."
    told = f"{name} would earn {_figure(item['value'])} a round"
    if item["low"] is None:
        return f"{told}, and the log earned {_figure(logged)}."
    inside = f"{_figure(item['low'])} to {_figure(item['high'])}"
    if record["policy"].startswith("logged"):
        return f"The policy of the log earned {_figure(logged)} a round ({inside})."
    side = "more" if item["low"] > logged else "less" if item["high"] < logged else ""
    side = side if item["low"] < item["high"] else ""
    beside = f"{side} than the log's {_figure(logged)}" if side else f"not clearly other than the log's {_figure(logged)}"
    return f"{told} ({inside}), {beside}."


def warnings_of(record: Mapping[str, Any]) -> list[str]:
    """Each warning once: what holds for all estimates first, else with the estimator's name before it."""
    rows = record["estimates"]
    shared = [line for line in rows[0]["warnings"] if all(line in item["warnings"] for item in rows)]
    own = [f"{item['name']}: {line}" for item in rows for line in item["warnings"] if line not in shared]
    return [*(shared if len(rows) > 1 else []), *(own if len(rows) > 1 else [f"{line}" for line in rows[0]["warnings"]])]


def rows_of(record: Mapping[str, Any]) -> list[list[str]]:
    """Name, value, low, high, ess and largest weight of each estimate, as text."""
    return [
        [
            item["name"],
            *(_figure(item[key]) for key in ("value", "low", "high")),
            *(say.significant(item[key], 4) for key in ("ess", "max_weight")),
        ]
        for item in record["estimates"]
    ]


def _figure(value: float | None) -> str:
    return say.significant(value, 4)


def _estimates(record: Mapping[str, Any]) -> dict[str, Any]:
    """Estimates with their intervals, and the mean of the log as a rule."""
    import altair as alt

    rows = [{key: item[key] for key in ("name", "value", "low", "high", "ess")} for item in record["estimates"]]
    names = [row["name"] for row in rows]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y(
            "name:N", sort=names, title=None, axis=alt.Axis(domain=False, ticks=False, labelFontSize=12, labelLimit=140)
        ),
        tooltip=[
            alt.Tooltip(f"{key}:{kind}", title=key)
            for key, kind in (("name", "N"), ("value", "Q"), ("low", "Q"), ("high", "Q"), ("ess", "Q"))
        ],
    )
    scale = alt.Scale(zero=False, nice=True)
    bars = base.mark_rule(strokeWidth=3, color="var(--accent)").encode(
        x=alt.X("low:Q", title="Reward a round", scale=scale, axis=alt.Axis(tickCount=6, labelOverlap=True)), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=90, color="var(--accent)", opacity=1).encode(x=alt.X("value:Q", scale=scale))
    logged = alt.Chart(alt.Data(values=[{"logged": record["logged"]}])).mark_rule(strokeDash=[4, 3], color="var(--muted)")
    logged = logged.encode(x="logged:Q", tooltip=[alt.Tooltip("logged:Q", title="mean of the log")])
    return (logged + bars + points).properties(width="container", height=max(70, 34 * len(rows))).to_dict()


def _actions(record: Mapping[str, Any]) -> dict[str, Any]:
    """How often the log took each action and how often the policy would."""
    import altair as alt

    judged = record["log"]["judged"]
    most = sorted(record["overlap"]["actions"], key=lambda row: -max(row["policy"], row["taken"] / judged))[:MOST]
    rows = []
    for row in sorted(most, key=lambda row: row["action"]):
        rows.append({"action": str(row["action"]), "who": "the log", "share": row["taken"] / judged})
        rows.append({"action": str(row["action"]), "who": "the policy", "share": row["policy"]})
    chart = alt.Chart(alt.Data(values=rows)).mark_bar(cornerRadiusEnd=2)
    names = [str(row["action"]) for row in sorted(most, key=lambda row: row["action"])]
    return (
        chart.encode(
            x=alt.X("action:N", sort=names, title="Action", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            xOffset=alt.XOffset("who:N", sort=["the log", "the policy"]),
            y=alt.Y("share:Q", title="Share of the rounds", axis=alt.Axis(format="%", tickCount=5)),
            color=alt.Color(
                "who:N",
                sort=["the log", "the policy"],
                scale=alt.Scale(domain=["the log", "the policy"], range=["var(--frozen)", "var(--accent)"]),
                legend=alt.Legend(title=None, orient="top", labelColor="var(--ink)", labelFontSize=12),
            ),
            tooltip=["action:N", alt.Tooltip("who:N", title="by"), alt.Tooltip("share:Q", format=".2%")],
        )
        .properties(width="container", height=220)
        .to_dict()
    )
