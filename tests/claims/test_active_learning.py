"""The study of learned active learning at quick scale, by the means, with its control; and its sums by hand."""

import pytest

from everlearn.studies import active_learning
from everlearn.studies.active_learning import gap
from everlearn.studies.runner import run_study
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
def test_every_claim_of_the_full_scale_has_its_measure(monkeypatch):
    """One seed, next to no training: what is judged at full scale is measured for the arms that it names."""
    monkeypatch.setitem(active_learning.LEVELS, "full", (6.0, 12.0))
    monkeypatch.setitem(active_learning.STAGE, "full", (1, 1))
    monkeypatch.setitem(active_learning.LAST, "full", (1, 1))
    study = study_named("active_learning")
    found = {arm.label: study.measure(arm.label, {}, "full", 0) for arm in study.arms("full")[:1]}
    learned = found["learned"]
    rows = [claim for claim in study.claims("full") if claim.right == "learned"]
    assert rows and all((claim.measure or "worst") in learned.scores for claim in rows)
    assert [r for r, _ in learned.curves[active_learning.CURVE]] == [6.0, 12.0]
    assert learned.scores["over sgbs at 12"] == pytest.approx(learned.scores["of sgbs"])
