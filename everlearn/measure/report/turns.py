"""How often watched adapters went back to an earlier state, in words: once for each learner, with the events of one seed.

The figures are those of the monitor "turned_back"; records without it say nothing.
"""

from collections.abc import Mapping
from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.numbers import code
from everlearn.measure.report.reading import Entry, mean, ranked

MOST = 6  # events that are listed
WHERE = {"last_good": "its last good state", "source": "its first state"}
TIMES = {1: "once", 2: "twice"}


def turns(record: Mapping[str, Any]) -> list[str]:
    """One sentence or two for each learner that tells of turning back, best score first."""
    return [text for entry in ranked(record["learners"]) for text in _told(entry)]


def _told(entry: Entry) -> list[str]:
    found = [(run["seed"], run["figures"]["turned_back"]) for run in entry.get("runs") or [] if _watched(run)]
    if not found:
        return []
    name = code(entry["label"])
    seed, most = max(found, key=lambda item: len(item[1]["events"]))  # the first of equals
    if not most["events"]:
        return [f"{name} never turned back in {say.seeds(len(found))}."]
    average = f"{say.decimal(mean(entry, 'turned_back'), 1)} times on average over {say.seeds(len(found))}; "
    text = f"{name} turned back {average if len(found) > 1 else ''}{_times(len(most['events']))} with seed {seed}, "
    text += f"{_events(most['events'])}. The first time {most['events'][0][2]}."
    stopped = sum(figures["stopped"] is not None for _, figures in found)
    if stopped:
        text += f" It stopped adapting for good with {say.seeds(stopped)}."
    return [text]


def _watched(run: Mapping[str, Any]) -> bool:
    return bool((run.get("figures") or {}).get("turned_back"))


def _times(number: int) -> str:
    return TIMES.get(number, f"{say.count(number)} times")


def _events(events: list[list[Any]]) -> str:
    told = [f"at event {say.count(event)} to {WHERE.get(to, to)}" for event, to, _ in events]
    return say.listing(told, most=MOST)
