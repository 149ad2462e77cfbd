"""What all charts share: the scene (a record with its verdict and looks), and encodings that look and read the same everywhere.

Colours are CSS variables, so light, dark and print are decided by the style sheet. The parameter "focus" of a chart holds the
label that the legend points at; "shown" the learner that a chart of one learner shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from everlearn.measure.report.numbers import code
from everlearn.measure.report.palette import Look
from everlearn.measure.report.reading import Entry, find, short_names
from everlearn.measure.report.series import thinned

RULES = 60  # changes marked in one chart
MANY = 12  # changes above which their marks are faint
NUMBER = "datum.value < 10000 ? format(datum.value, ',') : format(datum.value, '~s')"  # labels of an axis that counts events


@dataclass(frozen=True)
class Chart:
    """One figure of the page.

    spec: Vega-Lite, whose data is named "table"; table: columns; title: a sentence; note: how to read it; learners: labels
    for the legend; choices: values of the parameter "shown", the first one chosen; wide: whether it takes the page's width;
    panel: least width of one panel in pixels, 0 for a chart of one panel; panels: how many.
    """

    name: str
    title: str
    note: str
    spec: dict[str, Any]
    table: dict[str, list[Any]]
    learners: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)
    wide: bool = False
    panel: int = 0
    panels: int = 1


@dataclass(frozen=True)
class Scene:
    """What all charts of one record share."""

    record: Mapping[str, Any]
    verdict: Mapping[str, Any]
    learners: list[Entry]
    looks: dict[str, Look]

    @property
    def stream(self) -> Mapping[str, Any]:
        """The part of the record that describes the stream."""
        return self.record.get("stream") or {}

    def short(self, label: str | None) -> str:
        """A label as titles have it, without arguments where that is clear, between backticks."""
        return code(short_names(self.record["learners"]).get(label, label))

    @property
    def best(self) -> Entry | None:
        """The learner that the verdict is about; the frozen model where none adapts."""
        return find(self.learners, self.verdict["learner"]) or find(self.learners, self.verdict["frozen"])


def shown_looks(scene: Scene) -> dict[str, Look]:
    """The look of each learner that is drawn."""
    return {entry["label"]: scene.looks[entry["label"]] for entry in scene.learners}


def present(scene: Scene, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Labels that a chart shows, in the order of the ranking."""
    held = {row["learner"] for row in rows}
    return [entry["label"] for entry in scene.learners if entry["label"] in held]


def color(scene: Scene) -> Any:
    """Learners by colour, the same in every chart."""
    import altair as alt

    domain = shown_looks(scene)
    scale = alt.Scale(domain=list(domain), range=[look.color for look in domain.values()])
    return alt.Color("learner:N", legend=None, scale=scale)


def dash(scene: Scene) -> Any:
    """Learners by dash, the same in every chart."""
    import altair as alt

    domain = shown_looks(scene)
    scale = alt.Scale(domain=list(domain), range=[look.dash or [1, 0] for look in domain.values()])
    return alt.StrokeDash("learner:N", legend=None, scale=scale)


def focused(full: float, faint: float = 0.12) -> Any:
    """Full opacity, unless the legend puts the focus on another learner."""
    import altair as alt

    return alt.condition("focus == '' || datum.learner == focus", alt.value(full), alt.value(faint))


def shade(key: str) -> Any:
    """Opacity that grows with a share 0..1."""
    import altair as alt

    return alt.Opacity(f"{key}:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[0.05, 1], clamp=True))


def event_axis(domain: list[int] | None = None) -> Any:
    """The time axis of the stream, in events."""
    import altair as alt

    scale = alt.Scale(nice=False, domain=domain) if domain else alt.Scale(nice=False, zero=False)
    return alt.X(
        "event:Q", title="Event", scale=scale, axis=alt.Axis(labelExpr=NUMBER, tickCount=6, labelSeparation=8, grid=False)
    )


def names_axis(size: int = 12) -> Any:
    """An axis of names, without lines."""
    import altair as alt

    return alt.Axis(labelLimit=120, ticks=False, domain=False, labelFontSize=size, grid=False)


def header() -> Any:
    """The heading of small multiples."""
    import altair as alt

    return alt.Header(
        labelFontSize=12, labelFontWeight=600, labelColor="var(--ink)", labelAnchor="start", labelLimit=180, labelPadding=4
    )


def told_learner() -> Any:
    """The learner in a tooltip."""
    import altair as alt

    return alt.Tooltip("learner:N", title="Learner")


def told_event() -> Any:
    """The event in a tooltip."""
    import altair as alt

    return alt.Tooltip("event:Q", title="Event", format=",")


def _marks(scene: Scene) -> list[tuple[int, str]]:
    """Events at which rules are drawn, with what they mean."""
    stream = scene.stream
    changes = [
        (event, "the data changes")
        for event in thinned([event for event in stream.get("changes") or [] if event > 0], RULES)
    ]
    deployed = stream.get("deployed") or 0
    return ([(deployed, "deployed")] if deployed > 0 else []) + [mark for mark in changes if mark[0] != deployed]


def rules(scene: Scene) -> list[Any]:
    """Dashed rules at known changes, an unbroken one where the model was deployed."""
    import altair as alt

    marks = _marks(scene)
    if not marks:
        return []
    layers = []
    for told, dash in (("deployed", []), ("the data changes", [4, 4])):
        events = [{"event": event, "what": told} for event, what in marks if what == told]
        if events:
            faint = 0.7 if len(events) <= MANY else 0.25
            rule = alt.Chart(alt.InlineData(values=events)).mark_rule(color="var(--muted)", strokeDash=dash, opacity=faint)
            layers.append(rule.encode(x="event:Q", tooltip=[alt.Tooltip("what:N", title="Here"), told_event()]))
    return layers


def rules_note(scene: Scene) -> str:
    """What the vertical lines of a chart mean, in words."""
    kinds = {what for _, what in _marks(scene)}
    told = {
        "the data changes": "Dashed lines: known changes of the data.",
        "deployed": "Unbroken line: the model is deployed.",
    }
    return "".join(f" {told[kind]}" for kind in ("the data changes", "deployed") if kind in kinds)


def spec(chart: Any, description: str) -> dict[str, Any]:
    """The Vega-Lite document of a chart, with its description for those who cannot see it."""
    spec = chart.to_dict()
    spec.pop("config", None)
    spec["description"] = description.replace("`", "")
    if "facet" not in spec:
        spec["autosize"] = {"type": "fit-x", "contains": "padding", "resize": True}
    return spec
