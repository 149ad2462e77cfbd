"""Forecasts in the report: words and chart say what the record holds, and neither is there for other streams."""

import copy
import json
import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from everlearn.measure.report import render
from everlearn.measure.report.charts import charts
from everlearn.measure.report.forecast_charts import errors, recovered, recoveries
from everlearn.measure.report.table import columns_of, lines
from everlearn.measure.report.verdict import decide
from everlearn.measure.report.words import sentences, verdict_of, verdict_sentence

records = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_report_records.py"))))


def error(rmse, skill):
    return {"rmse": rmse, "mae": rmse, "mape": 0.1, "smape": 0.1, "skill": skill, "scored": 40}


def entry(label, rmses, simple, recovery, ms):
    """Runs of a learner, one for each RMSE; recovery: rows until it, by seed, for the one known change at event 60."""
    runs = []
    for seed, (rmse, rows) in enumerate(zip(rmses, recovery, strict=True)):
        found = error(rmse, 1 - rmse / simple)
        segments = [{"from": 20, "change": False, **found, "early": found, "recovered": None}]
        segments.append(
            {"from": 60, "change": True, **found, "early": error(3 * rmse, 0.0), "recovered": rows, "recovered_events": rows}
        )
        figures = {"forecast": {**found, "segments": segments, "by_target": {}, "held_out": {}, "pending": 0}}
        curve = [
            {"event": event, "forecast": {"rmse": rmse * (1 + event / 100), "mape": 0.1, "skill": 0.0}}
            for event in (50, 100)
        ]
        runs.append({"seed": seed, "figures": figures, "curve": curve, "used": {}, "sha256": "0"})
    values = {"rmse": rmses, "skill": [1 - rmse / simple for rmse in rmses]}
    summary = {key: {"mean": sum(v) / len(v), "low": min(v), "high": max(v), "values": v} for key, v in values.items()}
    summary |= {"score": summary["skill"], "update_ms": {"mean": ms, "low": ms, "high": ms, "values": [ms] * len(rmses)}}
    return {
        "label": label, "name": label.partition("(")[0], "reference": False, "within_budget": True, "error": None, "runs": runs,
        "summary": summary,
    }  # fmt: skip


def record(*learners, pairs=()):
    stream = {
        "name": "loads", "events": 100, "deployed": 20, "changes": [60], "checkpoints": [], "held_out": [], "classes": [],
        "headline": "skill", "boundaries": False, "recurrence": None,
    }  # fmt: skip
    return {
        "kind": "comparison", "format": 1, "config": {"seeds": [0, 1]}, "stream": stream, "learners": list(learners),
        "pairs": list(pairs), "verdict": decide(learners, pairs, "skill"), "environment": {}, "seconds": 1.0,
    }  # fmt: skip


STILL = entry("persistence", [10.0, 10.0], 10.0, [4, 4], 0.01)
GOOD = entry("forecaster(cfc())", [6.0, 8.0], 10.0, [5, None], 0.2)
BAD = entry("boosted", [30.0, 50.0], 10.0, [None, None], 2.0)
PAIR = {
    "first": "forecaster(cfc())",
    "second": "persistence",
    "difference": 0.3,
    "low": 0.1,
    "high": 0.5,
    "p": 0.01,
    "clear": True,
}


def told(found):
    return " ".join(text for _, answers in sentences(found) for text in answers).replace("\u00a0", " ")


def test_persistence_is_what_a_gain_is_measured_against():
    found = record(STILL, GOOD, BAD, pairs=[PAIR])
    verdict = verdict_of(found)
    assert (verdict["code"], verdict["learner"], verdict["frozen"]) == ("adapt", "forecaster(cfc())", "persistence")
    assert verdict_sentence(found) == "Adapt, with `forecaster(cfc())`: 30.0\u00a0points better than persistence."
    words = told(found)
    assert "`forecaster(cfc())` scores 30.0 %, persistence 0.0 %: a gain of 30.0 points" in words
    assert "A score is the skill of forecasts over persistence" in words
    for other in ("frozen model", "Retraining", "Forgetting", "accuracy"):
        assert other not in words


def test_where_nothing_beats_persistence_it_says_so():
    found = record(STILL, BAD, pairs=[{**PAIR, "first": "boosted", "difference": -3.0, "low": -4.0, "high": -2.0}])
    assert verdict_sentence(found) == "Do not adapt: no learner within the budget does better than persistence."
    assert "bring nothing; forecast the newest value." in told(found) and "None: keep persistence." in told(found)
    without = record(GOOD)
    assert verdict_sentence(without).endswith("no persistence stands in this comparison, so a gain cannot be measured.")
    assert "Add `persistence` to the learners." in told(without)
    close = record(STILL, GOOD, pairs=[{**PAIR, "low": -0.1, "clear": False}])
    assert "over persistence may be chance" in verdict_sentence(close) and "forecasting the newest value costs less" in told(
        close
    )


def test_recovery_is_told_by_change_and_learner():
    assert recoveries(GOOD) == [{"event": 60, "early": 21.0, "rows": 5.0, "never": 1, "seeds": 2}]
    found = record(STILL, GOOD, BAD, pairs=[PAIR])
    assert recovered(found, verdict_of(found)) == [
        "After the change at event 60: `forecaster` recovered within 5 rows, in 1 of 2 seeds never (RMSE 21 at first); "
        "`boosted` did not recover (RMSE 120 at first); `persistence` recovered within 4 rows (RMSE 30 at first)."
    ]
    calm = record(STILL, entry("hybrid", [6.0, 6.0], 10.0, [0, 0], 1.0), pairs=[])
    assert "`hybrid` needed no time to recover (RMSE 18 at first)" in recovered(calm, verdict_of(calm))[0]
    axis = next(chart for chart in charts(calm) if chart.name == "time_axis")
    assert axis.title == "`hybrid` needs no time to be back after a change; persistence is back within 4 events of a change"
    many = copy.deepcopy(found)
    for learner in many["learners"]:
        for run in learner["runs"]:
            run["figures"]["forecast"]["segments"] *= 8
    words = recovered(many, verdict_of(many))
    assert len(words) == 7 and words[-1] == "2 more changes are in result.json."


def test_the_chart_has_the_errors_of_the_curve_on_a_logarithmic_axis():
    found = record(STILL, GOOD, BAD, pairs=[PAIR])
    chart = next(chart for chart in charts(found) if chart.name == "forecast")
    keys = list(chart.table)
    rows = [dict(zip(keys, values, strict=True)) for values in zip(*chart.table.values(), strict=True)]
    means = {(row["learner"], row["event"]): row["mean"] for row in rows}
    assert means["persistence", 50] == pytest.approx(15.0) and means["forecaster(cfc())", 100] == pytest.approx(14.0)
    assert all(0 < row["low"] <= row["mean"] <= row["high"] for row in rows)
    assert "log" in json.dumps(chart.spec) and chart.title == "`forecaster` is off by 7, persistence is off by 10 on average"
    assert "Dashed lines: known changes of the data." in chart.note


def test_points_of_the_error_are_pooled_and_none_is_lost():
    curve = [{"event": 10 * (k + 1), "forecast": {"rmse": value}} for k, value in enumerate([3.0, 4.0, 0.0, 1.0, 7.0])]
    found = errors({"runs": [{"curve": curve}]}, 3)
    assert [row["event"] for row in found] == [20, 40, 50]
    assert [row["mean"] for row in found] == pytest.approx([math.sqrt(12.5), math.sqrt(0.5), 7.0])
    assert [row["mean"] for row in errors({"runs": [{"curve": curve}]}, 5)] == [3.0, 4.0, 0.0, 1.0, 7.0]
    assert errors({"runs": []}, 5) == []


def test_what_lies_far_below_persistence_does_not_squeeze_the_chart_of_costs():
    found = record(STILL, GOOD, entry("hybrid", [9.0, 9.5], 10.0, [3, 3], 1.0), BAD, pairs=[PAIR])
    chart = next(chart for chart in charts(found) if chart.name == "cost")
    assert "boosted" not in chart.table["learner"] and "hybrid" in chart.table["learner"]
    assert "and not drawn: `boosted`" in chart.note and "The grey line is persistence" in chart.note


def test_the_page_is_made_and_streams_of_classes_have_none_of_it():
    page = render(record(STILL, GOOD, BAD, pairs=[PAIR]))
    assert "Gain over persistence" in page and "RMSE" in page and "recovered within 5 rows" in page
    plain = records.class_incremental(seeds=(0, 1), experiences=3)
    assert not [chart for chart in charts(plain) if chart.name == "forecast"] and recovered(plain, verdict_of(plain)) == []
    assert "persistence" not in told(plain)


@pytest.mark.parametrize(
    ("scale", "shown"), [(1e-4, ("0.000600", "0.00100")), (1.0, ("6.00", "10.0")), (1e6, ("6,000,000", "10,000,000"))]
)
def test_errors_have_three_figures_whatever_the_unit_of_the_target(scale, shown):
    found = record(
        *(entry(name, [rmse * scale] * 2, 10.0 * scale, [1, 1], 1.0) for name, rmse in (("boosted", 6), ("persistence", 10)))
    )
    at = [item.key for item in columns_of(found)].index("rmse")
    assert tuple(line.cells[at].text for line in lines(found)) == shown
