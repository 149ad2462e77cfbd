"""ResNet-50: weights and batch norm inputs as published, a block beside its formula, strides by hand."""

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d, relu

from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.nn.bottleneck import Bottleneck, resnet50


def schema(classes, side):
    return Schema((3, side, side), torch.float32, tuple(map(str, range(classes))))


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_weights_and_inputs_of_batch_norm_are_as_published():
    seen = []
    with torch.device("meta"):
        network = resnet50(schema(1000, 224))
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.register_forward_hook(lambda _, x, __: seen.append(x[0].numel()))
        network(torch.zeros(1, 3, 224, 224))
    assert sum(weight.numel() for weight in network.parameters()) == 25_557_032
    assert sum(seen) == 11_113_984 and round(4 * 64 * sum(seen) / 1e6, 2) == 2845.18


@pytest.mark.parametrize(("channels", "stride"), [(12, 1), (4, 1), (12, 2)])
def test_a_block_is_its_formula(channels, stride):
    with isolated(0):
        block = Bottleneck(channels, 3, stride)
    x = images(2, channels, 7, 6)

    def normed(z, layer):
        return batch_norm(z, None, None, layer.weight, layer.bias, training=True)

    narrow, first, _, around, second, _, widen, third = block.body
    z = relu(normed(conv2d(x, narrow.weight), first))
    z = relu(normed(conv2d(z, around.weight, stride=stride, padding=1), second))
    z = normed(conv2d(z, widen.weight), third)
    way = (
        x if (channels, stride) == (12, 1) else normed(conv2d(x, block.shortcut[0].weight, stride=stride), block.shortcut[1])
    )
    assert torch.allclose(block(x), relu(z + way), atol=1e-5)


@pytest.mark.parametrize(
    ("stem", "side", "planes"), [("imagenet", 64, [16, 8, 4, 2]), ("cifar", 32, [32, 16, 8, 4]), ("cifar", 2, [2])]
)
def test_strides_by_hand(stem, side, planes):
    found = []
    network = resnet50(schema(2, side), width=4, stem=stem)
    for layer in network.modules():
        if isinstance(layer, Bottleneck):
            layer.register_forward_hook(lambda _, __, plane: found.append(plane.shape[2]))
    network(images(1, 3, side, side))
    assert len(found) == 16 and list(dict.fromkeys(found)) == planes


def test_what_it_refuses():
    with pytest.raises(ArgumentError, match="stem"):
        resnet50(schema(2, 32), stem="tiny")
    with pytest.raises(ArgumentError, match="16x16"):
        resnet50(schema(2, 8))
