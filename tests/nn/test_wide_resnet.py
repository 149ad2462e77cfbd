"""Wide residual networks: weights and batch norm inputs as published, a block beside its formula, strides by hand."""

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d, relu

from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.nn.wide_resnet import WideBlock, wide_resnet


def schema(classes, side=32):
    return Schema((3, side, side), torch.float32, tuple(map(str, range(classes))))


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("depth", "width", "classes", "weights", "inputs"),
    [(40, 2, 100, 2_255_156, 704_512), (28, 10, 10, 36_479_194, 2_310_144)],
)
def test_weights_and_inputs_of_batch_norm_are_as_published(depth, width, classes, weights, inputs):
    seen = []
    with torch.device("meta"):
        network = wide_resnet(schema(classes), depth=depth, width=width)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.register_forward_hook(lambda _, x, __: seen.append(x[0].numel()))
        network(torch.zeros(1, 3, 32, 32))
    assert sum(weight.numel() for weight in network.parameters()) == weights
    assert sum(seen) == inputs
    # what must be kept to train the affine weights of batch norm, and the network, in MB at 64 rows
    if depth == 40:
        assert round(4 * 64 * inputs / 1e6, 2) == 180.36 and round(4 * (64 * inputs + weights) / 1e6, 2) == 189.38
    else:
        assert round(4 * 64 * inputs / 1e6, 2) == 591.40


@pytest.mark.parametrize(("width", "stride"), [(4, 1), (8, 1), (4, 2)])
def test_a_block_is_its_formula(width, stride):
    with isolated(0):
        block = WideBlock(4, width, stride)
    x = images(3, 4, 7, 6)

    def normed(z, layer):
        return batch_norm(z, None, None, layer.weight, layer.bias, training=True)

    first, norm, _, second = block.body
    a = relu(normed(x, block.before[0]))
    z = conv2d(relu(normed(conv2d(a, first.weight, stride=stride, padding=1), norm)), second.weight, padding=1)
    way = x if (width, stride) == (4, 1) else conv2d(a, block.shortcut.weight, stride=stride)
    assert torch.allclose(block(x), z + way, atol=1e-5)


@pytest.mark.parametrize(("side", "planes"), [(32, [32, 16, 8]), (8, [8, 4, 2]), (4, [4, 2]), (2, [2])])
def test_strides_by_hand(side, planes):
    found = []
    network = wide_resnet(schema(2, side), depth=10, width=1)
    for layer in network.modules():
        if isinstance(layer, WideBlock):
            layer.register_forward_hook(lambda _, __, plane: found.append(plane.shape[2]))
    network(images(1, 3, side, side))
    assert len(found) == 3 and list(dict.fromkeys(found)) == planes


def test_dropout_acts_while_training_alone():
    with isolated(0):
        network = wide_resnet(schema(2, 8), depth=10, width=1, dropout=0.5)
    x = images(2, 3, 8, 8)
    network.eval()
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [({"depth": 20}, "6n \\+ 4"), ({"depth": 4}, "depth"), ({"width": 0}, "width"), ({"dropout": 1.0}, "dropout")],
)
def test_what_it_refuses(arguments, told):
    with pytest.raises(ArgumentError, match=told):
        wide_resnet(schema(2), **arguments)
