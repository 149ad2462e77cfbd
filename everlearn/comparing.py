"""The verbs of those who compare: compare, run, study, report.

`compare_` and `run_` bear other names than the package's own `compare` and `run`: the parser looks its functions up by name from the
top of the package, where these two would load torch for no more than a page of help.
"""

import hashlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from everlearn.console import Bar, print_comparison, print_figures, print_json, say
from everlearn.core.errors import ArgumentError

RUNS = Path("everlearn-runs")
USUAL = "replay(capacity=200), derpp(capacity=200), streaming_lda, nearest_class_mean"
FORECASTERS = "forecaster(cfc()), forecaster(dense(), refit=on_drift(adwin())), boosted"
RECURRING = "fine_tune, fine_tune(loss=masked()), frequency_replay, replay(capacity=200)"  # is plain SGD enough?
BY_STREAM = {"recurring(": RECURRING, "forecast(": FORECASTERS, "link_forecast(": FORECASTERS}


def compare_(
    learners: str | list[str] | None = None,
    model: str = "auto",
    seeds: int = 3,
    budget: str = "budget()",
    target: str | None = None,
    time: str | None = None,
    task: str = "classify",
    window: int = 24,
    horizon: int = 1,
    engine: str = "process",
    workers: int | None = None,
    folder: str | None = None,
    device: str = "cpu",
    track: str | None = None,
    stream: str = "digits",
    *,
    source: str | None = None,
    resume: bool,
    baselines: bool,
    json: bool,
) -> int:
    """Run learners beside the baselines and say whether adapting is worth it.

    Args:
        learners: call strings, separated by commas (a YAML list in --config); by default replay(capacity=200), derpp(capacity=200),
            streaming_lda and nearest_class_mean, or what is cheap on a recurring stream: fine_tune(loss=masked()),
            frequency_replay and replay(capacity=200), or forecasters of three kinds where values are forecast
        model: the network that every learner trains, such as mlp(hidden=(64,)) or mymodule:build
        seeds: repetitions with seeds 0, 1, ...
        budget: limits, such as budget(replay=500, labels=1000)
        target: the column to predict, where STREAM is a CSV or Parquet file (to forecast, several between commas)
        time: the column that orders the rows, where STREAM is a CSV or Parquet file
        task: classify, or forecast: the target's own future from its past, where STREAM is a CSV or Parquet file
        window: samples that a forecast sees
        horizon: samples from the end of a window to what is forecast
        engine: process, inline, ray, or the address of a Ray cluster
        workers: processes at once (default: all processors)
        folder: where runs and report go (default: a folder of everlearn-runs/ named by the configuration)
        device: cpu, cuda, or auto
        track: also export to mlflow or tensorboard
        stream: the same as STREAM, for --config
    """
    from everlearn.comparison.building import build_budget
    from everlearn.comparison.grid import compare as run_comparison
    from everlearn.comparison.stream_text import stream_text
    from everlearn.comparison.track import export, tracker

    stream = source or stream
    if task != "classify":
        stream = stream_text(stream, target=target, time=time, task=task, window=window, horizon=horizon)
        target = time = None
    learners = learners or next((usual for start, usual in BY_STREAM.items() if stream.startswith(start)), USUAL)
    if track is not None:
        tracker(track)
    place = (
        Path(folder)
        if folder
        else RUNS / f"compare-{_fingerprint(stream, learners, model, seeds, budget, target, time, baselines, device)}"
    )
    with Bar(f"comparing on {stream}", quiet=json) as bar:
        result = run_comparison(
            learners,
            stream,
            model=model,
            seeds=seeds,
            budget=build_budget(budget),
            target=target,
            time=time,
            engine=engine,
            workers=workers,
            folder=place,
            resume=resume,
            baselines=baselines,
            device=_device(device),
            command=" ".join(["everlearn", *map(_quoted, sys.argv[1:])]),
            watch=bar.move,
        )
    if track is not None:
        export(result.record, track, place)
    if json:
        return print_json(result.record)
    print_comparison(result.record)
    say(f"report: {place / 'report.html'}")
    return 0


def run_(
    learner: str,
    stream: str,
    model: str = "auto",
    seed: int = 0,
    budget: str = "budget()",
    folder: str | None = None,
    device: str = "cpu",
    *,
    resume: bool,
    json: bool,
) -> int:
    """Fold one learner over one stream.

    Args:
        learner: a call string, such as replay(capacity=500)
        stream: a call string, such as split(digits, experiences=5)
        model: the network that the learner trains
        seed: seeds class order, network, memory and learner
        budget: limits, such as budget(labels=1000)
        folder: where snapshots and result.json go (default: a folder of everlearn-runs/ named by the configuration)
        device: cpu, cuda, or auto
    """
    from everlearn.comparison.building import build_budget
    from everlearn.comparison.catalog import normal
    from everlearn.comparison.job import Job, raise_fault, run_folder, run_job
    from everlearn.comparison.stream_text import stream_text
    from everlearn.comparison.usual_network import usual_network

    text, model = stream_text(stream), usual_network(model, [learner])
    place = folder or str(RUNS / f"run-{_fingerprint(learner, text, model, seed, budget)}")
    label = normal(learner)
    job = Job(
        0, label, label, text, model, seed, build_budget(budget), place, resume, _device(device), ("", str(Path.cwd()))
    )
    with Bar(f"{label} on {text}", quiet=json) as bar:
        record = run_job(job, lambda number, share: bar.move(share, int(share == 1), 1))
    if record["error"]:
        raise_fault(record)
    if json:
        return print_json({key: value for key, value in record.items() if key != "curve"})
    print_figures(record["figures"])
    say(f"folder: {run_folder(job)}")
    return 0


def study(name: str, scale: str = "quick", folder: str | None = None, *, resume: bool, json: bool) -> int:
    """Re-run the claim of a published system and say HOLDS, DOES NOT HOLD or TOO SMALL TO TELL.

    Args:
        name: which study; `everlearn list studies` names them
        scale: quick (minutes) or full
        folder: where result.json and the figure go (default: everlearn-runs/study-NAME-SCALE)
    """
    from everlearn.studies.runner import run_study
    from everlearn.studies.study import study_named

    found = study_named(name)
    place = Path(folder) if folder else RUNS / f"study-{name}-{scale}"
    with Bar(f"study {name} ({scale})", quiet=json) as bar:
        result = run_study(found, scale, place, resume=resume, watch=bar.move)
    if json:
        return print_json(result.record)
    say(result.text())
    say(f"figure: {place / 'figure.png'}")
    return 0 if result.verdict == "HOLDS" else 1


def report(folder: str, output: str | None = None, *, json: bool) -> int:
    """Make the report of a finished comparison again.

    Args:
        folder: the folder of a comparison
        output: where to write the page (default: FOLDER/report.html)
    """
    from everlearn.comparison.grid import load_comparison

    result = load_comparison(folder)
    if json:
        return print_json(result.record)
    path = result.report(output or Path(folder) / "report.html")
    print_comparison(result.record)
    say(f"report: {path}")
    return 0


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ArgumentError(f"device {name!r} was asked for, but this machine has no CUDA device; use cpu or auto.")
    if name != "cpu" and not name.startswith("cuda"):
        raise ArgumentError(f"device must be cpu, cuda, cuda:NUMBER or auto, got {name!r}.")
    return name


def _quoted(word: str) -> str:
    """A word as it would be typed in a shell: in double quotes where it holds single ones."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def _fingerprint(*settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
