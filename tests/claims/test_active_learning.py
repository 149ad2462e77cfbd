"""The study of learned active learning at quick scale, by the means, with its control; and its sums by hand."""

import pytest

from everlearn.studies import active_learning
from everlearn.studies.active_learning import gap
from everlearn.studies.runner import run_study
from everlearn.studies.shared import keep_in
from everlearn.studies.study import HOLDS, study_named


def test_the_gap_is_the_largest_loss_beyond_the_policies_of_their_classes():
    tables = {
        4.0: {"a": {"worst": 0.5}, "stage 4": {"worst": 0.4}},
        6.0: {"a": {"worst": 0.8}, "stage 6": {"worst": 0.5}},
    }
    assert gap(tables, "a") == pytest.approx(0.3)


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_a_trained_policy_is_better_where_it_is_worst(tmp_path):
    record = run_study(study_named("active_learning"), "quick", tmp_path).record
    means = {arm["label"]: {name: found["mean"] for name, found in arm["measures"].items()} for arm in record["arms"]}
    learned = means["learned"]
    assert learned["worst"] <= 0.85 * means["sgbs"]["worst"]
    assert learned["mean"] <= means["sgbs"]["mean"] + 0.03
    control = next(claim for claim in record["claims"] if claim["control"])
    assert control["verdict"] != HOLDS and not control["met"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_claim_of_the_full_scale_has_its_measure(monkeypatch, tmp_path):
    """One seed, next to no training: what is judged at full scale is measured for the arms that it names."""
    monkeypatch.setitem(active_learning.LEVELS, "full", (6.0, 12.0))
    for scales in (active_learning.STAGE, active_learning.LAST):
        monkeypatch.setitem(scales, "full", (1, 1))
    monkeypatch.setitem(active_learning.POOLED, "full", 4)
    arms = {"sgbs", "random", "uncertainty", "learned", "ucb", "thompson"}
    task = {arm: {"worst of 25": 0.5, "animals": 0.5, "five animals": 0.25, "jokes": 2.0} for arm in arms}
    monkeypatch.setattr(active_learning, "TASKS", {"animals": lambda seed: task})
    keep_in(tmp_path)
    try:
        study = study_named("active_learning")
        found = {arm.label: study.measure(arm.label, {}, "full", 0) for arm in study.arms("full")}
    finally:
        keep_in(None)
    for claim in study.claims("full"):
        for arm in filter(None, (claim.left, claim.right)):
            assert (claim.measure or "worst") in found[arm].scores, (arm, claim.measure)
    learned, bayes = found["learned"].scores, found["without adversary"].scores
    assert [r for r, _ in found["learned"].curves[active_learning.CURVE]] == [6.0, 12.0]
    assert learned["over sgbs at 12"] == pytest.approx(learned["of sgbs"])
    assert learned["gap beyond without adversary"] == pytest.approx(learned["gap"] - 0.6 * bayes["gap"])
    assert learned["most over sgbs"] == max(learned["over sgbs at 6"], learned["over sgbs at 12"])
    assert found["ucb"].scores == task["ucb"]
    best = found[active_learning.BEST].scores
    assert best["worst"] <= found["sgbs"].scores["worst"]


def test_parts_are_made_in_another_order_by_each_arm(monkeypatch):
    """The first worker begins with the longest part, the second with the next: a seed is not made by one of them alone."""
    order = []
    monkeypatch.setattr(active_learning, "made", lambda part, scale, seed: order.append(part) or {"last": None})
    monkeypatch.setattr(
        active_learning, "shared", lambda *key, make: {arm: {"scores": {}, "curve": []} for arm in ("learned", "sgbs")}
    )
    for arm in ("learned", "sgbs"):
        study_named("active_learning").measure(arm, {}, "quick", 0)
    assert order == ["learned", "without adversary", "without adversary", "learned"]
