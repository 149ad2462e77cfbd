"""`compare`: learners x seeds over one stream under one budget, and what came of it in one record and one report."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import yaml

from everlearn.comparison.building import build_budget, build_learner, warn_of_mask
from everlearn.comparison.catalog import learners as known_learners
from everlearn.comparison.catalog import normal
from everlearn.comparison.engines import engine_named
from everlearn.comparison.job import Job, LearnerSource, StreamSource, raise_fault, reach, stream_of
from everlearn.comparison.stream_text import stream_text
from everlearn.comparison.summary import FORECAST, HEADLINES, pairs, summarise
from everlearn.comparison.usual_network import usual_network
from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, DataError, StateError, check_count
from everlearn.core.lock import held
from everlearn.core.run import environment
from everlearn.core.state import write_atomic
from everlearn.core.stream import Stream

BASELINES = {
    "classes": ("frozen", "fine_tune", "retrain"),
    "values": ("persistence", "forecaster", "forecaster(refit=every(144))"),  # nothing, fitted once, fitted again
}
CONFIG, RESULT, REPORT = "comparison.yaml", "result.json", "report.html"

Watch = Callable[[float, int, int], None]


@dataclass
class Comparison:
    """What a comparison found. `record` is everything (the content of result.json); `folder` is where it lies, if anywhere."""

    record: dict[str, Any] = field(repr=False)
    folder: Path | None = None

    @property
    def verdict(self) -> dict[str, Any]:
        """code ('adapt', 'do_not_adapt', 'too_close'), the learner recommended, the runner-up."""
        return self.record["verdict"]

    def score(self, label: str) -> dict[str, Any]:
        """mean, low, high and values of the headline measure for one learner."""
        for learner in self.record["learners"]:
            if learner["label"] == label:
                return learner["summary"]["score"]
        labels = [learner["label"] for learner in self.record["learners"]]
        raise ArgumentError(f"no learner {label!r} in this comparison; there are: {', '.join(labels)}.")

    def __str__(self) -> str:
        """The verdict in a sentence, and each learner's score: mean and half-width of its 95 % interval."""
        from everlearn.measure.report import verdict_sentence

        rows = [verdict_sentence(self.record)]
        for learner in self.record["learners"]:
            score = learner["summary"].get("score")
            shown = f"failed: {learner['error']}"
            if score is not None:
                shown = (
                    f"{score['mean']:.3f}"
                    if score["low"] is None
                    else f"{score['mean']:.3f} ± {score['high'] - score['mean']:.3f}"
                )
            rows.append(f"{learner['label']}  {shown}")
        return "\n".join(rows)

    def report(self, path: str | Path) -> Path:
        """Write the report to a file of its own."""
        from everlearn.measure.report import write_report

        write_report(self.record, Path(path))
        return Path(path)


def compare(
    learners: Sequence[str] | Mapping[str, LearnerSource] | str,
    stream: StreamSource,
    *,
    model: str = "auto",
    seeds: int | Sequence[int] = 3,
    budget: Budget | str | None = None,
    target: str | None = None,
    time: str | None = None,
    engine: str = "process",
    workers: int | None = None,
    folder: str | Path | None = None,
    resume: bool = True,
    baselines: bool = True,
    device: str = "cpu",
    command: str | None = None,
    watch: Watch | None = None,
) -> Comparison:
    """Run learners x seeds over one stream and say whether adapting was worth it.

    learners: call strings such as "replay(capacity=500)", or {label: function (schema, seed) -> Learner};
    stream: a call string such as "split(digits, experiences=5)", or a function seed -> Stream;
    model: the network that every learner trains ("mlp(hidden=(100,))", "mymodule:build"; "auto": one that suits the rows and all of
    the learners);
    target, time: the columns to predict and to order by, where stream is the path of a CSV or Parquet file;
    seeds: how many (0, 1, ...), or which; one seed seeds class order, network, memory and learner;
    engine: "process", "inline", "ray" or a Ray address; workers: processes at once (all processors by default);
    folder: where runs, result.json and report.html go; the same call on the same folder goes on where it stopped;
    budget: limits, as a Budget or a call string such as "budget(replay=500)";
    baselines: whether frozen, fine_tune and retrain (or persistence and a forecaster, fitted once and on a schedule, where answers
    are values) are added where they are not named;
    watch: called with (share done 0..1, runs done, runs in all).

    Raises SpecError for names that mean nothing, StateError for a folder of another comparison.
    """
    given = _named(learners, baselines)
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    check_count("compare", "seeds", len(numbers))
    wrong = [seed for seed in numbers if not isinstance(seed, int)]
    if wrong:
        raise ArgumentError(f"compare: a seed must be an int, got {wrong[0]!r}.")
    budget = build_budget(budget) if isinstance(budget, str) else budget or Budget()
    if not isinstance(budget, Budget):
        raise ArgumentError(f"compare: budget must be a Budget or 'budget(labels=1000)', got {type(budget).__name__}.")
    workers = (os.cpu_count() or 1) if workers is None else workers
    check_count("compare", "workers", workers)
    reach(["", os.getcwd()])  # mymodule:build in the folder where one stands
    if isinstance(stream, str):
        stream = stream_text(stream, target=target, time=time)
    sample = stream_of(stream, numbers[0])
    names = {**_baselines(given, sample), **given} if baselines else given
    model = usual_network(model, names.values())
    config = {
        "stream": sample.name if not isinstance(stream, str) else stream,
        "model": normal(model),
        "learners": list(names),
        "seeds": numbers,
        "budget": repr(budget),
        "device": device,
    }
    _try(names, sample, model, numbers[0])
    started = monotonic()
    with _held(folder, config, resume) as place:
        jobs = _jobs(names, stream, config, budget, place, resume, device)
        records = _collect(jobs, engine, workers, watch)
        _some_finished(records)
        config |= {"engine": engine, "command": command}
        record = assemble(records, sample, config, budget, monotonic() - started)
        if place is not None:
            write_atomic(place / RESULT, json.dumps(record).encode())
    result = Comparison(record, place)
    if place is not None:
        result.report(place / REPORT)
    return result


def load_comparison(folder: str | Path) -> Comparison:
    """The comparison that lies in a folder."""
    path = Path(folder) / RESULT
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise StateError(f"{path} does not exist: no finished comparison lies in the folder {str(folder)!r}.") from error
    except (OSError, ValueError) as error:
        raise StateError(f"{path} cannot be read: {error}") from error
    if record.get("kind") != "comparison":
        raise StateError(f"{path} is not the result of a comparison.")
    return Comparison(record, Path(folder))


def _baselines(given: Mapping[str, LearnerSource], stream: Stream) -> dict[str, LearnerSource]:
    """The baselines of a stream that are not named already."""
    held = {label.split("(")[0] for label in given if "loss=masked" not in label}  # a masked loss is no plain baseline
    held = (held - {"forecaster"}) | set(given)  # forecasters are many things by one name
    return {name: name for name in BASELINES[stream.schema.answers] if name not in held}


def _named(learners: Any, baselines: bool) -> dict[str, LearnerSource]:
    """Labels with what they stand for, refused before anything runs."""
    from everlearn.core.spec import split_list

    if isinstance(learners, str):
        learners = split_list(learners)
    given = dict(learners) if isinstance(learners, Mapping) else {normal(text): normal(text) for text in learners}
    if not given and not baselines:
        raise ArgumentError("compare: no learner was named; try learners=['replay(capacity=500)'].")
    for source in given.values():
        if isinstance(source, str) and ":" not in source:
            _known(source)
    return given


def _known(text: str) -> None:
    from everlearn.core.errors import SpecError, closest

    name = text.split("(")[0]
    if name not in known_learners():
        raise SpecError(closest("learner", name, known_learners()))


def _try(names: Mapping[str, LearnerSource], stream: Stream, model: str, seed: int) -> None:
    """Build every learner once, so that a wrong argument or a network that does not fit is refused before anything runs."""
    if len(stream) == 0:
        raise DataError(f"{stream.name} is empty: there is nothing to learn from.")
    for source in names.values():
        if isinstance(source, str):
            warn_of_mask(build_learner(source, stream, model, seed), stream)


def _some_finished(records: Sequence[dict[str, Any]]) -> None:
    if all(record["error"] for record in records):
        raise_fault(records[0], f"no learner finished. {records[0]['label']}: ")


def _jobs(
    names: Mapping[str, LearnerSource],
    stream: StreamSource,
    config: Mapping[str, Any],
    budget: Budget,
    place: Path | None,
    resume: bool,
    device: str,
) -> list[Job]:
    path = tuple(dict.fromkeys(["", os.getcwd(), *sys.path]))
    folder = None if place is None else str(place.resolve())
    cells = [(label, source, seed) for seed in config["seeds"] for label, source in names.items()]
    return [
        Job(number, label, source, stream, config["model"], seed, budget, folder, resume, device, path)
        for number, (label, source, seed) in enumerate(cells)
    ]


def _collect(jobs: Sequence[Job], engine: str, workers: int, watch: Watch | None) -> list[dict[str, Any]]:
    """The records of all jobs, with progress told as they come."""
    shares = [0.0] * len(jobs)
    records: list[dict[str, Any]] = []

    def progress(number: int, share: float) -> None:
        shares[number] = max(shares[number], share)
        if watch is not None:
            watch(sum(shares) / len(shares), len(records), len(jobs))

    for record in engine_named(engine)(jobs, workers, progress):
        records.append(record)
        number = next(job.number for job in jobs if job.label == record["label"] and job.seed == record["seed"])
        progress(number, 1.0)
    return records


def assemble(
    records: Sequence[dict[str, Any]], stream: Stream, config: dict[str, Any], budget: Budget, seconds: float
) -> dict[str, Any]:
    """The comparison record of docs/architecture.md from the records of its runs."""
    from everlearn.measure.report import decide

    headline = FORECAST if stream.schema.answers == "values" else HEADLINES[stream.headline]
    entries = [
        summarise(label, [record for record in records if record["label"] == label], headline, budget)
        for label in config["learners"]
    ]
    differences = pairs(entries)
    return {
        "kind": "comparison",
        "format": 1,
        "config": config | {"budget_limits": asdict(budget)},
        "stream": {
            "name": config["stream"],
            "events": len(stream),
            "deployed": stream.deployed,
            "changes": list(stream.changes),
            "checkpoints": list(stream.checkpoints),
            "held_out": [stream.held_out[index].name for index in range(len(stream.held_out))],
            "classes": list(stream.schema.classes),
            "headline": headline,
            "boundaries": stream.boundaries,
            "recurrence": _recurrence(stream),
        },
        "learners": entries,
        "pairs": differences,
        "verdict": decide(entries, differences, headline),
        "environment": environment(config["device"]),
        "seconds": seconds,
    }


def _recurrence(stream: Stream) -> dict[str, Any] | None:
    """How the classes of a stream come back, where it knows; plain JSON."""
    facts = getattr(stream, "recurrence", None)
    return None if facts is None else json.loads(json.dumps(asdict(facts), allow_nan=False))


def _settings(path: Path) -> dict[str, Any]:
    """The settings of the comparison that lies in a folder."""
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise StateError(f"{path} cannot be read: {' '.join(str(error).split())}. Start anew with --no-resume.") from error
    if not isinstance(found, dict):
        raise StateError(f"{path} does not hold the settings of a comparison. Start anew with --no-resume.")
    return found


@contextmanager
def _held(folder: str | Path | None, config: dict[str, Any], resume: bool) -> Iterator[Path | None]:
    """The folder of a comparison, held by this process alone; refused where another comparison lies in it."""
    if folder is None:
        yield None
        return
    with held(Path(folder), "choose another --folder") as place:
        path = place / CONFIG
        if path.exists() and resume:
            standing = _settings(path)
            differ = [key for key in config if standing.get(key) != config[key]]
            if differ:
                told = "; ".join(f"{key}: {standing.get(key)!r} there, {config[key]!r} now" for key in differ)
                raise StateError(f"{place} holds another comparison ({told}). Choose another --folder, or use --no-resume.")
        else:
            write_atomic(path, yaml.safe_dump(config, sort_keys=False).encode())
        yield place
