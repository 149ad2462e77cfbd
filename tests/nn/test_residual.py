"""Residual blocks beside their formula, shortcuts by hand, and planes that never fall to one pixel."""

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d, relu

from everlearn.core.random import isolated
from everlearn.nn.residual import Block, Thinned, UnitLinear, trunk


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def normed(x, layer):
    return batch_norm(x, None, None, layer.weight, layer.bias, training=True)


@pytest.mark.parametrize(
    ("width", "stride", "project"), [(4, 1, False), (8, 2, False), (8, 2, True), (4, 2, True), (6, 1, False)]
)
def test_a_block_is_its_formula(width, stride, project):
    with isolated(0):
        block = Block(4, width, stride, project)
    x = images(3, 4, 7, 6)
    first, norm, _, second, norm_again = block.body
    z = relu(normed(conv2d(x, first.weight, stride=stride, padding=1), norm))
    z = normed(conv2d(z, second.weight, padding=1), norm_again)
    if (width, stride) == (4, 1):
        way = x
    elif project:
        way = normed(conv2d(x, block.shortcut[0].weight, stride=stride), block.shortcut[1])
    else:
        way = torch.zeros_like(z)
        way[:, (width - 4) // 2 : (width - 4) // 2 + 4] = x[:, :, ::stride, ::stride]
    assert torch.allclose(block(x), relu(z + way), atol=1e-5)


def test_a_block_that_adds_nothing_is_its_shortcut():
    block = Block(2, 4, stride=2)
    nn.init.zeros_(block.body[-1].weight)
    x = images(2, 2, 4, 4)
    assert torch.equal(block(x), relu(Thinned(4, 2)(x)))


def test_thinning_by_hand():
    x = torch.arange(2.0 * 9).view(1, 2, 3, 3)
    thin = Thinned(5, 2)(x)[0]
    assert thin[1].tolist() == [[0.0, 2.0], [6.0, 8.0]] and thin[2].tolist() == [[9.0, 11.0], [15.0, 17.0]]
    assert not thin[[0, 3, 4]].any()
    assert not list(Thinned(5, 2).parameters())


def test_unit_rows_by_hand():
    layer = UnitLinear(2, 3)
    layer.weight.data = torch.tensor([[3.0, 4.0], [0.0, -2.0], [30.0, 40.0]])
    assert torch.allclose(layer(torch.tensor([[5.0, 10.0]])), torch.tensor([[11.0, -10.0, 11.0]]))
    assert layer.bias is None


def test_unit_rows_learn_only_their_direction():
    layer = UnitLinear(3, 2)
    layer(images(5, 3)).square().sum().backward()
    # The gradient of a scale-free function is orthogonal to its argument.
    assert (layer.weight * layer.weight.grad).sum(1).abs().max() < 1e-4 * layer.weight.grad.abs().max()


@pytest.mark.parametrize("plane", [(32, 32), (28, 28), (84, 84), (9, 30), (8, 8), (4, 4), (3, 3), (2, 2)])
def test_a_trunk_knows_its_plane_and_leaves_two_pixels(plane):
    layers, left = trunk(1, plane, (2, 4, 6), blocks=1, project=False)
    z = nn.Sequential(*layers)(images(1, 1, *plane))
    assert z.shape == (1, 6, *left) and min(left) >= 2


def test_strides_by_hand():
    def strides(plane, widths):
        layers, left = trunk(3, plane, widths, blocks=2, project=True)
        return [block.body[0].stride[0] for block in layers[3:]], left

    assert strides((32, 32), (2, 2, 2, 2)) == ([1, 1, 2, 1, 2, 1, 2, 1], (4, 4))
    assert strides((84, 84), (2, 2, 2, 2)) == ([1, 1, 2, 1, 2, 1, 2, 1], (11, 11))
    assert strides((8, 8), (2, 2, 2, 2)) == ([1, 1, 2, 1, 2, 1, 1, 1], (2, 2))
