"""The study of HPCR at quick scale, on digits: the published inequalities by their means, and the control."""

import pytest

from everlearn.studies.runner import run_study
from everlearn.studies.study import HOLDS, study_named


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_contrast_over_the_classes_at_hand_forgets_less_than_replay(tmp_path):
    record = run_study(study_named("hpcr"), "quick", tmp_path).record
    means = {arm["label"]: {name: found["mean"] for name, found in arm["measures"].items()} for arm in record["arms"]}
    once = means["replay, one step"]
    assert means["pcr"]["accuracy"] >= once["accuracy"] + 0.05
    assert means["pcr"]["forgetting"] <= once["forgetting"] - 0.10
    assert means["hpcr"]["accuracy"] >= means["pcr"]["accuracy"] - 0.03
    ahead, forgets = (claim for claim in record["claims"] if claim["control"])
    assert (
        ahead["verdict"] != HOLDS
    )  # its mean lies at the margin, on one machine below and on another above: PCR leads on shuffled rows too
    assert forgets["verdict"] != HOLDS and not forgets["met"]  # where rows of all classes keep coming
    # beside replay given as many images per step the lead is smaller than what is asked, and the study says so
    assert not next(claim for claim in record["claims"] if claim["right"] == "replay" and not claim["measure"])["met"]
