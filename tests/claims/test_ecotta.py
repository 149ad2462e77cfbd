"""The study of EcoTTA at quick scale: memory, error under corruption and on clean rows by the means, and the control."""

import pytest

from everlearn.studies.runner import run_study
from everlearn.studies.study import HOLDS, study_named


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_meta_networks_adapt_in_little_memory_and_stay_good_on_clean_rows(tmp_path):
    record = run_study(study_named("ecotta"), "quick", tmp_path).record
    means = {arm["label"]: {name: found["mean"] for name, found in arm["measures"].items()} for arm in record["arms"]}
    system, norms = means["EcoTTA"], means["batch statistics"]
    assert 0.0 < system["kept"] <= 0.60 and means["Tent"]["kept"] == 1.0 and norms["kept"] == 0.0
    assert system["accuracy"] >= norms["accuracy"] + 0.002
    assert system["accuracy"] >= means["source"]["accuracy"] + 0.20
    assert system["clean"] >= norms["clean"] - 0.005
    control = next(claim for claim in record["claims"] if claim["control"])
    assert control["verdict"] != HOLDS and not control["met"]
