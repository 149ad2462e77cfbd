"""The verbs of those who compare, as they are typed."""

import json
import shlex
import sys

import pytest
import yaml

from everlearn.cli import main

QUICK = ["split(digits, experiences=5, batch=64)", "--learners", "nearest_class_mean", "--seeds", "2", "--engine", "inline"]


def test_compare_prints_the_table_the_answers_and_the_reports_path(tmp_path, capsys):
    assert main(["compare", *QUICK, "--folder", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "nearest_class_mean" in text
    assert "retrain" in text
    assert str(tmp_path / "report.html") in text.replace("\n", "")


def test_json_is_one_document_and_nothing_else(tmp_path, capsys):
    assert main(["compare", *QUICK, "--folder", str(tmp_path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "result.json").read_text())


@pytest.mark.slow
def test_a_configuration_file_means_the_same_as_flags(tmp_path, capsys):
    config = {
        "stream": QUICK[0],
        "learners": ["nearest_class_mean"],
        "seeds": 2,
        "engine": "inline",
        "folder": str(tmp_path / "a"),
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert main(["compare", "--config", str(tmp_path / "c.yaml"), "--json"]) == 0
    by_file = json.loads(capsys.readouterr().out)
    assert main(["compare", *QUICK, "--folder", str(tmp_path / "b"), "--json"]) == 0
    by_flags = json.loads(capsys.readouterr().out)
    same = [[run["sha256"] for learner in record["learners"] for run in learner["runs"]] for record in (by_file, by_flags)]
    assert same[0] == same[1]


def test_run_leaves_a_folder_and_prints_figures(tmp_path, capsys):
    assert main(["run", "fine_tune", "split(digits, experiences=5, batch=64)", "--folder", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "average_accuracy" in text
    assert list(tmp_path.rglob("result.json"))


def test_tensorboard_gets_every_curve(tmp_path):
    assert main(["compare", *QUICK, "--folder", str(tmp_path), "--track", "tensorboard", "--json"]) == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (tmp_path / "tensorboard" / "fine_tune").glob("seed-1")
    events = EventAccumulator(str(folder))
    events.Reload()
    record = json.loads((tmp_path / "result.json").read_text())
    (learner,) = (item for item in record["learners"] if item["label"] == "fine_tune")
    run = next(item for item in learner["runs"] if item["seed"] == 1)
    wanted = [point["matrix"]["average_accuracy"] for point in run["curve"] if "matrix" in point]
    assert [point.value for point in events.Scalars("matrix/average_accuracy")] == pytest.approx(wanted)


@pytest.mark.slow
def test_mlflow_gets_every_run(tmp_path):
    assert main(["compare", *QUICK, "--folder", str(tmp_path), "--track", "mlflow", "--json"]) == 0
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"file:{tmp_path / 'mlruns'}")
    (experiment,) = (item for item in client.search_experiments() if item.name.startswith("split"))
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 4 * 2
    assert {run.data.params["learner"] for run in runs} == {"frozen", "fine_tune", "retrain", "nearest_class_mean"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "splt(digits)"], "unknown scenario or data set 'splt'; did you mean 'split'?"),
        (["compare", "--workers", "0"], "workers must be an int >= 1, got 0"),
        (["compare", "--device", "tpu"], "device must be cpu, cuda, cuda:NUMBER or auto, got 'tpu'"),
    ],
)
def test_more_names_that_mean_nothing(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_in_the_record_can_be_typed_again(tmp_path, monkeypatch):
    words = [
        "compare",
        "split(load('iris'), experiences=3)",
        "--learners",
        "fine_tune",
        "--seeds",
        "1",
        "--engine",
        "inline",
    ]
    words += ["--folder", str(tmp_path), "--json"]
    monkeypatch.setattr(sys, "argv", ["everlearn", *words])
    assert main(words) == 0
    typed = json.loads((tmp_path / "result.json").read_text())["config"]["command"]
    assert "\"split(load('iris'), experiences=3)\"" in typed
    assert shlex.split(typed) == ["everlearn", *words]


def test_a_file_where_a_folder_should_be_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["study", "replay", "--folder", str(tmp_path / "file" / "x")]) == 4
    assert capsys.readouterr().err.splitlines()[-1] == f"everlearn: {tmp_path / 'file' / 'x' / 'cells'}: Not a directory."


def test_recurring_streams_are_compared_on_what_is_cheap_there(tmp_path, capsys):
    stream = "recurring(digits, tasks=6, batch=64, structure='partition')"
    arguments = ["--seeds", "1", "--engine", "inline", "--folder", str(tmp_path), "--no-baselines", "--json"]
    assert main(["compare", stream, *arguments]) == 0
    printed = capsys.readouterr()
    labels = [learner["label"] for learner in json.loads(printed.out)["learners"]]
    assert labels == ["fine_tune", "fine_tune(loss=masked())", "frequency_replay", "replay(capacity=200)"]
    assert "never share a task" in " ".join(printed.err.split())  # the mask is warned of before anything runs
