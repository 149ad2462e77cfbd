"""The verbs of operators, as they are typed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
from PIL import Image

from everlearn import Client, load
from everlearn.cli import main

MODEL = ["--model", "mlp(hidden=(8,))"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def served(*words):
    """A server in a process of its own, and a client of it."""
    command = [sys.executable, "-m", "everlearn", "serve", *words, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Serving at" in line:
            return process, Client(line.split("Serving at ")[1].split(" ")[0])
    raise AssertionError(process.stderr.read())


def ended(process, sign=signal.SIGTERM):
    process.send_signal(sign)
    process.communicate(timeout=60)
    return process.returncode


@pytest.mark.slow
def test_a_server_is_started_fed_killed_continued_exported_and_copied(here, capsys):
    options = "options(batch=4, every=1, wait=0.1, least=1)"
    process, client = served("replay(capacity=20)", "--data", "iris", *MODEL, "--folder", "s", "--options", options)
    with client:
        client.wait_ready()
        assert int(Path("s/server.pid").read_text()) == process.pid
        for number in range(8):
            given = client.predict([0.1 * number, 0.0, 1.0, 0.0], id=f"r{number}")
            client.feedback(given.id, y="setosa")
        end = time.monotonic() + 30
        while client.status()["version"] < 2 and time.monotonic() < end:
            time.sleep(0.05)
        version = client.status()["version"]
    assert ended(process, signal.SIGKILL) == -9
    process, client = served("s")
    with client:
        client.wait_ready()
        assert client.status()["version"] == version >= 1
        assert main(["backup", "s", "copy", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["versions"] >= version
    assert ended(process) == 0
    assert not Path("s/server.pid").exists()
    assert main(["export", "s", "log.parquet"]) == 0
    assert "8 predictions and 8 answers" in capsys.readouterr().out
    assert main(["export", "s", "log.parquet"]) == 4  # it stands already
    assert main(["export", "s", "log.parquet", "--force", "true", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"] == 8
    assert main(["run", "fine_tune", "served('log.parquet')", *MODEL]) == 0


def test_a_token_is_printed_once_and_only_its_hash_is_kept(here, capsys):
    assert main(["token", "s", "shop", "--scopes", "predict, feedback"]) == 0
    printed = capsys.readouterr()
    token = printed.out.strip()
    assert printed.err.strip() == "everlearn: warning: s holds no server yet; `everlearn serve WHAT --folder s` begins one."
    kept = Path("s/tokens.json").read_text()
    assert token not in kept and json.loads(kept)["shop"]["scopes"] == ["predict", "feedback"]
    assert main(["token", "s", "shop"]) != 0  # the name is taken
    assert main(["token", "s", "shop", "--revoke", "true"]) == 0
    assert json.loads(Path("s/tokens.json").read_text()) == {}


def test_a_webhook_that_is_no_address_is_refused_before_anything_is_made(here, capsys):
    code = main(
        ["serve", "replay(capacity=20)", "--data", "iris", *MODEL, "--folder", "s", "--webhook", "example.org/alarms"]
    )
    assert code == 2 and "webhook: url must begin with http:// or https://" in capsys.readouterr().err
    assert not Path("s").exists()


def test_an_open_address_without_a_token_is_refused_before_anything_is_made(here, capsys):
    code = main(["serve", "replay(capacity=20)", "--data", "iris", *MODEL, "--folder", "s", "--host", "0.0.0.0"])
    assert code == 2 and "token" in capsys.readouterr().err
    assert not Path("s").exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["serve", "repaly", "--data", "iris"], 2, "did you mean 'replay'"),
        (["serve", "replay"], 2, "--data"),
        (["serve", "replay", "--data", "iris", "--options", "options(bacth=3)"], 2, "did you mean 'batch'"),
        (["serve", "replay", "--data", "iris", "--alarms", "alarms(pis=3)"], 2, "did you mean 'psi'"),
        (["serve", "replay", "--data", "iris", "--options", "batch=3"], 2, "A call string looks like options(batch=64)"),
        (["serve", "replay", "--data", "iris", "--engine", "rya"], 2, "local, ray"),
        (["serve", "replay", "--data", "no.csv"], 2, "no.csv: there is no such file"),
        (["serve", "replay", "--data", "iris", "--target", "species"], 2, "leave them out"),
        (["export", "nowhere", "log.parquet"], 4, "server.json"),
        (["backup", "nowhere", "copy"], 4, "server.json"),
        (["teach", "nowhere", "--class", "okapi", "okapi.png"], 4, "no such folder"),
        (["teach", "."], 2, "--class NAME, --refresh NAME and --remove NAME"),
        (["teach", ".", "--class", "okapi", "a.png", "--refresh", "gnu", "b.png"], 2, "name one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_mistyped_is_refused_in_one_sentence(here, capsys, words, code, told):
    assert main(words) == code
    error = capsys.readouterr().err
    assert error.startswith("everlearn: ") and told in error and error.count("\n") == 1


@pytest.mark.parametrize("verb", ["serve", "teach", "export", "backup", "token"])
def test_help_shows_how_it_is_typed(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert f"everlearn {verb} " in told and "examples:" in told and "exit codes:" in told


def test_a_log_kept_elsewhere_is_not_copied_from_here(here, capsys):
    os.makedirs("s")
    record = {"format": 1, "database": "postgresql://db/served", "options": {}, "spec": {}, "learner": "replay"}
    Path("s/server.json").write_text(json.dumps(record))
    assert main(["backup", "s", "copy"]) == 4
    assert "pg_dump" in capsys.readouterr().err


def test_a_model_is_taught_on_the_command_line_and_by_a_configuration(here, capsys):
    digits = load("digits")
    numpy.savez("rows.npz", x=digits.x[digits.y == 9][:5].numpy())
    stream = "few_shot(digits, base_classes=5, way=1, sessions=1)"
    assert main(["run", "few_shot", stream, *MODEL, "--folder", "r"]) == 0
    folder = str(next(Path("r/runs").glob("few-shot*/seed-0")))
    capsys.readouterr()
    assert main(["teach", folder, "--class", "okapi", "rows.npz"]) == 0
    told = capsys.readouterr().out
    assert "learned 'okapi' from 5 rows in " in told and "accuracy now: not known" in told
    assert main(["teach", folder, "--remove", "okapi", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["action"], found["class"], found["lesson"]) == ("remove", "okapi", 2) and "okapi" not in found["classes"]
    Path("c.yaml").write_text(json.dumps({"folder": folder, "class": ["okapi", "rows.npz"], "output": "o"}))
    assert main(["teach", "--config", "c.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == "o"
    assert main(["teach", folder, "--refresh", "okapi", "rows.npz"]) == 3
    assert "unknown class 'okapi'" in capsys.readouterr().err
    Image.new("RGB", (4, 4)).save("okapi.png")
    assert main(["teach", folder, "--class", "gnu", "okapi.png"]) == 3
    assert "okapi.png is an image, and this model takes rows of shape [64]" in capsys.readouterr().err
