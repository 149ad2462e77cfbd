"""The table of learners: one row each, mean and half-width of the 95 % interval over seeds. The page and the terminal share it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.measures import BY_KEY, COLUMNS, Measure
from everlearn.measure.report.reading import Entry, half_width, mean, ranked, role
from everlearn.measure.report.words import verdict_of

MARKS = {"frozen": "not adapted", "reference": "yardstick", "outside": "over budget", "failed": "failed", "learner": ""}


@dataclass(frozen=True)
class Cell:
    """value: for sorting (None where there is none); text: mean; spread: half-width or ''; best: whether none is better."""

    value: float | None
    text: str
    spread: str
    best: bool = False

    def written(self, item: Measure) -> str:
        """The figure in full, with its unit: '3.5 ± 0.3 points'."""
        if self.value is None or not item.interval:
            return item.write(self.value)
        return f"{self.text} {self.spread}".strip() + (say.SPACE + item.unit if item.unit else "")


@dataclass(frozen=True)
class Line:
    """One learner: label, role, mark (what to say of it, '' for nothing), error, and its cells in the order of the columns."""

    label: str
    role: str
    mark: str
    error: str
    cells: list[Cell]


def columns_of(record: Mapping[str, Any]) -> list[Measure]:
    """The measures that at least one learner has, in the order of the table."""
    return [BY_KEY[key] for key in COLUMNS if any(mean(entry, key) is not None for entry in record["learners"])]


def lines(record: Mapping[str, Any]) -> list[Line]:
    """The table's rows, best score first, learners that failed last."""
    verdict, measures = verdict_of(record), columns_of(record)
    best = {item.key: _best(record, item) for item in measures}
    found = []
    for entry in ranked(record["learners"]):
        label, part = entry["label"], role(entry)
        mark = MARKS[part]
        if label == verdict["recommended"]:
            mark = "recommended"
        elif label == verdict["learner"]:
            mark = "best that adapts"
        elif label == verdict["runner_up"]:
            mark = "runner-up"
        error = " ".join(str(entry.get("error") or "no score").split()) if part == "failed" else ""
        found.append(Line(label, part, mark, error, [cell(entry, item, best[item.key]) for item in measures]))
    return found


def cell(entry: Entry, item: Measure, best: float | None = None) -> Cell:
    """One figure of one learner; `best` is the best of its column among learners that may be recommended."""
    value, half = mean(entry, item.key), half_width(entry, item.key)
    if value is None:
        return Cell(None, say.NONE, "")
    places = _places(value * item.scale, item)
    spread = f"± {say.decimal(half * item.scale, places)}" if item.interval and half is not None else ""
    counts = role(entry) == "learner" and item.better != ""
    return Cell(value, say.decimal(value * item.scale, places), spread, counts and best is not None and value == best)


def _places(scaled: float, item: Measure) -> int:
    """Decimal places of a figure and of its half-width: one for accuracies and ranks, two significant figures for the rest.

    Errors in units of the target have as many as the measure says: nobody knows whether those are millionths or millions.
    """
    if item.figures:
        return max(0, item.figures - 1 - math.floor(math.log10(abs(scaled)))) if scaled else 0
    if item.unit in ("%", "points"):
        return 1
    if item.unit == "" and item.interval:
        return 1
    if item.unit == "" or scaled == 0 or abs(scaled) >= 100:
        return 0
    return max(1, 1 - math.floor(math.log10(abs(scaled))))


def _best(record: Mapping[str, Any], item: Measure) -> float | None:
    """The best figure among learners that may be recommended; None where one alone has it."""
    values = [mean(entry, item.key) for entry in record["learners"] if role(entry) == "learner"]
    known = [value for value in values if value is not None]
    if len(known) < 2 or not item.better or not item.interval or min(known) == max(known):
        return None
    return max(known) if item.better == "high" else min(known)
