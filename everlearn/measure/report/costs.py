"""The fourth question in words: what adaptation cost in time, latency, memory and labels."""

from collections.abc import Mapping
from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.numbers import code
from everlearn.measure.report.reading import Entry, find, mean, of_role, short_names, still


def costs(record: Mapping[str, Any], verdict: Mapping[str, Any]) -> list[str]:
    """Time, latency, memory and labels of the learner of the verdict, beside the frozen model and the dearest learner."""
    learners = record["learners"]
    frozen = find(learners, verdict["frozen"])
    learner = find(learners, verdict["learner"]) or frozen
    if learner is None:
        return ["No learner finished, so there is nothing to say."]
    short = short_names(learners)
    found = [
        _time(learner, frozen, code(short[learner["label"]])),
        _memory(learner),
        _labels(learner),
        _spread(record, short),
    ]
    closed = {run["used"]["closed"] for run in learner.get("runs") or [] if (run.get("used") or {}).get("closed")}
    if closed:
        found.append(f"Learning ended early, at the budget's limit of {say.listing(sorted(closed))}.")
    return [text for text in found if text] or ["Costs were not measured in this comparison."]


def _time(learner: Entry, frozen: Entry | None, name: str) -> str:
    update, tail, answer = (mean(learner, key) for key in ("update_ms", "update_ms_p99", "predict_ms_p99"))
    parts = []
    if update:
        parts.append(
            f"takes {say.milliseconds(update)} per update"
            + (f" (99 of 100 within {say.milliseconds(tail)})" if tail else "")
        )
    if answer is not None:
        parts.append(f"answers 99 of 100 predict calls within {say.milliseconds(answer)}")
    if not parts:
        return ""
    plain = mean(frozen, "predict_ms_p99")
    beside = (
        f"; {still(frozen)} within {say.milliseconds(plain)}"
        if plain is not None and answer is not None and frozen is not learner
        else ""
    )
    return f"{name} {say.listing(parts)}{beside}."


def _memory(learner: Entry) -> str:
    parts = []
    for key, told in (
        ("replay_bytes", "for replay"),
        ("model_bytes", "for the model"),
        ("peak_memory_bytes", "at its peak in all"),
    ):
        value = mean(learner, key)
        if value or (value is not None and key == "replay_bytes"):
            parts.append(f"{say.size(value) if value else 'nothing'} {told}")
    return f"Memory: {say.listing(parts)}." if parts else ""


def _labels(learner: Entry) -> str:
    parts = [
        say.plural(round(value), one)
        for key, one in (("labels", "label"), ("updates", "update"))
        if (value := mean(learner, key)) is not None
    ]
    if not parts:
        return ""
    total = mean(learner, "seconds")
    return f"It was given {say.listing(parts)}" + (f" and took {say.seconds(total)} in all, per seed." if total else ".")


def _spread(record: Mapping[str, Any], short: Mapping[str, str]) -> str:
    """The dearest and the cheapest of all learners, by their time in all."""
    timed = [entry for entry in of_role(record["learners"], "learner", "outside", "reference") if mean(entry, "seconds")]
    if len(timed) < 2:
        return ""
    most = max(timed, key=lambda entry: mean(entry, "seconds"))
    least = min(timed, key=lambda entry: mean(entry, "seconds"))
    high, low = mean(most, "seconds"), mean(least, "seconds")
    return (
        f"Of all that learn, {code(short[most['label']])} took longest ({say.seconds(high)}) and {code(short[least['label']])} was "
        f"quickest ({say.seconds(low)}): {say.ratio(high / low)} apart."
    )
