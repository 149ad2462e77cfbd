"""ResNet-12: weights as published, a block beside its formula, dropped squares counted."""

import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, leaky_relu, max_pool2d

from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.nn.resnet12 import DropBlock, PooledBlock, resnet12
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD

COLOUR = Schema((3, 32, 32), torch.uint8, tuple("0123456789"))


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_weights_are_as_published():
    """Before the linear layer: per block 9 v w + 18 w^2 + v w in convolutions and 8 w in batch norm."""
    with torch.device("meta"):
        network = resnet12(COLOUR)
    steps = [(3, 64), (64, 160), (160, 320), (320, 640)]
    by_hand = sum(10 * v * w + 18 * w * w + 8 * w for v, w in steps)
    assert sum(weight.numel() for weight in network.parameters()) - 6410 == by_hand == 12_424_320
    assert network[-1].in_features == 640


@pytest.mark.parametrize("pooled", [True, False])
def test_a_block_is_its_formula(pooled):
    with isolated(0):
        block = PooledBlock(3, 5, pooled)
    x = images(2, 3, 7, 6)

    def normed(z, layer):
        return batch_norm(z, None, None, layer.weight, layer.bias, training=True)

    first, norm, _, second, norm_2, _, third, norm_3 = block.body
    z = leaky_relu(normed(conv2d(x, first.weight, padding=1), norm), 0.1)
    z = leaky_relu(normed(conv2d(z, second.weight, padding=1), norm_2), 0.1)
    z = normed(conv2d(z, third.weight, padding=1), norm_3)
    z = leaky_relu(z + normed(conv2d(x, block.shortcut[0].weight), block.shortcut[1]), 0.1)
    assert torch.allclose(block(x), max_pool2d(z, 2) if pooled else z, atol=1e-5)


def test_squares_are_dropped_whole_and_the_sum_stays():
    with isolated(0):
        seen = DropBlock(0.02, 3, (9, 9))(torch.ones(200, 2, 9, 9))
    gone = (seen == 0).flatten(0, 1)
    assert seen.mean().item() == pytest.approx(1.0, abs=1e-5)
    # chance per corner 0.02 / 9 * 81 / 49 = 0.00367, 49 corners, 400 planes: 72 squares of 9, some of which overlap
    assert 450 < gone.sum() < 850
    for plane in gone[gone.flatten(1).sum(1) == 9]:
        high, wide = plane.nonzero().T
        assert high.max() - high.min() == wide.max() - wide.min() == 2


def test_nothing_is_dropped_in_evaluation_or_at_a_share_of_zero():
    x = images(4, 2, 6, 6)
    assert torch.equal(DropBlock(0.5, 3, (6, 6)).eval()(x), x)
    assert torch.equal(DropBlock(0.0, 3, (6, 6)).train()(x), x)
    assert not torch.equal(DropBlock(0.5, 3, (6, 6)).train()(x), x)


def test_dropping_changes_training_and_repeats_with_its_step():
    """Draws come from (seed, step), so that a resumed run drops the same squares."""
    x, y = (
        torch.randint(256, (4, *COLOUR.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        torch.arange(4),
    )

    def stepped(share):
        with isolated(0):
            network = resnet12(COLOUR, width=2, drop_block=share)
        Descent(network, SGD(lr=0.1), seed=3)(lambda: torch.nn.functional.cross_entropy(network(x), y))
        return torch.cat([weight.detach().flatten() for weight in network.parameters()])

    assert torch.equal(stepped(0.3), stepped(0.3))
    assert not torch.equal(stepped(0.3), stepped(0.0))


@pytest.mark.parametrize(("side", "planes"), [(84, [42, 21, 10, 5]), (32, [16, 8, 4, 2]), (6, [3, 3, 3, 3])])
def test_pooling_by_hand(side, planes):
    found = []
    network = resnet12(Schema((3, side, side), torch.float32, ("a", "b")), width=2, drop_block=0.1)
    for layer in network.modules():
        if isinstance(layer, PooledBlock):
            layer.register_forward_hook(lambda _, __, plane: found.append(plane.shape[2]))
    network(images(2, 3, side, side))
    assert found == planes


def test_refusals():
    with pytest.raises(ArgumentError, match="resnet12: width must be an int >= 1, got 0"):
        resnet12(COLOUR, width=0)
    with pytest.raises(ArgumentError, match="resnet12: drop_block must be"):
        resnet12(COLOUR, drop_block=1.0)
