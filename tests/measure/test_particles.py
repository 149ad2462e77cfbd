"""Instances that an adversary moves: they start inside their class, stay within their bounds, and the barrier is 0 inside."""

import math

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.data.query_families import best_arm, thresholds
from everlearn.measure.difficulty import difficulties, rho_star
from everlearn.measure.particles import Family, Particles


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def test_labellings_start_in_their_class_with_every_answer_alike():
    problem = thresholds(10, horizon=10)
    for r in (4.0, 12.0, 48.0):
        start = Family(problem, r).draw(33, random())
        assert start.index.bincount().tolist() == [3] * 11
        exact = [rho_star(problem.queries, problem.answers, theta)[0] for theta in start.theta[:6]]
        assert max(exact) <= r * (1 + 1e-9)
        assert bool((start.free >= 0.02).all()) and bool((start.free <= 1.0).all())
        assert torch.equal(problem.best(start.theta), start.index)


def test_best_arms_start_within_the_noise_and_mostly_in_their_class():
    problem = best_arm(4, horizon=12, noise="sign")
    family = Family(problem, 60.0)
    start = family.draw(50, random())
    assert float(start.theta.abs().max()) <= 1.0
    assert float((family.difficulty(start).value <= 60.0).double().mean()) > 0.5


def test_the_barrier_is_zero_inside_and_points_to_easier_instances_outside():
    problem = thresholds(10, horizon=10)
    inside = Family(problem, 12.0)
    start = inside.draw(22, random())
    found = inside.difficulty(start)
    assert not inside.barrier_gradient(start, found).any()
    tighter = Family(problem, 4.0)
    start = Particles(tighter, start.free, start.index)
    gradient = tighter.barrier_gradient(start, found)
    outside = found.value > 4.0
    assert outside.any() and bool((gradient[outside].abs().sum(1) > 0).all()) and not gradient[~outside].any()
    # down the gradient of log rho*, a short step with the design held makes the instance easier
    moved = start.moved(start.free - 1e-4 * gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-12))
    before, after = (
        difficulties(problem.queries, problem.answers, some.theta, found.design, steps=0).value for some in (start, moved)
    )
    assert bool((after < before)[outside].all())


def test_without_a_limit_only_the_margins_bind():
    family = Family(thresholds(6, horizon=6), margins=(0.4, 1.0))
    start = family.draw(70, random())
    assert math.isinf(family.r) and float(start.free.min()) >= 0.4
    assert float(start.moved(start.free - 10.0).free.max()) == 0.4


def test_a_class_that_is_empty_is_refused_with_the_smallest_difficulty():
    with pytest.raises(ArgumentError, match=r"smallest difficulty of this problem, 2\.1332"):
        Family(thresholds(10, horizon=10), 2.0)
    with pytest.raises(ArgumentError, match=r"smallest difficulty of this problem, 1\."):
        Family(best_arm(2, horizon=4, noise="sign"), 0.5)
    with pytest.raises(ArgumentError, match="margins"):
        Family(thresholds(4, horizon=4), margins=(0.5, 0.2))
