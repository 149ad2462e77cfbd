"""Drift on one time axis: recovery and price by hand, and the rows of the chart are those of the record."""

import copy
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from everlearn.measure.report.charts import charts
from everlearn.measure.report.time_axis import PRICE, price, recoveries

records = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_report_records.py"))))


def entry(*curves, along=()):
    runs = []
    for points in curves:
        curve = [{"event": event, "prequential": {"accuracy": value}} for event, value in points]
        runs.append({"curve": curve, "figures": {"cost": {"along": list(map(list, along))}}})
    return {"label": "a", "name": "a", "runs": runs}


def test_recovery_by_hand():
    """80 % before the change at 100; back for good at 160, after a moment at 130. The second does no harm, what follows the third
    nobody saw."""
    calm = [
        (50, 0.8),
        (100, 0.8),
        (110, 0.5),
        (120, 0.7),
        (130, 0.79),
        (140, 0.6),
        (160, 0.785),
        (200, 0.8),
        (220, 0.79),
        (300, 0.8),
    ]
    never = [(50, 0.8), (100, 0.8), (110, 0.5), (200, 0.5), (220, 0.5), (300, 0.49)]
    stream = {"changes": [0, 100, 200, 300]}
    assert recoveries(entry(calm), stream, "prequential_accuracy") == [
        {"event": 100, "events": 60.0}, {"event": 200, "events": 0.0},
    ]  # fmt: skip
    assert [row["events"] for row in recoveries(entry(never), stream, "prequential_accuracy")] == [None, None]
    assert [row["events"] for row in recoveries(entry(calm, never), stream, "prequential_accuracy")] == [60.0, 0.0]
    assert [row["event"] for row in recoveries(entry(calm), stream | {"deployed": 150}, "prequential_accuracy")] == [200]


def test_recovery_of_forecasts_is_that_of_their_monitor_in_events():
    def segment(event, change, events, scored=9):
        return {"from": event, "change": change, "scored": scored, "recovered": 3, "recovered_events": events}

    parts = [segment(20, False, None), segment(60, True, 12), segment(80, True, None), segment(99, True, None, scored=0)]
    runs = [{"figures": {"forecast": {"segments": parts}}}, {"figures": {"forecast": {"segments": parts[:2]}}}]
    stream = {"changes": [5, 60, 80, 99], "deployed": 20}  # one in training, one after which no answer came
    found = recoveries({"label": "a", "runs": runs}, stream, "skill")
    assert found == [{"event": 60, "events": 12.0}, {"event": 80, "events": None}]


def test_price_by_hand():
    found = entry([], [], along=[(10, 0.02), (30, 0.03)])
    found["runs"][1]["figures"]["cost"]["along"] = [[10, 0.04], [30, 0.05]]
    assert price(found) == [{"event": 10, "value": pytest.approx(3.0)}, {"event": 30, "value": pytest.approx(0.5)}]
    assert price(entry([])) == []


def test_what_is_dear_now_and_then_is_not_lost_among_many_points():
    """400 points 5 events apart; every seventh interval takes 70 ms, the others nothing. The whole is what was spent."""
    spent = [[5 * (number + 1), 0.07 * ((number + 1) // 7)] for number in range(400)]
    found = price(entry([], along=spent))
    widths = [row["event"] - before for row, before in zip(found, [0, *(row["event"] for row in found)], strict=False)]
    assert len(found) < 130
    total = sum(width * row["value"] for width, row in zip(widths, found, strict=True))
    assert total == pytest.approx(1000 * spent[-1][1])


def with_price(record):
    record = copy.deepcopy(record)
    for learner in record["learners"]:
        for run in learner["runs"]:
            run["figures"]["cost"]["along"] = [[1000, 1.0], [2000, 3.0], [4000, 4.0]]
    return record


def rows(chart):
    keys = list(chart.table)
    return [dict(zip(keys, values, strict=True)) for values in zip(*chart.table.values(), strict=True)]


def drawn(record):
    return next((chart for chart in charts(record) if chart.name == "time_axis"), None)


def test_the_chart_has_error_alarms_recovery_and_price():
    record = with_price(records.prequential())
    chart, verdict = drawn(record), record["verdict"]
    found = rows(chart)
    assert chart.panels == 2 and {row["learner"] for row in found} == {"", verdict["learner"], verdict["frozen"]}
    assert sorted({row["event"] for row in found if row["kind"] == "change"}) == record["stream"]["changes"] == [1500, 2800]
    assert len([row for row in found if row["kind"] == "alarm"]) > 0
    paid = {(row["learner"], row["event"]): row["value"] for row in found if row["panel"] == PRICE and row["kind"] == "line"}
    assert paid[verdict["learner"], 2000] == pytest.approx(2.0) and paid[verdict["learner"], 4000] == pytest.approx(0.5)
    back = [row for row in found if row["kind"] == "back" and row["learner"] == verdict["learner"]]
    told = recoveries(
        next(e for e in record["learners"] if e["label"] == verdict["learner"]), record["stream"], "prequential_accuracy"
    )
    assert (
        [(row["event"], row["end"] - row["event"]) for row in back]
        == [(row["event"], pytest.approx(row["events"])) for row in told if row["events"] is not None]
        != []
    )
    errors = [row["value"] for row in found if row["kind"] == "line" and row["panel"] == "Error (%)"]
    assert min(errors) >= 0 and 20 < max(errors) <= 100
    assert "per event" in chart.title and "is back within" in chart.title
    json.dumps(chart.spec)


def test_without_price_there_is_one_panel_and_without_changes_and_alarms_no_chart():
    record = records.prequential()
    assert drawn(record).panels == 1
    quiet = copy.deepcopy(record)
    quiet["stream"]["changes"] = []
    for learner in quiet["learners"]:
        for run in learner["runs"]:
            run["figures"].pop("drift")
    assert drawn(quiet) is None
    assert drawn(records.class_incremental(seeds=(0, 1), experiences=3)) is None  # nothing of errors along the way


def test_streams_judged_on_held_out_sets_have_it_where_errors_along_the_way_are_known():
    record = with_price(records.class_incremental(seeds=(0, 1), experiences=3))
    first = record["stream"]["deployed"]
    for learner in record["learners"]:
        for run in learner["runs"]:
            for point in run["curve"]:
                point["prequential"] = {"accuracy": 0.4 if first < point["event"] < first + 10 else 0.9}
    chart = drawn(record)
    back = [row for row in rows(chart) if row["kind"] == "back" and row["event"] == first]
    assert back and all(
        10 <= row["end"] - first <= 11 for row in back
    )  # the curve has a point for every event or every other
