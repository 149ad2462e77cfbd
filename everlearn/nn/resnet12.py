"""ResNet-12 of few-shot learning: four blocks of three 3x3 convolutions, each block followed by pooling.

    block(x) = pool(a(BN(conv(a(BN(conv(a(BN(conv(x)))))))) + BN(1x1 conv(x)))),   a(z) = max(z, 0.1 z)

The last activation is taken of the sum; pooling is the maximum over 2x2 pixels.
References: Lee et al. (2019), Meta-learning with differentiable convex optimization, arXiv 1904.03758 (the widths); Ghiasi et al.
(2018), DropBlock, arXiv 1810.12890.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from everlearn.core.errors import check_count, check_range
from everlearn.core.stream import Schema
from everlearn.nn.front import ChannelsLast, computed, front, image
from everlearn.nn.residual import HALVED

SLOPE = 0.1  # of the activation below 0
SIDE = 5  # of the squares that are dropped


class DropBlock(nn.Module):
    """While training, squares of each plane are set to 0, and the rest is scaled up to the same sum; else x as it is.

    share: of the pixels to be dropped; side: of the squares, at most the plane's; plane: (height, width) of x (b, channels, h, w).
    Draws come from torch's global generator, through an inner dropout layer.

    >>> import torch
    >>> dropped = DropBlock(0.3, 3, (9, 9))(torch.ones(40, 8, 9, 9))
    >>> 0.6 < (dropped > 0).double().mean().item() < 0.8, round(dropped.mean().item(), 3)
    (True, 1.0)

    Reference: Ghiasi et al. (2018), arXiv 1810.12890, algorithm 1.
    """

    def __init__(self, share: float, side: int, plane: tuple[int, int]):
        super().__init__()
        self.side = min(side, *plane)
        self.room = (plane[0] - self.side + 1, plane[1] - self.side + 1)  # places for the first corner of a square
        chance = share / self.side**2 * (plane[0] * plane[1]) / (self.room[0] * self.room[1])
        self.corners = nn.Dropout(min(1.0, chance))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.corners.p:
            return x
        drawn = (self.corners(torch.ones(*x.shape[:2], *self.room, device=x.device)) == 0).to(x.dtype)
        around = self.side - 1
        kept = 1.0 - max_pool2d(pad(drawn, (around, around, around, around)), self.side, stride=1)
        return x * kept * (kept.numel() / kept.sum().clamp(min=1.0))


class PooledBlock(nn.Module):
    """Three 3x3 convolutions of `width` channels around a 1x1 shortcut, pooled where `pooled`; (b, channels, h, w) in.

    >>> import torch
    >>> PooledBlock(3, 8)(torch.zeros(2, 3, 6, 6)).shape
    torch.Size([2, 8, 3, 3])
    """

    def __init__(self, channels: int, width: int, pooled: bool = True):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (channels, width, width):
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(SLOPE)]
        self.body = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
        self.activation = nn.LeakyReLU(SLOPE)
        self.pool = nn.MaxPool2d(2) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.activation(self.body(x) + self.shortcut(x)))


def resnet12(schema: Schema, width: int = 64, drop_block: float = 0.0, precision: str = "float32") -> nn.Module:
    """The residual network of few-shot learning: blocks of 64, 160, 320 and 640 channels, the mean over the plane, a linear layer.

    width: channels of the first block; the others have 2.5, 5 and 10 times as many, so features number 640; drop_block: share of
    the pixels that the last two blocks drop in squares of 5x5 while training, 0.1 in the source, 0 here; precision: "float32" or
    "bfloat16", in which convolutions alone compute. At three-channel images it has 12,424,320 weights before its linear layer.
    Blocks pool only while both sides of their plane have 4 pixels or more.

    Raises ArgumentError where rows are not images of 2x2 pixels or more, or an argument is none of these.

    >>> import torch
    >>> network = resnet12(Schema((3, 32, 32), torch.uint8, ("cat", "dog")), width=4)
    >>> network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([1, 2])

    Reference: Lee et al. (2019), arXiv 1904.03758.
    Differs from the source in: torch's own initialisation, no dropout in the first two blocks, a constant share of dropped pixels.
    """
    check_count("resnet12", "width", width)
    check_range("resnet12", "drop_block", drop_block, 0.0, 0.9)
    channels, *plane = image("resnet12", schema, least=2)
    before = front("resnet12", schema)
    layers: list[nn.Module] = []
    widths = [width, 5 * width // 2, 5 * width, 10 * width]
    for number, outputs in enumerate(widths):
        pooled = min(plane) >= HALVED
        layers.append(PooledBlock(channels, outputs, pooled))
        plane = [side // 2 if pooled else side for side in plane]
        if drop_block and number >= 2:
            layers.append(DropBlock(drop_block, SIDE, (plane[0], plane[1])))
        channels = outputs
    return nn.Sequential(
        *(*before, ChannelsLast(), *computed("resnet12", layers, precision)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, schema.outputs)),
    )
