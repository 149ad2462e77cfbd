"""What is read of classes that come back, the table beside the answer, and the charts, on a record made by simple laws."""

import copy
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from everlearn.measure.report import accumulation_charts, recurrence
from everlearn.measure.report import numbers as say
from everlearn.measure.report.charts import charts
from everlearn.measure.report.palette import looks_of
from everlearn.measure.report.plain_table import plain_table
from everlearn.measure.report.reading import ranked
from everlearn.measure.report.scene import Scene
from everlearn.measure.report.words import verdict_of
from everlearn.measure.statistics import mean_interval

records = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_report_records.py"))))


@pytest.fixture(scope="module")
def made():
    return records.recurring()


@pytest.fixture
def record(made):
    return copy.deepcopy(made)


def learner(record, label):
    return next(entry for entry in record["learners"] if entry["label"] == label)


def accumulation(record, label):
    return [run["figures"]["accumulation"] for run in learner(record, label)["runs"]]


def test_the_score_is_paired_with_the_yardstick_seed_by_seed(record):
    pairs = zip(accumulation(record, "fine_tune"), accumulation(record, "retrain"), strict=True)
    ends = [(own["end"], best["end"]) for own, best in pairs]
    mean, low, high = mean_interval([(own - 0.2) / (best - 0.2) for own, best in ends])
    found = recurrence.accumulated(learner(record, "fine_tune"), learner(record, "retrain"))
    assert found == {"mean": pytest.approx(mean), "low": pytest.approx(low), "high": pytest.approx(high)}
    own = recurrence.accumulated(learner(record, "retrain"), learner(record, "retrain"))
    assert own["mean"] == 1.0
    for figures in accumulation(record, "fine_tune"):
        figures["end"] = figures["level"]
    assert recurrence.accumulated(learner(record, "fine_tune"), learner(record, "retrain"))["mean"] == 0.0
    assert recurrence.accumulated(learner(record, "fine_tune"), None) is None
    for figures in accumulation(record, "fine_tune"):
        figures["level"] = 0.9  # the yardstick ends at 0.96: nine tenths of nothing
    assert recurrence.accumulated(learner(record, "fine_tune"), learner(record, "retrain")) is None


def test_rare_classes_come_half_as_often_and_are_answered_worse(record):
    """Shares 0.04, 0.04 and eight of 0.24: the mean is 0.2, half of it 0.1."""
    found = recurrence.rare_classes(learner(record, "fine_tune"))
    assert {(row["label"], row["seed"]) for row in found} == {(label, seed) for label in "01" for seed in (0, 1, 2)}
    assert all(row["gap"] == 25.0 for row in found)
    assert recurrence.rare_classes(learner(record, "retrain")) == []  # as rare, and answered as well as the others
    for figures in accumulation(record, "fine_tune"):
        figures["by_frequency"] = [
            row | {"frequency": 0.12 if row["label"] in "01" else 0.22} for row in figures["by_frequency"]
        ]
    assert recurrence.rare_classes(learner(record, "fine_tune")) == []  # as badly answered, and not rare: the mean is 0.2


def test_accuracy_on_the_rare_classes_is_taken_class_by_class_and_seed_by_seed(record):
    rows = recurrence.rare_classes(learner(record, "fine_tune"))[:4]
    held = {
        run["seed"]: run["figures"]["accumulation"]["per_class"] for run in learner(record, "replay(capacity=200)")["runs"]
    }
    expected = sum(held[row["seed"]][row["label"]] for row in rows) / 4
    assert recurrence.accuracy_on(learner(record, "replay(capacity=200)"), rows) == pytest.approx(expected)
    assert recurrence.accuracy_on(learner(record, "replay(capacity=200)"), []) is None


def test_rows_trained_on_are_labels_times_passes_and_rows_replayed(record):
    plain, replay = learner(record, "fine_tune"), learner(record, "replay(capacity=200)")
    assert recurrence.rows_trained(plain) == 8000
    assert recurrence.rows_trained(replay) == 8000 + 600
    for run in plain["runs"]:
        run["figures"]["accumulation"]["passes"] = 4
    assert recurrence.rows_trained(plain) == 32000
    assert recurrence.rows_trained(learner(record, "retrain")) is None
    del replay["runs"][0]["figures"]["accumulation"]
    assert recurrence.rows_trained(replay) is None


def test_the_stream_is_believed_before_what_a_run_saw(record):
    assert recurrence.facts(record)["expected_gaps"][0] == 25.0
    assert recurrence.apart(record) == []
    told = {
        "tasks": 100,
        "classes_per_task": 1.0,
        "expected_gaps": [10.0] * 10,
        "connected": False,
        "components": [[0, 9], [4]],
    }
    record["stream"]["recurrence"] = told
    assert recurrence.facts(record) == told
    assert recurrence.apart(record) == [["0", "9"], ["4"]]
    record["stream"]["recurrence"] = None
    assert recurrence.facts(record)["expected_gaps"][0] == 25.0


def test_one_seed_whose_classes_stay_apart_is_enough_to_say_so(record):
    accumulation(record, "frozen")[2]["recurrence"] |= {"connected": False, "components": [[0, 1], list(range(2, 10))]}
    assert recurrence.apart(record) == [["0", "1"], [str(label) for label in range(2, 10)]]


def test_the_table_weighs_score_time_memory_and_rows(record):
    table = plain_table(record)
    assert table.headings == ["Score", "Accumulation", "Rare classes", "Total time", "Replay memory", "Rows trained on"]
    labels = [label for label, _ in table.rows]
    assert labels == ["retrain", "replay(capacity=200)", "fine_tune(loss=masked())", "fine_tune"]
    found = dict(table.rows)
    score = learner(record, "fine_tune")["summary"]["score"]
    assert found["fine_tune"][0] == f"{say.percent(score['mean'])} ± {100 * (score['high'] - score['mean']):.1f}"
    assert found["retrain"][1] == "1.00"
    rare = sum(row["accuracy"] for row in recurrence.rare_classes(learner(record, "fine_tune"))) / 6
    assert found["fine_tune"][2] == say.percent(rare)
    assert found["fine_tune"][4:] == ["none", "8,000"]
    assert found["replay(capacity=200)"][4:] == [say.size(200 * 784), "8,600"]
    assert found["retrain"][5] == say.NONE


def test_the_table_leaves_out_what_nobody_has():
    table = plain_table(records.class_incremental())
    assert table.headings == ["Score", "Total time", "Replay memory"]
    assert table.rows[0][0] == "retrain"
    only = records.class_incremental(learners={key: records.LEARNERS[key] for key in ("frozen", "fine_tune", "retrain")})
    assert plain_table(only) is None


def drawn(record):
    return {chart.name: chart for chart in charts(record)}


def one(record, maker):
    verdict = verdict_of(record)
    return maker(Scene(record, verdict, ranked(record["learners"]), looks_of(record["learners"], verdict)))


def rows(chart):
    keys = list(chart.table)
    return [dict(zip(keys, values, strict=True)) for values in zip(*chart.table.values(), strict=True)]


def test_the_charts_of_accumulation_stand_where_classes_come_back(record):
    assert list(drawn(record))[:4] == ["accumulation", "cost", "frequency", "absence"]
    assert "held_out" not in drawn(record)  # the same accuracy, on the one held-out set
    for entry in record["learners"]:
        for run in entry["runs"]:
            run["figures"]["accumulation"]["returning"] = 0
    assert not {"accumulation", "frequency", "absence"} & set(drawn(record))
    assert "held_out" in drawn(record)


def test_the_curve_is_that_of_the_record_over_tasks(record):
    found = [row for row in rows(one(record, accumulation_charts.accumulation)) if row["learner"] == "fine_tune"]
    assert [row["task"] for row in found] == list(range(10, 101, 10))
    mean = sum(figures["curve"][3][1] for figures in accumulation(record, "fine_tune")) / 3
    assert found[3]["mean"] == pytest.approx(mean, abs=1e-4)
    spec = json.dumps(one(record, accumulation_charts.accumulation).spec)
    end = sum(figures["end"] for figures in accumulation(record, "retrain")) / 3
    assert '"share": 0.2' in spec and f'"share": {end:.4f}'.rstrip("0") in spec
    title = one(record, accumulation_charts.accumulation).title
    kept = recurrence.accumulated(learner(record, "fine_tune"), learner(record, "retrain"))["mean"]
    assert title.startswith(f"Knowledge kept beyond the task at hand, where retraining is 1: `fine_tune` {kept:.2f}")


def test_frequencies_are_drawn_class_by_class_where_they_differ(record):
    chart = one(record, accumulation_charts.frequency)
    found = [row for row in rows(chart) if row["learner"] == "fine_tune"]
    assert len(found) == 30 and {row["frequency"] for row in found} == {0.04, 0.24}
    assert "frozen" not in chart.learners
    rare = 100 * sum(row["accuracy"] for row in found if row["frequency"] == 0.04) / 6
    often = 100 * sum(row["accuracy"] for row in found if row["frequency"] == 0.24) / 24
    told = f"in {rare:.0f} % of the rows of the rarest classes, in {often:.0f} % of the most frequent"
    assert told in chart.title.replace("\xa0", " ")
    assert '"type": "log"' in json.dumps(chart.spec)
    for label in records.RECURRING:
        for figures in accumulation(record, label):
            figures["by_frequency"] = [row | {"frequency": 0.2} for row in figures["by_frequency"]]
    assert one(record, accumulation_charts.frequency) is None


def test_absences_are_drawn_by_their_length(record):
    found = [row for row in rows(one(record, accumulation_charts.absence)) if row["learner"] == "fine_tune"]
    assert [row["tasks"] for row in found] == ["0", "1", "2–3", "4–7", "8–15"]
    assert [row["count"] for row in found] == [120, 96, 72, 48, 24]
    mean = sum(figures["forgetting_curve"][4]["accuracy"] for figures in accumulation(record, "fine_tune")) / 3
    assert found[-1]["mean"] == pytest.approx(mean, abs=1e-4)
    assert f"in {100 * mean:.0f} % where it last came 8–15 tasks ago" in one(
        record, accumulation_charts.absence
    ).title.replace("\xa0", " ")
    short = copy.deepcopy(record)
    for label in records.RECURRING:
        for figures in accumulation(short, label):
            figures["forgetting_curve"] = figures["forgetting_curve"][:1]
    assert one(short, accumulation_charts.absence) is None
