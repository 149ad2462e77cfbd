"""Networks for call strings: functions from a schema (what one row looks like) to a torch.nn.Module.

    linear   x -> W x + b
    mlp      x -> linear, ReLU for each hidden width, then a linear layer of one score per class
    small_cnn  three 3x3 convolutions, each with group normalisation and ReLU, mean over the plane, a linear layer

Rows of bytes (uint8) are scaled to -0.5..0.5 in front. Weights are drawn from torch's global generator with torch's own
initialisation; who calls seeds it with `core.random.isolated`. No layer looks at other rows, so a batch of one trains as well.
Reference: Wu & He (2018), Group normalization, arXiv 1803.08494.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.stream import Schema


class Scale(nn.Module):
    """Bytes 0..255 to float32 in -0.5..0.5: x / 255 - 0.5. Put it before a network that takes uint8 rows.

    >>> import torch
    >>> Scale()(torch.tensor([[0, 255]], dtype=torch.uint8)).tolist()
    [[-0.5, 0.5]]
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float32) / 255.0 - 0.5


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
    At 3x32x32 and width 32 it has 94,000 weights and takes about 10 million multiplications a row.

    Raises ArgumentError where rows are not (channels, height, width), or width is not an int >= 1.

    >>> import torch
    >>> network = small_cnn(Schema((3, 32, 32), torch.uint8, ("cat", "dog")), width=8)
    >>> network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([1, 2])
    """
    check_count("small_cnn", "width", width)
    if len(schema.shape) != 3:
        raise ArgumentError(
            f"small_cnn: rows must be images of shape (channels, height, width), got {schema.shape}. Use mlp or auto."
        )
    layers = _front("small_cnn", schema)
    channels = schema.shape[0]
    for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
        layers += [
            nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=False),
            nn.GroupNorm(math.gcd(8, outputs), outputs),
            nn.ReLU(),
        ]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, schema.outputs))


def auto(schema: Schema) -> nn.Module:
    """The network that suits the rows: `small_cnn` for images of 16x16 pixels or more, `mlp` for everything else.

    >>> import torch
    >>> any(isinstance(layer, nn.Conv2d) for layer in auto(Schema((3, 32, 32), torch.uint8, ("cat", "dog"))))
    True
    """
    image = len(schema.shape) == 3 and min(schema.shape[1:]) >= 16
    return small_cnn(schema) if image else mlp(schema)


def _front(owner: str, schema: Schema) -> list[nn.Module]:
    """The layers before the first weight, once the schema is known to be one that a network can take."""
    if schema.outputs < 1:
        raise ArgumentError(f"{owner}: the schema names no classes; a network needs at least one.")
    if schema.dtype == torch.uint8:
        return [Scale()]
    if schema.dtype != torch.float32:
        raise ArgumentError(f"{owner}: rows must be uint8 or float32, got {schema.dtype}. Convert them with x.float().")
    return []


NETWORKS: dict[str, Callable[..., nn.Module]] = {"auto": auto, "linear": linear, "mlp": mlp, "small_cnn": small_cnn}
