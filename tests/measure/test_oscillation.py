"""Swings of generations by hand, the alternation of noise, and the negative control: what resampling alone does is not called a swing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError, InputError
from everlearn.measure.oscillation import alternation, oscillation, resampled, successor_drop, uplift


def test_numbers_of_the_reference():
    assert alternation([1, 2, 1, 2, 1]) == 1.0 and alternation([1, 2, 3, 4]) == 0.0
    sawtooth = [0.093, 0.017, 0.063, 0.033, 0.057, 0.041, 0.053, 0.037]
    assert alternation(sawtooth) == 1.0
    assert oscillation(sawtooth) == pytest.approx((46 + 30 + 24 + 16 + 12 + 16) / 6 / 1000)
    assert successor_drop(sawtooth) == pytest.approx(0.046)


def test_noise_alternates_in_two_of_three():
    """Of three independent values the middle one is the highest or the lowest with probability 2/3; se of 20,000 pairs < 0.005."""
    values = torch.rand(20000, generator=torch.Generator().manual_seed(1)).tolist()
    assert abs(alternation(values) - 2 / 3) < 0.02
    assert alternation([float(number**2) for number in range(9)]) == 0.0 and alternation([1.0, 1.0, 1.0]) == 0.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=4, max_size=12), st.integers(-9, 9), st.integers(1, 5))
def test_swings_move_with_scale_and_not_with_level(values, level, scale):
    moved = [level + scale * value for value in values]
    assert oscillation(moved) == pytest.approx(scale * oscillation(values))
    assert alternation(moved) == alternation(values) == alternation([-value for value in values])


def test_resampling_knows_noise_from_a_swing():
    """Twin: rounds dealt out by index; control: generations of one chance are within noise, of two chances they are not."""
    random = torch.Generator().manual_seed(3)

    def world(chances):
        return [(torch.rand(800, generator=random) < chance).double() for chance in chances]

    still, swings = resampled(world([0.8] * 12)), resampled(world([0.8] + [0.85, 0.75] * 5))
    assert still.low <= still.value <= still.high and not still.more_than_noise
    assert swings.more_than_noise and swings.value > 4 * swings.expected
    # a mean step of independent means of 800 rounds of chance .8: sqrt(2 * .16 / 800) * sqrt(2 / pi)
    assert still.expected == pytest.approx((2 * 0.16 / 800) ** 0.5 * (2 / torch.pi) ** 0.5, rel=0.1)
    halves = [row / 2.0 for row in world([0.8] * 6)]  # not of 0 and 1: dealt out row by row
    assert resampled(halves, draws=200).expected == pytest.approx(
        resampled([2 * row for row in halves], draws=200).expected / 2, rel=0.2
    )


def test_uplift_is_the_difference_to_the_control_whatever_the_season():
    random = torch.Generator().manual_seed(5)
    policy, control = torch.rand(4000, generator=random) < 0.9, torch.rand(1000, generator=random) < 0.82
    found = uplift(policy.double(), control.double())
    assert found.low < 0.08 < found.high
    error = (0.9 * 0.1 / 4000 + 0.82 * 0.18 / 1000) ** 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    season = uplift(policy.double() - 0.3, control.double() - 0.3)
    assert season.value == pytest.approx(found.value) and season.low == pytest.approx(found.low)


def test_refusals():
    with pytest.raises(ArgumentError, match="oscillation: at least 2 finite values"):
        oscillation([1.0, 2.0])
    with pytest.raises(ArgumentError, match="alternation: at least 3 finite"):
        alternation([1.0, float("nan"), 2.0])
    with pytest.raises(ArgumentError, match="successor_drop"):
        successor_drop([1.0, 2.0])
    with pytest.raises(InputError, match="control must be at least two"):
        uplift(torch.zeros(5), torch.zeros(1))
