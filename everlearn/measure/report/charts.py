"""The charts of the report, as Vega-Lite specifications made with Altair.

A chart is a specification without data and a table in columns; the page joins them. Titles are sentences computed from the
figures, and every table is thinned, so that the page stays small however long the stream was. Charts whose figures are missing
are left out.
"""

from collections.abc import Mapping
from typing import Any

from everlearn.measure.report.accumulation_charts import absence, accumulation, frequency
from everlearn.measure.report.accuracy_charts import classes, final_classes, forgetting, matrix
from everlearn.measure.report.corruption_charts import corruption_rounds, corruption_types
from everlearn.measure.report.cost_chart import cost
from everlearn.measure.report.curve_charts import drift, held_out, memory, plasticity, prequential
from everlearn.measure.report.forecast_charts import forecast
from everlearn.measure.report.palette import looks_of
from everlearn.measure.report.reading import PREQUENTIAL, ranked, role
from everlearn.measure.report.scene import Chart, Scene
from everlearn.measure.report.sessions import sessions
from everlearn.measure.report.time_axis import time_axis
from everlearn.measure.report.words import verdict_of

LEARNERS = 16  # learners in one chart
MAKERS = (
    forecast,
    held_out,
    sessions,
    corruption_types,
    corruption_rounds,
    accumulation,
    prequential,
    cost,
    frequency,
    absence,
    matrix,
    forgetting,
    memory,
    time_axis,
    drift,
    final_classes,
    classes,
    plasticity,
)


def charts(record: Mapping[str, Any]) -> list[Chart]:
    """Every chart for which the record holds figures, in reading order."""
    able = [entry for entry in ranked(record["learners"]) if role(entry) != "failed"]
    verdict = verdict_of(record)
    kept = {verdict[key] for key in ("learner", "runner_up", "frozen", "retrain")}
    able.sort(key=lambda entry: entry["label"] not in kept)
    scene = Scene(record, verdict, ranked(able[:LEARNERS]), looks_of(record["learners"], verdict))
    order = (
        (prequential, *(maker for maker in MAKERS if maker is not prequential))
        if verdict["headline"] == PREQUENTIAL
        else MAKERS
    )
    drawn = [chart for maker in order if (chart := maker(scene)) is not None]
    if len(scene.stream.get("held_out") or []) == 1 and any(chart.name == "accumulation" for chart in drawn):
        return [chart for chart in drawn if chart.name != "held_out"]  # the same accuracy, with less beside it
    return drawn
