"""The study of dual processes at quick scale, by the means, with its control."""

import pytest

from everlearn.studies.runner import run_study
from everlearn.studies.study import HOLDS, study_named


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_forgetting_embeddings_makes_a_model_answer_from_its_context(tmp_path):
    record = run_study(study_named("dual_process"), "quick", tmp_path).record
    means = {arm["label"]: {name: found["mean"] for name, found in arm["measures"].items()} for arm in record["arms"]}
    active, plain = means["active forgetting"], means["plain"]
    assert active["unseen"] >= plain["unseen"] + 0.15
    assert plain["iwl head"] >= active["iwl head"] + 0.4
    assert active["icl head"] >= plain["icl head"] + 0.4
    assert min(active["val"], plain["val"]) >= 0.95
    control = next(claim for claim in record["claims"] if claim["control"])
    assert control["verdict"] != HOLDS and not control["met"]
