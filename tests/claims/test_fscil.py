"""The study of few-shot classes at quick scale: what tuning the encoder costs, by the means, and the control."""

import pytest

from everlearn.studies.runner import run_study
from everlearn.studies.study import HOLDS, study_named


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_a_frozen_encoder_keeps_what_a_tuned_one_loses(tmp_path):
    record = run_study(study_named("fscil"), "quick", tmp_path).record
    means = {arm["label"]: {name: found["mean"] for name, found in arm["measures"].items()} for arm in record["arms"]}
    frozen, tuned, part = (means[label] for label in ("baseline", "+ full fine-tuning", "+ subnet tuning"))
    assert frozen["accuracy"] >= tuned["accuracy"] + 0.20
    assert part["accuracy"] >= tuned["accuracy"] + 0.20
    assert frozen["new"] >= 0.5
    control = next(claim for claim in record["claims"] if claim["control"])
    assert control["verdict"] != HOLDS and not control["met"]
