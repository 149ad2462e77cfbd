"""The study of replay at quick scale: the claim holds and its negative control does not."""

import pytest

from everlearn.studies.runner import run_study
from everlearn.studies.study import FAILS, HOLDS, study_named


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_replay_keeps_what_fine_tuning_forgets(tmp_path):
    record = run_study(study_named("replay"), "quick", tmp_path).record
    assert record["verdict"] == HOLDS
    assert [claim["verdict"] for claim in record["claims"] if claim["control"]] == [FAILS, FAILS]
