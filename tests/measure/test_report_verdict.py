"""The verdict from figures set by hand: every code and reason, ties, budgets, and what is missing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.measure.report import decide
from everlearn.measure.report.reading import contrast
from everlearn.measure.statistics import mean_interval, paired


def entry(label, values, name=None, reference=False, within=True, error=None, update_ms=None):
    summary = {}
    if values is not None:
        mean, low, high = mean_interval(values)
        summary["score"] = {"mean": mean, "low": low, "high": high, "values": list(values)}
    if update_ms is not None:
        summary["update_ms"] = {"mean": update_ms, "low": update_ms, "high": update_ms, "values": [update_ms]}
    return {
        "label": label,
        "name": name or label.split("(")[0],
        "reference": reference,
        "within_budget": within,
        "error": error,
        "runs": [],
        "summary": summary,
    }


def pairs_of(learners, turned=False):
    able = [item for item in learners if "score" in item["summary"]]
    found = []
    for index, first in enumerate(able):
        for second in able[index + 1 :]:
            left, right = (second, first) if turned else (first, second)
            values = [item["summary"]["score"]["values"] for item in (left, right)]
            found.append({"first": left["label"], "second": right["label"], **paired(*values)})
    return found


def judge(*learners, turned=False):
    return decide(list(learners), pairs_of(learners, turned), "held_out")


FROZEN = entry("frozen", [0.50, 0.51, 0.49])
RETRAIN = entry("retrain", [0.90, 0.91, 0.89], reference=True)


@pytest.mark.parametrize("turned", [False, True])
def test_a_gain_whose_interval_lies_above_zero_says_adapt(turned):
    verdict = judge(FROZEN, RETRAIN, entry("replay(capacity=5)", [0.80, 0.82, 0.78]), turned=turned)
    assert (verdict["code"], verdict["reason"]) == ("adapt", "clear_gain")
    assert verdict["learner"] == verdict["recommended"] == "replay(capacity=5)"
    # differences 0.30, 0.31, 0.29: mean 0.30, s = 0.01, t(2, 0.975) = 4.302653, half-width 0.0248414
    assert verdict["gain"]["difference"] == pytest.approx(0.30)
    assert verdict["gain"]["low"] == pytest.approx(0.30 - 0.0248414, abs=1e-6)
    assert verdict["gain"]["high"] == pytest.approx(0.30 + 0.0248414, abs=1e-6)
    assert verdict["against_retrain"]["difference"] == pytest.approx(-0.10)
    assert (verdict["frozen"], verdict["retrain"], verdict["seeds"]) == ("frozen", "retrain", 3)
    assert verdict["runner_up"] is None
    assert verdict["against_runner_up"] is None


def test_no_gain_says_do_not_adapt_and_recommends_the_frozen_model():
    verdict = judge(FROZEN, entry("replay", [0.50, 0.51, 0.49]))
    assert (verdict["code"], verdict["reason"]) == ("do_not_adapt", "no_gain")
    assert (verdict["learner"], verdict["recommended"]) == ("replay", "frozen")


def test_a_gain_whose_interval_reaches_zero_is_too_close():
    verdict = judge(FROZEN, entry("replay", [0.45, 0.60, 0.55]))
    assert (verdict["code"], verdict["reason"]) == ("too_close", "reaches_zero")
    assert verdict["gain"]["low"] < 0 < verdict["gain"]["difference"]
    assert verdict["recommended"] == "frozen"


def test_one_seed_is_never_enough_for_adapting_but_enough_for_not():
    ahead = judge(entry("frozen", [0.5]), entry("replay", [0.9]))
    assert (ahead["code"], ahead["reason"], ahead["seeds"]) == ("too_close", "one_seed", 1)
    behind = judge(entry("frozen", [0.5]), entry("replay", [0.4]))
    assert behind["code"] == "do_not_adapt"


def test_without_a_frozen_model_nothing_can_be_told():
    verdict = judge(entry("replay", [0.8, 0.82, 0.78]))
    assert (verdict["code"], verdict["reason"]) == ("too_close", "no_frozen")
    assert (verdict["recommended"], verdict["gain"]) == ("replay", None)


def test_yardsticks_failures_and_learners_over_budget_are_never_recommended():
    over = entry("derpp", [0.95, 0.96, 0.94], within=False)
    failed = entry("ewc", [0.99, 0.99, 0.99], error="NaN in the loss")
    verdict = judge(FROZEN, RETRAIN, over, failed, entry("replay", [0.7, 0.71, 0.69]))
    assert verdict["learner"] == "replay"
    assert judge(FROZEN, RETRAIN, over, failed)["reason"] == "no_learner"
    assert judge(FROZEN, RETRAIN, over, failed)["code"] == "do_not_adapt"


def test_of_two_that_cannot_be_told_apart_the_cheaper_is_preferred():
    first = entry("derpp", [0.80, 0.84, 0.79], update_ms=3.0)
    second = entry("replay", [0.81, 0.79, 0.80], update_ms=1.0)
    verdict = judge(FROZEN, first, second)
    assert (verdict["learner"], verdict["runner_up"], verdict["close"], verdict["cheaper"]) == (
        "replay",
        "derpp",
        True,
        True,
    )
    assert verdict["against_runner_up"]["difference"] == pytest.approx(-0.01)
    dearer = judge(FROZEN, first, entry("replay", [0.81, 0.79, 0.80], update_ms=5.0))
    assert (dearer["learner"], dearer["close"], dearer["cheaper"]) == ("derpp", True, False)


@pytest.mark.parametrize(("ms", "learner"), [(2.69, "replay"), (2.8, "derpp"), (2.99, "derpp")])
def test_a_time_that_differs_by_less_than_a_tenth_decides_nothing(ms, learner):
    first = entry("derpp", [0.80, 0.84, 0.79], update_ms=3.0)
    verdict = judge(FROZEN, first, entry("replay", [0.81, 0.79, 0.80], update_ms=ms))
    assert (verdict["learner"], verdict["close"], verdict["cheaper"]) == (learner, True, learner == "replay")


def test_the_cheaper_is_not_preferred_where_its_own_gain_is_in_doubt():
    first = entry("derpp", [0.60, 0.61, 0.59], update_ms=3.0)
    second = entry("replay", [0.50, 0.70, 0.55], update_ms=1.0)
    verdict = judge(FROZEN, first, second)
    assert (verdict["code"], verdict["learner"], verdict["close"]) == ("adapt", "derpp", True)


def test_a_clear_difference_keeps_the_better_however_dear():
    first = entry("derpp", [0.80, 0.81, 0.79], update_ms=300.0)
    second = entry("replay", [0.70, 0.71, 0.69], update_ms=1.0)
    verdict = judge(FROZEN, first, second)
    assert (verdict["learner"], verdict["runner_up"], verdict["close"]) == ("derpp", "replay", False)


def test_one_seed_never_hands_the_choice_to_the_cheaper():
    verdict = judge(entry("frozen", [0.5]), entry("derpp", [0.9], update_ms=3.0), entry("replay", [0.6], update_ms=1.0))
    assert verdict["learner"] == "derpp"


def test_the_retrained_learner_is_found_by_name_before_any_other_reference():
    other = entry("oracle", [0.99, 0.99, 0.99], reference=True)
    assert judge(FROZEN, RETRAIN, other, entry("replay", [0.7, 0.7, 0.7]))["retrain"] == "retrain"
    assert judge(FROZEN, other, entry("replay", [0.7, 0.7, 0.7]))["retrain"] == "oracle"


@pytest.mark.parametrize(
    ("given_name", "measure"),
    [("held_out", "accuracy"), ("accuracy", "accuracy"), ("prequential", "prequential_accuracy")],
)
def test_the_headline_is_the_measure(given_name, measure):
    assert decide([FROZEN], [], given_name)["headline"] == measure


def test_a_contrast_turns_round():
    pairs = [{"first": "a", "second": "b", "difference": 0.2, "low": 0.1, "high": 0.3, "p": 0.01, "clear": True}]
    assert contrast(pairs, "b", "a") == {"difference": -0.2, "low": -0.3, "high": -0.1, "p": 0.01, "clear": True}
    assert contrast(pairs, "a", "c") is None


scores = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@given(scores, scores, scores)
def test_the_code_follows_from_the_interval_alone(frozen, first, second):
    verdict = judge(entry("frozen", frozen), entry("one", first, update_ms=1.0), entry("two", second, update_ms=2.0))
    low, difference = verdict["gain"]["low"], verdict["gain"]["difference"]
    if verdict["code"] == "adapt":
        assert low > 0
        assert verdict["recommended"] == verdict["learner"]
    else:
        assert verdict["recommended"] == "frozen"
        assert (difference <= 0) == (verdict["code"] == "do_not_adapt")


@given(scores, scores, scores)
def test_the_verdict_does_not_depend_on_the_order_of_learners_or_pairs(frozen, first, second):
    learners = [entry("frozen", frozen), entry("one", first, update_ms=1.0), entry("two", second, update_ms=2.0)]
    means = [item["summary"]["score"]["mean"] for item in learners[1:]]
    if means[0] == means[1]:
        return
    straight = judge(*learners)
    turned = judge(*reversed(learners), turned=True)
    keys = ("code", "reason", "learner", "runner_up", "close", "cheaper")
    assert [straight[key] for key in keys] == [turned[key] for key in keys]
