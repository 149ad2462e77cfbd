"""The study of infinite schedules at quick scale, by the means, with its control."""

import math

import pytest

from everlearn.studies.runner import run_study
from everlearn.studies.study import HOLDS, study_named


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_a_schedule_that_never_warms_up_again_ends_lower_and_disturbs_less(tmp_path):
    record = run_study(study_named("infinite_lr"), "quick", tmp_path).record
    means = {arm["label"]: {name: found["mean"] for name, found in arm["measures"].items()} for arm in record["arms"]}
    assert means["infinite .5"]["painted"] >= means["cosine"]["painted"] + 0.005
    assert means["infinite .5"]["probe"] >= means["cosine"]["probe"] + 0.01
    for kind in ("quadratic", "softmax"):
        rises = {name: means[f"{kind}, {name}"]["ln rise"] for name in ("cosine", "infinite .5", "infinite .25")}
        assert rises["infinite .5"] <= rises["cosine"] + math.log(0.75)
        assert rises["infinite .25"] <= rises["cosine"] + math.log(0.5)
    control = next(claim for claim in record["claims"] if claim["control"])
    assert control["verdict"] != HOLDS and not control["met"]
