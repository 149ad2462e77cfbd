"""Networks for call strings: functions from a schema (what one row looks like) to a torch.nn.Module.

    linear   x -> W x + b
    mlp      x -> linear, ReLU for each hidden width, then a linear layer of one score per class
    small_cnn  three 3x3 convolutions, each with group normalisation and ReLU, mean over the plane, a linear layer
    grey_cnn   two 5x5 convolutions with pooling, two linear layers, no normalisation
    conv4      four 3x3 convolutions, each with batch norm and ReLU, mean over the plane, a linear layer
    conv_stack the same form with any number of convolutions, wider by default
    resnet18, reduced_resnet18, cifar_resnet, resnet12   residual networks with batch norm (`nn.residual`, `nn.resnet12`)
    resnet50, wide_resnet   deeper and wider ones (`nn.bottleneck`, `nn.wide_resnet`)
    mobilenet_v2   inverted residual blocks (`nn.mobilenet`)

`precision="bfloat16"` of those with convolutions takes their products in bfloat16, with weights, normalisation, the linear layer and
the scores in float32: the larger the network, the faster (benchmarks/precision.py has the times), but no longer the same numbers.

Rows of bytes (uint8) are scaled in front, to -0.5..0.5 or, where the published network had it so, to 0..1. Weights are drawn from
torch's global generator with torch's own initialisation; who calls seeds it with `core.random.isolated`. A batch of one trains
as well: group norm looks at one row alone, and planes before batch norm keep at least two pixels.
References: Wu & He (2018), Group normalization, arXiv 1803.08494; those of conv4 and its neighbours stand at each.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import nn

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.stream import Schema
from everlearn.nn.bottleneck import resnet50
from everlearn.nn.elu_mlp import elu_mlp
from everlearn.nn.front import ChannelsLast, computed, front, image
from everlearn.nn.mobilenet import mobilenet_v2
from everlearn.nn.residual import HALVED, UnitLinear, stages, trunk
from everlearn.nn.resnet12 import resnet12
from everlearn.nn.wide_resnet import wide_resnet

STAGES = 3  # of a CIFAR residual network
HEADS = ("linear", "weightnorm")
NORMS = ("group", "batch")  # of the usual network
STEMS = ("cifar", "imagenet")


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
    layers = front("mlp", schema)
    if len(schema.shape) > 1:
        layers.append(nn.Flatten())
    widths = [math.prod(schema.shape), *hidden]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], schema.outputs))


def small_cnn(schema: Schema, width: int = 32, precision: str = "float32") -> nn.Module:
    """A small convolutional network for images such as 3x32x32 or 1x28x28, channels first.

    width: channels of the first convolution; the second and third have 2 and 4 times as many, at half and quarter resolution.
    At 3x32x32 and width 32 it has 95,000 weights and takes about 10 million multiplications a row. precision: "float32" or
    "bfloat16", in which convolutions alone compute.

    Raises ArgumentError where rows are not (channels, height, width), width is not an int >= 1, or precision is neither.

    >>> import torch
    >>> network = small_cnn(Schema((3, 32, 32), torch.uint8, ("cat", "dog")), width=8)
    >>> network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([1, 2])
    """
    check_count("small_cnn", "width", width)
    channels, _, _ = image("small_cnn", schema)
    before, layers = front("small_cnn", schema), []
    for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
        layers += [
            nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=False),
            nn.GroupNorm(math.gcd(8, outputs), outputs),
            nn.ReLU(),
        ]
        channels = outputs
    return nn.Sequential(
        *(*before, *computed("small_cnn", layers, precision)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, schema.outputs)),
    )


def grey_cnn(schema: Schema, precision: str = "float32") -> nn.Module:
    """The small network of digits: 5x5 convolutions of 10 and 20 channels, each with 2x2 max-pooling and ReLU, then 50 units.

    At 1x28x28 and 10 classes it has 21,840 weights. Bytes are scaled to -0.5..0.5: from 0..1 plain gradient descent takes three
    times as many steps until it begins to learn. Other channels and sizes are taken as they come. precision: "float32" or
    "bfloat16", in which convolutions alone compute.

    Raises ArgumentError where rows are not images of 16x16 pixels or more (smaller ones leave nothing after the second pooling),
    or precision is neither.

    >>> import torch
    >>> network = grey_cnn(Schema((1, 28, 28), torch.uint8, tuple("0123456789")))
    >>> sum(weight.numel() for weight in network.parameters())
    21840

    Reference: Lesort et al. (2023), Challenging common assumptions about catastrophic forgetting, arXiv 2207.04543.
    """
    channels, height, width = image("grey_cnn", schema, least=16)
    sides = [((side - 4) // 2 - 4) // 2 for side in (height, width)]
    layers = [
        *(nn.Conv2d(channels, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU()),
    ]
    return nn.Sequential(
        *(*front("grey_cnn", schema), ChannelsLast(), *computed("grey_cnn", layers, precision)),
        *(nn.Flatten(), nn.Linear(20 * math.prod(sides), 50), nn.ReLU(), nn.Linear(50, schema.outputs)),
    )


def conv4(schema: Schema, widths: tuple[int, ...] = (16, 32, 64, 64), precision: str = "float32") -> nn.Module:
    """Convolutions of 3x3 with batch norm and ReLU, a 2x2 max-pooling after each but the last, the mean over the plane, a linear layer.

    widths: channels of the convolutions. At 1x28x28 a row takes 2.25 million multiplications forward. Bytes are scaled to 0..1.
    Planes are halved only while both sides have 4 pixels or more, so that batch norm has two pixels where it has one row. precision:
    "float32" or "bfloat16", in which convolutions alone compute.

    Raises ArgumentError where rows are not images of 2x2 pixels or more, widths are not ints >= 1, or precision is neither.

    >>> import torch
    >>> network = conv4(Schema((1, 28, 28), torch.uint8, ("no", "yes")))
    >>> network(torch.zeros(1, 1, 28, 28, dtype=torch.uint8)).shape
    torch.Size([1, 2])

    Reference: Vinyals et al. (2016), Matching networks, arXiv 1606.04080 (the form, with 64 channels throughout).
    Differs from the source in: narrower first layers, the mean over the plane, no pooling at the end.
    """
    return _stacked("conv4", schema, widths, precision, shift=0.0)


def conv_stack(schema: Schema, widths: tuple[int, ...] = (24, 48, 96, 96), precision: str = "float32") -> nn.Module:
    """Convolutions of 3x3 with batch norm and ReLU, as many as there are widths, in the form of `conv4`; bytes in -0.5..0.5.

    widths: channels of the convolutions. The default holds 135,432 weights in convolutions of three-channel images, and takes 1.82
    million multiplications forward for a row of 16x16. Planes are halved only while both sides have 4 pixels or more. precision: as in
    `conv4`.

    Raises ArgumentError where rows are not images of 2x2 pixels or more, widths are not ints >= 1, or precision is neither.

    >>> import torch
    >>> network = conv_stack(Schema((3, 16, 16), torch.uint8, ("cat", "dog")))
    >>> sum(layer.weight.numel() for layer in network if isinstance(layer, nn.Conv2d))
    135432
    """
    return _stacked("conv_stack", schema, widths, precision)


def _stacked(owner: str, schema: Schema, widths: tuple[int, ...], precision: str, shift: float = 0.5) -> nn.Module:
    """The form of `conv4`: 3x3 convolutions of these widths with batch norm, pooling between them, ReLU; mean, linear layer."""
    if not isinstance(widths, (tuple, list)) or not widths:
        raise ArgumentError(
            f"{owner}: widths must be the channels of the convolutions such as (16, 32, 64, 64), got {widths!r}."
        )
    channels, *plane = image(owner, schema, least=2)
    before: list[nn.Module] = [*front(owner, schema, shift), ChannelsLast()]
    layers: list[nn.Module] = []
    for layer, width in enumerate(widths, start=1):
        check_count(owner, "a width in widths", width)
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        if layer < len(widths) and min(plane) >= HALVED:
            layers.append(nn.MaxPool2d(2))  # ahead of ReLU, which gives the same from four times the numbers
            plane = [side // 2 for side in plane]
        layers.append(nn.ReLU())
        channels = width
    return nn.Sequential(
        *(*before, *computed(owner, layers, precision)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, schema.outputs)),
    )


def resnet18(schema: Schema, width: int = 64, stem: str = "cifar", precision: str = "float32") -> nn.Module:
    """The ResNet-18: stages of 64, 128, 256 and 512 channels, two blocks each, 1x1 shortcuts, mean over the plane, a linear layer.

    width: channels of the stem and the first stage; stem: "cifar", one 3x3 convolution, or "imagenet", a 7x7 convolution and a
    3x3 max-pooling, both with a stride of 2; precision: "float32" or "bfloat16", in which convolutions alone compute. At 32x32
    and 10 classes it has 11,173,962 weights. Strides of stages are left out where a plane would fall to one pixel.

    Raises ArgumentError where rows are not images of 2x2 pixels or more (16x16 with the larger stem), or an argument is none of these.

    >>> import torch
    >>> network = resnet18(Schema((3, 32, 32), torch.uint8, ("cat", "dog")), width=4)
    >>> network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([1, 2])

    Reference: He et al. (2016), arXiv 1512.03385 (with the larger stem).
    Differs from the source in: torch's own initialisation; the smaller stem, for images of 32x32.
    """
    check_count("resnet18", "width", width)
    if stem not in STEMS:
        raise ArgumentError(f"resnet18: stem must be 'cifar' or 'imagenet', got {stem!r}.")
    channels, height, across = image("resnet18", schema, least=2 if stem == "cifar" else 16)
    before = front("resnet18", schema)
    widths = [width, 2 * width, 4 * width, 8 * width]
    if stem == "cifar":
        layers, _ = trunk(channels, (height, across), widths, blocks=2, project=True)
    else:
        plane = (-(-height // 4), -(-across // 4))
        layers, _ = stages(width, plane, widths, blocks=2, project=True)
        first = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        layers = [first, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1), *layers]
    return nn.Sequential(
        *(*before, ChannelsLast(), *computed("resnet18", layers, precision)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], schema.outputs)),
    )


def reduced_resnet18(schema: Schema, width: int = 20, precision: str = "float32") -> nn.Module:
    """The narrow ResNet-18 of continual learning: stages of 20, 40, 80 and 160 channels, two blocks each, 4x4 mean pooling.

    width: channels of the stem and the first stage. Features number 160 at 32x32 and 640 at 84x84, where four pooled pixels are
    left. It has 1,109,240 weights at 3x32x32 and 100 classes. Bytes are scaled to 0..1. Strides are left out where a plane would
    fall to one pixel, and planes smaller than 4x4 are pooled whole. precision: as in `resnet18`.

    Raises ArgumentError where rows are not images of 2x2 pixels or more, width is not an int >= 1, or precision is neither.

    >>> import torch
    >>> network = reduced_resnet18(Schema((3, 32, 32), torch.uint8, ("cat", "dog")), width=2)
    >>> network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([1, 2])

    Reference: Lopez-Paz & Ranzato (2017), Gradient episodic memory for continual learning, arXiv 1706.08840.
    """
    check_count("reduced_resnet18", "width", width)
    channels, height, across = image("reduced_resnet18", schema, least=2)
    widths = [width, 2 * width, 4 * width, 8 * width]
    layers, plane = trunk(channels, (height, across), widths, blocks=2, project=True)
    window = (min(4, plane[0]), min(4, plane[1]))
    d = widths[-1] * math.prod(side // part for side, part in zip(plane, window, strict=True))
    return nn.Sequential(
        *front("reduced_resnet18", schema, shift=0.0),
        ChannelsLast(),
        *(*computed("reduced_resnet18", layers, precision), nn.AvgPool2d(window)),
        *(nn.Flatten(), nn.Linear(d, schema.outputs)),
    )


def cifar_resnet(
    schema: Schema,
    depth: int = 20,
    width: int = 1,
    head: str = "linear",
    shortcut: str = "zeros",
    precision: str = "float32",
) -> nn.Module:
    """The residual network for small images: three stages of 16, 32 and 64 channels, (depth - 2) / 6 blocks each, mean over the plane.

    depth: layers with weights, 20, 32, 44 and 56 as published, or any 6n + 2; width: multiplies the channels (a wide residual
    network); head: "linear", or "weightnorm" for rows divided by their norm and no bias; shortcut where shapes change: "zeros"
    (thinned pixels and planes of zeros, as published, no weights) or "projection" (1x1 convolutions); precision: as in `resnet18`.
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
    channels, height, across = image("cifar_resnet", schema, least=2)
    widths = [16 * width, 32 * width, 64 * width]
    layers, _ = trunk(channels, (height, across), widths, (depth - 2) // (2 * STAGES), project=shortcut == "projection")
    last = nn.Linear if head == "linear" else UnitLinear
    return nn.Sequential(
        *front("cifar_resnet", schema),
        ChannelsLast(),
        *computed("cifar_resnet", layers, precision),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), last(widths[-1], schema.outputs)),
    )


def auto(schema: Schema, norm: str = "group") -> nn.Module:
    """The network that suits the rows: `small_cnn` for images of 16x16 pixels or more, `mlp` for everything else.

    norm: "group", or "batch" for `conv4` in the place of `small_cnn`, which learners need that adapt the statistics of batches.
    Raises ArgumentError where it is neither.

    >>> import torch
    >>> images = Schema((3, 32, 32), torch.uint8, ("cat", "dog"))
    >>> [any(isinstance(layer, nn.BatchNorm2d) for layer in auto(images, norm).modules()) for norm in NORMS]
    [False, True]
    """
    if norm not in NORMS:
        raise ArgumentError(f"auto: norm must be one of {', '.join(map(repr, NORMS))}, got {norm!r}.")
    if len(schema.shape) != 3 or min(schema.shape[1:]) < 16:
        return mlp(schema)
    return conv4(schema) if norm == "batch" else small_cnn(schema)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "auto": auto,
    "cifar_resnet": cifar_resnet,
    "conv4": conv4,
    "conv_stack": conv_stack,
    "elu_mlp": elu_mlp,
    "grey_cnn": grey_cnn,
    "linear": linear,
    "mlp": mlp,
    "mobilenet_v2": mobilenet_v2,
    "reduced_resnet18": reduced_resnet18,
    "resnet12": resnet12,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "small_cnn": small_cnn,
    "wide_resnet": wide_resnet,
}
