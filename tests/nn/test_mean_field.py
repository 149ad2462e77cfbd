"""Weights drawn from Gaussians: the draw, its gradient, and the means that answer."""

import copy

import pytest
import torch

from everlearn.nn.mean_field import MeanField


@pytest.fixture
def drawn():
    torch.nn.init.constant_((layer := torch.nn.Linear(2, 1, bias=False)).weight, 1.0)
    return MeanField(layer, deviation=0.5)


def test_a_draw_is_mean_plus_deviation_times_noise(drawn):
    drawn.draw(torch.Generator().manual_seed(3))
    noise = torch.randn(2, generator=torch.Generator().manual_seed(3))
    x = torch.tensor([[1.0, 10.0]])
    weight = 1.0 + 0.5 * noise
    assert torch.allclose(drawn(x).flatten(), weight @ x.T.flatten()[:, None])
    slopes = torch.autograd.grad(drawn(x).sum(), list(drawn.parameters()))
    assert torch.allclose(slopes[0], x) and torch.allclose(slopes[1], x * 0.5 * noise)


def test_the_means_answer_in_evaluation_and_without_a_draw(drawn):
    x = torch.ones(3, 2)
    assert torch.equal(drawn(x), drawn.network(x))
    drawn.draw(torch.Generator().manual_seed(0))
    assert not torch.equal(drawn(x), drawn.network(x))
    assert torch.equal(drawn.eval()(x), drawn.network(x))
    drawn.train().still()
    assert torch.equal(drawn(x), drawn.network(x))


def test_frozen_weights_stay_as_they_are_and_tied_ones_are_drawn_once():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    network[0].weight.requires_grad_(False)
    network[1].weight = network[0].weight
    network[1].bias = network[0].bias
    drawn = MeanField(network)
    assert list(drawn.means) == ["0.bias"] and drawn.row()[0].shape == (2,)
    assert len([parameter for parameter in drawn.parameters() if parameter.requires_grad]) == 2


def test_draws_have_the_deviation_and_a_copy_is_its_own(drawn):
    random, x = torch.Generator().manual_seed(1), torch.tensor([[1.0, 0.0]])
    other = copy.deepcopy(drawn)
    with torch.no_grad():
        values = torch.stack([(drawn.draw(random), drawn(x))[1].squeeze() for _ in range(2000)])
        other.network.weight.zero_()
    assert values.mean().item() == pytest.approx(1.0, abs=4 * 0.5 / 2000**0.5)
    assert values.std().item() == pytest.approx(0.5, rel=4 / (2 * 2000) ** 0.5)
    assert other.row()[0].tolist() == [0.0, 0.0] and drawn.row()[0].tolist() == [1.0, 1.0]
