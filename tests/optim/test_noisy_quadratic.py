"""Descent on a noisy quadratic: its stationary loss, its exact moments, and what schedules do to them where nothing, or a task, changes."""

import numpy
import pytest

from everlearn.core.errors import ArgumentError
from everlearn.optim.noisy_quadratic import NoisyQuadratic
from everlearn.optim.schedules import Infinite, RepeatedCosine

STEPS, ANNEAL = 200, 40
COSINE = RepeatedCosine(0.1, STEPS, 10, min_lr=0.001)


def infinite(constant):
    return Infinite(0.1, 10, 80, constant, 0.001)


def phases(schedule, shift):
    """For each of three phases with targets 0, shift, 0: (loss on target 0 of what is delivered, the highest in the phase)."""
    judge, mean, variance, done, found = NoisyQuadratic(), 5.0, 0.0, 0, []
    forks = isinstance(schedule, Infinite)
    for target in (0.0, shift, 0.0):
        task, main = NoisyQuadratic(target), STEPS - ANNEAL if forks else STEPS
        line = task.descend(mean, variance, [schedule(done + step) for step in range(main)])
        (mean, variance), done = line[-1], done + main
        if forks:
            line = line + task.descend(
                mean, variance, [schedule.annealed(schedule.constant, step / ANNEAL) for step in range(ANNEAL)]
            )
        losses = [judge.loss(*state) for state in line]
        found.append((losses[-1], max(losses)))
    return found


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


def test_warming_up_again_raises_the_loss_where_nothing_changes():
    ends, peaks = zip(*phases(COSINE, 0.0), strict=True)
    assert ends == pytest.approx([0.005074] * 3, abs=5e-7)
    assert peaks[1:] == pytest.approx([0.025674] * 2, abs=5e-7)
    assert peaks[1] / ends[0] == pytest.approx(5.06, abs=0.005)


@pytest.mark.parametrize(
    ("constant", "ends", "peaks"),
    [(0.025, (0.004857, 0.004824, 0.004824), (0.006388, 0.006329)), (0.05, (0.008143,) * 3, (0.012821,) * 2)],
)
def test_an_infinite_schedule_raises_it_less(constant, ends, peaks):
    found = phases(infinite(constant), 0.0)
    assert [end for end, _ in found] == pytest.approx(ends, abs=5e-7)
    assert [peak for _, peak in found[1:]] == pytest.approx(peaks, abs=5e-7)


@pytest.mark.parametrize(
    ("schedule", "ends", "peak"),
    [(COSINE, (0.005074, 0.050072, 0.005074), 0.068194), (infinite(0.025), (0.004857, 0.048701, 0.004831), 0.049847)],
)
def test_the_task_before_is_forgotten_more_where_the_rate_rises_again(schedule, ends, peak):
    found = phases(schedule, 0.3)
    assert [end for end, _ in found] == pytest.approx(ends, abs=5e-7)
    assert found[1][1] == pytest.approx(peak, abs=5e-7)


def test_what_diverges_is_refused():
    with pytest.raises(ArgumentError, match="rate=2.0"):
        NoisyQuadratic().stationary(2.0)
    with pytest.raises(ArgumentError, match="curvature=0"):
        NoisyQuadratic(curvature=0)
    with pytest.raises(ArgumentError, match="noise=-1"):
        NoisyQuadratic(noise=-1)
