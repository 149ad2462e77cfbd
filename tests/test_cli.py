"""The command line as its users type it."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from everlearn.cli import EXAMPLES, main

QUICK = ["split(digits, experiences=5, batch=64)", "--learners", "nearest_class_mean", "--seeds", "2", "--engine", "inline"]


def test_help_of_every_verb_shows_examples_and_exit_codes(capsys):
    for verb in EXAMPLES:
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert f"  everlearn {verb}" in text
        assert "130 interrupted" in text


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


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["compare", "--learners", "repaly"], 2, "did you mean 'replay'"),
        (["compare", "dgits"], 3, "digits"),
        (["compare", "no.csv", "--target", "y"], 2, "no such file"),
        (["report", "nowhere"], 4, "nowhere"),
        (["study", "repaly"], 2, "did you mean 'replay'"),
        (["list", "lerners"], 2, "did you mean 'learners'"),
        (["show", "derp"], 2, "did you mean 'derpp'"),
        (["check", "nomodule:Thing"], 2, "nomodule"),
        (["compare", "--device", "cuda:9"], 2, "CUDA"),
    ],
)
def test_errors_are_one_line_with_their_exit_code(arguments, code, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


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


@pytest.mark.slow
def test_the_installed_command_completes_in_a_shell():
    script = subprocess.run(
        [sys.executable, "-m", "everlearn.cli", "--print_completion", "shtab-bash"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "compare" in script.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["compare", "--sedes", "3"],
            "compare: unknown flag '--sedes'; did you mean '--seeds'? `everlearn compare --help` names all.",
        ),
        (["compare", "--seed", "3"], "compare: unknown flag '--seed'; did you mean '--seeds'?"),  # not taken for --seeds
        (["teach", "run", "--clas", "okapi"], "teach: unknown flag '--clas'; did you mean '--class'?"),
        (
            ["compare", "--seeds", "two"],
            "compare: --seeds: Expected a <class 'int'>. Got value: two. See `everlearn compare --help`.",
        ),
        (["run", "replay"], "run: the following arguments are required: stream. See `everlearn run --help`."),
        (["compare", "digits", "iris"], "compare: unrecognized arguments: iris."),
        (["compare", "--config", "no.yaml"], "compare: --config: File does not exist: "),
        (["compar"], "unknown verb 'compar'; did you mean 'compare'? known: ask, backup,"),
        (["--verson"], "unrecognized arguments: --verson"),
    ],
)
def test_words_that_cannot_be_read_are_answered_in_one_line(arguments, said, capsys):
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"everlearn: {said}")


def test_no_words_at_all_are_answered_with_the_help(capsys):
    assert main([]) == 2
    assert "Run learners beside the baselines" in capsys.readouterr().err


@pytest.mark.slow
def test_the_installed_command_finds_modules_in_the_folder_where_one_stands(tmp_path):
    (tmp_path / "own_place.py").write_text(
        "from torch import nn\nfrom everlearn import FineTune\n"
        "def build(schema):\n    return nn.Linear(schema.shape[0], schema.outputs)\n"
        "class Mine(FineTune):\n    name = 'mine'\n"
    )
    command = str(Path(sys.executable).with_name("everlearn"))
    compared = [
        "compare",
        "split(iris, experiences=3)",
        "--model",
        "own_place:build",
        "--learners",
        "fine_tune",
        "--seeds",
        "1",
    ]
    for arguments, code, words in ((["check", "own_place:Mine"], 6, "final class FineTune"), (compared, 0, "")):
        ended = subprocess.run([command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == code, ended.stderr
        assert words in ended.stderr


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
