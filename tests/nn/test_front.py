"""What stands before the first weight by hand, and products in bfloat16 beside products of rounded numbers."""

import copy

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.core.stream import Schema
from everlearn.nn.front import ChannelsLast, Rounded, Scale, computed, front, image


def test_scaling_by_hand():
    assert Scale(shift=0)(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert Scale()(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([-0.5, -0.3, 0.5])
    assert Scale()(torch.tensor([7], dtype=torch.uint8)).dtype == torch.float32


@pytest.mark.parametrize("shape", [(2, 1, 4, 3), (2, 3, 4, 3), (1, 2, 5, 5)])
def test_channels_last_changes_the_order_in_memory_alone(shape):
    x = torch.arange(torch.tensor(shape).prod()).reshape(shape).float()
    for given in (x, x.transpose(2, 3), x[:, :, ::2]):
        seen = ChannelsLast()(given)
        _, channels, _, width = seen.shape
        assert torch.equal(seen, given)
        assert seen.stride()[1:] == (1, channels * width, channels)
    assert torch.equal(x, torch.arange(x.numel()).reshape(shape))


def test_products_are_those_of_rounded_numbers():
    """A bfloat16 product is the product of the rounded weights and inputs, and rounded itself."""
    random = torch.Generator().manual_seed(0)
    layer = nn.Linear(1, 64, bias=False)
    layer.weight.data = torch.randn(64, 1, generator=random)
    x = torch.randn(1, 1, generator=random)
    by_hand = (x.bfloat16().double() * layer.weight.bfloat16().double().T).float().bfloat16().float()
    seen = Rounded([layer])(x)
    assert torch.equal(seen, by_hand)
    assert not torch.equal(seen, layer(x))


def test_what_is_rounded_follows_its_weights():
    """Inside one context weights change between two calls, as between a gradient and a step."""
    part = Rounded([nn.Linear(3, 3)])
    x = torch.ones(2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = part(x)
        with torch.no_grad():
            part.layers[0].bias.add_(16.0)
        assert torch.equal(part(x).round(), (before + 16.0).round())


def test_a_copy_computes_the_same():
    part = Rounded([nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)]).eval()
    x = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(copy.deepcopy(part)(x), part(x))


def test_layers_of_full_precision_stay_as_they_are():
    layers = [nn.Linear(1, 1), nn.ReLU()]
    assert computed("net", layers, "float32") == layers
    assert len(computed("net", layers, "bfloat16")) == 1
    with pytest.raises(ArgumentError, match="net: precision must be 'float32' or 'bfloat16', got 'half'"):
        computed("net", layers, "half")


def test_what_a_network_can_take():
    assert image("net", Schema((3, 8, 9), torch.uint8, ("a",)), least=8) == (3, 8, 9)
    assert [type(layer) for layer in front("net", Schema((4,), torch.uint8, ("a",)))] == [Scale]
    assert front("net", Schema((4,), torch.float32, ("a",))) == []
    with pytest.raises(ArgumentError, match=r"net: images must have 9x9 pixels or more, got 8x9\. Use mlp"):
        image("net", Schema((3, 8, 9), torch.uint8, ("a",)), least=9)
    with pytest.raises(ArgumentError, match=r"net: rows must be images .* got \(4,\)"):
        image("net", Schema((4,), torch.uint8, ("a",)))
    with pytest.raises(ArgumentError, match="net: the schema names no classes"):
        front("net", Schema((4,), torch.uint8, ()))
    with pytest.raises(ArgumentError, match=r"net: rows must be uint8 or float32, got torch\.int64"):
        front("net", Schema((4,), torch.int64, ("a",)))
