"""Descent on a noisy quadratic: its stationary loss and its exact moments."""

import numpy
import pytest

from everlearn.core.errors import ArgumentError
from everlearn.optim.noisy_quadratic import NoisyQuadratic


@pytest.mark.parametrize(("rate", "loss"), [(0.1, 0.0263158), (0.025, 0.0063291), (0.001, 0.00025013)])
def test_descent_comes_to_the_stationary_loss(rate, loss):
    task = NoisyQuadratic()
    assert task.stationary(rate) == pytest.approx(loss, rel=2e-5)  # as many digits as are given
    assert task.loss(*task.descend(3.0, 1.0, [rate] * 20_000)[-1]) == pytest.approx(task.stationary(rate), rel=1e-9)


def test_curvature_and_noise_play_their_part():
    """h = 2, s = 3, eta = 1/4: m <- m - (m - 1) / 2, v <- v / 4 + 9 / 16, and 9/4 / (2 (2 - 1/2)) = 3/4 in the end."""
    task = NoisyQuadratic(1.0, 2.0, 3.0)
    assert task.descend(5.0, 0.0, [0.25, 0.25]) == [(3.0, 0.5625), (2.0, 0.703125)]
    assert task.loss(3.0, 0.5625) == 4.5625
    assert task.stationary(0.25) == 0.75


def test_the_moments_are_those_of_many_runs():
    """20,000 runs of descent itself: their mean and variance lie within five standard errors."""
    task, random, count = NoisyQuadratic(1.0, 0.5, 2.0), numpy.random.default_rng(0), 20_000
    rates = [0.4, 0.3, 0.2, 0.1] * 5
    theta = numpy.full(count, -2.0)
    for rate in rates:
        theta -= rate * (task.curvature * (theta - task.target) + task.noise * random.standard_normal(count))
    mean, variance = task.descend(-2.0, 0.0, rates)[-1]
    assert abs(theta.mean() - mean) < 5 * (variance / count) ** 0.5
    assert abs(theta.var() - variance) < 5 * variance * (2 / count) ** 0.5


def test_what_diverges_is_refused():
    with pytest.raises(ArgumentError, match=r"rate=2\.0"):
        NoisyQuadratic().stationary(2.0)
    with pytest.raises(ArgumentError, match="curvature=0"):
        NoisyQuadratic(curvature=0)
    with pytest.raises(ArgumentError, match="noise=-1"):
        NoisyQuadratic(noise=-1)
