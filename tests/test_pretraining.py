"""`everlearn pretrain`: texts and images from the command line, what it leaves, resume after a kill, errors as sentences."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file

from everlearn.cli import main
from everlearn.comparison.pretraining_parts import delivered

SHAPE = ["--model", "tiny_gpt(dim=8, depth=1, heads=2)", "--window", "8", "--batch", "4", "--steps", "10"]
SMALL = [*SHAPE, "--lr", "0.01"]


@pytest.fixture
def texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "en.txt").write_text("the cat sat on the mat and the dog on the log. " * 20)
    (tmp_path / "de.txt").write_text("die Katze sitzt auf der Matte und der Hund im Gras. " * 20)
    return ["en.txt", "de=de.txt"]


def told(capsys):
    return json.loads(capsys.readouterr().out)


def test_two_texts_leave_a_model_each_a_curve_and_a_page(texts, tmp_path, capsys):
    assert main(["pretrain", *texts, *SMALL, "--folder", "run"]) == 0
    shown = capsys.readouterr().out
    assert "forgotten since" in shown and "20 updates, 80 rows" in shown and "report.html" in shown
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (record["domains"], record["steps"], record["anneal"], record["updates"]) == (["en", "de"], 10, 2, 20)
    assert record["schedule"] == "infinite(0.01, warmup=0, cooldown_end=4)"
    model = delivered(tmp_path / "run" / "delivered" / "02-de")
    assert model(torch.zeros(1, 8, dtype=torch.int64)).shape == (1, 8, 256)
    assert "after de" in (tmp_path / "run" / "report.html").read_text()
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert settings["domains"] == ["en", "de"] and settings["batch"] == 4


def test_the_same_command_is_told_again_and_another_is_refused(texts, capsys):
    assert main(["pretrain", *texts, *SMALL, "--folder", "run", "--json"]) == 0
    first = told(capsys)
    assert main(["pretrain", *texts, *SMALL, "--folder", "run", "--json"]) == 0
    assert told(capsys) == first
    assert main(["pretrain", *texts, *SMALL, "--folder", "run", "--seed", "1"]) == 4
    assert "seed: 0 there, 1 now" in capsys.readouterr().err
    assert main(["pretrain", *texts, *SMALL, "--folder", "run", "--seed", "1", "--no-resume", "--json"]) == 0
    assert told(capsys)["delivered"] != first["delivered"]


def test_settings_reach_what_they_name(texts, capsys):
    """Each one changes the delivered losses, or what the record says."""
    assert main(["pretrain", *texts, *SMALL, "--folder", "plain", "--json"]) == 0
    plain = told(capsys)
    changed = {
        "--schedule": "repeated_cosine(0.01, steps=10, warmup=2)",
        "--optimizer": "sgd(momentum=0.9)",
        "--replay": "replay_mix(0.5)",
        "--penalty": "lwf(strength=20.0)",
        "--precision": "bfloat16",
        "--anneal": "0.5",
        "--seed": "3",
    }
    for number, (flag, value) in enumerate(changed.items()):
        small = SHAPE if flag == "--schedule" else SMALL
        assert main(["pretrain", *texts, *small, flag, value, "--folder", f"run{number}", "--json"]) == 0
        record = told(capsys)
        assert record["delivered"] != plain["delivered"], flag
        if flag == "--schedule":
            assert (record["anneal"], record["schedule"]) == (0, value)
    assert main(["pretrain", *texts, *SMALL, "--accumulate", "2", "--folder", "parts", "--json"]) == 0
    record = told(capsys)
    assert record["delivered"][1] == pytest.approx(plain["delivered"][1], rel=1e-4)


def test_images_by_classes(capsys, tmp_path):
    words = [
        "digits(side=8)",
        "--split",
        "5",
        "--steps",
        "5",
        "--batch",
        "8",
        "--model",
        "masked_autoencoder(dim=12, depth=1)",
    ]
    assert main(["pretrain", *words, "--folder", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "0+1" in shown and "images a second" in shown
    assert delivered(tmp_path / "run" / "delivered" / "05-8+9").tokens == 16


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["gone.txt"], 3, "there is no such file"),
        (["en.txt", "--window", "2000"], 3, "fewer than a window of 2000"),
        (["en.txt", "--objective", "next_tokens"], 2, "did you mean 'next_token'"),
        (["en.txt", "--objective", "masked_autoencoding"], 2, "TinyGPT draws no masks"),
        (["en.txt", "--model", "tiny_gtp()"], 2, "did you mean 'tiny_gpt'"),
        (["en.txt", "--schedule", "constant(0.1)", "--lr", "0.1"], 2, "give it within schedule, and leave lr out"),
        (["en.txt", "--schedule", "infinit(0.1, 1, 2)"], 2, "did you mean 'infinite'"),
        (["en.txt", "--schedule", "infinite(0.1, warmup=1, cooldown_end=2, const_lr=0.2)"], 2, "const_lr=0.2"),
        (["en.txt", "--schedule", "infinite(0.1, warmup=9, cooldown_end=9)"], 2, "warm-up ends at step 9"),
        (
            ["en.txt", "--schedule", "adam(0.1)"],
            2,
            "unknown schedule 'adam'; known: constant, cosine_cycle, decay, infinite,",
        ),
        (["en.txt", "--optimizer", "constant(0.1)"], 2, "unknown optimizer 'constant'; known: adam, sgd."),
        (["en.txt", "--optimizer", "collections:OrderedDict()"], 2, "must be adam(...), sgd(...) or a torch optimiser"),
        (["en.txt", "--model", "hub"], 2, "names no folder; write hub('FOLDER')"),
        (
            ["digits(side=8)", "--model", "auto", "--objective", "next_token"],
            2,
            "rows must be token ids (rows, length + 1), got",
        ),
        (["en.txt", "--penalty", "lfw"], 2, "unknown penalty 'lfw'; did you mean 'lwf'? known: lwf, mas."),
        (["en.txt", "--penalty", "mas(decay=2)"], 2, "mas: decay must be a number between 0 and 1, got 2."),
        (
            ["en.txt", "--optimizer", "sgd()", "--lr", "1e38"],
            2,
            "is nan, on en; lower the highest rate, or cut long gradients",
        ),
        (["en.txt", "--anneal", "1.5"], 2, "anneal"),
        (["en.txt", "--steps", "0"], 2, "steps must be an int >= 1"),
        (["en.txt", "en.txt"], 2, "names of their own, got en, en"),
        (["en.txt", "--batch", "6", "--accumulate", "4"], 2, "batch=6, 1 processes and accumulate=4"),
        (["en.txt", "--device", "tpu"], 2, "device must be cpu, cuda or auto, got 'tpu'"),
    ],
)
def test_what_is_wrong_has_an_exit_code_and_a_sentence(words, code, said, texts, capsys):
    small = SHAPE if "--schedule" in words else SMALL
    assert main(["pretrain", "--folder", "run", *small, *words]) == code
    error = capsys.readouterr().err
    assert said in " ".join(error.split()) and "Traceback" not in error


@pytest.mark.slow
def test_killed_at_random_the_same_command_ends_in_the_same_bits(texts, tmp_path):
    words = [
        sys.executable,
        "-m",
        "everlearn",
        "pretrain",
        *texts,
        *SMALL,
        "--steps",
        "400",
        "--snapshot_every",
        "15",  # between two points of the curve, too
        "--json",
    ]
    whole = json.loads(subprocess.run([*words, "--folder", "whole"], check=True, capture_output=True, text=True).stdout)
    kills = 0
    for _ in range(20):
        process = subprocess.Popen(
            [*words, "--folder", "killed"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        newest = len(list((tmp_path / "killed").rglob("*.json")))
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() - begun < 60:
            now = sorted((tmp_path / "killed" / "snapshots").glob("*.json"))
            if kills < 3 and now and int(now[-1].stem) >= 150 * (kills + 1):
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        out, _ = process.communicate()
        if process.returncode == 0:
            break
    assert kills == 3 and newest > 0
    record = json.loads(out)
    assert record["delivered"] == whole["delivered"] and record["curve"] == whole["curve"]
    for name in ("01-en", "02-de"):
        first, second = (load_file(tmp_path / run / "delivered" / name / "model.safetensors") for run in ("whole", "killed"))
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_two_processes_of_torchrun_give_the_record_of_one(texts, tmp_path):
    words = ["everlearn", "pretrain", *texts, *SMALL, "--json", "--folder"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    alone = subprocess.run(
        [sys.executable, "-m", *words, "one"], check=True, capture_output=True, text=True, env=environment
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    both = subprocess.run([*torchrun, *words, "two"], check=True, capture_output=True, text=True, env=environment)
    one, two = json.loads(alone.stdout), json.loads(both.stdout)
    assert (one["processes"], two["processes"]) == (1, 2)
    for first, second in zip(one["curve"], two["curve"], strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-5) and second["lr"] == first["lr"]
    assert two["delivered"][1] == pytest.approx(one["delivered"][1], rel=1e-5)
