"""Imagined steps: by rank-one algebra, by moved weights and by a copy that really takes the step; and nothing is touched."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from everlearn.core.random import generator, isolated
from everlearn.core.state import capture, same
from everlearn.optim.imagined import Imagination, chain_of, slope


def perceptron(activation=nn.ELU, seed=0):
    with isolated(seed, "network"):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(12, 9), activation(), nn.Sequential(nn.Linear(9, 7), activation()), nn.Linear(7, 4)
        )


def rows(count, seed=0):
    random = generator(seed, "rows")
    return torch.randn(count, 3, 4, generator=random), torch.randint(4, (count,), generator=random)


def really_stepped(model, x, y, rate):
    """The slow twin: a copy of the model that takes the step by autograd."""
    model = copy.deepcopy(model)
    model.zero_grad()
    with torch.enable_grad():
        cross_entropy(model(x), y, reduction="sum").backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= rate * weight.grad
    return model


def test_elu_has_the_values_worked_out_by_hand():
    elu, z = nn.ELU(), torch.tensor([-1.0, 0.0], dtype=torch.float64)
    assert elu(z).tolist() == pytest.approx([-0.6321206, 0.0], abs=5e-8)
    assert slope(elu, z, elu(z)).tolist() == pytest.approx([0.3678794, 1.0], abs=5e-8)


@pytest.mark.parametrize("activation", [nn.ELU, nn.ReLU, nn.Tanh, nn.Identity])
@pytest.mark.parametrize("count", [1, 5])
def test_a_step_by_algebra_is_the_explicit_step(activation, count):
    """To 1e-6, for one row and for several, at each of the rates; the control, the weights as they are, differs by far more."""
    model, (x, y), (seen, _) = perceptron(activation), rows(count), rows(20, 1)
    chain = chain_of(model)
    with torch.no_grad():
        inputs, errors = chain.slopes(x, y)
        moved = chain.moved(seen, inputs, errors, [0.05, 0.02])
        for place, rate in enumerate((0.05, 0.02)):
            assert (moved[place] - really_stepped(model, x, y, rate)(seen)).abs().max() < 1e-6
        assert (moved[0] - model(seen)).abs().max() > 1e-3


def test_slopes_are_the_gradients_of_autograd():
    model, (x, y) = perceptron(), rows(6)
    inputs, errors = chain_of(model).slopes(x, y)
    cross_entropy(model(x), y, reduction="sum").backward()
    for layer, inner, error in zip(chain_of(model).linears, inputs, errors, strict=True):
        assert torch.allclose(error.T @ inner, layer.weight.grad, atol=1e-6)
        assert torch.allclose(error.sum(0), layer.bias.grad, atol=1e-6)


def convolution(seed=0):
    with isolated(seed, "network"):
        layers = [nn.Unflatten(1, (1, 3)), nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(24, 4))


@pytest.mark.parametrize("make", [perceptron, convolution])
def test_moved_weights_answer_as_a_model_that_has_them(make):
    model, (x, y), (seen, _) = make(), rows(6), rows(20, 1)
    imagination = Imagination(model.train())
    gradient = imagination.gradient(x, y)
    twin = really_stepped(model.eval(), x, y, 0.02)
    model.train()
    assert (imagination.scores(seen, gradient, 0.02) - twin(seen)).abs().max() < 1e-6
    gone = [None, *gradient[1:]]  # a weight without a gradient stays where it is
    with torch.no_grad():
        next(iter(twin.parameters())).copy_(next(iter(model.parameters())))
        assert (imagination.scores(seen, gone, 0.02) - twin(seen)).abs().max() < 1e-6


@pytest.mark.parametrize("make", [perceptron, convolution])
def test_imagining_touches_neither_weights_nor_gradients_nor_random_numbers(make):
    model, (x, y) = make().train(), rows(6)
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, 3.0)
    before, random = capture(model), torch.get_rng_state()
    imagination = Imagination(model)
    imagination.scores(x, imagination.gradient(x, y), 0.1)
    imagination.scores(x)
    assert same(before, capture(model)) and torch.equal(random, torch.get_rng_state())
    assert all((weight.grad == 3.0).all() for weight in model.parameters())
    assert model.training and all(module.training for module in model.modules())


def test_only_perceptrons_whose_weights_are_all_trained_are_chains():
    assert len(chain_of(perceptron()).weights) == 6
    linear = chain_of(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    assert [type(module) for module in linear.between] == [nn.Identity]
    frozen = perceptron()
    frozen[1].bias.requires_grad_(False)
    hooked = perceptron()
    hooked[1].register_forward_hook(lambda *_: None)
    shared = nn.Linear(3, 3)
    others = [
        frozen,
        hooked,
        convolution(),
        nn.Sequential(nn.Linear(2, 2), nn.Dropout()),
        nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)),
        nn.Sequential(nn.Linear(2, 2, bias=False)),
        nn.Sequential(shared, nn.ELU(), shared),
        nn.Sequential(nn.Linear(2, 2), nn.ELU()),
    ]
    assert [chain_of(model) for model in others] == [None] * len(others)
