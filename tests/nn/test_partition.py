"""Networks cut and put together again: the same bits, blocks where they are expected, and refusals."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.nn.networks import NETWORKS
from everlearn.nn.partition import part_sizes, partition

SCHEMA = Schema((3, 32, 32), torch.float32, ("a", "b", "c"))


def images(side=32):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


class Basic(nn.Module):
    """A block in the layout of widely used residual networks: attributes, activations in place, `out += identity`."""

    def __init__(self, channels, width, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        changed = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.downsample = None if stride == 1 and channels == width else changed

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class Residual(nn.Module):
    """The ResNet-18 in that layout."""

    def __init__(self, width=4, classes=3):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for stage in range(4):
            first = Basic(max(1, width * 2**stage // (1 if stage == 0 else 2)), width * 2**stage, 1 + (stage > 0))
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, Basic(width * 2**stage, width * 2**stage)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Plain(nn.Module):
    """A user's network: functions between layers, two streams that meet again, and a squeeze of the plane."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, 1, 1)
        self.third = nn.Conv2d(4, 6, 3, 2, 1)
        self.scale = nn.Parameter(torch.full((1, 6, 1, 1), 2.0))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = functional.relu(self.norm(self.first(x)))
        x = x + functional.gelu(self.second(x))
        x = functional.relu(self.third(x)) * self.scale
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """A block of a vision transformer."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x):
        z = self.norm(x)
        x = x + self.attend(z, z, z, need_weights=False)[0]
        return x + self.mlp(x)


class Tokens(nn.Module):
    """A vision transformer with a class token and positions: values that come from no input."""

    def __init__(self, width=4):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.Sequential(*(Attention(width) for _ in range(6)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        n = x.shape[0]
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(n, -1, -1), x], dim=1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class Wrapped(nn.Module):
    """A network inside another."""

    def __init__(self):
        super().__init__()
        self.scale = 0.5
        self.network = Residual()

    def forward(self, x):
        return self.network(x * self.scale) / 2.0


class Deciding(nn.Module):
    """Decides by its numbers what it computes."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, 2), nn.Linear(4, 3)

    def forward(self, x):
        z = self.first(x)
        z = self.second(z if z.sum() > 0 else -z)
        return self.head(z.mean((2, 3)))


def made(build):
    with isolated(0):
        network = build()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.5, 2.0, generator=torch.Generator().manual_seed(1))
    return network.eval()


OWN = {
    "residual": (Residual, (1, 2, 2, 3)),
    "wrapped": (Wrapped, (1, 2, 2, 3)),
    "user's": (Plain, (1, 1)),
    "tokens": (Tokens, (1, 1, 2, 2)),
    "perceptron": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)),
        (1,),
    ),
}
HOUSE = {
    "wide_resnet": ({"depth": 16, "width": 1}, (1, 1, 2, 2)),
    "resnet18": ({"width": 4}, (1, 2, 2, 3)),
    "resnet50": ({"width": 4}, (3, 3, 5, 5)),
    "mobilenet_v2": ({"width": 0.25}, (3, 4, 4, 6)),
    "cifar_resnet": ({}, (2, 2, 2, 3)),
    "resnet12": ({"width": 4}, (1, 1, 1, 1)),
    "conv4": ({}, (1, 1, 1)),
    "mlp": ({"hidden": (8, 8, 8)}, (1, 1)),
}


@pytest.mark.parametrize("name", [*OWN, *HOUSE])
def test_the_pieces_together_are_the_network_to_the_bit(name):
    if name in OWN:
        build, sizes = OWN[name]
    else:
        options, sizes = HOUSE[name]
        build = lambda: NETWORKS[name](SCHEMA, **options)  # noqa: E731
    network = made(build)
    pieces = partition("me", network)
    assert pieces.sizes == sizes and len(pieces.parts) == len(sizes)
    assert torch.equal(pieces(images()), network(images()))
    inside = {id(weight) for piece in (pieces.stem, *pieces.parts, pieces.head) for weight in piece.parameters()}
    assert inside == {id(weight) for weight in network.parameters()}


@pytest.mark.parametrize("name", ["conv4", "wide_resnet"])
def test_networks_in_bfloat16_are_cut_as_well(name):
    network = made(lambda: NETWORKS[name](SCHEMA, precision="bfloat16", **HOUSE[name][0]))
    pieces = partition("me", network)
    assert pieces.sizes == HOUSE[name][1] and torch.equal(pieces(images()), network(images()))


def test_sizes_are_as_published_or_by_the_rule():
    assert [part_sizes("me", 12, parts) for parts in (4, 5)] == [(2, 2, 4, 4), (2, 2, 2, 2, 4)]
    assert [part_sizes("me", 18, parts) for parts in (4, 5)] == [(3, 3, 6, 6), (3, 3, 3, 3, 6)]
    assert [part_sizes("me", 16, parts) for parts in (4, 5)] == [(3, 3, 5, 5), (2, 2, 4, 4, 4)]
    assert part_sizes("me", 6, 3) == (2, 2, 2) and part_sizes("me", 7, 1) == (7,) and part_sizes("me", 2, 4) == (1, 1)
    for blocks in range(1, 40):
        for parts in range(1, 8):
            sizes = part_sizes("me", blocks, parts)
            assert sum(sizes) == blocks and len(sizes) == min(parts, blocks) and min(sizes) >= 1
            assert list(sizes[:-1]) == sorted(sizes[:-1])
    assert part_sizes("me", 5, [1, 4]) == (1, 4)
    with pytest.raises(ArgumentError, match=r"the network's 5 blocks, got \[1, 3\], which is 4"):
        part_sizes("me", 5, [1, 3])
    with pytest.raises(ArgumentError, match="parts must be an int >= 1"):
        part_sizes("me", 5, 0)


def test_blocks_that_a_user_names():
    network = made(Wrapped)
    pieces = partition("me", network, parts=2, blocks=["network.layer1", "network.layer2.0", "network.layer4"])
    assert pieces.sizes == (2, 1) and torch.equal(pieces(images()), network(images()))
    assert pieces.parts[0][0] is network.network.layer1 and pieces.parts[1] is network.network.layer4
    by_hand = partition("me", made(Deciding), blocks=lambda net: (net.first, [net.second], net.head))
    assert by_hand.sizes == (1,)


@pytest.mark.parametrize(
    ("build", "blocks", "told"),
    [
        (Residual, ["layer9"], "such as conv1, bn1, .*got \\['layer9'\\]"),
        (Residual, "layer1", "got \\['layer1'\\]"),
        (Residual, ["layer2", "layer1"], "not in the order"),
        (Residual, ["layer1.0.conv1"], "do not stand alone"),
        (Residual, lambda net: net.layer1, "must give \\(stem, \\[blocks\\], head\\)"),
        (Deciding, ["first"], "cannot be followed"),
        (Deciding, None, "cannot be cut into a chain.*blocks="),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), None, "no encoder"),
        (lambda: nn.Linear(4, 3), None, "no encoder"),
    ],
)
def test_what_cannot_be_cut(build, blocks, told):
    with pytest.raises(ArgumentError, match=told):
        partition("me", made(build), blocks=blocks)


def test_the_mode_of_the_network_is_left_as_it_was():
    network = made(Residual).train()
    partition("me", network)
    assert network.training and all(module.training for module in network.modules())
