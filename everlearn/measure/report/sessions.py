"""Few-shot sessions in the report: all, base and new classes apart, session by session, and a table of where each learner ends.

The figures are those of the monitor "sessions", seed by seed; records without it have neither chart nor table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.numbers import known
from everlearn.measure.report.reading import Entry, figures, ranked, role
from everlearn.measure.report.scene import Chart, Scene, color, dash, focused, header, present, spec, told_learner
from everlearn.measure.report.series import band, columns

SESSIONS = "sessions"
KINDS = {"all": "All classes", "base": "Base classes", "new": "New classes", "harmonic_mean": "Harmonic mean"}
ENDS = {"average": "Average", "performance_drop": "Drop"}
WORDS = {
    "all": "Accuracy after the last session on all classes so far, every class counting alike.",
    "base": "The same on the classes of the base session.",
    "new": "The same on the classes that came later, with a few rows each.",
    "harmonic_mean": "2 base new / (base + new): high only where both are.",
    "average": "Accuracy on all classes so far, averaged over the sessions.",
    "performance_drop": "Accuracy after the base session less that after the last one.",
}

Row = dict[str, Any]


@dataclass(frozen=True)
class SessionsTable:
    """Where each learner ends. sessions: how many followed the base session; headings: (title, unit, words) of each column;
    rows: (label, [(mean, half-width or '') of each column])."""

    sessions: int
    headings: list[tuple[str, str, str]]
    rows: list[tuple[str, list[tuple[str, str]]]]


def session_curve(entry: Entry, kind: str) -> list[Row]:
    """(session, mean, low, high) of one accuracy after each session, over the seeds; sessions that a seed lacks are left out."""
    found = [run[kind] for run in figures(entry, SESSIONS)]
    count = min(map(len, found), default=0)
    values = [[run[number] for run in found] for number in range(count)]
    return [{"session": number, **band(held, (0.0, 1.0))} for number, held in enumerate(values) if all(map(known, held))]


def sessions(scene: Scene) -> Chart | None:
    """Accuracy after each session, a panel each for all, base and new classes and the harmonic mean of the last two."""
    import altair as alt

    rows = [
        {"kind": title, "learner": entry["label"], **row}
        for kind, title in KINDS.items()
        for entry in scene.learners
        for row in session_curve(entry, kind)
    ]
    if len({row["session"] for row in rows}) < 2:
        return None
    shown = [title for title in KINDS.values() if any(row["kind"] == title for row in rows)]
    x = alt.X("session:Q", title="Session", axis=alt.Axis(tickMinStep=1, tickCount=6, format="d", grid=False))
    style = alt.Axis(format=".0%", tickCount=5)
    y = alt.Y("mean:Q", title="Accuracy", scale=alt.Scale(domain=[0, 1]), axis=style)
    look = {"color": color(scene), "detail": "learner:N"}
    area = alt.Chart().mark_area().encode(x=x, y=alt.Y("low:Q"), y2="high:Q", opacity=focused(0.14, 0.02), **look)
    point = alt.OverlayMarkDef(size=20, filled=True)
    line = alt.Chart().mark_line(strokeWidth=2.2, point=point)
    line = line.encode(x=x, y=y, strokeDash=dash(scene), opacity=focused(1.0), **look)
    dots = alt.Chart().mark_point(filled=True, size=120, opacity=0)  # not seen: they are what a pointer finds
    tips = [
        told_learner(),
        alt.Tooltip("session:Q", title="Session"),
        alt.Tooltip("kind:N", title="Of"),
        alt.Tooltip("mean:Q", title="Accuracy", format=".1%"),
        alt.Tooltip("low:Q", title="95 % low", format=".1%"),
        alt.Tooltip("high:Q", title="95 % high", format=".1%"),
    ]
    dots = dots.encode(x=x, y=y, color=color(scene), tooltip=tips)
    faceted = (
        alt.layer(area, line, dots, data=alt.NamedData("table"))
        .properties(width=210, height=200)
        .facet(facet=alt.Facet("kind:N", sort=shown, title=None, header=header()), columns=4)
        .add_params(alt.param(name="focus", value=""))
    )
    title = _title(scene)
    note = (
        "Session 0 is the base session; each later one brings new classes with a few rows each. Answers are among all classes so "
        "far, every class counts alike: mean over seeds, with its 95 % interval."
    )
    chart = spec(faceted, f"{title}. {note}")
    return Chart(
        "sessions", title, note, chart, columns(rows), present(scene, rows), wide=True, panel=180, panels=len(shown)
    )


def _title(scene: Scene) -> str:
    """Where the learner of the verdict ends on base and on new classes; the one with the best harmonic mean where it has no figures."""
    ends = {entry["label"]: _ends(entry) for entry in scene.learners}
    named = scene.best["label"] if scene.best is not None and ends[scene.best["label"]] else None
    able = [entry["label"] for entry in scene.learners if ends[entry["label"]] and role(entry) in ("learner", "outside")]
    label = named or max(able or [label for label, end in ends.items() if end], key=lambda name: ends[name]["harmonic_mean"])
    end = ends[label]
    return (
        f"{scene.short(label)} ends at {say.percent(end['base'], 0)} on the base classes and at {say.percent(end['new'], 0)} on "
        "those that came later"
    )


def _ends(entry: Entry) -> dict[str, float] | None:
    """Each accuracy after the last session, over the seeds; None where a learner lacks one."""
    found = {kind: session_curve(entry, kind) for kind in KINDS}
    return {kind: curve[-1]["mean"] for kind, curve in found.items()} if all(found.values()) else None


def sessions_table(record: Mapping[str, Any]) -> SessionsTable | None:
    """Where each learner ends, in the order of the ranking; None where no learner was judged by sessions."""
    entries = [entry for entry in ranked(record["learners"]) if role(entry) != "failed" and figures(entry, SESSIONS)]
    last = max((len(run["all"]) for entry in entries for run in figures(entry, SESSIONS)), default=0) - 1
    if last < 1:
        return None
    headings = [
        (title, "%" if key in KINDS or key == "average" else "points", WORDS[key]) for key, title in _titles().items()
    ]
    rows = [(entry["label"], [_cell(figures(entry, SESSIONS), key) for key in _titles()]) for entry in entries]
    return SessionsTable(last, headings, rows)


def _titles() -> dict[str, str]:
    return KINDS | ENDS


def _cell(runs: Sequence[Mapping[str, Any]], key: str) -> tuple[str, str]:
    """Mean and half-width of the 95 % interval over seeds, in hundredths."""
    values = [run[key] if key in ENDS else (run[key] or [None])[-1] for run in runs]
    if not values or not all(map(known, values)):
        return say.NONE, ""
    found = band(values)
    half = f"± {say.decimal(50 * (found['high'] - found['low']), 1)}" if len(values) > 1 else ""
    return say.decimal(100 * found["mean"], 1), half
