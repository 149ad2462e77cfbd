"""The charts: which are drawn from which figures, what their titles say, that their data are those of the record and bounded."""

import copy
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from everlearn.measure.report import accuracy_charts, curve_charts
from everlearn.measure.report.charts import charts
from everlearn.measure.report.cost_chart import ticks

records = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_report_records.py"))))


@pytest.fixture(scope="module")
def split():
    return records.class_incremental()


def drawn(record):
    return {chart.name: chart for chart in charts(record)}


def rows(chart):
    keys = list(chart.table)
    return [dict(zip(keys, values, strict=True)) for values in zip(*chart.table.values(), strict=True)]


def test_held_out_streams_get_every_chart_of_held_out_sets(split):
    assert list(drawn(split)) == ["held_out", "cost", "matrix", "forgetting", "memory", "drift", "classes", "plasticity"]


def test_streams_in_order_of_time_open_with_what_came_in():
    found = drawn(records.prequential())
    assert list(found) == ["prequential", "cost", "memory", "time_axis", "drift", "final_classes", "classes", "plasticity"]


def test_nothing_is_drawn_from_nothing():
    record = records.prequential()
    for entry in record["learners"]:
        entry |= {"error": "it stopped", "runs": [], "summary": {}}
    assert charts(records.finish(record["learners"], record["stream"], record["config"])) == []


@pytest.mark.parametrize(
    ("part", "gone"),
    [
        ("matrix", {"held_out", "matrix", "forgetting", "classes"}),
        ("memory", {"memory"}),
        ("drift", {"drift"}),
        ("plasticity", {"plasticity"}),
    ],
)
def test_a_missing_figure_takes_its_charts_away_and_no_other(split, part, gone):
    record = copy.deepcopy(split)
    for entry in record["learners"]:
        for run in entry["runs"]:
            run["figures"].pop(part)
            for point in run["curve"]:
                point.pop(part, None)
    assert set(drawn(split)) - set(drawn(record)) == gone


def test_curves_are_judged_at_checkpoints_only(split):
    found = rows(drawn(split)["held_out"])
    assert sorted({row["event"] for row in found}) == split["stream"]["checkpoints"]
    last = {row["learner"]: row for row in found}
    for entry in split["learners"]:
        assert last[entry["label"]]["mean"] == pytest.approx(entry["summary"]["score"]["mean"], abs=1e-4)
        assert last[entry["label"]]["low"] <= last[entry["label"]]["mean"] <= last[entry["label"]]["high"]


def test_the_matrix_is_the_mean_over_seeds(split):
    entry = next(entry for entry in split["learners"] if entry["label"] == "fine_tune")
    found = {
        (row["after"], row["set"]): row["accuracy"] for row in rows(drawn(split)["matrix"]) if row["learner"] == "fine_tune"
    }
    mean = sum(run["figures"]["matrix"]["matrix"][4][0] for run in entry["runs"]) / 3
    assert found["5", "0, 1"] == pytest.approx(mean, abs=1e-3)
    assert len(found) == 25


def test_the_matrix_can_be_seen_for_every_learner_the_best_first(split):
    chart = drawn(split)["matrix"]
    assert chart.choices[0] == split["verdict"]["learner"]
    assert set(chart.choices) == {entry["label"] for entry in split["learners"]}


def test_the_scatter_has_the_costs_of_the_record_and_no_time_for_the_frozen_model(split):
    found = {row["learner"]: row for row in rows(drawn(split)["cost"])}
    for entry in split["learners"]:
        row = found[entry["label"]]
        if entry["name"] == "frozen":
            assert (row["ms"], row["timed"]) == (None, False)
        else:
            assert row["ms"] == pytest.approx(entry["summary"]["update_ms"]["mean"], abs=1e-4)


def test_ticks_of_the_logarithmic_axis():
    assert ticks([0.2, 300.0]) == [1.0, 10.0, 100.0]
    assert ticks([1.0, 4.0]) == [1.0, 2.0, 5.0]


def test_titles_are_sentences_from_the_figures(split):
    titles = {name: chart.title.replace("\xa0", " ") for name, chart in drawn(split).items()}
    best = split["verdict"]["learner"]
    score = next(entry for entry in split["learners"] if entry["label"] == best)["summary"]["score"]["mean"]
    assert titles["held_out"].startswith(f"`streaming_lda` ends at {100 * score:.0f} %")
    assert titles["memory"] == "Replay memory peaks at 392 kB, with 2 learners"
    assert titles["forgetting"].startswith("`streaming_lda` forgot 3 points on average, plain fine-tuning")
    assert titles["drift"] == "Alarms per seed: `adwin` 4, `page_hinkley` 3 and `every(events=20)` 8"
    assert titles["matrix"].startswith("`streaming_lda` forgot most on “0, 1”")


def test_known_changes_and_deployment_are_marked(split):
    spec = json.dumps(drawn(split)["held_out"].spec)
    for event in split["stream"]["changes"]:
        assert f'"event": {event}' in spec
    still = copy.deepcopy(split)
    still["stream"] |= {"changes": [], "deployed": 0}
    assert "the data changes" in spec
    assert "the data changes" not in json.dumps(drawn(still)["held_out"].spec)
    assert "Dashed lines" not in drawn(still)["held_out"].note


def test_few_classes_get_panels_and_many_a_heat_map(split):
    assert drawn(split)["classes"].panel > 0
    assert drawn(split)["classes"].panels == 10
    many = drawn(records.class_incremental(classes=20))["classes"]
    assert many.panel == 0
    assert len(set(many.table["label"])) == 20


@pytest.mark.slow
def test_every_table_is_bounded_however_long_the_stream():
    record = records.large()
    found = drawn(record)
    assert max(len({row["event"] for row in rows(found[name])}) for name in ("memory", "held_out")) <= curve_charts.POINTS
    sets = {row["set"] for row in rows(found["matrix"])}
    assert len(sets) == accuracy_charts.SETS
    assert len(set(found["classes"].table["label"])) == accuracy_charts.CLASSES
    assert len(set(found["forgetting"].table["set"])) == accuracy_charts.LOST
    assert sum(len(json.dumps(chart.table)) for chart in found.values()) < 700_000


def test_specifications_carry_no_data_and_no_address(split):
    for chart in charts(split):
        text = json.dumps({key: value for key, value in chart.spec.items() if key != "$schema"})
        assert '"name": "table"' in text
        assert "http" not in text
        assert chart.spec["description"]
        assert "`" not in chart.spec["description"]


def test_learners_keep_their_colour_in_every_chart(split):
    scales = set()

    def walk(node):
        if isinstance(node, dict):
            if (
                node.get("field") == "learner"
                and "range" in (node.get("scale") or {})
                and "var(" in str(node["scale"]["range"])
            ):
                scales.add(json.dumps(node["scale"]))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    for chart in charts(split):
        walk(chart.spec)
    assert len(scales) == 1
