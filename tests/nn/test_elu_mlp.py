"""The published perceptron: its size, its first draw, its layers."""

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.nn.elu_mlp import elu_mlp

DIGITS = Schema((1, 28, 28), torch.uint8, tuple("0123456789"))


def test_it_has_the_published_size():
    """784 * 80 + 80 + 80 * 60 + 60 + 60 * 10 + 10."""
    assert sum(weight.numel() for weight in elu_mlp(DIGITS).parameters()) == 68_270


def test_weights_and_biases_are_drawn_as_published():
    """Deviations of n normal draws are off by sd / sqrt(2 n): four of these; means by sd / sqrt(n)."""
    with isolated(0, "network"):
        layers = [layer for layer in elu_mlp(DIGITS, hidden=(400, 300)) if isinstance(layer, nn.Linear)]
    for layer in layers:
        expected, count = (2.0 / layer.in_features) ** 0.5, layer.weight.numel()
        assert abs(layer.weight.std() - expected) < 4 * expected / (2 * count) ** 0.5
        assert abs(layer.weight.mean()) < 4 * expected / count**0.5
        assert abs(layer.bias.std() - 1.0) < 4 / (2 * len(layer.bias)) ** 0.5


def test_bytes_are_divided_by_255_and_elu_stands_between_the_layers():
    network = elu_mlp(DIGITS)
    x = torch.randint(256, (5, 1, 28, 28), dtype=torch.uint8)
    first, second, third = (layer for layer in network if isinstance(layer, nn.Linear))
    h = first(x.flatten(1).float() / 255.0)
    for layer in (second, third):
        h = layer(torch.where(h > 0, h, h.exp() - 1.0))
    assert torch.allclose(network(x), h, atol=1e-5)
    assert len(elu_mlp(Schema((4,), torch.float32, ("no", "yes")), hidden=())) == 2


def test_wrong_widths_are_refused():
    for hidden in (80, (80, 0), (8.5,)):
        with pytest.raises(ArgumentError, match="elu_mlp: "):
            elu_mlp(DIGITS, hidden=hidden)
