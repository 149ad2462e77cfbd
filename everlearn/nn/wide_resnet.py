"""Wide residual networks: few layers, many channels, batch norm and ReLU ahead of each convolution.

    a = ReLU(BN(x));   block(x) = conv(ReLU(BN(conv(a)))) + (x where shapes agree, else a 1x1 convolution of a)

Three stages of 16, 32 and 64 channels times the width, (depth - 4) / 6 blocks each: WRN-40-2 has depth 40 and width 2.
Reference: Zagoruyko & Komodakis (2016), Wide residual networks, arXiv 1605.07146.
"""

from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.stream import Schema
from everlearn.nn.front import ChannelsLast, computed, front, image
from everlearn.nn.residual import HALVED

CHANNELS = (16, 32, 64)  # of the stages, at width 1
STEM = 16


class WideBlock(nn.Module):
    """Two 3x3 convolutions of `width` channels behind their batch norms; (b, channels, h, w) in.

    stride: of the first convolution; dropout: share of the numbers between the two that are dropped while training.

    >>> import torch
    >>> WideBlock(4, 8, stride=2)(torch.zeros(1, 4, 6, 6)).shape
    torch.Size([1, 8, 3, 3])
    """

    def __init__(self, channels: int, width: int, stride: int = 1, dropout: float = 0.0):
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        dropped = [nn.Dropout(dropout)] if dropout else []
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(*dropped, nn.Conv2d(width, width, 3, padding=1, bias=False)),
        )
        self.same = channels == width and stride == 1
        self.shortcut = nn.Identity() if self.same else nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a = self.before(x)
        return self.body(a) + self.shortcut(x if self.same else a)


def wide_resnet(
    schema: Schema, depth: int = 40, width: int = 2, dropout: float = 0.0, precision: str = "float32"
) -> nn.Module:
    """The wide residual network WRN-depth-width for small images: a 3x3 stem, three stages, mean over the plane, a linear layer.

    depth: layers with weights, 16, 28 and 40 as published, or any 6n + 4; width: multiplies the channels; dropout: inside the
    blocks while training, 0.3 in the source where there is any; precision: "float32" or "bfloat16", in which convolutions alone
    compute. WRN-40-2 has 2,255,156 weights at 100 classes, WRN-28-10 has 36,479,194 at 10. Strides are left out where a plane
    would fall to one pixel.

    Raises ArgumentError where rows are not images of 2x2 pixels or more, or an argument is none of these.

    >>> import torch
    >>> network = wide_resnet(Schema((3, 32, 32), torch.uint8, ("cat", "dog")), depth=10, width=1)
    >>> network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([1, 2])

    Reference: Zagoruyko & Komodakis (2016), arXiv 1605.07146.
    Differs from the source in: torch's own initialisation.
    """
    check_count("wide_resnet", "depth", depth, low=10)
    check_count("wide_resnet", "width", width)
    check_range("wide_resnet", "dropout", dropout, 0.0, 0.9)
    if (depth - 4) % 6:
        raise ArgumentError(f"wide_resnet: depth must be 6n + 4, such as 16, 28 or 40, got {depth}.")
    channels, *plane = image("wide_resnet", schema, least=2)
    layers: list[nn.Module] = [nn.Conv2d(channels, STEM, 3, padding=1, bias=False)]
    inputs = STEM
    for stage, outputs in enumerate(width * part for part in CHANNELS):
        for block in range((depth - 4) // 6):
            stride = 2 if stage and not block and min(plane) >= HALVED else 1
            plane = [-(-side // stride) for side in plane]
            layers.append(WideBlock(inputs, outputs, stride, dropout))
            inputs = outputs
    layers += [nn.BatchNorm2d(inputs), nn.ReLU()]
    return nn.Sequential(
        *(*front("wide_resnet", schema), ChannelsLast(), *computed("wide_resnet", layers, precision)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, schema.outputs)),
    )
