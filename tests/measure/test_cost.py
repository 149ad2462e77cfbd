"""Histograms of times against exact percentiles; what a run reports."""

import math

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from everlearn import Batch, Boundary, FineTune, run
from everlearn.core.monitor import Step
from everlearn.measure.cost import BINS, PER_OCTAVE, SHORTEST, Cost, Times, process_peak_bytes
from everlearn.measure.prequential import Prequential
from everlearn.optim.optimizers import SGD


@given(some.lists(some.floats(1e-6, 1000.0), min_size=1, max_size=200), some.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_percentiles_are_within_half_a_bin(durations, share):
    times = Times()
    for duration in durations:
        times.add(duration)
    exact = sorted(durations)[max(1, math.ceil(share * len(durations))) - 1]
    half = 2.0 ** (0.5 / PER_OCTAVE)
    assert exact / half * (1 - 1e-9) <= times.percentile_ms(share) / 1000 <= exact * half * (1 + 1e-9)
    assert times.mean_ms() == pytest.approx(1000 * numpy.mean(durations))


def test_times_outside_the_scale_fall_into_the_outer_bins():
    times = Times()
    for duration in (0.0, 1e9):
        times.add(duration)
    assert (times.counts[0], times.counts[BINS - 1], len(times.counts)) == (1, 1, BINS)
    assert SHORTEST * 2.0 ** (BINS / PER_OCTAVE) > 3600
    assert Times().mean_ms() is None and Times().percentile_ms(0.5) is None


def test_calls_are_told_apart():
    cost = Cost()
    x, y = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)
    scores = torch.zeros(4, 3)
    steps = [
        Step(0, Boundary(0), None, None, 0.0, 0.5),
        Step(1, Batch(x, y), scores, {"loss": 0.0}, 0.001, 0.004),
        Step(2, Batch(x[:2], y[:2]), scores[:2], {}, 0.003, 0.008),
        Step(3, Batch(x), None, None, 0.0, 0.0),  # neither predicted nor learned from
        Step(4, Batch(x), None, {}, 0.0, 0.0),  # passed over: no answers, and nothing made of the inputs
    ]
    for step in steps:
        cost.observe(step, None)
    found = cost.figures()
    assert found["update_ms"] == pytest.approx(6.0)
    assert found["predict_rows"] == 3.0
    assert found["boundary_seconds"] == 0.5
    assert found["seconds"] == pytest.approx(0.516)
    assert found["predict_ms_p50"] == pytest.approx(1.0, rel=0.03)
    assert found["predict_ms_p99"] == pytest.approx(3.0, rel=0.03)
    assert found["update_ms_p99"] == pytest.approx(8.0, rel=0.03)
    cost.observe(Step(5, Batch(x), None, {"entropy": 1.0}, 0.0, 0.012), None)  # learned from inputs alone
    assert cost.figures()["update_ms"] == pytest.approx(8.0)
    assert cost.record(FineTune(torch.nn.Linear(2, 3))) == {}  # nothing on the curve depends on the clock


def test_figures_of_a_run(incremental, network):
    result = run(FineTune(network()), incremental(), monitors=[Prequential(), Cost()])
    found = result.figures["cost"]
    weights = 4 * (4 * 16 + 16 + 16 * 3 + 3)
    assert found["model_bytes"] == weights
    assert found["peak_memory_bytes"] == weights  # plain descent keeps no gradient between steps
    heavy = run(FineTune(network(), optimizer=SGD(momentum=0.9)), incremental(), monitors=[Prequential(), Cost()])
    assert heavy.figures["cost"]["peak_memory_bytes"] == 3 * weights  # weights, gradients and momentum
    assert found["predict_rows"] == 8.0
    assert 0.0 < found["update_ms"] <= found["seconds"] * 1000
    assert found["predict_ms_p50"] <= found["predict_ms_p99"]
    assert process_peak_bytes() >= found["process_peak_bytes"] > weights
    assert Cost.timed
    assert all("cost" not in point for point in result.curve)


def test_without_predictions_there_is_no_latency(incremental, network):
    found = run(FineTune(network()), incremental(), monitors=[Cost()]).figures["cost"]
    assert found["predict_ms_p50"] is None and found["predict_ms_p99"] is None and found["predict_rows"] is None
