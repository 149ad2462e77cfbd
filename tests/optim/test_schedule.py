"""Schedules at the points where their values are known."""

import math

import pytest

from everlearn.core.errors import ArgumentError
from everlearn.optim.schedule import CosineCycle, cosine_decay


def test_the_published_cycle_of_gradient_temperatures():
    cycle = CosineCycle(0.09 / 0.16, 0.09 / 0.05, 500)
    values = {0: 0.5625, 125: 1.18125, 250: 1.8, 375: 1.18125, 499: 0.56254885, 500: 0.5625}
    for index, value in values.items():
        assert cycle(index) == pytest.approx(value, abs=1e-7)
    assert cycle(1234) == pytest.approx(cycle(234))
    assert sum(cycle(index) for index in range(500)) / 500 == pytest.approx((0.5625 + 1.8) / 2)


def test_a_cycle_of_one_value_stands_still():
    assert {CosineCycle(0.7, 0.7, 9)(index) for index in range(20)} == {0.7}


def test_a_decay_goes_from_one_to_nothing():
    assert [cosine_decay(share / 4) for share in range(5)] == pytest.approx(
        [1.0, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2, 0.0]
    )


@pytest.mark.parametrize("wrong", [(1.0, 0.5, 10), (0.0, math.inf, 10), (0.0, 1.0, 0)])
def test_what_is_no_cycle_is_refused(wrong):
    with pytest.raises(ArgumentError):
        CosineCycle(*wrong)
