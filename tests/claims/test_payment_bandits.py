"""The study of payment bandits at quick scale, by the means, with its control."""

import pytest

from everlearn.studies.runner import run_study
from everlearn.studies.study import HOLDS, study_named


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_inverse_gaps_earn_and_sharp_policies_swing(tmp_path):
    record = run_study(study_named("payment_bandits"), "quick", tmp_path).record
    means = {arm["label"]: {name: found["mean"] for name, found in arm["measures"].items()} for arm in record["arms"]}
    assert means["inverse gaps"]["share"] <= 0.5
    swings = [means[f"inverse gaps {gamma}"]["swing"] for gamma in (50, 200, 1000, 5000)]
    assert swings == sorted(swings) and means["greedy"]["swing"] >= 2.0 * swings[0]
    assert means["greedy"]["drop"] >= 0.02
    long = [values for name, values in means.items() if name.endswith("memory 4")]
    assert len(long) == 4 and all(values["drop"] <= 0.0 for values in long)
    assert means["inverse gaps 200, memory 4"]["regret"] <= 0.75 * means["inverse gaps 200"]["regret"]
    for name in ("inverse gaps 200", "inverse gaps 200, memory 4"):
        assert min(means[name]["dr"], means[name]["snips"]) >= 0.85
    assert abs(means["uniform, still world"]["alternation"] - 2 / 3) <= 0.15
    control = next(claim for claim in record["claims"] if claim["control"])
    assert control["verdict"] != HOLDS and not control["met"]
