"""MobileNetV2: blocks that widen by a 1x1 convolution, look around plane by plane, and narrow again without an activation.

    block(x) = BN(narrow(r(BN(each_plane(r(BN(widen(x)))))))  (+ x where shapes agree),   r(z) = min(max(z, 0), 6)

Reference: Sandler et al. (2018), MobileNetV2: inverted residuals and linear bottlenecks, arXiv 1801.04381, table 2.
"""

from torch import Tensor, nn

from everlearn.core.errors import check_range
from everlearn.core.stream import Schema
from everlearn.nn.front import ChannelsLast, computed, front, image
from everlearn.nn.residual import HALVED

STEM, LAST, MULTIPLE = 32, 1280, 8
STAGES = (  # expansion, channels, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedBlock(nn.Module):
    """(b, channels, h, w) to (b, width, h / stride, w / stride) by way of expansion * channels planes, each convolved alone.

    >>> import torch
    >>> InvertedBlock(4, 6, expansion=3, stride=2)(torch.zeros(2, 4, 8, 8)).shape
    torch.Size([2, 6, 4, 4])
    """

    def __init__(self, channels: int, width: int, expansion: int, stride: int = 1):
        super().__init__()
        inner = expansion * channels
        self.body = nn.Sequential(
            *_convolution(channels, inner, 1),
            *_convolution(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.adds = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


def mobilenet_v2(schema: Schema, width: float = 1.0, precision: str = "float32") -> nn.Module:
    """MobileNetV2 for small images: 17 inverted blocks between a 3x3 and a 1x1 convolution, mean over the plane, a linear layer.

    width: multiplies the channels, which are rounded to multiples of 8 (the last convolution keeps 1,280 or more); precision:
    "float32" or "bfloat16", in which convolutions alone compute: a fresh network's scores then differ by a third of what they
    differ from row to row, far more than in other networks, since rounding grows from norm to norm, and only answers come
    sooner, not steps. At width 1 and 100 classes it has 2,318,784 weights in 54 convolutions and linear layers. Planes are
    halved only while both sides have 4 pixels or more.

    Raises ArgumentError where rows are not images of 2x2 pixels or more, or an argument is none of these.

    >>> import torch
    >>> network = mobilenet_v2(Schema((3, 32, 32), torch.uint8, ("cat", "dog")), width=0.25)
    >>> network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([1, 2])

    Reference: Sandler et al. (2018), arXiv 1801.04381.
    Differs from the paper in: a stride of 1 in the stem and the second stage, for images of 32x32; the first block has its 1x1
    convolution too, though it does not widen; no dropout.
    """
    check_range("mobilenet_v2", "width", width, 0.05, 10.0)
    channels, *plane = image("mobilenet_v2", schema, least=2)
    before = front("mobilenet_v2", schema)
    inputs = rounded(STEM * width)
    layers = _convolution(channels, inputs, 3)
    for expansion, outputs, blocks, first in STAGES:
        for block in range(blocks):
            stride = first if not block and min(plane) >= HALVED else 1
            plane = [-(-side // stride) for side in plane]
            layers.append(InvertedBlock(inputs, rounded(outputs * width), expansion, stride))
            inputs = rounded(outputs * width)
    last = max(LAST, rounded(LAST * width))
    layers += _convolution(inputs, last, 1)
    return nn.Sequential(
        *(*before, ChannelsLast(), *computed("mobilenet_v2", layers, precision)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, schema.outputs)),
    )


def rounded(channels: float) -> int:
    """The nearest multiple of 8, 8 or more, and never below nine tenths of what was asked for.

    >>> rounded(3), rounded(24 * 0.75), rounded(11)
    (8, 24, 16)
    """
    near = max(MULTIPLE, int(channels + MULTIPLE / 2) // MULTIPLE * MULTIPLE)
    return near if near >= 0.9 * channels else near + MULTIPLE


def _convolution(channels: int, width: int, side: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution with batch norm and the clipped activation."""
    layer = nn.Conv2d(channels, width, side, stride, padding=side // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(width), nn.ReLU6()]
