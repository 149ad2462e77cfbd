"""Cosine heads: scores by hand, growth, and how a network's last layer becomes one."""

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.nn.features import last_linear, scores_and_features
from everlearn.nn.heads import ProxyHead, with_proxies


def test_scores_are_cosines_over_the_temperature():
    head = ProxyHead(2, 3, temperature=0.5)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0], [0, 2], [-1, -1]]))
    scores = head(torch.tensor([[3.0, 4.0]]))
    assert scores.flatten().tolist() == pytest.approx([1.2, 1.6, -1.4 / 2**0.5 / 0.5], abs=1e-5)


def test_a_grown_head_scores_old_classes_as_before():
    head = ProxyHead(4, 3)
    grown = head.grow_to(5)
    x = torch.randn(6, 4)
    assert torch.allclose(grown(x)[:, :3], head(x), rtol=1e-5) and grown(x).shape == (6, 5)
    with pytest.raises(ArgumentError, match="cannot grow to 2"):
        head.grow_to(2)


def test_the_last_layer_becomes_the_proxies_wherever_it_stands():
    inner = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
    model = nn.ModuleDict({"body": inner, "tail": nn.ModuleDict({"head": nn.Linear(4, 3)})})
    weight = model["tail"]["head"].weight
    changed = with_proxies("pcr", model, 0.09)
    assert isinstance(last_linear(changed), ProxyHead) and last_linear(changed).weight is weight
    alone = with_proxies("pcr", nn.Linear(5, 3), 0.09)
    assert alone(torch.ones(2, 5)).shape == (2, 3)
    with pytest.raises(ArgumentError, match="last linear layer"):
        with_proxies("pcr", nn.ReLU(), 0.09)


def test_one_forward_pass_gives_scores_and_features():
    plain = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    first, second = plain[0], plain[2]
    model = with_proxies("pcr", plain, 0.09)
    x = torch.randn(6, 5)
    scores, features = scores_and_features(model, x)
    assert torch.equal(features, torch.tanh(first(x))) and torch.equal(scores, model.head(features))
    assert torch.equal(model.features(x), features) and model.head.weight is second.weight
    assert set(map(id, model.parameters())) == {id(first.weight), id(first.bias), id(second.weight)}
    assert features.requires_grad
    plain, flat = scores_and_features(nn.Flatten(), torch.ones(2, 3, 2))
    assert torch.equal(plain, flat)


@pytest.mark.parametrize("temperature", [0, -1.0, None])
def test_temperatures_that_are_none_are_refused(temperature):
    with pytest.raises(ArgumentError, match="above 0"):
        ProxyHead(4, 3, temperature)
