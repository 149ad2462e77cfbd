"""The study of replay at quick scale: on digits the claim holds and its negative control fails; CIFAR-100 is too small to tell."""

import pytest

from everlearn.studies.runner import run_study
from everlearn.studies.study import FAILS, HOLDS, study_named


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_replay_keeps_what_fine_tuning_forgets(tmp_path):
    record = run_study(study_named("replay"), "quick", tmp_path).record
    digits = {claim["control"]: claim for claim in record["claims"] if claim["left"].startswith("replay, digits")}
    assert digits[False]["verdict"] == HOLDS
    assert digits[True]["verdict"] == FAILS
    images = next(claim for claim in record["claims"] if not claim["control"] and "CIFAR" in claim["left"])
    assert images["difference"] > 0.0
    assert record["verdict"] != HOLDS  # one pass over these images trains no network far enough: the study must say so
