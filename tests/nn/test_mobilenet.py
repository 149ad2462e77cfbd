"""MobileNetV2: weights as published, a block beside its formula, strides and widths by hand."""

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d

from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.nn.mobilenet import InvertedBlock, mobilenet_v2, rounded

COLOUR = Schema((3, 32, 32), torch.uint8, tuple("0123456789"))


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_weights_are_as_published():
    """The source's 3,504,872 at 1,000 classes have no 1x1 convolution of 32 x 32, with 64 numbers of batch norm, in the first block."""
    with torch.device("meta"):
        hundred = mobilenet_v2(Schema((3, 32, 32), torch.uint8, tuple(map(str, range(100)))))
        thousand = mobilenet_v2(Schema((3, 32, 32), torch.uint8, tuple(map(str, range(1000)))))
    layers = [layer for layer in hundred.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 54 and sum(layer.weight.numel() for layer in layers) == 2_318_784
    assert sum(weight.numel() for weight in thousand.parameters()) == 3_504_872 + 32 * 32 + 2 * 32


@pytest.mark.parametrize(("width", "stride"), [(4, 1), (6, 1), (4, 2)])
def test_a_block_is_its_formula(width, stride):
    with isolated(0):
        block = InvertedBlock(4, width, expansion=3, stride=stride)
    x = images(3, 4, 7, 6)
    widen, norm, _, alone, norm_alone, _, narrow, norm_narrow = block.body

    def normed(z, layer):
        return batch_norm(z, None, None, layer.weight, layer.bias, training=True)

    z = normed(conv2d(x, widen.weight), norm).clamp(0, 6)
    planes = [conv2d(z[:, [k]], alone.weight[[k]], stride=stride, padding=1) for k in range(12)]
    z = normed(conv2d(normed(torch.cat(planes, 1), norm_alone).clamp(0, 6), narrow.weight), norm_narrow)
    assert torch.allclose(block(x), z + x if (width, stride) == (4, 1) else z, atol=1e-5)


@pytest.mark.parametrize(("side", "planes"), [(32, [32, 16, 8, 4]), (8, [8, 4, 2]), (2, [2])])
def test_strides_by_hand(side, planes):
    found = []
    network = mobilenet_v2(Schema((3, side, side), torch.float32, ("a", "b")), width=0.25)
    for layer in network.modules():
        if isinstance(layer, InvertedBlock):
            layer.register_forward_hook(lambda _, __, plane: found.append(plane.shape[2]))
    network(images(1, 3, side, side))
    assert len(found) == 17 and list(dict.fromkeys(found)) == planes


def test_widths_by_hand():
    assert [rounded(channels) for channels in (3, 8, 11, 12, 18, 20, 24, 120, 123)] == [8, 8, 16, 16, 24, 24, 24, 120, 120]
    small, large = mobilenet_v2(COLOUR, width=0.25), mobilenet_v2(COLOUR, width=0.5)
    assert small[-1].in_features == large[-1].in_features == 1280
    assert next(small.parameters()).shape[0] == 8 and next(large.parameters()).shape[0] == 16
    with torch.device("meta"):
        assert mobilenet_v2(COLOUR, width=1.5)[-1].in_features == 1920


def test_refusals():
    with pytest.raises(ArgumentError, match="mobilenet_v2: width must be"):
        mobilenet_v2(COLOUR, width=0)
    with pytest.raises(ArgumentError, match="mobilenet_v2: images must have 2x2 pixels or more, got 1x9"):
        mobilenet_v2(Schema((1, 1, 9), torch.uint8, ("a", "b")))
