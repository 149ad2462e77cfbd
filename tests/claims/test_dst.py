"""The study of sparse tasks at quick scale: isolation and masks by the means, nothing forgotten to the bit, and the control."""

import pytest

from everlearn.studies.runner import run_study
from everlearn.studies.study import HOLDS, study_named


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_isolated_masks_forget_nothing_and_lead(tmp_path):
    record = run_study(study_named("dst"), "quick", tmp_path).record
    means = {arm["label"]: {name: found["mean"] for name, found in arm["measures"].items()} for arm in record["arms"]}
    system = means["Erdos-Renyi, momentum"]
    for label in ("Erdos-Renyi, momentum", "uniform, random"):
        assert means[label]["unchanged"] == 1.0 and means[label]["backward transfer"] == 0.0
    assert system["accuracy"] >= means["no isolation"]["accuracy"] + 0.08
    assert system["accuracy"] >= means["dense"]["accuracy"] + 0.10
    assert means["shared normalisation"]["backward transfer"] <= -0.05
    control = next(claim for claim in record["claims"] if claim["control"])
    assert control["verdict"] != HOLDS and not control["met"]
