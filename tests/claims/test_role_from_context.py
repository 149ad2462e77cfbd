"""The study of roles in real sentences at quick scale, by the means, with its control."""

import pytest

from everlearn.core.errors import DataError
from everlearn.data.tagged_sentences import english_web_treebank
from everlearn.studies.runner import run_study
from everlearn.studies.study import HOLDS, study_named


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_forgotten_identifiers_are_told_from_the_words_beside_them(tmp_path):
    try:
        english_web_treebank("dev")
    except DataError:
        pytest.skip("EVERLEARN_DATA has no ud_english_ewt")
    record = run_study(study_named("role_from_context"), "quick", tmp_path).record
    means = {arm["label"]: {name: found["mean"] for name, found in arm["measures"].items()} for arm in record["arms"]}
    active, plain, temporary = (means[name] for name in ("active forgetting", "plain", "temporary, until 300"))
    assert active["unseen"] > plain["unseen"] and temporary["unseen"] > plain["unseen"]
    assert plain["iwl head"] >= active["iwl head"] + 0.2
    assert active["iwl head"] + active["icl head"] == pytest.approx(1.0)  # there are two answers
    control = next(claim for claim in record["claims"] if claim["control"])
    assert control["verdict"] != HOLDS and not control["met"]
