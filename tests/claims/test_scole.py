"""The study of recurring streams at quick scale: accumulation without and with a mask, momentum, and the control."""

import pytest

from everlearn.studies.runner import run_study
from everlearn.studies.study import FAILS, HOLDS, study_named


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_plain_gradient_descent_accumulates_where_classes_come_back(tmp_path):
    record = run_study(study_named("scole"), "quick", tmp_path).record
    means = {arm["label"]: arm["measures"]["accuracy"]["mean"] for arm in record["arms"]}
    assert means["plain sgd"] >= 0.65 and means["masked sgd"] >= 0.65
    assert means["plain sgd"] >= means["plain momentum, equal rate"] + 0.30
    verdicts = {claim["text"]: claim["verdict"] for claim in record["claims"]}
    assert verdicts["plain momentum, equal rate stays at least 30% behind plain sgd"] == HOLDS
    assert [claim["verdict"] for claim in record["claims"] if claim["control"]] == [FAILS]
