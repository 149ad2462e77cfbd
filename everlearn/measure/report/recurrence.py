"""Reading what a record knows of classes that come back: how often they come, which are too rare, how much stays known of them.

The figures are those of the monitor "accumulation", seed by seed; where the stream itself knows how its classes come back
(`stream["recurrence"]`), that is what is told of it. Pure functions of the comparison record.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from everlearn.measure.accumulation import accumulation_score
from everlearn.measure.report.numbers import known
from everlearn.measure.report.reading import Entry, figures, role
from everlearn.measure.statistics import mean_interval

ACCUMULATION = "accumulation"
ROOM = 0.10  # a yardstick less than ten points above the level leaves too little room for a score
RARE = 0.5  # a class that comes less than half as often as the average class ...
WEAK = 0.10  # ... and is answered ten points worse than all classes together is too rare


def comes_back(learners: Sequence[Entry]) -> bool:
    """Whether a class came back after a task without it, in at least one run."""
    return any((found.get("returning") or 0) > 0 for entry in learners for found in figures(entry, ACCUMULATION))


def facts(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """tasks, classes_per_task, expected_gaps, connected, components: of the stream where it knows, else as the first run saw it."""
    told = (record.get("stream") or {}).get("recurrence")
    seen = [found["recurrence"] for entry in record["learners"] for found in figures(entry, ACCUMULATION)]
    found = told or next((one for one in seen if one.get("tasks")), None)
    return dict(found) if found and found.get("tasks") else None


def unit(record: Mapping[str, Any]) -> tuple[str, int | None]:
    """('task', None), or ('window', events) where tasks are not told and windows of events stand for them."""
    found = next((found for entry in record["learners"] for found in figures(entry, ACCUMULATION)), {})
    return (found.get("unit") or "task", found.get("window") if found.get("unit") == "window" else None)


def apart(record: Mapping[str, Any]) -> list[list[str]]:
    """The groups of classes that never meet, in the user's labels; [] where a chain of meetings joins all classes."""
    told = (record.get("stream") or {}).get("recurrence")
    seen = [found["recurrence"] for entry in record["learners"] for found in figures(entry, ACCUMULATION)]
    found = next((one for one in [*([told] if told else []), *seen] if one.get("connected") is False), None)
    if found is None:
        return []
    labels = [str(label) for label in (record.get("stream") or {}).get("classes") or []]
    return [[labels[number] if number < len(labels) else str(number) for number in group] for group in found["components"]]


def rare_classes(entry: Entry) -> list[dict[str, Any]]:
    """Classes that come too rarely for this learner, the rarest first: label, seed, gap (tasks), accuracy.

    They come less than half as often as the average class and are answered ten points worse than all classes together.
    """
    rows = []
    for run in entry.get("runs") or []:
        found = (run.get("figures") or {}).get(ACCUMULATION) or {}
        classes = [row for row in found.get("by_frequency") or [] if row["frequency"] > 0]
        if not classes or not known(found.get("end")):
            continue
        usual = sum(row["frequency"] for row in classes) / len(classes)
        rows += [
            {"label": row["label"], "seed": run["seed"], "gap": 1 / row["frequency"], "accuracy": row["accuracy"]}
            for row in classes
            if row["frequency"] < RARE * usual and row["accuracy"] < found["end"] - WEAK
        ]
    return sorted(rows, key=lambda row: (-row["gap"], row["label"]))


def accuracy_on(entry: Entry, classes: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean accuracy of a learner on classes given by label and seed; None where it was not judged on all of them."""
    held = {run["seed"]: (run["figures"].get(ACCUMULATION) or {}).get("per_class") or {} for run in entry.get("runs") or []}
    found = [held.get(row["seed"], {}).get(row["label"]) for row in classes]
    return sum(found) / len(found) if found and all(map(known, found)) else None


def accumulated(entry: Entry, reference: Entry | None) -> dict[str, Any] | None:
    """The knowledge accumulation score of a learner over seeds (mean, low, high), its A_iid being what the reference reached.

    None where a figure is missing, or where the reference stands less than ten points above the level.
    """
    ends = {run["seed"]: run["figures"].get(ACCUMULATION) or {} for run in (reference or {}).get("runs") or []}
    scores = []
    for run in entry.get("runs") or []:
        own, best = run["figures"].get(ACCUMULATION) or {}, ends.get(run["seed"], {}).get("end")
        if not (known(own.get("end")) and known(own.get("level")) and known(best)) or best - own["level"] < ROOM:
            return None
        scores.append(accumulation_score(own["end"], own["level"], best))
    if not scores or not all(map(known, scores)):
        return None
    mean, low, high = mean_interval(scores)
    return {"mean": mean, "low": low, "high": high}


def mean_of(entry: Entry | None, key: str) -> float | None:
    """The mean over seeds of one figure of the monitor; None where a seed lacks it."""
    found = [figure.get(key) for figure in figures(entry, ACCUMULATION)]
    return sum(found) / len(found) if found and all(map(known, found)) else None


def rows_trained(entry: Entry) -> float | None:
    """Rows that a learner took gradient steps on, per seed: labels x passes + rows replayed; None where that is not counted."""
    if role(entry) in ("reference", "frozen"):  # training from scratch goes over its rows in a way of its own
        return None
    counts = []
    for run in entry.get("runs") or []:
        held = run.get("figures") or {}
        passes, labels = (held.get(ACCUMULATION) or {}).get("passes"), (run.get("used") or {}).get("labels")
        if not (known(passes) and known(labels)):
            return None
        counts.append(labels * passes + ((held.get("memory") or {}).get("replayed") or 0))
    return sum(counts) / len(counts) if counts else None
