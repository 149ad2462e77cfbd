"""compare: the same records in one process, in many, and on Ray; resumed, refused, under a budget."""

import json
import multiprocessing
import os
import signal
import time

import pytest

from everlearn.comparison.building import build_stream
from everlearn.comparison.grid import _baselines, compare, load_comparison
from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, SpecError, StateError

STREAM = "split(digits, experiences=5, batch=32)"
LEARNERS = ["replay(capacity=50)", "nearest_class_mean"]


def deterministic(record):
    """The figures of a comparison that do not depend on the clock."""
    rows = {}
    for learner in record["learners"]:
        for run in learner["runs"]:
            figures = {name: value for name, value in run["figures"].items() if name != "cost"}
            curve = [{key: value for key, value in point.items() if key != "cost"} for point in run["curve"]]
            rows[learner["label"], run["seed"]] = (figures, curve, run["used"], run["sha256"])
    return rows


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    return compare(LEARNERS, STREAM, seeds=2, engine="inline", folder=tmp_path_factory.mktemp("inline"))


def test_the_baselines_stand_in_every_comparison(inline):
    labels = [learner["label"] for learner in inline.record["learners"]]
    assert labels == ["frozen", "fine_tune", "retrain", *LEARNERS]
    assert [learner["reference"] for learner in inline.record["learners"]] == [False, False, True, False, False]


def test_replay_keeps_what_fine_tuning_forgets(inline):
    assert inline.score("replay(capacity=50)")["mean"] > inline.score("fine_tune")["mean"] + 0.2
    assert inline.verdict["code"] == "adapt"


def test_the_folder_holds_the_record_and_the_report(inline):
    assert json.loads((inline.folder / "result.json").read_text()) == json.loads(json.dumps(inline.record))
    assert load_comparison(inline.folder).verdict == inline.verdict
    page = (inline.folder / "report.html").read_text()
    assert "replay(capacity=50)" in page
    assert len(page) < 2_000_000


def test_the_record_tells_how_classes_come_back(inline):
    """As the stream knows it where it does, and as the monitor saw it in every run."""
    assert inline.record["stream"]["recurrence"] is None
    stream = "recurring(digits, tasks=12, classes_per_task=2, samples_per_class=10, structure='pairs', evaluate_every=4)"
    record = compare(["fine_tune"], stream, seeds=1, engine="inline", baselines=False).record
    told = record["stream"]["recurrence"]
    seen = record["learners"][0]["runs"][0]["figures"]["accumulation"]
    assert (told["tasks"], told["classes_per_task"]) == (12, 2.0)
    assert (seen["recurrence"]["tasks"], seen["recurrence"]["classes_per_task"]) == (12, 2.0)
    assert sorted(map(sorted, told["components"])) == seen["recurrence"]["components"]
    assert [tasks for tasks, _ in seen["curve"]] == [4, 8, 12]
    assert record["learners"][0]["summary"]["accumulated"]["mean"] == seen["end"] == seen["curve"][-1][1]
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@pytest.mark.slow
def test_processes_give_the_same_records(inline, tmp_path):
    other = compare(LEARNERS, STREAM, seeds=2, engine="process", workers=2, folder=tmp_path)
    assert deterministic(other.record) == deterministic(inline.record)


@pytest.mark.slow
def test_ray_gives_the_same_records(inline, tmp_path):
    other = compare(LEARNERS, STREAM, seeds=2, engine="ray", workers=2, folder=tmp_path)
    assert deterministic(other.record) == deterministic(inline.record)


def test_a_finished_comparison_is_not_run_again(inline):
    before = {path: path.stat().st_mtime_ns for path in inline.folder.rglob("snapshots/*")}
    again = compare(LEARNERS, STREAM, seeds=2, engine="inline", folder=inline.folder)
    assert deterministic(again.record) == deterministic(inline.record)
    assert {path: path.stat().st_mtime_ns for path in inline.folder.rglob("snapshots/*")} == before


def test_a_folder_of_another_comparison_is_refused(inline):
    with pytest.raises(StateError, match=r"another comparison.*seeds"):
        compare(LEARNERS, STREAM, seeds=3, engine="inline", folder=inline.folder)


def _grid(folder):
    compare(LEARNERS, STREAM, seeds=2, engine="process", workers=2, folder=folder)


@pytest.mark.slow
def test_a_killed_comparison_goes_on_to_the_same_records(inline, tmp_path):
    context = multiprocessing.get_context("spawn")
    for delay in (4.0, 6.0):
        child = context.Process(target=_grid, args=(tmp_path,))
        child.start()
        time.sleep(delay)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        time.sleep(1.0)  # its workers see that it is gone
    result = compare(LEARNERS, STREAM, seeds=2, engine="process", workers=2, folder=tmp_path)
    assert deterministic(result.record) == deterministic(inline.record)


def test_a_learner_that_cannot_take_the_stream_fails_alone():
    result = compare(["online_ewc", "replay(capacity=50)"], "iid(digits)", seeds=1, engine="inline", baselines=False)
    failed, able = result.record["learners"]
    assert "boundaries" in failed["error"]
    assert not failed["runs"]
    assert able["error"] is None


def test_the_budget_bounds_memory_and_labels():
    result = compare(["replay(capacity=500)"], STREAM, seeds=1, engine="inline", budget=Budget(replay=20, labels=300))
    rows = {learner["label"]: learner["runs"][0] for learner in result.record["learners"]}
    assert rows["replay(capacity=500)"]["figures"]["memory"]["stored"] == 20
    assert rows["replay(capacity=500)"]["used"]["labels"] == 300
    assert rows["retrain"]["used"]["labels"] == 300


def test_progress_rises_to_the_end():
    seen = []
    compare("nearest_class_mean", STREAM, seeds=2, engine="inline", baselines=False, watch=lambda *at: seen.append(at))
    shares = [share for share, _, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert seen[-1][1:] == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"learners": "repaly"}, SpecError, "did you mean 'replay'"),
        ({"learners": "replay", "engine": "prcess"}, ArgumentError, "engine must be"),
        ({"learners": "replay", "seeds": 0}, ArgumentError, "seeds"),
        ({"learners": "", "baselines": False}, ArgumentError, "no learner"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(arguments, error, words):
    with pytest.raises(error, match=words):
        compare(**{"stream": STREAM, "engine": "inline", **arguments})


def test_another_process_on_the_same_folder_is_refused(tmp_path):
    import fcntl

    with open(tmp_path / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StateError, match="in use"):
            compare(LEARNERS, STREAM, seeds=1, engine="inline", folder=tmp_path)


@pytest.mark.parametrize("content", ["a: [", "only words", "\x00"])
def test_unreadable_settings_are_named_and_can_be_started_anew(content, tmp_path):
    (tmp_path / "comparison.yaml").write_text(content)
    with pytest.raises(StateError, match=r"comparison\.yaml .*--no-resume"):
        compare("fine_tune", "iid(iris)", seeds=1, engine="inline", folder=tmp_path, baselines=False)
    compare("fine_tune", "iid(iris)", seeds=1, engine="inline", folder=tmp_path, baselines=False, resume=False)
    assert (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"stream": 5}, "function seed -> Stream, got int"),
        ({"stream": lambda seed: 5}, "must give a Stream, got int"),
        ({"seeds": ["x"]}, "a seed must be an int, got 'x'"),
        ({"budget": 5}, "budget must be a Budget or"),
        ({"learners": {"mine": lambda schema, seed: 5}, "baselines": False}, "'mine' must give a learner, got int"),
    ],
)
def test_things_of_another_kind_are_refused(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        compare(**{"learners": "fine_tune", "stream": "iid(iris)", "engine": "inline", "seeds": 1, **arguments})


def test_a_budget_may_be_its_call_string_and_a_comparison_prints_its_scores():
    result = compare("fine_tune", "iid(iris)", seeds=2, engine="inline", budget="budget(labels=20)")
    assert all(
        learner["runs"][0]["used"]["labels"] == 20 for learner in result.record["learners"] if learner["name"] != "frozen"
    )
    first, *rows = str(result).splitlines()
    assert first.endswith(".")
    score = result.score("fine_tune")
    assert f"fine_tune  {score['mean']:.3f} ± {score['high'] - score['mean']:.3f}" in rows


def test_a_masked_loss_does_not_stand_for_the_plain_baseline():
    stream = build_stream("iid(iris)", 0)
    assert list(_baselines({"fine_tune(loss=masked())": ""}, stream)) == ["frozen", "fine_tune", "retrain"]
    assert list(_baselines({"fine_tune(passes=2)": ""}, stream)) == ["frozen", "retrain"]


def test_forecasts_have_baselines_of_their_own():
    """None, one that is fitted once, and one that is fitted again; a forecaster of another kind replaces none of them."""
    stream = build_stream("link_forecast(euro28(steps=100), window=5)", 0)
    usual = ["persistence", "forecaster", "forecaster(refit=every(144))"]
    assert list(_baselines({"forecaster(cfc())": ""}, stream)) == usual
    assert list(_baselines({"persistence": "", "forecaster": ""}, stream)) == usual[2:]
