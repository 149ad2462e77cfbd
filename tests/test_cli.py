"""The command line as its users type it."""

import subprocess
import sys
from pathlib import Path

import pytest

from everlearn import __version__
from everlearn.cli import EXAMPLES, main


def test_help_of_every_verb_shows_examples_and_exit_codes(capsys):
    for verb in EXAMPLES:
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert f"  everlearn {verb}" in text
        assert "130 interrupted" in text


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


def test_the_package_is_run_as_the_command_is():
    shown = subprocess.run([sys.executable, "-m", "everlearn", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["everlearn", __version__]


@pytest.mark.slow
def test_the_installed_command_completes_in_a_shell():
    script = subprocess.run(
        [sys.executable, "-m", "everlearn", "--print_completion", "shtab-bash"],
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
