"""The verdict: whether to adapt, and with which learner, from paired differences over seeds.

    gain = score(best learner within the budget) - score(frozen), with its 95 % interval over seeds
    adapt           the whole interval lies above 0
    do_not_adapt    the mean gain is not above 0, or nothing kept within the budget
    too_close       the gain is positive but its interval reaches 0, or there is none (one seed, no frozen model)

Where the interval between the best two learners reaches 0, and the update of the second takes a tenth less time or more, it is the
second that is recommended. Smaller differences are those between two runs of one learner.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from everlearn.measure.report.numbers import known
from everlearn.measure.report.reading import Entry, difference, mean, of_role, retrained, seed_count
from everlearn.measure.report.reading import headline as headline_measure

Contrast = dict[str, Any]
CHEAPER = 0.9  # the part of another's time from which on an update is called cheaper


def decide(learners: Sequence[Entry], pairs: Sequence[Mapping[str, Any]], headline: str = "held_out") -> dict[str, Any]:
    """The verdict of a comparison.

    learners, pairs: as in the comparison record; headline: 'held_out' or 'prequential', or the measure's own name.

    Returns a dict: `code` ('adapt', 'do_not_adapt', 'too_close'); `reason` ('clear_gain', 'no_gain', 'reaches_zero',
    'one_seed', 'no_frozen', 'no_learner'); `learner`, the best that adapts within the budget, and `runner_up` (labels or
    None); `recommended`, the label to deploy (the frozen model unless the code is 'adapt'); `frozen`, `retrain` (labels or
    None); `gain`, `against_retrain`, `against_runner_up` (learner minus the other: difference, low, high, p, clear; or
    None); `close`, whether learner and runner-up cannot be told apart; `cheaper`, whether the learner was preferred for its
    cheaper update; `seeds`; `headline`, the measure.
    """
    candidates = of_role(learners, "learner")
    frozen = next(iter(of_role(learners, "frozen")), None)
    retrain = retrained(learners)
    verdict: dict[str, Any] = {
        "code": "do_not_adapt",
        "reason": "no_learner",
        "learner": None,
        "runner_up": None,
        "recommended": None if frozen is None else frozen["label"],
        "frozen": None if frozen is None else frozen["label"],
        "retrain": None if retrain is None else retrain["label"],
        "gain": None,
        "against_retrain": None,
        "against_runner_up": None,
        "close": False,
        "cheaper": False,
        "seeds": seed_count(learners),
        "headline": headline_measure(headline),
    }
    if not candidates:
        return verdict
    best, second = candidates[0], candidates[1] if len(candidates) > 1 else None
    code, reason = _judge(best, frozen, pairs)
    if second is not None:
        found = difference(pairs, best, second)
        verdict["close"] = not found["clear"]
        if (
            verdict["close"]
            and known(found["low"])
            and _cheaper(second, best)
            and _judge(second, frozen, pairs) == (code, reason)
        ):
            best, second = second, best
            verdict["cheaper"] = True
        verdict["runner_up"] = second["label"]
        verdict["against_runner_up"] = difference(pairs, best, second)
    verdict |= {"code": code, "reason": reason, "learner": best["label"]}
    if frozen is not None:
        verdict["gain"] = difference(pairs, best, frozen)
    if retrain is not None:
        verdict["against_retrain"] = difference(pairs, best, retrain)
    if code == "adapt" or frozen is None:
        verdict["recommended"] = best["label"]
    return verdict


def _judge(learner: Entry, frozen: Entry | None, pairs: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """(code, reason) for one learner against the frozen model."""
    if frozen is None:
        return "too_close", "no_frozen"
    gain = difference(pairs, learner, frozen)
    if gain["difference"] <= 0:
        return "do_not_adapt", "no_gain"
    if not (known(gain["low"]) and known(gain["high"])):
        return "too_close", "one_seed"
    return ("adapt", "clear_gain") if gain["low"] > 0 else ("too_close", "reaches_zero")


def _cheaper(first: Entry, second: Entry) -> bool:
    """Whether one learner's update takes less time than another's, beyond what a machine varies by."""
    left, right = mean(first, "update_ms"), mean(second, "update_ms")
    return left is not None and right is not None and left <= CHEAPER * right
