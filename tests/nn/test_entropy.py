"""Entropies by hand, of rows and of pixels, and the published limits."""

import math

import pytest
import torch

from everlearn.nn.entropy import entropies, entropy_of_shares, sure_below


def test_limits_and_entropies_by_hand():
    assert [round(sure_below(classes), 5) for classes in (10, 100, 1000)] == [0.92103, 1.84207, 2.76310]
    assert entropies(torch.zeros(3, 7)).tolist() == pytest.approx(3 * [math.log(7)], abs=1e-6)
    peaked = torch.tensor([[10.0] + 9 * [0.0]], dtype=torch.float64)
    assert entropies(peaked).item() == pytest.approx(0.0044928, abs=5e-8)


def test_the_slow_twin_and_pixels():
    logits = torch.randn(2, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = entropies(logits)
    assert found.shape == (2, 3, 4)
    for row in range(2):
        for down in range(3):
            shares = [math.exp(score) for score in logits[row, :, down, 1].tolist()]
            parts = [share / sum(shares) for share in shares]
            assert found[row, down, 1].item() == pytest.approx(-sum(p * math.log(p) for p in parts), abs=1e-12)


def test_certain_answers_have_none_and_no_nan():
    logits = torch.tensor([[1000.0, 0.0]], requires_grad=True)
    entropies(logits).sum().backward()
    assert entropies(logits).item() == 0.0 and torch.isfinite(logits.grad).all()


def test_shares_by_hand_and_as_the_entropy_of_their_logarithms():
    assert entropy_of_shares([2, 2]) == pytest.approx(math.log(2), abs=1e-15)
    assert entropy_of_shares([7]) == entropy_of_shares([0, 4, 0]) == entropy_of_shares([]) == 0.0
    assert math.copysign(1.0, entropy_of_shares([7])) == 1.0  # not minus zero, which would be shown
    weights = torch.tensor([[0.5, 3.0, 1.25, 0.001]], dtype=torch.float64)
    assert entropy_of_shares(weights[0].tolist()) == pytest.approx(entropies(weights.log()).item(), abs=1e-12)
    assert entropy_of_shares([1, 2, 3]) == pytest.approx(entropy_of_shares([10, 20, 30]), abs=1e-15)
    assert math.isnan(entropy_of_shares([1.0, math.nan]))  # what is not finite is not hidden
