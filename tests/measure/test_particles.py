"""Instances that an adversary moves: they start inside their class, stay within their bounds, and the barrier is 0 inside."""

import math

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.data.query_families import best_arm, thresholds
from everlearn.data.query_problem import QueryProblem
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


def with_prior(**settings):
    """Two arms, theta ~ N((1, -1), ((4, 0), (2, 1))((4, 0), (2, 1))')."""
    root = torch.tensor([[4.0, 0.0], [2.0, 1.0]], dtype=torch.float64)
    prior = (torch.tensor([1.0, -1.0], dtype=torch.float64), root @ root.T)
    return QueryProblem(torch.eye(2), torch.eye(2), noise="gaussian", horizon=2, prior=prior, **settings), root


def test_a_prior_is_where_instances_start_and_what_holds_them():
    problem, root = with_prior()
    family = Family(problem)
    start = family.draw(4000, random())
    # 95 % of draws are as they come; -2 log 0.05 = 5.991 is the squared radius in two dimensions
    squared = (start.free**2).sum(1)
    assert float(squared.max()) == pytest.approx(-2.0 * math.log(0.05))
    # the standard deviation of that share is sqrt(.05 * .95 / 4000) = 0.0034; four of them
    assert float((squared > 5.99).double().mean()) == pytest.approx(0.05, abs=0.014)
    some = Particles(family, torch.tensor([[0.5, -2.0]], dtype=torch.float64), torch.tensor([0]))
    assert some.theta.tolist() == [[1.0 + 4.0 * 0.5, -1.0 + 2.0 * 0.5 - 2.0]]
    gradient = torch.tensor([[3.0, 5.0]], dtype=torch.float64)
    assert some.to_free(gradient).tolist() == (gradient @ root).tolist() == [[22.0, 5.0]]
    far = some.moved(torch.tensor([[30.0, 40.0]], dtype=torch.float64)).free
    assert far.tolist()[0] == pytest.approx([0.6 * 5.99146**0.5, 0.8 * 5.99146**0.5], abs=1e-5)


def test_a_known_offset_has_no_difficulty():
    problem, _ = with_prior(offset=torch.tensor([0.5, 0.0]))
    assert Family(problem).draw(3, random()).theta.shape == (3, 2)
    with pytest.raises(ArgumentError, match="known offset"):
        Family(problem, 12.0)
