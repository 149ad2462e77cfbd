"""The draw of a task's mask and its changes, by rule."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.learners.sparse_topology import Topology, densities

SHAPES = {"a": (10, 20), "b": (5, 10)}  # raw 0.15 and 0.3


def nothing():
    return [torch.zeros(shape, dtype=torch.bool) for shape in SHAPES.values()]


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def counts(masks):
    return [int(mask.sum()) for mask in masks]


def test_draws_meet_their_densities():
    assert counts(Topology(0.2, "uniform").draw(SHAPES, nothing(), source())) == [40, 10]
    assert counts(Topology(0.2, "erk").draw(SHAPES, nothing(), source())) == [33, 17]  # eps 50 / 45: 33.3 and 16.7
    drawn = [counts(Topology(0.2, "uniform", exact=False).draw(SHAPES, nothing(), source(seed))) for seed in range(400)]
    first = torch.tensor(drawn, dtype=torch.float64)[:, 0]
    assert first.std() > 4.0 and abs(first.mean() - 40.0) < 4 * (200 * 0.16 / 400) ** 0.5  # binomial: 5.66


def test_a_draw_that_shares_nothing_keeps_off_what_is_used_and_takes_what_is_left():
    used = nothing()
    used[0].view(-1)[:180] = True
    for exact in (True, False):
        masks = Topology(0.2, "uniform", exact=exact, share=False).draw(SHAPES, used, source())
        assert not (masks[0] & used[0]).any()
    assert counts(Topology(0.2, "uniform", share=False).draw(SHAPES, used, source())) == [20, 10]


def test_the_automatic_draw_turns_uniform_where_the_sparsest_layer_fills():
    rules = Topology(0.2, "auto", floor=0.5)  # Erdos-Renyi takes a sixth of the first layer
    used = nothing()
    assert rules.chosen_init(SHAPES, used) == "erk"
    used[0].view(-1)[:79] = True  # (1 - 79/200) (1 - 1/6) = 0.504
    assert rules.chosen_init(SHAPES, used) == "erk"
    used[0].view(-1)[:81] = True  # 0.496
    assert rules.chosen_init(SHAPES, used) == "uniform"
    assert Topology(0.2, "erk", floor=0.5).chosen_init(SHAPES, used) == "erk"


def test_automatic_growth_turns_random_where_half_of_a_layer_is_used():
    used = torch.arange(100) < 49
    assert Topology(growth="auto").chosen_growth(used) == "momentum"
    assert Topology(growth="auto").chosen_growth(torch.arange(100) < 50) == "random"
    assert Topology(growth="gradient").chosen_growth(torch.arange(100) < 90) == "gradient"


def test_updates_are_due_inside_the_task_only():
    rules = Topology(update_every=4, task_steps=12)
    assert [step for step in range(1, 20) if rules.due(step)] == [4, 8]
    assert not any(Topology(growth="none", update_every=1).due(step) for step in range(1, 20))


def test_an_update_follows_the_rate_of_its_step():
    rules = Topology(density=0.5, growth="gradient", rate=(0.5, 0.1), update_every=1, task_steps=10)
    weight = torch.arange(1.0, 21.0)
    mask = torch.arange(20) < 10
    gradient = torch.arange(20.0)
    found = rules.evolve(
        10, mask, weight, used=torch.zeros(20, dtype=torch.bool), gradient=gradient, moment=None, fired=mask, random=source()
    )
    assert found.nonzero().flatten().tolist() == [
        *range(1, 10),
        19,
    ]  # a tenth: the smallest goes, the largest gradient comes
    found = rules.evolve(
        0, mask, weight, used=torch.arange(20) > 14, gradient=gradient, moment=None, fired=mask, random=source()
    )
    assert found.nonzero().flatten().tolist() == [*range(5, 15)]  # half; the five held places stay out


def test_without_sharing_random_growth_keeps_off_what_is_held():
    rules = Topology(density=0.5, growth="random", share=False, update_every=1, task_steps=10)
    mask, held = torch.arange(40) < 10, torch.arange(40) >= 12
    for seed in range(20):
        found = rules.evolve(
            0, mask, torch.rand(40), used=held, gradient=torch.rand(40), moment=None, fired=mask, random=source(seed)
        )
        assert int(found.sum()) == 10 and not (found & held).any()


def test_densities_are_those_of_the_named_rule():
    assert densities("uniform", SHAPES, 0.3) == {"a": 0.3, "b": 0.3}
    assert densities("erk", SHAPES, 0.2) == pytest.approx({"a": 1 / 6, "b": 1 / 3})


def test_a_layer_without_an_active_weight_is_refused_by_name():
    Topology(0.02, "uniform").check("sparse", SHAPES)
    with pytest.raises(ArgumentError, match="init='uniform' the layer 'b' would have less than one active weight"):
        Topology(0.019, "uniform").check("sparse", SHAPES)
    Topology(0.0151, "erk").check("sparse", SHAPES)
    with pytest.raises(ArgumentError, match="the layer 'b'"):
        Topology(0.0151, "auto").check("sparse", SHAPES)  # it may come to draw uniformly
