"""The third question in words: what was forgotten, whether the network still learns, and when the data changed.

Forgetting is read from the accuracy matrix, lost plasticity from the share of active units and the effective rank, changes
from the stream (known) and from the alarms of drift detectors, which read the errors of the frozen model where there is one.
"""

from collections.abc import Mapping
from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.forecast_charts import recovered
from everlearn.measure.report.numbers import code
from everlearn.measure.report.reading import SKILL, Entry, find, mean, measure, of_role, retrained, short_names
from everlearn.measure.report.reading import plain as is_plain
from everlearn.measure.report.series import (
    best_and_last,
    class_losses,
    classes_at_end,
    detector_scores,
    first_and_last,
    same_sets,
    set_names,
    when_new,
)
from everlearn.measure.report.turns import turns

FORGOTTEN = 0.02  # a loss below two points is not called forgetting
UNITS_LOST = 0.10  # a tenth of all units that fell silent
RANK_LOST = 0.25  # a quarter of the effective rank
TIMES = {1: "once", 2: "twice"}
SLOWER = 0.10  # new sets learned this much worse at the end than at the start


def forgetting_and_change(record: Mapping[str, Any], verdict: Mapping[str, Any]) -> list[str]:
    """The paragraphs that answer where it forgot, where it stopped learning, and when the data changed."""
    learners = record["learners"]
    since = (record.get("stream") or {}).get("deployed") or 0
    learner = find(learners, verdict["learner"]) or find(learners, verdict["frozen"])
    paragraphs = []
    if learner is not None:
        plain = next(filter(is_plain, of_role(learners, "learner", "outside")), None)
        name = code(short_names(learners)[learner["label"]])
        paragraphs += [
            *([] if verdict["headline"] == SKILL else [_forgetting(learner, plain, name)]),
            *_weak_classes(learner),
            _plasticity(learner, retrained(learners), name, since),
        ]
    return paragraphs + _changes(record, learners, verdict) + turns(record) + recovered(record, verdict)


def _forgetting(learner: Entry, plain: Entry | None, name: str) -> str:
    sets = best_and_last(learner)
    if not sets:
        return f"Forgetting of {name} was not measured: this stream was not judged on held-out sets more than once."
    worst = max(sets, key=lambda row: row["mean"])
    found = measure(learner, "forgetting")
    average = found["mean"] if found else sum(row["mean"] for row in sets) / len(sets)
    inside = say.interval(found.get("low"), found.get("high")) if found else ""
    told = f"{say.points(average)} on average" + (f" (95{say.SPACE}% interval {inside})" if inside else "")
    if worst["mean"] < FORGOTTEN:
        text = f"{name} forgot next to nothing: {told}." if average >= 0 else f"{name} forgot nothing: {told}."
    else:
        text = (
            f"{name} forgot {told}, most of all on {say.quoted(worst['name'])}: {say.percent(worst['best'])} at its best, "
            f"{say.percent(worst['last'])} at the end."
        )
    classes = class_losses(learner) if not same_sets(learner) else []
    weakest = max(classes, key=lambda row: row["mean"], default=None)
    if weakest is not None and weakest["mean"] >= FORGOTTEN:
        text += (
            f" Of the classes, {say.quoted(weakest['name'])} lost most: {say.percent(weakest['best'])} at its best, "
            f"{say.percent(weakest['last'])} at the end."
        )
    other = None if plain is None else mean(plain, "forgetting")
    if other is not None and plain["label"] != learner["label"]:
        text += f" Plain fine-tuning forgot {say.points(other)}."
    return text


def _weak_classes(learner: Entry) -> list[str]:
    """The classes answered worst, in the user's labels, where some are much worse than the rest."""
    classes = classes_at_end(learner)
    if len(classes) < 3:
        return []
    middle = sorted(classes.values())[len(classes) // 2]
    weak = sorted((label for label in classes if classes[label] < middle - 0.10), key=classes.__getitem__)
    if not weak:
        return []
    told = [f"{say.quoted(label)} ({say.percent(classes[label])})" for label in weak]
    when = "at the end" if set_names(learner) else "since deployment"
    return [f"Weakest {when}: {say.listing(told, most=3)}; the class in the middle has {say.percent(middle)}."]


def lost_plasticity(learner: Entry, yardstick: Entry | None, since: int) -> list[str]:
    """Signs that a network learns less well than it did when it was deployed, in words; [] where there is none.

    Active units, effective rank and the accuracy on sets just learned fall in any training to some degree. A fall is a sign only
    where the learner also stands below a network that was retrained from scratch (if there is one in the comparison).
    """
    units, rank = (first_and_last(learner, "plasticity", key, since) for key in ("active_units", "effective_rank"))
    other_units, other_rank = (first_and_last(yardstick, "plasticity", key) for key in ("active_units", "effective_rank"))
    fresh, other_fresh = when_new(learner), when_new(yardstick or {})
    signs = []
    if units and units[0] - units[1] > UNITS_LOST and (not other_units or other_units[1] - units[1] > UNITS_LOST):
        signs.append("units fell silent")
    if rank and rank[1] < (1 - RANK_LOST) * rank[0] and (not other_rank or rank[1] < (1 - RANK_LOST) * other_rank[1]):
        signs.append("its features grew poorer")
    if len(fresh) > 1 and fresh[0] - fresh[-1] > SLOWER and (not other_fresh or other_fresh[-1] - fresh[-1] > SLOWER):
        signs.append("new sets were learned less well")
    return signs


def _plasticity(learner: Entry, yardstick: Entry | None, name: str, since: int) -> str:
    facts = []
    units, rank = (first_and_last(learner, "plasticity", key, since) for key in ("active_units", "effective_rank"))
    if units is not None:
        facts.append(f"active units went from {say.percent(units[0])} to {say.percent(units[1])}")
    if rank is not None:
        facts.append(f"the effective rank of its features from {say.decimal(rank[0], 1)} to {say.decimal(rank[1], 1)}")
    fresh = when_new(learner)
    if len(fresh) > 1:
        facts.append(f"new sets were learned to {say.percent(fresh[0])} at first and {say.percent(fresh[-1])} at the end")
    if units is None and rank is None:  # no network, no plasticity: later sets may be harder for other reasons
        return f"Plasticity of {name} was not measured: it trains no network."
    signs = lost_plasticity(learner, yardstick, since)
    found = f"signs of lost plasticity ({say.listing(signs)})" if signs else "no sign of lost plasticity"
    text = f"{name} shows {found}: since deployment {say.listing(facts)}."
    beside = first_and_last(yardstick, "plasticity", "effective_rank")
    if rank is not None and beside is not None:
        text += f" Retraining ends at a rank of {say.decimal(beside[1], 1)}."
    return text


def _changes(record: Mapping[str, Any], learners: Any, verdict: Mapping[str, Any]) -> list[str]:
    stream = record.get("stream") or {}
    known = [event for event in stream.get("changes") or [] if event > 0]
    if known:
        where = say.listing([say.count(event) for event in known], most=8)
        paragraphs = [
            f"The data is known to change {TIMES.get(len(known), f'{say.count(len(known))} times')}, at event"
            f"{'' if len(known) == 1 else 's'} {where} of {say.count(stream.get('events'))}."
        ]
    else:
        paragraphs = ["No change of the data is known beforehand."]
    watched = next(
        (
            entry
            for entry in (find(learners, verdict["frozen"]), find(learners, verdict["learner"]))
            if detector_scores(entry or {})
        ),
        None,
    )
    if watched is None:
        return paragraphs
    told = []
    for detector, scores in detector_scores(watched).items():
        parts = []
        possible = scores["changes"] if say.known(scores["changes"]) else len(known)
        if possible and say.known(scores["found"]):
            found = say.decimal(scores["found"], 1).removesuffix(".0")
            parts.append(f"found {found} of {say.decimal(possible, 1).removesuffix('.0')}")
        if say.known(scores["delay"]) and scores["found"]:
            parts.append(f"{say.decimal(scores['delay'], 0)} events late")
        if say.known(scores["false_per_1000"]):
            parts.append(f"{say.decimal(scores['false_per_1000'], 1)} false alarms per 1,000 rows")
        if parts:
            told.append(f"{code(detector)}: {', '.join(parts)}")
    if told:
        paragraphs.append(f"Drift detectors on the errors of {code(watched['label'])}. {'; '.join(told)}.")
    return paragraphs
