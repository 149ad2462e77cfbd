"""ResNet-50: blocks that narrow by a 1x1 convolution, look around at 3x3, and widen to four times the channels again.

    block(x) = ReLU(BN(widen(ReLU(BN(around(ReLU(BN(narrow(x)))))))) + shortcut(x))

The stride lies on the 3x3 convolution, as in today's pretrained weights; the shortcut is a 1x1 convolution where shapes change.
Reference: He et al. (2016), Deep residual learning for image recognition, arXiv 1512.03385.
"""

from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.stream import Schema
from everlearn.nn.front import ChannelsLast, computed, front, image
from everlearn.nn.residual import HALVED

WIDEN = 4  # channels of a block's output for each of its inner ones
BLOCKS = (3, 4, 6, 3)  # of each stage
STEMS = ("cifar", "imagenet")


class Bottleneck(nn.Module):
    """(b, channels, h, w) to (b, 4 width, h / stride, w / stride) by way of `width` inner channels.

    >>> import torch
    >>> Bottleneck(4, 3, stride=2)(torch.zeros(1, 4, 6, 6)).shape
    torch.Size([1, 12, 3, 3])
    """

    def __init__(self, channels: int, width: int, stride: int = 1):
        super().__init__()
        outputs = WIDEN * width
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        same = channels == outputs and stride == 1
        changed = [] if same else [nn.Conv2d(channels, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*changed)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


def resnet50(schema: Schema, width: int = 64, stem: str = "imagenet", precision: str = "float32") -> nn.Module:
    """The ResNet-50: stages of 3, 4, 6 and 3 bottlenecks of 64 to 512 inner channels, mean over the plane, a linear layer.

    width: channels of the stem, and inner ones of the first stage; stem: "imagenet", a 7x7 convolution and a 3x3 max-pooling, both
    with a stride of 2, or "cifar", one 3x3 convolution; precision: "float32" or "bfloat16", in which convolutions alone compute.
    At 1,000 classes it has 25,557,032 weights. Strides of stages are left out where a plane would fall to one pixel.

    Raises ArgumentError where rows are not images of 16x16 pixels or more (2x2 with the smaller stem), or an argument is none of these.

    >>> import torch
    >>> network = resnet50(Schema((3, 32, 32), torch.uint8, ("cat", "dog")), width=4, stem="cifar")
    >>> network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([1, 2])

    Reference: He et al. (2016), arXiv 1512.03385.
    Differs from the source in: torch's own initialisation; strides on the 3x3 convolutions.
    """
    check_count("resnet50", "width", width)
    if stem not in STEMS:
        raise ArgumentError(f"resnet50: stem must be 'imagenet' or 'cifar', got {stem!r}.")
    small = stem == "cifar"
    channels, *plane = image("resnet50", schema, least=2 if small else 16)
    side, stride = (3, 1) if small else (7, 2)
    layers: list[nn.Module] = [nn.Conv2d(channels, width, side, stride, padding=side // 2, bias=False)]
    layers += [nn.BatchNorm2d(width), nn.ReLU()]
    if not small:
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        plane = [-(-side // 4) for side in plane]
    inputs = width
    for stage, blocks in enumerate(BLOCKS):
        for block in range(blocks):
            stride = 2 if stage and not block and min(plane) >= HALVED else 1
            plane = [-(-side // stride) for side in plane]
            layers.append(Bottleneck(inputs, width * 2**stage, stride))
            inputs = WIDEN * width * 2**stage
    return nn.Sequential(
        *(*front("resnet50", schema), ChannelsLast(), *computed("resnet50", layers, precision)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, schema.outputs)),
    )
