"""The published counts of memory, on networks built here from their shapes."""

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.measure.activation_formula import Sizes, formula, part_sizes, sizes


class Wide(nn.Module):
    """A block of a wide residual network: batch norm and ReLU ahead of each of two convolutions."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.norm, self.relu = nn.BatchNorm2d(channels), nn.ReLU()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
        )
        self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False) if channels != width else None

    def forward(self, x):
        a = self.relu(self.norm(x))
        return self.body(a) + (x if self.shortcut is None else self.shortcut(a))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, each with a batch norm; four times the width comes out."""

    def __init__(self, channels, width, stride):
        super().__init__()
        layers = []
        for inside, outside, side, step in ((channels, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)):
            layers += [nn.Conv2d(inside, outside, side, step, side // 2, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
        self.body, self.relu = nn.Sequential(*layers[:-1]), nn.ReLU()
        change = channels != 4 * width or stride > 1
        self.shortcut = (
            nn.Sequential(nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
            if change
            else None
        )

    def forward(self, x):
        return self.relu(self.body(x) + (x if self.shortcut is None else self.shortcut(x)))


def wide(depth, width, classes):
    """(network, blocks)."""
    blocks, channels = [], 16
    for stage, out in enumerate((16 * width, 32 * width, 64 * width)):
        for block in range((depth - 4) // 6):
            blocks.append(Wide(channels, out, 2 if stage and not block else 1))
            channels = out
    ends = nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), *blocks, *ends), blocks


def resnet50():
    """(network, blocks)."""
    blocks, channels = [], 64
    for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(count):
            blocks.append(Bottleneck(channels, width, 2 if stage and not block else 1))
            channels = 4 * width
    stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)), blocks


def mega(value):
    return round(value / 1e6, 2)


@pytest.fixture(scope="module")
def wrn40():
    return wide(40, 2, 100)


def test_wrn_40_2(wrn40):
    """Reference check 1."""
    network, blocks = wrn40
    x = torch.zeros(1, 3, 32, 32)
    counted = sizes(network, x)
    assert counted.parameters == 2_255_156 and mega(4 * counted.parameters) == 9.02
    assert counted.norms == 704_512
    tent = formula("tent", counted, 64)
    assert (mega(tent.activations), mega(tent.total)) == (180.36, 189.38)
    four, five = (part_sizes(network, blocks, parts, x) for parts in ([3, 3, 6, 6], [3, 3, 3, 3, 6]))
    assert [part.x for part in four] == [16384, 32768, 32768, 16384]
    assert [part.o for part in four] == [32768, 32768, 16384, 8192]
    for parts, elements, activations, meta, total, less in (
        (four, 278_528, 71.30, 107_008, 80.75, 57.4),
        (five, 327_680, 83.89, 144_128, 93.48, 50.6),
    ):
        found = formula("ecotta", counted, 64, parts=parts)
        assert sum(part.x + 2 * part.o for part in parts) == elements
        assert (mega(found.activations), mega(found.total)) == (activations, total)
        assert sum(part.meta_parameters() for part in parts) == meta
        assert round(100 * (1 - found.total / tent.total), 1) == less


def test_wrn_28_10():
    """Reference check 2."""
    network, blocks = wide(28, 10, 10)
    x = torch.zeros(1, 3, 32, 32)
    counted = sizes(network, x)
    assert (counted.parameters, counted.norms) == (36_479_194, 2_310_144)
    assert mega(formula("tent", counted, 64).activations) == 591.40
    for blocks_of, activations, meta in (([2, 2, 4, 4], 339.74, 2_562_560), ([2, 2, 2, 2, 4], 402.65, 3_485_440)):
        parts = part_sizes(network, blocks, blocks_of, x)
        found = sum(part.meta_parameters() for part in parts)
        assert found == meta
        assert mega(formula("ecotta", counted, 64, parts=parts).activations + 0) == activations


def test_resnet_50():
    """Reference check 2: 3x3 meta networks weigh as much as the network itself; 1x1 ones a ninth."""
    network, blocks = resnet50()
    x = torch.zeros(1, 3, 224, 224)
    counted = sizes(network, x)
    assert (counted.parameters, counted.norms) == (25_557_032, 11_113_984)
    assert mega(formula("tent", counted, 64).activations) == 2845.18
    for blocks_of, activations, meta in (([3, 3, 5, 5], 1181.75, 24.9), ([2, 2, 4, 4, 4], 1335.89, 34.4)):
        parts = part_sizes(network, blocks, blocks_of, x)
        assert mega(formula("ecotta", counted, 64, parts=parts).activations) == activations
        assert round(sum(part.meta_parameters() for part in parts) / 1e6, 1) == meta
        assert sum(part.meta_parameters(kernel=1) for part in parts) < 0.13e6 * meta


def test_schemes_beside_each_other(wrn40):
    counted = sizes(wrn40[0], torch.zeros(1, 3, 32, 32))
    assert formula("source", counted, 64).activations == formula("bn_stats", counted, 64).activations == 0
    full, cotta = formula("full", counted, 64), formula("cotta", counted, 64)
    assert full.activations == cotta.activations == 4 * 64 * (counted.norms + counted.convolutions)
    assert cotta.parameters == 4 * full.parameters  # three copies and gradients
    assert formula("tent", counted, 64).masks == 64 * counted.masks // 8
    assert formula("tent", counted, 64, autograd=True).activations > 1.9 * formula("tent", counted, 64).activations


def test_counting_changes_nothing():
    network, _ = wide(10, 1, 4)
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    sizes(network, torch.rand(1, 3, 16, 16))
    assert network.training and all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_refusals(wrn40):
    network, blocks = wrn40
    with pytest.raises(ArgumentError, match=r"parts \[3, 3\] must be counts of blocks that sum to 18"):
        part_sizes(network, blocks, [3, 3], torch.zeros(1, 3, 32, 32))
    counted = Sizes(1, 1, 1, 1, 1, 1)
    with pytest.raises(ArgumentError, match="unknown scheme 'tents'; did you mean 'tent'"):
        formula("tents", counted, 1)
    with pytest.raises(ArgumentError, match="ecotta needs parts"):
        formula("ecotta", counted, 1)
