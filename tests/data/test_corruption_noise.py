"""Noise has the moments of its formula, and every row its own generator."""

import math

import pytest
import torch

from everlearn.data.corruption_noise import Draws, gaussian_noise, impulse_noise, shot_noise, speckle_noise

HALF = torch.full((1, 1, 100, 100), 0.5)


def draws(rows=1):
    return Draws(0, "test", range(rows))


def test_gaussian_noise_has_its_deviation():
    """Of 10,000 values, the deviation of a sample deviates by c / sqrt(20,000): 0.0007; three of these are 0.002."""
    change = gaussian_noise(HALF, 0.1, draws=draws()) - HALF
    assert abs(float(change.std()) - 0.1) < 0.002
    assert abs(float(change.mean())) < 4 * 0.1 / 100


def test_shot_noise_has_variance_x_over_photons():
    """Of a Poisson number of mean 25, the sample variance of n = 10,000 deviates by var sqrt((2 + 1 / 25) / n), 1.4 %; bound: 4 times."""
    found = shot_noise(HALF, 50, draws=draws())
    assert abs(float(found.var()) / (0.5 / 50) - 1) < 0.06
    assert abs(float(found.mean()) - 0.5) < 4 * math.sqrt(0.01 / 10_000)
    assert torch.allclose((found * 50).round(), found * 50, atol=1e-4)


def test_impulse_noise_changes_its_share_half_to_each_end():
    found = impulse_noise(HALF, 0.2, draws=draws())
    share = float((found != 0.5).double().mean())
    assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 10_000)
    assert abs(float((found == 0).double().mean()) - 0.1) < 4 * 0.003
    assert set(found.unique().tolist()) == {0.0, 0.5, 1.0}


def test_speckle_noise_grows_with_the_pixel():
    x = torch.cat([HALF * 0.4, HALF * 2.0])
    change = speckle_noise(x, 0.1, draws=draws(2)) - x
    assert [float(row.std()) for row in change] == pytest.approx([0.02, 0.1], rel=0.03)


def test_a_row_draws_the_same_beside_any_other():
    for draw in (
        lambda d: d.normal(3, 4),
        lambda d: d.uniform(-1.0, 2.0, 5),
        lambda d: d.integers(-2, 2, 7),
        lambda d: d.poisson(torch.full((len(d.each), 6), 9.0)),
    ):
        together, alone = draw(Draws(1, "fog", [7, 3])), draw(Draws(1, "fog", [3]))
        assert torch.equal(together[1], alone[0]) and not torch.equal(together[0], together[1])
        assert not torch.equal(draw(Draws(2, "fog", [3])), alone) and not torch.equal(draw(Draws(1, "snow", [3])), alone)


def test_ranges():
    drawn = Draws(0, "x", [0]).uniform(-2.0, 5.0, 4000)
    assert drawn.min() >= -2 and drawn.max() < 5 and abs(float(drawn.mean()) - 1.5) < 4 * 7 / math.sqrt(12 * 4000)
    assert Draws(0, "x", [0]).integers(-3, 3, 500).unique().tolist() == [-3, -2, -1, 0, 1, 2]
