"""The study of refresh learning at quick scale: the published inequalities by their means, and the control."""

import pytest

from everlearn.studies.runner import run_study
from everlearn.studies.study import HOLDS, study_named


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_refresh_sheds_what_was_learned_by_heart_and_does_no_harm(tmp_path):
    record = run_study(study_named("refresh"), "quick", tmp_path).record
    means = {arm["label"]: {name: found["mean"] for name, found in arm["measures"].items()} for arm in record["arms"]}
    plain, refreshed = means["none"], means["refresh, rate 0.0015"]
    assert refreshed["accuracy"] >= plain["accuracy"] + 0.01
    assert refreshed["fit"] <= plain["fit"] - 0.03
    dark, over_dark = (
        next(arm["measures"]["accuracy"]["values"] for arm in record["arms"] if arm["label"] == label)
        for label in ("derpp", "derpp + refresh")
    )
    assert all(abs(first - second) <= 0.03 for first, second in zip(dark, over_dark, strict=True))
    for case in ("er", "der", "derpp"):
        assert means[f"special case {case}"]["accuracy"] >= means["special case finetune"]["accuracy"] + 0.30
    control = next(claim for claim in record["claims"] if claim["control"])
    assert control["verdict"] != HOLDS and not control["met"]
