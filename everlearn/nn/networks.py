"""Networks for call strings: functions from a schema (what one row looks like) to a torch.nn.Module.

    linear   x -> W x + b
    mlp      x -> linear, ReLU for each hidden width, then a linear layer of one score per class
    small_cnn  three 3x3 convolutions, each with group normalisation and ReLU, mean over the plane, a linear layer
    grey_cnn   two 5x5 convolutions with pooling, two linear layers, no normalisation
    conv4      four 3x3 convolutions, each with batch norm and ReLU, mean over the plane, a linear layer
    conv_stack the same form with any number of convolutions, wider by default
    reduced_resnet18, cifar_resnet   residual networks with batch norm (`nn.residual`)

Rows of bytes (uint8) are scaled in front, to -0.5..0.5 or, where the published network had it so, to 0..1. Weights are drawn from
torch's global generator with torch's own initialisation; who calls seeds it with `core.random.isolated`. A batch of one trains
as well: group norm looks at one row alone, and planes before batch norm keep at least two pixels.
References: Wu & He (2018), Group normalization, arXiv 1803.08494; those of conv4 and its neighbours stand at each.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.stream import Schema
from everlearn.nn.residual import HALVED, UnitLinear, trunk

STAGES = 3  # of a CIFAR residual network
HEADS = ("linear", "weightnorm")


class Scale(nn.Module):
    """Bytes 0..255 to float32: x / 255 - shift, in -0.5..0.5 by default. Put it before a network that takes uint8 rows.

    >>> import torch
    >>> Scale()(torch.tensor([[0, 255]], dtype=torch.uint8)).tolist()
    [[-0.5, 0.5]]
    """

    def __init__(self, shift: float = 0.5):
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        scaled = x.to(torch.float32) / 255.0
        return scaled - self.shift if self.shift else scaled


class ChannelsLast(nn.Module):
    """The same images (batch, channels, height, width), in memory pixel by pixel instead of plane by plane.

    Convolutions, pooling and batch norm keep that order and take two thirds of the time in it (group norm takes more).

    >>> import torch
    >>> seen = ChannelsLast()(torch.arange(8.0).view(1, 2, 2, 2))
    >>> seen.shape, seen.stride()
    (torch.Size([1, 2, 2, 2]), (8, 1, 4, 2))
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 1:
            return x.contiguous(memory_format=torch.channels_last)
        batch, _, height, width = x.shape  # of one plane both orders are one: only the strides tell which is meant
        return x.contiguous().view(batch, height, width, 1).permute(0, 3, 1, 2)


def linear(schema: Schema) -> nn.Module:
    """Softmax regression: one linear layer on the flattened row.

    >>> import torch
    >>> linear(Schema((4,), torch.float32, ("no", "yes")))(torch.zeros(3, 4)).shape
    torch.Size([3, 2])
    """
    return mlp(schema, hidden=())


def mlp(schema: Schema, hidden: tuple[int, ...] = (100,)) -> nn.Module:
    """A perceptron on the flattened row; hidden: widths of its hidden layers (one of 100 by default, as in scikit-learn).

    Raises ArgumentError where a width is not an int >= 1 or the schema has no classes.

    >>> import torch
    >>> network = mlp(Schema((1, 8, 8), torch.uint8, tuple("0123456789")), hidden=(32, 16))
    >>> network(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape
    torch.Size([2, 10])
    """
    if not isinstance(hidden, (tuple, list)):
        raise ArgumentError(f"mlp: hidden must be the widths of the hidden layers such as (100,), got {hidden!r}.")
    for width in hidden:
        check_count("mlp", "a width in hidden", width)
    layers = _front("mlp", schema)
    if len(schema.shape) > 1:
        layers.append(nn.Flatten())
    widths = [math.prod(schema.shape), *hidden]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], schema.outputs))


def small_cnn(schema: Schema, width: int = 32) -> nn.Module:
    """A small convolutional network for images such as 3x32x32 or 1x28x28, channels first.

    width: channels of the first convolution; the second and third have 2 and 4 times as many, at half and quarter resolution.
    At 3x32x32 and width 32 it has 95,000 weights and takes about 10 million multiplications a row.

    Raises ArgumentError where rows are not (channels, height, width), or width is not an int >= 1.

    >>> import torch
    >>> network = small_cnn(Schema((3, 32, 32), torch.uint8, ("cat", "dog")), width=8)
    >>> network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([1, 2])
    """
    check_count("small_cnn", "width", width)
    channels, _, _ = _image("small_cnn", schema)
    layers = _front("small_cnn", schema)
    for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
        layers += [
            nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=False),
            nn.GroupNorm(math.gcd(8, outputs), outputs),
            nn.ReLU(),
        ]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, schema.outputs))


def grey_cnn(schema: Schema) -> nn.Module:
    """The small network of digits: 5x5 convolutions of 10 and 20 channels, each with 2x2 max-pooling and ReLU, then 50 units.

    At 1x28x28 and 10 classes it has 21,840 weights. Bytes are scaled to -0.5..0.5: from 0..1 plain gradient descent takes three
    times as many steps until it begins to learn. Other channels and sizes are taken as they come.

    Raises ArgumentError where rows are not images of 16x16 pixels or more (smaller ones leave nothing after the second pooling).

    >>> import torch
    >>> network = grey_cnn(Schema((1, 28, 28), torch.uint8, tuple("0123456789")))
    >>> sum(weight.numel() for weight in network.parameters())
    21840

    Reference: Lesort et al. (2023), Challenging common assumptions about catastrophic forgetting, arXiv 2207.04543.
    """
    channels, height, width = _image("grey_cnn", schema, least=16)
    sides = [((side - 4) // 2 - 4) // 2 for side in (height, width)]
    return nn.Sequential(
        *_front("grey_cnn", schema),
        ChannelsLast(),
        *(nn.Conv2d(channels, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(20 * math.prod(sides), 50), nn.ReLU(), nn.Linear(50, schema.outputs)),
    )


def conv4(schema: Schema, widths: tuple[int, ...] = (16, 32, 64, 64)) -> nn.Module:
    """Convolutions of 3x3 with batch norm and ReLU, a 2x2 max-pooling after each but the last, the mean over the plane, a linear layer.

    widths: channels of the convolutions. At 1x28x28 a row takes 2.25 million multiplications forward. Bytes are scaled to 0..1.
    Planes are halved only while both sides have 4 pixels or more, so that batch norm has two pixels where it has one row.

    Raises ArgumentError where rows are not images of 2x2 pixels or more, or widths are not ints >= 1.

    >>> import torch
    >>> network = conv4(Schema((1, 28, 28), torch.uint8, ("no", "yes")))
    >>> network(torch.zeros(1, 1, 28, 28, dtype=torch.uint8)).shape
    torch.Size([1, 2])

    Reference: Vinyals et al. (2016), Matching networks, arXiv 1606.04080 (the form, with 64 channels throughout).
    Differs from the source in: narrower first layers, the mean over the plane, no pooling at the end.
    """
    return _stacked("conv4", schema, widths, shift=0.0)


def conv_stack(schema: Schema, widths: tuple[int, ...] = (24, 48, 96, 96)) -> nn.Module:
    """Convolutions of 3x3 with batch norm and ReLU, as many as there are widths, in the form of `conv4`; bytes in -0.5..0.5.

    widths: channels of the convolutions. The default holds 135,432 weights in convolutions of three-channel images, and takes 1.82
    million multiplications forward for a row of 16x16. Planes are halved only while both sides have 4 pixels or more.

    Raises ArgumentError where rows are not images of 2x2 pixels or more, or widths are not ints >= 1.

    >>> import torch
    >>> network = conv_stack(Schema((3, 16, 16), torch.uint8, ("cat", "dog")))
    >>> sum(layer.weight.numel() for layer in network if isinstance(layer, nn.Conv2d))
    135432
    """
    return _stacked("conv_stack", schema, widths)


def _stacked(owner: str, schema: Schema, widths: tuple[int, ...], shift: float = 0.5) -> nn.Module:
    """The form of `conv4`: 3x3 convolutions of these widths with batch norm, pooling between them, ReLU; mean, linear layer."""
    if not isinstance(widths, (tuple, list)) or not widths:
        raise ArgumentError(
            f"{owner}: widths must be the channels of the convolutions such as (16, 32, 64, 64), got {widths!r}."
        )
    channels, *plane = _image(owner, schema, least=2)
    layers = [*_front(owner, schema, shift), ChannelsLast()]
    for layer, width in enumerate(widths, start=1):
        check_count(owner, "a width in widths", width)
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        if layer < len(widths) and min(plane) >= HALVED:
            layers.append(nn.MaxPool2d(2))  # ahead of ReLU, which gives the same from four times the numbers
            plane = [side // 2 for side in plane]
        layers.append(nn.ReLU())
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, schema.outputs))


def reduced_resnet18(schema: Schema, width: int = 20) -> nn.Module:
    """The narrow ResNet-18 of continual learning: stages of 20, 40, 80 and 160 channels, two blocks each, 4x4 mean pooling.

    width: channels of the stem and the first stage. Features number 160 at 32x32 and 640 at 84x84, where four pooled pixels are
    left. It has 1,109,240 weights at 3x32x32 and 100 classes. Bytes are scaled to 0..1. Strides are left out where a plane would
    fall to one pixel, and planes smaller than 4x4 are pooled whole.

    Raises ArgumentError where rows are not images of 2x2 pixels or more, or width is not an int >= 1.

    >>> import torch
    >>> network = reduced_resnet18(Schema((3, 32, 32), torch.uint8, ("cat", "dog")), width=2)
    >>> network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([1, 2])

    Reference: Lopez-Paz & Ranzato (2017), Gradient episodic memory for continual learning, arXiv 1706.08840.
    """
    check_count("reduced_resnet18", "width", width)
    channels, height, across = _image("reduced_resnet18", schema, least=2)
    widths = [width, 2 * width, 4 * width, 8 * width]
    layers, plane = trunk(channels, (height, across), widths, blocks=2, project=True)
    window = (min(4, plane[0]), min(4, plane[1]))
    d = widths[-1] * math.prod(side // part for side, part in zip(plane, window, strict=True))
    return nn.Sequential(
        *_front("reduced_resnet18", schema, shift=0.0),
        ChannelsLast(),
        *(*layers, nn.AvgPool2d(window), nn.Flatten(), nn.Linear(d, schema.outputs)),
    )


def cifar_resnet(
    schema: Schema, depth: int = 20, width: int = 1, head: str = "linear", shortcut: str = "zeros"
) -> nn.Module:
    """The residual network for small images: three stages of 16, 32 and 64 channels, (depth - 2) / 6 blocks each, mean over the plane.

    depth: layers with weights, 20, 32, 44 and 56 as published, or any 6n + 2; width: multiplies the channels (a wide residual
    network); head: "linear", or "weightnorm" for rows divided by their norm and no bias; shortcut where shapes change: "zeros"
    (thinned pixels and planes of zeros, as published, no weights) or "projection" (1x1 convolutions).
    At 10 classes it has 269,722 weights at depth 20 (272,474 with projections) and 853,018 at depth 56.

    Raises ArgumentError where rows are not images of 2x2 pixels or more, or an argument is none of these.

    >>> import torch
    >>> network = cifar_resnet(Schema((3, 32, 32), torch.uint8, ("cat", "dog")), depth=8)
    >>> network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([1, 2])

    References: He et al. (2016), arXiv 1512.03385; Zagoruyko & Komodakis (2016), Wide residual networks, arXiv 1605.07146.
    Differs from the sources in: torch's own initialisation; wide networks keep batch norm behind the convolutions.
    """
    check_count("cifar_resnet", "depth", depth, low=8)
    check_count("cifar_resnet", "width", width)
    if (depth - 2) % (2 * STAGES):
        raise ArgumentError(f"cifar_resnet: depth must be 6n + 2, such as 20, 32, 44 or 56, got {depth}.")
    for argument, value, allowed in (("head", head, HEADS), ("shortcut", shortcut, ("zeros", "projection"))):
        if value not in allowed:
            raise ArgumentError(f"cifar_resnet: {argument} must be {allowed[0]!r} or {allowed[1]!r}, got {value!r}.")
    channels, height, across = _image("cifar_resnet", schema, least=2)
    widths = [16 * width, 32 * width, 64 * width]
    layers, _ = trunk(channels, (height, across), widths, (depth - 2) // (2 * STAGES), project=shortcut == "projection")
    last = nn.Linear if head == "linear" else UnitLinear
    return nn.Sequential(
        *_front("cifar_resnet", schema),
        ChannelsLast(),
        *(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last(widths[-1], schema.outputs)),
    )


def auto(schema: Schema) -> nn.Module:
    """The network that suits the rows: `small_cnn` for images of 16x16 pixels or more, `mlp` for everything else.

    >>> import torch
    >>> any(isinstance(layer, nn.Conv2d) for layer in auto(Schema((3, 32, 32), torch.uint8, ("cat", "dog"))))
    True
    """
    image = len(schema.shape) == 3 and min(schema.shape[1:]) >= 16
    return small_cnn(schema) if image else mlp(schema)


def _image(owner: str, schema: Schema, least: int = 1) -> tuple[int, int, int]:
    """(channels, height, width) of rows that are images of `least` pixels or more on each side; refuse others."""
    if len(schema.shape) != 3:
        raise ArgumentError(
            f"{owner}: rows must be images of shape (channels, height, width), got {schema.shape}. Use mlp or auto."
        )
    channels, height, width = schema.shape
    if min(height, width) < least:
        raise ArgumentError(f"{owner}: images must have {least}x{least} pixels or more, got {height}x{width}. Use mlp.")
    return channels, height, width


def _front(owner: str, schema: Schema, shift: float = 0.5) -> list[nn.Module]:
    """The layers before the first weight, once the schema is known to be one that a network can take."""
    if schema.outputs < 1:
        raise ArgumentError(f"{owner}: the schema names no classes; a network needs at least one.")
    if schema.dtype == torch.uint8:
        return [Scale(shift)]
    if schema.dtype != torch.float32:
        raise ArgumentError(f"{owner}: rows must be uint8 or float32, got {schema.dtype}. Convert them with x.float().")
    return []


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "auto": auto,
    "cifar_resnet": cifar_resnet,
    "conv4": conv4,
    "conv_stack": conv_stack,
    "grey_cnn": grey_cnn,
    "linear": linear,
    "mlp": mlp,
    "reduced_resnet18": reduced_resnet18,
    "small_cnn": small_cnn,
}
