"""Removal and growth by hand, and masks of one bit per weight and task."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError
from everlearn.core.state import capture, load
from everlearn.nn.masks import Masks, drop, grow, highest, magnitude_mask, removal_rate


def test_smallest_weights_by_hand():
    weights = torch.tensor([0.5, -0.1, 0.05, -2, 0.3, 0.02, 1, -0.4, 0.2, -0.01])
    assert magnitude_mask([weights[:4], weights[4:]], 0.3).nonzero().flatten().tolist() == [2, 5, 9]


def test_removal_by_hand():
    weights = torch.tensor([0.5, -0.1, 0, 0.3, -0.7, 0.05, 0, 0.2])
    assert drop(weights != 0, weights.abs(), 0.3).nonzero().flatten().tolist() == [0, 3, 4, 7]


def test_ties_drop_no_more_than_asked():
    assert drop(torch.ones(10, dtype=torch.bool), torch.ones(10), 0.3).sum() == 7


def test_rounding_drops_no_more_than_asked():
    assert 0.07 * 100 > 7
    assert drop(torch.ones(100, dtype=torch.bool), torch.ones(100), 0.07).sum() == 93


def test_growth_takes_the_highest_inactive_and_keeps_the_number():
    mask = torch.tensor([True, False, False, False])
    assert grow(mask, torch.tensor([9.0, 1.0, 3.0, 2.0]), 2).tolist() == [True, False, True, True]
    assert grow(mask, torch.zeros(4), 9).all()


def test_removal_rate():
    expected = (0.5, 0.4275089283, 0.2525, 0.0774910717, 0.005)
    assert [removal_rate(step, 4) for step in range(5)] == pytest.approx(expected, abs=1e-10)


def test_masks_take_a_bit_each_and_come_back():
    masks, random = Masks(135_432), torch.Generator().manual_seed(0)
    drawn = [torch.rand(135_432, generator=random) < 0.05 for _ in range(20)]
    for mask in drawn:
        masks.append(mask)
    other = Masks(135_432)
    load(other, capture(masks))
    assert masks.bytes == 20 * 16_929
    assert all(torch.equal(other[task], mask) for task, mask in enumerate(drawn))
    assert torch.equal(other.used(), torch.stack(drawn).any(0))
    with pytest.raises(ArgumentError, match="a mask must have shape"):
        masks.append(drawn[0][:5])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.5, 0.5, 2.0, math.inf, -math.inf, math.nan]), min_size=1, max_size=12),
    st.integers(0, 13),
)
def test_the_highest_are_those_that_sorting_finds(values, count):
    score = torch.tensor(values)
    order = score.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf).argsort(descending=True, stable=True)
    expected = torch.zeros(len(values), dtype=torch.bool)
    expected[order[:count]] = True
    assert highest(score, count).tolist() == expected.tolist()
