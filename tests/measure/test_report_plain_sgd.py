"""Whether plain SGD is enough: the decision on scores made for each case."""

import pytest

from everlearn.comparison.summary import pairs
from everlearn.measure.report.plain_sgd import plain_sgd
from everlearn.measure.statistics import mean_interval


def entry(label, *values, name=None, **attributes):
    mean, low, high = mean_interval(values)
    score = {"mean": mean, "low": low, "high": high, "values": list(values)}
    standing = {"label": label, "name": name or label.partition("(")[0], "reference": False, "within_budget": True}
    return standing | {"error": None, "summary": {"score": score}} | attributes


def decided(*learners):
    return plain_sgd(learners, pairs(learners))


PLAIN = entry("fine_tune", 0.70, 0.71, 0.72)


@pytest.mark.parametrize(
    ("other", "code", "reason"),
    [
        ((0.60, 0.62, 0.61), "yes", "ahead"),
        ((0.701, 0.712, 0.719), "yes", "within"),  # differences -0.1, -0.2, +0.1 points: the interval ends above -1 point
        ((0.704, 0.714, 0.7241), "yes", "within"),  # clearly behind, and by less than one point
        ((0.80, 0.82, 0.81), "no", "behind"),
        ((0.72, 0.73, 0.7401), "no", "behind"),
        ((0.65, 0.78, 0.75), "too_close", "reaches_zero"),
    ],
)
def test_the_interval_decides(other, code, reason):
    found = decided(entry("replay", *other), PLAIN)
    assert (found["code"], found["reason"]) == (code, reason)
    assert (found["plain"], found["best"], found["remedy"]) == ("fine_tune", "replay", "replay")
    low, high = found["against_best"]["low"], found["against_best"]["high"]
    assert {"ahead": low > 0, "within": -0.01 < low <= 0, "behind": high < 0 and low <= -0.01, "reaches_zero": low <= -0.01}[
        reason
    ]


def test_one_seed_cannot_tell():
    found = decided(entry("replay", 0.9), entry("fine_tune", 0.5))
    assert (found["code"], found["reason"]) == ("too_close", "one_seed")


def test_the_best_and_the_best_of_the_cheap_remedies():
    masked, replay = entry("fine_tune(loss=masked())", 0.80, 0.81, 0.82), entry("replay", 0.75, 0.76, 0.78)
    derpp = entry("derpp", 0.90, 0.91, 0.93)
    found = decided(PLAIN, masked, replay, derpp)
    assert (found["plain"], found["best"], found["remedy"]) == ("fine_tune", "derpp", "fine_tune(loss=masked())")
    assert found["against_best"]["difference"] == pytest.approx(-(0.20 + 0.20 + 0.21) / 3)
    assert found["against_remedy"]["difference"] == pytest.approx(-0.10)
    frequent = entry("frequency_replay", 0.85, 0.86, 0.85)
    assert decided(PLAIN, masked, frequent)["remedy"] == "frequency_replay"
    assert decided(PLAIN, derpp)["remedy"] is None


def test_of_several_plain_learners_the_best_stands_for_all():
    slow = entry("fine_tune(optimizer=sgd(lr=0.001))", 0.30, 0.31, 0.33)
    found = decided(slow, PLAIN, entry("derpp", 0.60, 0.61, 0.62))
    assert (found["plain"], found["best"]) == ("fine_tune", "derpp")


def test_yardsticks_and_learners_over_the_budget_are_not_what_it_is_held_against():
    best = entry("retrain", 0.97, 0.97, 0.98, reference=True)
    frozen, outside = entry("frozen", 0.8, 0.8, 0.81), entry("derpp", 0.95, 0.96, 0.95, within_budget=False)
    found = decided(PLAIN, best, frozen, outside)
    assert (found["code"], found["reason"], found["best"]) == ("too_close", "alone", None)
    assert decided(PLAIN, best, frozen, outside, entry("replay", 0.5, 0.5, 0.51))["reason"] == "ahead"


def test_without_plain_sgd_there_is_no_answer_and_where_it_failed_none_either():
    assert decided(entry("replay", 0.5, 0.6, 0.7), entry("fine_tune(loss=masked())", 0.5, 0.6, 0.7)) is None
    failed = entry("fine_tune", 0.5) | {"error": "it stopped", "summary": {}}
    assert decided(failed, entry("replay", 0.5, 0.6, 0.7))["reason"] == "failed"
