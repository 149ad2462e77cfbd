"""Removal and growth by rule, by hand and by count."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.nn.growth import REMOVAL, growth_score, moment_of, rate_at, remove, rewire
from everlearn.nn.masks import drop

W = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, -1.0, -2.0, -3.0, -4.0, -5.0])


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def test_sign_removal_drops_the_weights_closest_to_zero_on_each_side():
    assert W[remove("sign", W != 0, W, None, 0.4)].tolist() == [5, 4, 3, -3, -4, -5]


def test_sign_removal_takes_the_rest_from_the_side_that_has_it():
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0, -1.0])
    assert weight[remove("sign", weight != 0, weight, None, 0.8)].tolist() == [4.0]  # four go: one is all that lies below
    assert (-weight)[remove("sign", weight != 0, -weight, None, 0.8)].tolist() == [-4.0]


def test_sign_removal_takes_an_active_zero_first():
    weight = torch.tensor([0.0, 1.0, -1.0, 9.0])
    kept = remove("sign", torch.tensor([True, True, True, False]), weight, None, 0.3)
    assert kept.tolist() == [False, True, True, False]


def test_taylor_removal_goes_by_weight_times_gradient():
    weight, gradient = torch.tensor([5.0, 1.0, -2.0]), torch.tensor([0.1, 1.0, -3.0])  # 0.25, 1, 36
    assert remove("taylor", torch.ones(3, dtype=torch.bool), weight, gradient, 0.3).tolist() == [False, True, True]
    assert remove("magnitude", torch.ones(3, dtype=torch.bool), weight, gradient, 0.3).tolist() == [True, False, True]
    with pytest.raises(ArgumentError, match="needs the gradient"):
        remove("taylor", torch.ones(3, dtype=torch.bool), weight, None, 0.3)


def test_rates_fall_as_the_schedule_says():
    assert [rate_at("cosine", step, 4) for step in (0, 4)] == pytest.approx([0.5, 0.005])
    assert rate_at("cosine", 1, 4) == pytest.approx(0.4275089283)
    assert rate_at("linear", 1, 4) == pytest.approx(0.37625)
    assert rate_at("constant", 3, 4) == 0.5
    assert [rate_at(schedule, 9, 4) for schedule in ("cosine", "linear")] == pytest.approx([0.005, 0.005])


@pytest.mark.parametrize("removal", REMOVAL)
@pytest.mark.parametrize("growth", ["random", "unfired", "gradient", "momentum"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0.05, 0.95), rate=st.floats(0.0, 1.0))
def test_an_update_leaves_as_many_active_as_it_found(removal, growth, seed, density, rate):
    random = source(seed)
    weight = torch.randn(9, 7, generator=random).round(decimals=1)  # with ties and zeros
    mask = torch.rand(9, 7, generator=random) < density
    gradient = torch.randn(9, 7, generator=random)
    fired = mask | (torch.rand(9, 7, generator=random) < 0.3)
    kept = remove(removal, mask, weight, gradient, rate)
    assert int(kept.sum()) == int(mask.sum()) - min(int(mask.sum()), math.ceil(rate * int(mask.sum()) - 1e-9))
    score = growth_score(growth, weight, gradient=gradient, moment=gradient.abs(), fired=fired, random=random)
    assert (score >= 0).all()
    grown = rewire(mask, kept, score)
    assert int(grown.sum()) == int(mask.sum())
    assert (grown | ~kept).all()  # what was kept stays


def test_gradient_and_momentum_grow_the_largest():
    mask = torch.tensor([True, False, False, False])
    kept = torch.zeros(4, dtype=torch.bool)
    score = growth_score("gradient", W[:4], gradient=torch.tensor([0.1, -3.0, 2.0, 0.0]))
    assert rewire(mask, kept, score).tolist() == [False, True, False, False]
    score = growth_score("momentum", W[:4], moment=torch.tensor([0.1, 1.0, 2.0, 0.0]))
    assert rewire(mask, kept, score).tolist() == [False, False, True, False]


def test_unfired_places_come_before_all_others():
    fired = torch.arange(100) < 60
    mask = torch.arange(100) < 50
    for seed in range(5):
        score = growth_score("unfired", torch.zeros(100), fired=fired, random=source(seed))
        grown = rewire(mask, drop(mask, torch.rand(100), 0.6), score)  # thirty removed and grown: forty never fired
        assert int((grown & ~fired).sum()) == 30


def test_places_of_others_grow_last_and_only_where_none_is_left():
    mask = torch.tensor([True, True, True, False, False, False])
    held = torch.tensor([False, False, False, True, True, False])
    kept = torch.tensor([True, False, False, False, False, False])
    high = torch.tensor([0.0, 0.0, 0.0, 9.0, 8.0, 0.1])
    assert rewire(mask, kept, high).tolist() == [True, False, False, True, True, False]
    assert not (rewire(mask, kept, high, held) & held).any()
    taken = torch.tensor([False, True, True, True, True, True])
    assert int(rewire(mask, kept, high, taken).sum()) == 3  # all the others are held: the count still stands


def test_random_growth_is_even():
    counts = torch.zeros(20)
    mask = torch.arange(20) < 10
    for seed in range(2000):
        counts += rewire(mask, torch.zeros_like(mask), growth_score("random", torch.zeros(20), random=source(seed)))
    assert (counts / 2000 - 0.5).abs().max() < 4 * math.sqrt(0.25 / 2000)  # four standard errors


def test_moments_are_those_of_the_optimiser():
    weight = nn.Parameter(torch.ones(2))
    plain = torch.optim.SGD([weight], lr=0.1)
    assert moment_of(plain, weight) is None
    heavy = torch.optim.SGD([weight], lr=0.1, momentum=0.5)
    adam = torch.optim.AdamW([weight], lr=0.1)
    for optimizer in (heavy, adam):
        weight.grad = torch.tensor([2.0, -1.0])
        optimizer.step()
    assert moment_of(heavy, weight).tolist() == [2.0, 1.0]
    assert torch.allclose(
        moment_of(adam, weight), torch.tensor([0.2, 0.1]) / (0.001**0.5 * torch.tensor([2.0, 1.0]) + 1e-8), atol=1e-6
    )


@pytest.mark.parametrize("rule", ["gradient", "momentum", "unfired", "random", "none", "best"])
def test_a_rule_without_what_it_needs_is_refused(rule):
    with pytest.raises(ArgumentError, match=f"growth='?{rule}"):
        growth_score(rule, W)
