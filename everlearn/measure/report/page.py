"""The report as one HTML page that needs nothing else: text, table, charts, and the scripts that draw them.

The charts' scripts (Vega, Vega-Lite, Vega-Embed) are written into the page once; a content policy in its head forbids every
request, so the page can be mailed, archived and opened offline. User data is escaped: text by Jinja, tables as JSON in which
"<" is written as an escape.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from everlearn.core.state import write_atomic
from everlearn.measure.report import numbers as say
from everlearn.measure.report.charts import Chart, charts
from everlearn.measure.report.measures import BY_KEY, MEASURES
from everlearn.measure.report.palette import looks_of
from everlearn.measure.report.plain_table import plain_table
from everlearn.measure.report.plain_words import QUESTION
from everlearn.measure.report.reading import find, mean, role, still
from everlearn.measure.report.sessions import sessions_table
from everlearn.measure.report.table import cell, columns_of, lines
from everlearn.measure.report.words import score_in_words, sentences, verdict_of, verdict_sentence

HERE = Path(__file__).parent
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
CODES = {"adapt": "Adapt", "do_not_adapt": "Do not adapt", "too_close": "Too close to tell"}


def render(record: Mapping[str, Any]) -> str:
    """The report of a comparison record (docs/architecture.md) as HTML."""
    record = printable(record)
    stream = record.get("stream") or {}
    verdict, drawn = verdict_of(record), charts(record)
    data = {
        chart.name: {"spec": chart.spec, "table": chart.table, "panel": chart.panel, "panels": chart.panels}
        for chart in drawn
    }
    return filled(
        "template.html",
        record=record,
        name=stream.get("name") or "comparison",
        facts=settings({key: stream.get(key) for key in ("events", "deployed", "rows")}),
        verdict=verdict,
        badge=CODES[verdict["code"]],
        headline=verdict_sentence(record),
        tiles=tiles(record),
        answers=sentences(record),
        plain_question=QUESTION,
        plain=plain_table(record),
        sessions=sessions_table(record),
        columns=columns_of(record),
        lines=lines(record),
        score=score_in_words(record),
        seeds=say.seeds(verdict["seeds"]),
        charts=drawn,
        wide=wide(drawn),
        looks=looks_of(record["learners"], verdict),
        settings=settings(record.get("config") or {}),
        environment=settings(record.get("environment") or {}),
        command=(record.get("config") or {}).get("command"),
        duration=say.seconds(record.get("seconds")) if record.get("seconds") is not None else "",
        glossary=glossary(record),
        data=embedded(data),
        script=trusted(_file("page.js")),
        vega=trusted(vega()) if drawn else "",
    )


def filled(template: str, **values: Any) -> str:
    """A template of this folder with its values, the style sheet, and (unless they are given) the charts' scripts in place."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"prose": prose, "breaks": breaks}
    values.setdefault("vega", trusted(vega()))
    return environment.get_template(template).render(**values, style=trusted(_file("style.css")))


def write_report(record: Mapping[str, Any], path: str | Path) -> None:
    """Write the report to a file, whole or not at all. Raises StateError where it cannot be written."""
    write_atomic(Path(path), render(record).encode())


def prose(text: str) -> Any:
    """Escaped text in which what stands between backticks is set as code."""
    from markupsafe import Markup, escape

    pieces = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(breaks(piece)) if index % 2 else escape(piece) for index, piece in enumerate(pieces)
    )


def breaks(label: str) -> Any:
    """An escaped call string that a narrow column may break after brackets and commas."""
    from markupsafe import Markup, escape

    return Markup("").join(
        escape(character) + Markup("<wbr>") if character in "(," else escape(character) for character in label
    )


def embedded(value: Any) -> Any:
    """JSON that is safe inside a script element: no tag and no comment can begin or end in it. NaN becomes null."""
    from markupsafe import Markup

    text = json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def printable(value: Any) -> Any:
    """The same value with control characters and line separators in its texts made spaces: Vega's parser refuses them."""
    if isinstance(value, str):
        return value if value.isprintable() else UNPRINTABLE.sub(" ", value)
    if isinstance(value, Mapping):
        return {printable(key) if isinstance(key, str) else key: printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(item) for item in value]
    return value


def wide(drawn: Sequence[Chart]) -> set[str]:
    """Charts that take the whole width: the first, those that ask for it, and the last of the others where they are odd."""
    halves = [chart.name for chart in drawn[1:] if not chart.wide]
    return {chart.name for chart in drawn} - set(halves[: len(halves) // 2 * 2])


def tiles(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """The few figures that stand under the verdict: name, figure, and what it is beside."""
    verdict = verdict_of(record)
    learner, frozen = find(record["learners"], verdict["learner"]), find(record["learners"], verdict["frozen"])
    found = []
    gain, beside = verdict["gain"], verdict["against_retrain"]
    if gain is not None:
        inside = say.interval(gain["low"], gain["high"])
        found.append(
            _tile(
                f"Gain over {still(frozen).removeprefix('the ').removesuffix(' model')}",
                say.signed_points(gain["difference"]),
                inside and f"95 % interval {inside}",
            )
        )
    if beside is not None:
        inside = say.interval(beside["low"], beside["high"])
        found.append(
            _tile("Beside retraining", say.signed_points(beside["difference"]), inside and f"95 % interval {inside}")
        )
    if mean(learner, "update_ms") is not None:
        p99 = mean(learner, "predict_ms_p99")
        told = f"{say.milliseconds(p99)} for a prediction, p99" if p99 is not None else ""
        found.append(_tile("Time per update", say.milliseconds(mean(learner, "update_ms")), told))
    if mean(learner, "replay_bytes") is not None:
        labels = mean(learner, "labels")
        told = f"{say.count(labels)} labels used" if labels is not None else ""
        found.append(
            _tile(
                "Replay memory", say.size(mean(learner, "replay_bytes")) if mean(learner, "replay_bytes") else "none", told
            )
        )
    if learner is None and frozen is not None:
        found.append(_tile(f"Score of {still(frozen)}", say.percent(mean(frozen, "score")), ""))
    return found


def glossary(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every measure that the record has: name, words, formula, and its figure for the learner of the verdict."""
    verdict = verdict_of(record)
    learner = find(record["learners"], verdict["learner"]) or find(record["learners"], verdict["frozen"])
    found = []
    for item in MEASURES:
        if not any(mean(entry, item.key) is not None for entry in record["learners"] if role(entry) != "failed"):
            continue
        figure = say.NONE if learner is None else cell(learner, item).written(item)
        formula = BY_KEY[verdict["headline"]].formula if item.key == "score" else item.formula
        words = f"{item.words} Here: {score_in_words(record)}." if item.key == "score" else item.words
        found.append({"title": item.title, "words": words, "formula": trusted(formula), "figure": figure})
    return found


def settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A configuration as rows of name and text; nested values and lists as YAML."""
    import yaml

    rows = []
    for key, value in config.items():
        if key == "command" or value is None:
            continue
        if isinstance(value, Mapping):
            value = {name: item for name, item in value.items() if item is not None}
        if value in ({}, []):
            continue
        if isinstance(value, (Mapping, list)):
            flow = isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)
            text = yaml.safe_dump(value, sort_keys=False, default_flow_style=flow, allow_unicode=True, width=10_000).strip()
        else:
            text = str(value)
        rows.append((str(key), text))
    return rows


def trusted(text: str) -> Any:
    """Text of our own that is markup already."""
    from markupsafe import Markup

    return Markup(text)


@cache
def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    return vl_convert.javascript_bundle().replace("</script", "<\\/script")


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _tile(name: str, figure: str, beside: str) -> dict[str, str]:
    return {"name": name, "figure": figure, "beside": beside}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if say.known(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
