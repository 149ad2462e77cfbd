"""The two charts of the page as Vega-Lite without data, and the script that draws them.

    score   the score along time, with rules where a version went into service or one was gone back to, and points for alarms
    lag     the answers that were not learned from yet, along the same time

Run as a program it prints either the charts or the script, so that the server has this done by a process of its own: making the
script holds Python's lock for more than a second, in which nobody would be answered.
"""

import json
import sys
from typing import Any

MARKS = ("promotion", "rollback", "alarm")
COLORS = ("var(--muted)", "var(--caution)", "var(--bad)")
CLOCK = "timeFormat(datum.value, seconds(datum.value) ? '%H:%M:%S' : hours(datum.value) || minutes(datum.value) ? '%H:%M' : '%e %b')"
FIGURE = "percent ? format(datum.value, '.0%') : format(datum.value, '~g')"


def charts() -> dict[str, dict[str, Any]]:
    """{"score", "lag"}: specifications whose data are named "points" and "marks"; times are milliseconds since 1970."""
    return {"score": _finished(_score(), 240), "lag": _finished(_lag(), 72)}


def _score() -> Any:
    import altair as alt

    line = alt.Chart(alt.NamedData("points")).encode(
        x=_time(), y=alt.Y("score:Q", title=None, scale=alt.Scale(zero=False, nice=True), axis=_axis(5, FIGURE))
    )
    curve = line.mark_line(stroke="var(--accent)", strokeWidth=2, invalid="break-paths-show-domains")
    spots = line.mark_point(filled=True, size=120, opacity=0, fill="var(--accent)").encode(tooltip=_told("score"))
    scale = alt.Scale(domain=list(MARKS), range=list(COLORS))
    marks = alt.Chart(alt.NamedData("marks")).encode(
        x=_time(), color=alt.Color("kind:N", scale=scale, legend=None), tooltip=_told_mark()
    )
    rules = marks.transform_filter("datum.kind != 'alarm'").mark_rule().encode(
        opacity=alt.condition("datum.kind == 'rollback'", alt.value(1), alt.value(0.3)),
        strokeDash=alt.StrokeDash("kind:N", scale=alt.Scale(domain=list(MARKS), range=[[1, 0], [5, 4], [1, 0]]), legend=None)
    )  # fmt: skip
    heads = marks.mark_point(filled=True, size=70, opacity=1).encode(
        y=alt.value(0),
        shape=alt.Shape("kind:N", scale=alt.Scale(domain=list(MARKS), range=["triangle-up", "triangle-left", "diamond"]),
                        legend=None),
    )  # fmt: skip
    percent = alt.param(name="percent", value=True)
    return alt.layer(rules, curve, spots, heads).add_params(percent)


def _lag() -> Any:
    import altair as alt

    area = alt.Chart(alt.NamedData("points")).encode(
        x=_time(),
        y=alt.Y("lag:Q", title=None, scale=alt.Scale(zero=True, nice=True), axis=_axis(2, "format(datum.value, '~s')")),
    )
    unseen = alt.Chart(alt.NamedData("marks")).mark_rule(opacity=0).encode(x=_time())  # so that both have the same time
    return alt.layer(
        unseen,
        area.mark_area(fill="var(--accent)", fillOpacity=0.18, stroke="var(--accent)", line=True, strokeWidth=1),
        area.mark_point(filled=True, size=120, opacity=0).encode(tooltip=_told("lag")),
    )


def _time() -> Any:
    import altair as alt

    axis = alt.Axis(labelOverlap=True, labelSeparation=12, grid=False, tickCount=6, labelExpr=CLOCK)
    return alt.X("time:T", title=None, axis=axis, scale=alt.Scale(nice=False))


def _axis(ticks: int, text: str) -> Any:
    import altair as alt

    return alt.Axis(tickCount=ticks, labelExpr=text, minExtent=44, domain=False, ticks=False)


def _told(key: str) -> list[Any]:
    import altair as alt

    titles = {"score": ("told:N", "Score"), "lag": ("lag:Q", "Answers not learned from")}
    field, title = titles[key]
    return [
        alt.Tooltip("when:N", title="Time"),
        alt.Tooltip(field, title=title),
        alt.Tooltip("version:Q", title="Version"),
    ]


def _told_mark() -> list[Any]:
    import altair as alt

    return [alt.Tooltip("when:N", title="Time"), alt.Tooltip("what:N", title="Here")]


def _finished(chart: Any, height: int) -> dict[str, Any]:
    """The specification in the look of the page."""
    spec = chart.properties(width="container", height=height).to_dict()
    quiet = {"labelColor": "var(--muted)", "labelFontSize": 12, "labelPadding": 6, "gridColor": "var(--line)"}
    spec["config"] = {
        "background": "transparent",
        "view": {"stroke": None},
        "axis": {**quiet, "domainColor": "var(--line)", "tickColor": "var(--line)"},
    }
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    return spec


def script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, the one that reports carry."""
    import vl_convert

    return vl_convert.javascript_bundle()


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(script() if sys.argv[1:] == ["script"] else json.dumps(charts(), separators=(",", ":")))
