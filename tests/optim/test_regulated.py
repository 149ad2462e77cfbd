"""A regulated step: looked at without a trace, set, taken, and told in the optimiser's own direction."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.random import generator, isolated
from everlearn.core.state import capture, same
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Adam
from everlearn.optim.regulated import RegulationEvent, Steps

MAKERS = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.05),
    "decayed": lambda weights: torch.optim.SGD(weights, lr=0.05, weight_decay=0.1),
    "momentum": lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda weights: torch.optim.Adam(weights, lr=0.05, weight_decay=0.1),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.05, weight_decay=0.1),
    "amsgrad": lambda weights: torch.optim.Adam(weights, lr=0.05, amsgrad=True),
    "rmsprop": lambda weights: torch.optim.RMSprop(weights, lr=0.05),
}
EXACT_AHEAD = {"sgd", "decayed", "momentum"}


def network(seed=0):
    with isolated(seed, "network"):
        return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


def batch(seed=0, size=7):
    random = generator(seed, "batch")
    return torch.randn(size, 5, generator=random), torch.randint(3, (size,), generator=random)


def look_at(steps, model, x, y):
    return steps.look(model, x, y, steps.check(model, x, y))


@pytest.mark.parametrize("make", MAKERS)
def test_the_direction_is_the_change_of_the_weights_over_the_rate(make):
    """w before - w after = lr d for each of three steps. Differences of weights of order 1 in float32 over lr = 0.05: 1e-5."""
    model = network()
    steps = Steps("test", MAKERS[make](model.parameters()))
    for seed in range(3):
        look = look_at(steps, model, *batch(seed))
        before = [weight.detach().clone() for weight in model.parameters()]
        ahead = steps.ahead(look.gradients)
        told = steps.follow_and_tell(look.gradients, 0.05)
        for old, new, part in zip(before, model.parameters(), told, strict=True):
            assert torch.allclose((old - new.detach()) / 0.05, part, atol=1e-5)
        assert (ahead is not None) == (make in EXACT_AHEAD) == steps.foresees
        if ahead is not None:
            assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(ahead, told, strict=True))
    assert steps.plain == (make == "sgd")


def test_directions_are_exact_where_the_rate_is_too_small_to_change_a_weight():
    for make in ("sgd", "momentum", "adam"):
        model = network()
        steps = Steps("test", MAKERS[make](model.parameters()))
        steps.set(1e-12)
        look = look_at(steps, model, *batch())
        told = steps.follow_and_tell(look.gradients, 1e-12)
        assert all(bool(part.abs().sum() > 1e-3) for part in told[-2:])


@pytest.mark.parametrize("clip", [None, 0.01])
def test_a_descent_tells_the_direction_that_it_took(clip):
    for optimizer in (SGD(lr=0.05, clip=clip), SGD(lr=0.05, momentum=0.9, clip=clip), Adam(lr=0.05, clip=clip)):
        model = network()
        steps = Steps("test", Descent(model, optimizer))
        look = look_at(steps, model, *batch())
        before = [weight.detach().clone() for weight in model.parameters()]
        told = steps.follow_and_tell(look.gradients, 0.05)
        for old, new, part in zip(before, model.parameters(), told, strict=True):
            assert torch.allclose((old - new.detach()) / 0.05, part, atol=1e-5)


def test_looking_gives_loss_scores_and_gradients_and_moves_no_weight():
    model, (x, y) = network().train(), batch()
    twin = copy.deepcopy(model)
    steps = Steps("test", MAKERS["sgd"](model.parameters()))
    before = [weight.detach().clone() for weight in model.parameters()]
    look = look_at(steps, model, x, y)
    scores = twin(x)
    loss = cross_entropy(scores, y)
    loss.backward()
    assert look.finite and torch.equal(look.loss, loss.detach()) and torch.equal(look.logits, scores.detach())
    for gradient, weight in zip(look.gradients, twin.parameters(), strict=True):
        assert torch.equal(gradient, weight.grad)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_a_look_at_a_loss_that_is_not_finite_leaves_normalisation_alone():
    model = network()
    before = capture(model)
    look = look_at(
        Steps("test", MAKERS["sgd"](model.parameters())), model, torch.full((4, 5), math.inf), torch.zeros(4).long()
    )
    assert not look.finite and same(before, capture(model))


def test_parameters_that_play_no_part_stay_and_have_no_direction():
    model = nn.ModuleDict({"used": nn.Linear(5, 3), "idle": nn.Linear(5, 3)})
    model.forward = lambda x: model["used"](x)
    steps = Steps("test", torch.optim.SGD(model.parameters(), lr=0.05))
    look = look_at(steps, model, *batch())
    told = steps.follow_and_tell(look.gradients, 0.05)
    assert [part is None for part in told] == [False, False, True, True]


def test_what_does_not_fit_is_refused():
    model = network()
    steps = Steps("test", MAKERS["sgd"](model.parameters()))
    with pytest.raises(InputError, match=r"label 3 is out of range; allowed: 0\.\.2"):
        look_at(steps, model, torch.zeros(2, 5), torch.tensor([0, 3]))
    with pytest.raises(InputError, match="one label for each"):
        steps.check(model, torch.zeros(0, 5), torch.zeros(0).long())
    with pytest.raises(ArgumentError, match="all of them"):
        steps.check(network(), *batch())
    with pytest.raises(ArgumentError, match="optimizer must be a torch optimiser"):
        Steps("test", model)


def test_events_tell_what_monitors_read():
    told = RegulationEvent(0.1, torch.tensor(2.0), (1.0, 0.5), True, 3, 4, wrong=True).metrics()
    assert told.pop("loss") == 2.0
    assert told == {"lr": 0.1, "decided": True, "taken": True, "wrong": True, "clipped": False, "finite": True}
