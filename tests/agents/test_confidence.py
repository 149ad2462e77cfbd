"""Optimism and Thompson's rule: numbers by hand, and probabilities beside draws."""

import math

import pytest
import torch

from everlearn.agents.confidence import LinTS, LinUCB, RegCB

from .test_explorers import near, table

SCORES, WIDTHS = table([0.9, 0.8, 0.5]), table([0.1, 0.3, 0.2])


def test_optimism_by_hand():
    assert near(LinUCB(alpha=1.0).probabilities(SCORES, widths=WIDTHS), 0.0, 1.0, 0.0)  # 1.0, 1.1, .7
    assert near(LinUCB(alpha=0.4).probabilities(SCORES, widths=WIDTHS), 1.0, 0.0, 0.0)  # .94, .92, .58
    assert near(LinUCB(alpha=1.0).probabilities(SCORES, torch.tensor([[True, False, True]]), widths=WIDTHS), 1.0, 0.0, 0.0)


def test_bounds_narrow_in_units_of_the_width():
    """c0 log(K n) = 1 at c0 = 1 / log 30, so bounds are score +- width: (.8, 1.0), (.5, 1.1), (.3, .7)."""
    c0 = 1.0 / math.log(30)
    assert near(RegCB(c0=c0).probabilities(SCORES, learned=10, widths=WIDTHS), 0.0, 1.0, 0.0)
    assert near(RegCB(c0=c0, optimistic=False).probabilities(SCORES, learned=10, widths=WIDTHS), 0.5, 0.5, 0.0)
    assert near(RegCB(optimistic=False).probabilities(SCORES, learned=0, widths=WIDTHS), 1 / 3, 1 / 3, 1 / 3)
    assert near(RegCB(c0=0.0).probabilities(SCORES, learned=10, widths=WIDTHS), 1.0, 0.0, 0.0)


def test_the_probability_of_being_the_best_of_two_is_that_of_a_difference():
    """P(N(.9, .1^2) > N(.8, .3^2)) = Phi(.1 / sqrt(.1)); 64 nodes on a step as wide as this are good to 1e-6."""
    found = LinTS().probabilities(SCORES[:, :2], widths=WIDTHS[:, :2])
    expected = 0.5 * (1.0 + math.erf(0.1 / math.sqrt(0.1) / math.sqrt(2.0)))
    assert near(found, expected, 1.0 - expected, error=1e-6)
    assert near(LinTS().probabilities(table([0.3] * 4), widths=table([0.2] * 4)), *[0.25] * 4, error=1e-12)


def test_three_are_as_often_the_best_as_draws_say():
    draws = SCORES + WIDTHS * torch.randn(200_000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    counted = torch.bincount(draws.argmax(1), minlength=3).double() / len(draws)
    found = LinTS().probabilities(SCORES, widths=WIDTHS)[0]
    margin = 5.0 * (found * (1 - found) / len(draws)).sqrt()
    assert ((counted - found).abs() <= margin).all()
    assert not (
        (counted - LinTS(scale=2.0).probabilities(SCORES, widths=WIDTHS)[0]).abs() <= margin
    ).all()  # another rule is found out
    masked = LinTS().probabilities(SCORES, torch.tensor([[True, False, True]]), widths=WIDTHS)
    assert float(masked[0, 1]) == 0.0 and float(masked.sum()) == pytest.approx(1.0)
