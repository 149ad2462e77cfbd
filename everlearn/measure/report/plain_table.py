"""Plain SGD beside the learners that it is weighed against, as a table: score, what is kept, seconds, bytes, rows trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.plain_sgd import REMEDIES
from everlearn.measure.report.plain_words import answer_of
from everlearn.measure.report.reading import Entry, find, half_width, mean, of_role, retrained
from everlearn.measure.report.recurrence import accumulated, accuracy_on, comes_back, rare_classes, rows_trained

MOST = 8  # learners in the table


@dataclass(frozen=True)
class PlainTable:
    """headings: of the columns after the learner's; rows: (label, texts in the order of the headings)."""

    headings: list[str]
    rows: list[tuple[str, list[str]]]


def plain_table(record: Mapping[str, Any]) -> PlainTable | None:
    """The table, best score first; None where there is nothing to weigh. Columns that no learner has are left out."""
    found, learners = answer_of(record), record["learners"]
    if found is None or found["best"] is None:
        return None
    entries = _entries(learners, found)
    plain, reference = find(learners, found["plain"]), retrained(learners)
    rare = rare_classes(plain)
    columns = {
        "Score": [_score(entry) for entry in entries],
        "Accumulation": [_accumulation(entry, reference) if comes_back(learners) else "" for entry in entries],
        "Rare classes": [_known(say.percent, accuracy_on(entry, rare)) for entry in entries],
        "Total time": [_known(say.seconds, mean(entry, "seconds")) for entry in entries],
        "Replay memory": [_known(_size, mean(entry, "replay_bytes")) for entry in entries],
        "Rows trained on": [_known(say.count, rows_trained(entry)) for entry in entries],
    }
    shown = {heading: texts for heading, texts in columns.items() if any(texts)}
    rows = [
        (entry["label"], [texts[number] or say.NONE for texts in shown.values()]) for number, entry in enumerate(entries)
    ]
    return PlainTable(list(shown), rows)


def _entries(learners: list[Entry], found: Mapping[str, Any]) -> list[Entry]:
    """Plain SGD, the best learner, the cheap remedies and the yardstick; the best by score where they are many."""
    kept = {found["plain"], found["best"], found["remedy"]}
    kept |= {entry["label"] for entry in of_role(learners, "reference")[:1]}
    cheap = [entry for entry in of_role(learners, "learner") if entry["name"] in REMEDIES]
    for entry in cheap:
        if len(kept - {None}) < MOST:
            kept.add(entry["label"])
    return [entry for entry in of_role(learners, "learner", "outside", "reference") if entry["label"] in kept]


def _score(entry: Entry) -> str:
    half = half_width(entry, "score")
    return say.percent(mean(entry, "score")) + (f" ± {say.decimal(100 * half, 1)}" if half is not None else "")


def _accumulation(entry: Entry, reference: Entry | None) -> str:
    found = accumulated(entry, reference)
    return "" if found is None else say.decimal(found["mean"], 2)


def _size(value: float) -> str:
    return say.size(value) if value else "none"


def _known(write: Any, value: float | None) -> str:
    return "" if value is None else write(value)
