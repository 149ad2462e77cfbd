"""Whether plain SGD (`fine_tune` with the plain loss) is enough, from paired differences over seeds.

    loss = score(plain SGD) - score(best other learner within the budget), with its 95 % interval over seeds
    yes         the whole interval lies above a loss of one point          no    the whole interval lies below 0
    too_close   the interval reaches 0 and a loss of one point, or there is none (one seed, nothing to compare with)

Reference: Lesort et al. (2023), Challenging common assumptions about catastrophic forgetting, arXiv 2207.04543.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from everlearn.measure.report.numbers import known
from everlearn.measure.report.reading import Entry, difference, of_role
from everlearn.measure.report.reading import plain as is_plain

ENOUGH = 0.01  # a loss that stays below one point is none to pay for
REMEDIES = ("fine_tune", "frequency_replay", "replay")  # the same steps with a masked loss, or with rows remembered


def plain_sgd(learners: Sequence[Entry], pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The answer of a comparison, None where no plain SGD stands in it.

    Returns a dict: `code` ('yes', 'no', 'too_close'); `reason` ('ahead', 'within', 'behind', 'reaches_zero', 'one_seed', 'alone',
    'failed'); `plain`, the best of the learners that are plain SGD; `best`, the best other learner within the budget; `remedy`,
    the best of the cheap remedies within it (labels or None); `against_best`, `against_remedy` (plain minus the other:
    difference, low, high, p, clear; or None).
    """
    plains = [entry for entry in learners if is_plain(entry)]
    if not plains:
        return None
    able = of_role(plains, "learner") or of_role(plains, "outside")
    nothing = {"best": None, "remedy": None, "against_best": None, "against_remedy": None}
    if not able:
        return {"code": "too_close", "reason": "failed", "plain": plains[0]["label"], **nothing}
    plain = able[0]
    others = [entry for entry in of_role(learners, "learner") if entry not in plains]
    if not others:
        return {"code": "too_close", "reason": "alone", "plain": plain["label"], **nothing}
    best = others[0]
    remedy = next((entry for entry in others if entry["name"] in REMEDIES), None)
    found = difference(pairs, plain, best)
    code, reason = _judge(found)
    return {
        "code": code,
        "reason": reason,
        "plain": plain["label"],
        "best": best["label"],
        "remedy": None if remedy is None else remedy["label"],
        "against_best": found,
        "against_remedy": None if remedy is None else difference(pairs, plain, remedy),
    }


def _judge(found: Mapping[str, Any]) -> tuple[str, str]:
    """(code, reason) of a difference."""
    low, high = found["low"], found["high"]
    if not (known(low) and known(high)):
        return "too_close", "one_seed"
    if low > 0:
        return "yes", "ahead"
    if low > -ENOUGH:
        return "yes", "within"
    return ("no", "behind") if high < 0 else ("too_close", "reaches_zero")
