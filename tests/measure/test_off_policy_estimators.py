"""Estimators are named by call strings, and their sums are those that were documented."""

import pytest
import torch

from everlearn.core.errors import SpecError
from everlearn.measure.off_policy_estimators import ESTIMATORS, Terms, estimator


def test_every_name_gives_an_estimator_of_that_name():
    assert {estimator(name).name for name in ESTIMATORS} == set(ESTIMATORS)
    assert estimator("ips( clip = 10 )").spec == "ips(clip=10)" and estimator("snips()").spec == "snips"
    with pytest.raises(SpecError, match="clip"):
        estimator("ips(clp=10)")


def test_terms_of_means_divide_by_the_count_alone():
    random = torch.Generator().manual_seed(0)
    one = torch.rand(6, 5, generator=random, dtype=torch.float64)
    terms = Terms(torch.ones(5, dtype=torch.float64), one[1], one[2], (one[3] > 0.5).double(), one[4], one[5])
    for name in ESTIMATORS:
        made = estimator(name)
        sums = made.ratios(terms)
        assert made.mean == (len(sums) == 1 and torch.equal(sums[0][1], terms.count)), name
