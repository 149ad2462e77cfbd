"""The fifth question in words: whether plain SGD is enough on this stream, at what cost, and which classes come too rarely."""

from collections.abc import Mapping
from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.differences import compared, turned, with_interval
from everlearn.measure.report.numbers import code
from everlearn.measure.report.plain_sgd import ENOUGH, plain_sgd
from everlearn.measure.report.reading import Entry, difference, figures, find, masked, mean, of_role, retrained, short_names
from everlearn.measure.report.recurrence import (
    accumulated,
    accuracy_on,
    apart,
    comes_back,
    facts,
    mean_of,
    rare_classes,
    rows_trained,
    unit,
)

QUESTION = "Is plain SGD enough on this stream?"
NAMED = 5  # rare classes, and groups of classes, that are named
ALIKE = 1.25  # longest over shortest gap up to which classes come about equally often


def answer_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `plain_sgd` finds in a record; None where no plain SGD stands in it."""
    return plain_sgd(record["learners"], record.get("pairs") or [])


def plain_sentence(record: Mapping[str, Any]) -> str:
    """The answer in one sentence; '' where no plain SGD stands in the comparison."""
    found = answer_of(record)
    if found is None:
        return ""
    plain, best = code(found["plain"]), code(found["best"])
    match found["reason"]:
        case "ahead":
            return f"Plain SGD is enough: {plain} is better than every other learner within the budget."
        case "within":
            return (
                f"Plain SGD is enough: {best}, the best other learner, is not better than {plain} by as much as one point."
            )
        case "behind":
            return f"Plain SGD is not enough: {best} is better by {say.points(-found['against_best']['difference'])}."
        case "reaches_zero":
            return f"Whether plain SGD is enough is too close to tell: {best} and {plain} may differ by chance alone."
        case "one_seed":
            return f"Whether plain SGD is enough is too close to tell: without an interval, {best} and {plain} may differ by chance."
        case "alone":
            return f"Whether plain SGD is enough cannot be told: no other learner finished within the budget beside {plain}."
        case _:
            return f"Whether plain SGD is enough cannot be told: {plain} did not finish."


def plain_answer(record: Mapping[str, Any]) -> list[str]:
    """The paragraphs of the answer; [] where no plain SGD stands in the comparison."""
    found, learners = answer_of(record), record["learners"]
    if found is None:
        return []
    plain = find(learners, found["plain"])
    if found["best"] is None:
        return [
            plain_sentence(record).replace("Whether plain SGD is enough cannot be told", "It cannot be told"),
            *_coming_back(record, None if found["reason"] == "failed" else plain),
        ]
    best, remedy = find(learners, found["best"]), find(learners, found["remedy"])
    texts = [
        _answer(record, found, plain, best),
        _remedy(record, found, plain, best, remedy),
        _costs(learners, plain, best, remedy),
        *_coming_back(record, plain),
        *_kept(learners, plain, best),
        *_rare(plain, best if remedy is None else remedy, learners),
        *_mask(record),
    ]
    return [text for text in texts if text]


def _answer(record: Mapping[str, Any], found: Mapping[str, Any], plain: Entry, best: Entry) -> str:
    count = _seeds(record)
    opening = {"yes": "Yes.", "no": "No.", "too_close": "Too close to tell."}[found["code"]]
    gap = found["against_best"]
    beside = (
        f"the difference is {with_interval(gap, count)}" if found["code"] == "too_close" else f"it is {compared(gap, count)}"
    )
    text = (
        f"{opening} {code(plain['label'])} scores {say.percent(mean(plain, 'score'))}. Beside the best other learner within the "
        f"budget, {code(best['label'])} ({say.percent(mean(best, 'score'))}), {beside}."
    )
    match found["reason"]:
        case "within":
            text += f" The whole interval stays above a loss of {say.points(ENOUGH, 0)}, and less than that counts as enough here."
        case "reaches_zero":
            text += " The interval reaches zero, so it may be chance; more seeds narrow it."
        case "one_seed":
            text += " That may be chance; run at least three seeds."
    return text + _beside_frozen(record, best if found["against_best"]["difference"] < 0 else plain, count)


def _beside_frozen(record: Mapping[str, Any], better: Entry, count: int) -> str:
    """A word of warning where not even the better of the two is clearly better than the model as it is."""
    frozen = next(iter(of_role(record["learners"], "frozen")), None)
    if frozen is None:
        return ""
    gain = difference(record.get("pairs") or [], better, frozen)
    if gain["clear"] and gain["difference"] > 0:
        return ""
    name = code(short_names(record["learners"])[better["label"]])
    return f" That says little: beside the frozen model, {name} is {compared(gain, count)}."


def _remedy(record: Mapping[str, Any], found: Mapping[str, Any], plain: Entry, best: Entry, remedy: Entry | None) -> str:
    """What the cheap remedies bring: a masked loss, or replay."""
    kinds = "a masked loss or replay"
    if remedy is None:
        told = f"No cheap remedy ({kinds}) stands beside it."
        masks = "" if apart(record) else "`fine_tune(loss=masked())` or "
        return told if found["code"] == "yes" else f"{told} Add {masks}`replay` to the learners."
    if remedy is best:
        return f"{code(best['label'])} is itself one of the cheap remedies ({kinds})."
    count = _seeds(record)
    beside = difference(record.get("pairs") or [], remedy, best)
    return (
        f"The best of the cheap remedies ({kinds}) is {code(remedy['label'])}, with {say.percent(mean(remedy, 'score'))}. Beside plain "
        f"SGD it is {compared(_whole(found['against_remedy']), count)}; beside {code(best['label'])} it is {compared(beside, count)}."
    )


def _whole(found: Mapping[str, Any]) -> dict[str, Any]:
    """A difference from the other side, with all that belongs to it."""
    return {**found, **turned(found)}


def _seeds(record: Mapping[str, Any]) -> int:
    found = [len((entry["summary"].get("score") or {}).get("values") or []) for entry in record["learners"]]
    return min((count for count in found if count), default=0)


def _costs(learners: list[Entry], plain: Entry, best: Entry, remedy: Entry | None) -> str:
    """Seconds, bytes and rows of plain SGD, and of those beside it as multiples of them."""
    short = short_names(learners)
    own = _cost(plain)
    if not own:
        return ""
    texts = [f"Per seed, {code(short[plain['label']])} {say.listing(own)}"]
    for entry in dict.fromkeys(entry["label"] for entry in (remedy, best) if entry is not None):
        other = find(learners, entry)
        parts = _cost(other, plain)
        if parts:
            texts.append(f"{code(short[entry])} {say.listing(parts)}")
    return "; ".join(texts) + "."


def _cost(entry: Entry, beside: Entry | None = None) -> list[str]:
    parts = []
    seconds, size, rows = mean(entry, "seconds"), mean(entry, "replay_bytes"), rows_trained(entry)
    if seconds:
        parts.append(f"takes {say.seconds(seconds)}{_times(seconds, mean(beside, 'seconds'), 'long')}")
    if size is not None:
        parts.append(f"keeps {say.size(size) if size else 'nothing'} for replay")
    if rows is not None:
        parts.append(
            f"trains on {say.plural(round(rows), 'row')}{_times(rows, rows_trained(beside) if beside else None, 'many')}"
        )
    return parts


def _times(value: float, other: float | None, size: str) -> str:
    if not other:
        return ""
    return f" (as {size})" if value == other else f" ({say.ratio(value / other)} as {size})"


def _coming_back(record: Mapping[str, Any], plain: Entry | None) -> list[str]:
    """Whether classes come back, and after how long."""
    found = facts(record)
    if found is None:
        return []
    labels = [str(label) for label in (record.get("stream") or {}).get("classes") or []]
    kind, window = unit(record)
    if (record.get("stream") or {}).get("recurrence"):
        kind, window = "task", None
    cut = f" Tasks are not told here: windows of {say.plural(window, 'event')} stand for them." if window else ""
    gaps = {label: gap for label, gap in zip(labels, found["expected_gaps"], strict=False) if say.known(gap)}
    if not gaps:
        return []
    if not comes_back(record["learners"]):
        if max(gaps.values()) == 1:
            return [f"Every {kind} has rows of every class, so no class is ever absent.{cut}"]
        return [f"No class comes back once it was absent: nothing reminds plain SGD of what it learned before.{cut}"]
    each = say.decimal(found["classes_per_task"], 1).removesuffix(".0")
    soonest, latest = min(gaps, key=gaps.__getitem__), max(gaps, key=gaps.__getitem__)
    span = f"after {_gap(gaps[soonest], kind)} ({say.quoted(soonest)}) to {_gap(gaps[latest], kind)} ({say.quoted(latest)})"
    if gaps[latest] <= ALIKE * gaps[soonest]:
        span = f"about every {_gap(sum(gaps.values()) / len(gaps), kind)}"
    return [
        f"Classes come back: a {kind} has {each} of {say.plural(len(labels), 'class', 'classes')}, and a class comes again {span}.{cut}"
    ]


def _gap(tasks: float, kind: str) -> str:
    text = say.decimal(tasks, 1 if tasks < 10 else 0).removesuffix(".0")
    return f"{text} {kind if text == '1' else kind + 's'}"


def _kept(learners: list[Entry], plain: Entry, best: Entry) -> list[str]:
    """Knowledge accumulation, where classes come back: between the task at hand and the yardstick."""
    reference, level, swing = retrained(learners), mean_of(plain, "level"), mean_of(plain, "instability")
    if level is None or not comes_back(learners):
        return []
    own, other = (accumulated(entry, reference) for entry in (plain, best))
    kind = unit_name(plain)
    if own is None:
        why = "the yardstick is not ten points higher" if reference else "that takes `retrain` beside it, as the yardstick"
        return [
            f"The classes of the {kind} at hand alone give {say.percent(level)}; how much more is kept is not known: {why}."
        ]
    short = short_names(learners)
    beside = f", {code(short[best['label']])} {_score(other)}" if other else ""
    texts = [
        f"Knowledge accumulation: {code(short[plain['label']])} has {_score(own)}{beside}.",
        f"0 is nothing kept beyond the classes of the {kind} at hand ({say.percent(level)}), 1 is as good as",
        f"{code(reference['label'])} ({say.percent(mean_of(reference, 'end'))}), trained anew on all data so far.",
        "That yardstick stands for training on the same rows in no order of tasks, which was not run.",
    ]
    if swing:
        texts.append(f"Late in the stream, accuracy still varies by {say.points(swing)} from checkpoint to checkpoint.")
    return [" ".join(texts)]


def unit_name(entry: Entry) -> str:
    """'task' or 'window', as a learner's monitor counted."""
    return unit({"learners": [entry]})[0]


def _score(found: Mapping[str, Any]) -> str:
    inside = say.interval(found["low"], found["high"], scale=1.0, places=2)
    return say.decimal(found["mean"], 2) + (f" (95{say.SPACE}% interval {inside})" if inside else "")


def _rare(plain: Entry, other: Entry, learners: list[Entry]) -> list[str]:
    """Classes that come too rarely for plain SGD, by name, and what another learner makes of them."""
    rows = rare_classes(plain)
    if not rows:
        return []
    seeds = sorted({run["seed"] for run in plain["runs"]})
    by_label: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_label.setdefault(row["label"], []).append(row)
    kind, told = unit_name(plain), []
    for label, held in by_label.items():
        own = sorted(row["seed"] for row in held)
        where = "" if own == seeds else f", seed{'s' if len(own) > 1 else ''} {say.listing(list(map(str, own)))}"
        gap, accuracy = (sum(row[key] for row in held) / len(held) for key in ("gap", "accuracy"))
        told.append(f"{say.quoted(label)} ({say.percent(accuracy)}, every {_gap(gap, kind)}{where})")
    text = f"Too rare for plain SGD: {say.listing(told, most=NAMED)}."
    own, its = accuracy_on(plain, rows), accuracy_on(other, rows)
    if own is not None and its is not None and other is not plain:
        name = code(short_names(learners)[other["label"]])
        text += f" On these classes its accuracy is {say.percent(own)}, that of {name} {say.percent(its)}."
    return [text]


def _replays(entry: Entry) -> bool:
    """Whether a learner replayed rows, which meet those at hand in its loss."""
    return any((found.get("replayed") or 0) > 0 for found in figures(entry, "memory"))


def _mask(record: Mapping[str, Any]) -> list[str]:
    """A warning where a loss is masked and classes fall into groups that never meet."""
    groups = apart(record)
    able = of_role(record["learners"], "learner", "outside")
    names = [code(entry["label"]) for entry in able if masked(entry) and not _replays(entry)]
    if not groups or not names:
        return []
    kind = "share a batch" if unit(record)[1] else "share a task"
    shown = [say.quoted(", ".join(group[:NAMED]) + (", …" if len(group) > NAMED else "")) for group in groups]
    return [
        f"Beware of the masked loss of {say.listing(names)}: classes fall into {len(groups)} groups that never {kind} "
        f"({say.listing(shown, most=NAMED)}). A masked loss never compares classes of different groups, so the model cannot rank them."
    ]
