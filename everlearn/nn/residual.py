"""Residual networks: blocks whose input is added to what two 3x3 convolutions make of it.

    block(x) = ReLU(BN(conv(ReLU(BN(conv(x))))) + shortcut(x))
    shortcut = x;  where the shape changes: every stride-th pixel and zeros for new channels, or a 1x1 convolution with BN

References: He et al. (2016), Deep residual learning for image recognition, arXiv 1512.03385; Lopez-Paz & Ranzato (2017),
Gradient episodic memory for continual learning, arXiv 1706.08840 (the reduced ResNet-18 of continual learning).
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import linear, normalize, pad

HALVED = (
    4  # the least height and width of a plane that a stride of 2 halves: the half has 2, which batch norm needs for one row
)


class Block(nn.Module):
    """Two 3x3 convolutions of `width` channels, each with batch norm, around a shortcut; (b, channels, h, w) in.

    stride: of the first convolution; project: change the shortcut's shape by a 1x1 convolution with batch norm, else by leaving
    out pixels and adding channels of zeros, half on either side.

    >>> import torch
    >>> Block(4, 8, stride=2)(torch.zeros(1, 4, 6, 6)).shape
    torch.Size([1, 8, 3, 3])
    """

    def __init__(self, channels: int, width: int, stride: int = 1, project: bool = False):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        same = channels == width and stride == 1
        if same:
            self.shortcut: nn.Module = nn.Identity()
        elif project:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        else:
            self.shortcut = Thinned(width, stride)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


class Thinned(nn.Module):
    """Every stride-th pixel of each plane, and planes of zeros around them up to `width`: a shortcut without weights.

    >>> import torch
    >>> Thinned(3, 2)(torch.arange(16.0).view(1, 1, 4, 4)).squeeze(0).tolist()
    [[[0.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [8.0, 10.0]], [[0.0, 0.0], [0.0, 0.0]]]
    """

    def __init__(self, width: int, stride: int):
        super().__init__()
        self.width = width
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        missing = self.width - x.shape[1]
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, missing // 2, missing - missing // 2))


class UnitLinear(nn.Linear):
    """A linear layer whose rows are divided by their norm, without a bias: score_c = <w_c, z> / |w_c|.

    No class can win by a longer row. Reference: Lesort et al. (2023), SCoLe, arXiv 2207.04543.

    >>> import torch
    >>> layer = UnitLinear(2, 1)
    >>> layer.weight.data = torch.tensor([[3.0, 4.0]])
    >>> round(layer(torch.tensor([[5.0, 10.0]])).item(), 6)
    11.0
    """

    def __init__(self, d: int, classes: int):
        super().__init__(d, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, normalize(self.weight, dim=1))


def trunk(
    channels: int, plane: tuple[int, int], widths: Sequence[int], blocks: int, project: bool
) -> tuple[list[nn.Module], tuple[int, int]]:
    """A 3x3 stem of widths[0] channels and one stage of `blocks` blocks per width, and the plane's (height, width) after them.

    Every stage but the first begins with a stride of 2, for as long as both sides of the plane have HALVED pixels or more.
    """
    stem = [nn.Conv2d(channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    layers, plane = stages(widths[0], plane, widths, blocks, project)
    return [*stem, *layers], plane


def stages(
    channels: int, plane: tuple[int, int], widths: Sequence[int], blocks: int, project: bool
) -> tuple[list[nn.Module], tuple[int, int]]:
    """The stages of a `trunk` alone, behind any stem that gives `channels`, and the plane's (height, width) after them."""
    layers: list[nn.Module] = []
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage and not block and min(plane) >= HALVED else 1
            plane = (-(-plane[0] // stride), -(-plane[1] // stride))
            layers.append(Block(channels, width, stride, project))
            channels = width
    return layers, plane
