"""What the figures say, in plain sentences: the verdict, and answers to the questions that a report must answer.

Pure functions of the comparison record. Call strings stand between backticks, which pages and terminals set in their own way.
Accuracies are percent, differences of accuracies are points (percentage points), intervals are 95 % over seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from everlearn.measure.report import numbers as say
from everlearn.measure.report.changes import forgetting_and_change
from everlearn.measure.report.costs import costs
from everlearn.measure.report.differences import compared, with_interval
from everlearn.measure.report.numbers import code
from everlearn.measure.report.plain_words import QUESTION, plain_answer
from everlearn.measure.report.reading import PREQUENTIAL, SKILL, Entry, difference, find, mean, of_role, short_names, still
from everlearn.measure.report.reading import plain as is_plain
from everlearn.measure.report.verdict import decide

__all__ = ["code", "decide", "score_in_words", "sentences", "verdict_of", "verdict_sentence"]

QUESTIONS = (
    "Is adapting worth it here?",
    "Which learner, under this budget?",
    "Where did it forget, where did it stop learning, when did the data change?",
    "What did it cost?",
)


def verdict_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record's verdict, computed from its figures where a part of it is missing."""
    computed = decide(record["learners"], record.get("pairs") or [], record.get("stream", {}).get("headline", "held_out"))
    return computed | (record.get("verdict") or {})


def score_in_words(record: Mapping[str, Any]) -> str:
    """What the score of this comparison is."""
    stream = record.get("stream") or {}
    if verdict_of(record)["headline"] == PREQUENTIAL:
        return "accuracy of answers given before their labels were known, from deployment to the end"
    if verdict_of(record)["headline"] == SKILL:
        return "skill of forecasts over persistence, each given before its answer was known, from deployment to the end"
    sets = len(stream.get("held_out") or [])
    if sets == 1:
        return "accuracy at the end on the held-out set"
    return f"accuracy at the end, averaged over {'the ' + str(sets) if sets else 'all'} held-out sets"


def verdict_sentence(record: Mapping[str, Any]) -> str:
    """The verdict in one sentence."""
    verdict = verdict_of(record)
    learner, gain = code(verdict["learner"]), verdict["gain"]
    frozen = find(record["learners"], verdict["frozen"])
    simple = still(frozen) == "persistence"
    leaving, as_it_is = ("persistence", "persistence") if simple else ("leaving the model as it is", "the model as it is")
    match verdict["reason"]:
        case "clear_gain":
            return f"Adapt, with {learner}: {say.points(gain['difference'])} better than {leaving}."
        case "no_gain":
            return f"Do not adapt: no learner within the budget does better than {as_it_is}."
        case "no_learner":
            return "Do not adapt: no learner finished within the budget."
        case "reaches_zero":
            return f"Too close to tell: the gain of {learner} over {as_it_is} may be chance."
        case "one_seed":
            return f"Too close to tell: {learner} is ahead, but one seed cannot show that this is more than chance."
        case _:
            return f"Too close to tell: no {_missing(record)} stands in this comparison, so a gain cannot be measured."


def _missing(record: Mapping[str, Any]) -> str:
    """The learner that a gain is measured against, where it is not there."""
    return "persistence" if verdict_of(record)["headline"] == SKILL else "frozen model"


def sentences(record: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The questions with their answers, each a list of paragraphs; the one of plain SGD where such a learner stands here."""
    verdict = verdict_of(record)
    answers = (
        _worth(record, verdict),
        _which(record, verdict),
        forgetting_and_change(record, verdict),
        costs(record, verdict),
    )
    plain = plain_answer(record)
    return list(zip(QUESTIONS, answers, strict=True)) + ([(QUESTION, plain)] if plain else [])


def _worth(record: Mapping[str, Any], verdict: Mapping[str, Any]) -> list[str]:
    """Question 1: gain over frozen, over retraining, over plain fine-tuning."""
    learners = record["learners"]
    learner, frozen = find(learners, verdict["learner"]), find(learners, verdict["frozen"])
    if learner is None:
        failed, outside = len(of_role(learners, "failed")), len(of_role(learners, "outside"))
        why = f"{say.plural(outside, 'learner')} broke the budget and {failed} ended in an error"
        return [f"No learner can be recommended: {why}. Leave the model as it is, or widen the budget."]
    return [
        _gain(learner, frozen, verdict),
        *_beside_retraining(learners, verdict, learner),
        *_beside_fine_tuning(record, verdict, learner, frozen),
        f"A score is the {score_in_words(record)}.",
    ]


def _gain(learner: Entry, frozen: Entry | None, verdict: Mapping[str, Any]) -> str:
    scores = f"{code(learner['label'])} scores {say.percent(mean(learner, 'score'))}"
    if frozen is None:
        name = "persistence" if verdict["headline"] == SKILL else "frozen"
        told = "persistence" if verdict["headline"] == SKILL else "frozen model"
        return f"It cannot be told. {scores}, but no {told} stands in this comparison. Add `{name}` to the learners."
    scores += f", {still(frozen)} {say.percent(mean(frozen, 'score'))}"
    gained = with_interval(verdict["gain"], verdict["seeds"])
    match verdict["reason"]:
        case "clear_gain":
            return f"Yes. {scores}: a gain of {gained}."
        case "no_gain":
            return (
                f"No. {scores}: a difference of {gained}, and no other learner within the budget does better. "
                f"Adapting would cost time and bring nothing; {_leave(frozen)}."
            )
        case "reaches_zero":
            return (
                f"Too close to tell. {scores}: a gain of {gained}. The interval reaches zero, so the gain may be chance. "
                f"More seeds narrow it; until then, {_leaving(frozen)} costs less."
            )
        case _:
            return (
                f"Too close to tell. {scores}: a gain of {gained}. "
                "One seed cannot show whether that is chance; run at least three."
            )


def _leave(frozen: Entry) -> str:
    return "forecast the newest value" if still(frozen) == "persistence" else "leave the model as it is"


def _leaving(frozen: Entry) -> str:
    return "forecasting the newest value" if still(frozen) == "persistence" else "leaving the model as it is"


def _beside_retraining(learners: Sequence[Entry], verdict: Mapping[str, Any], learner: Entry) -> list[str]:
    retrain, found = find(learners, verdict["retrain"]), verdict["against_retrain"]
    if verdict["headline"] == SKILL and retrain is None:
        return []
    if retrain is None or found is None:
        return ["Retraining from scratch is not part of this comparison, so the gain over it is not known."]
    text = (
        f"Retraining from scratch on all data so far ({code(retrain['label'])}, a yardstick that may exceed the budget) scores "
        f"{say.percent(mean(retrain, 'score'))}. Beside it, {code(short_names(learners)[learner['label']])} is "
        f"{compared(found, verdict['seeds'])}."
    )
    own, other = mean(learner, "seconds"), mean(retrain, "seconds")
    if own and other and other / own > 1.05:
        text += f" Retraining takes {say.ratio(other / own)} as long ({say.seconds(other)} against {say.seconds(own)})."
    return [text]


def _beside_fine_tuning(
    record: Mapping[str, Any], verdict: Mapping[str, Any], learner: Entry, frozen: Entry | None
) -> list[str]:
    able = of_role(record["learners"], "learner", "outside")
    plain = next(filter(is_plain, able), None)
    if plain is None or plain["label"] == learner["label"]:
        return []
    text = f"Plain fine-tuning scores {say.percent(mean(plain, 'score'))}"
    if frozen is not None:
        found = difference(record.get("pairs") or [], plain, frozen)
        text += f"; beside {still(frozen)} it is {compared(found, verdict['seeds'])}"
    return [text + "."]


def _which(record: Mapping[str, Any], verdict: Mapping[str, Any]) -> list[str]:
    """Question 2: the choice, the runner-up, what was given up, what was not considered."""
    learners = record["learners"]
    learner, second = find(learners, verdict["learner"]), find(learners, verdict["runner_up"])
    paragraphs = []
    if learner is not None:
        name = code(learner["label"])
        opening = {
            "adapt": f"Use {name}.",
            "do_not_adapt": f"None: keep {still(find(learners, verdict['frozen']))}. The best that adapts would be {name}.",
            "too_close": f"{name}, if you adapt at all.",
        }[verdict["code"]]
        paragraphs.append(" ".join([opening, *_runner_up(learners, verdict, learner, second)]))
        given = _given_up(learners, verdict, learner)
        if given:
            verb = "gives" if verdict["code"] == "adapt" else "would give"
            paragraphs.append(f"What it {verb} up: {'; '.join(given)}.")
    budget = (record.get("config") or {}).get("budget")
    limited = budget and budget not in ("budget()", "None")
    paragraphs.append(f"The budget: {code(budget)}." if limited else "No limit was set on the budget.")
    for entry in of_role(learners, "outside"):
        scored = say.percent(mean(entry, "score"))
        paragraphs.append(f"{code(entry['label'])} scores {scored} but broke the budget, so it is not recommended.")
    for entry in of_role(learners, "failed"):
        reason = " ".join(str(entry.get("error") or "it has no score").replace("`", "’").split())
        paragraphs.append(f"{code(entry['label'])} did not finish: {reason}")
    return paragraphs


def _runner_up(learners: Sequence[Entry], verdict: Mapping[str, Any], learner: Entry, second: Entry | None) -> list[str]:
    if second is None:
        return ["No other learner within the budget finished, so there is no runner-up."]
    short = short_names(learners)
    name, found, count = code(short[learner["label"]]), verdict["against_runner_up"], verdict["seeds"]
    if not verdict["close"]:
        scored = say.percent(mean(second, "score"))
        return [f"The runner-up, {code(second['label'])}, scores {scored}: {name} is {compared(found, count)}."]
    text = f"It is too close to tell between {name} and {code(second['label'])}: the difference is {with_interval(found, count)}."
    own, its = mean(learner, "update_ms"), mean(second, "update_ms")
    if own is None or its is None:
        return [text, f"{name} has the higher mean."]
    times = f"{say.milliseconds(own)} against {say.milliseconds(its)}"
    if verdict["cheaper"]:
        return [text, f"{name} is preferred because its update is cheaper ({times})."]
    return [text, f"{name} has the higher mean{' and the cheaper update' if own < its else ''} ({times} per update)."]


def _given_up(learners: Sequence[Entry], verdict: Mapping[str, Any], learner: Entry) -> list[str]:
    """Accuracy against retraining, memory, and time, each where known."""
    given = []
    found = verdict["against_retrain"]
    if found is not None and found["clear"] and found["difference"] < 0:
        given.append(f"{say.points(-found['difference'])} of accuracy against retraining")
    memory = mean(learner, "replay_bytes")
    if memory is not None:
        given.append(f"{say.size(memory)} of memory for replay" if memory else "no memory for replay")
    timed = [entry for entry in of_role(learners, "learner") if mean(entry, "update_ms")]
    own, fastest = mean(learner, "update_ms"), min(timed, key=lambda entry: mean(entry, "update_ms"), default=None)
    if own and fastest is not None and fastest["label"] != learner["label"]:
        times = say.ratio(own / mean(fastest, "update_ms"))
        quick = code(short_names(learners)[fastest["label"]])
        given.append(f"{say.milliseconds(own)} per update, {times} that of {quick}, the quickest")
    elif own and len(timed) > 1:
        given.append(f"{say.milliseconds(own)} per update, less than any other learner")
    return given
