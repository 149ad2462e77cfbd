"""The mixture of the published trainer: uniform at the start, weight to what hurts, still where it may not move."""

import pytest
import torch

from everlearn.agents.learned_query import Learned
from everlearn.agents.query_simultaneous import Mixture
from everlearn.agents.query_training import Schedule
from everlearn.data.query_families import thresholds
from everlearn.measure.particles import Family


def begun(size=12):
    family = Family(thresholds(5, horizon=5), 12.0)
    mixture = Mixture(size, family)
    mixture.begin(family, torch.Generator().manual_seed(0))
    return mixture


def test_it_begins_uniform():
    assert begun().probabilities.tolist() == pytest.approx([1 / 12] * 12)


def test_weight_goes_to_what_hurts_and_entropy_draws_it_back():
    mixture = begun()
    chosen, loss = torch.arange(12), torch.zeros(12, dtype=torch.float64)
    loss[3] = 1.0
    for _ in range(50):
        mixture._move(chosen, loss, torch.zeros_like(mixture.free))
    assert int(mixture.probabilities.argmax()) == 3 and float(mixture.weights[3]) > 0
    mixture = begun()
    mixture.weights[3] = 1.0
    before = mixture.probabilities[3].clone()
    mixture._move(chosen, torch.zeros(12, dtype=torch.float64), torch.zeros_like(mixture.free))
    assert mixture.probabilities[3] < before


def test_a_step_moves_instances_within_their_bounds_or_not_at_all():
    schedule = Schedule(rounds=1, steps=1, problems=6, episodes=3)
    results = []
    for moves in (True, False):
        mixture = begun()
        policy = Learned(mixture.family.problem, width=8)
        start = mixture.free.clone()
        for _ in range(3):
            optimizer = torch.optim.Adam(policy.scores.parameters(), lr=1e-3)
            mixture.step(policy, optimizer, [12.0], None, schedule, moves, torch.Generator().manual_seed(1))
        results.append(not torch.equal(mixture.free, start))
        assert bool((mixture.free >= 0.02).all()) and bool((mixture.free <= 1.0).all())
        assert (mixture.weights != 0).any() == moves
    assert results == [True, False]


def test_levels_are_the_smallest_class_that_holds_an_instance():
    mixture = begun(3)
    mixture.value = torch.tensor([3.0, 6.0, 100.0], dtype=torch.float64)
    assert mixture.levels([4.0, 6.0, 12.0]).tolist() == [0, 1, 2]
