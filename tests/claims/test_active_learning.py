"""The study of learned active learning at quick scale, by the means, with its control; and its sums by hand."""

import pytest

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
