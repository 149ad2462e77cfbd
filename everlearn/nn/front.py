"""What stands before the first weight of a network, and how its inner layers compute.

    bytes 0..255  ->  x / 255 - shift  ->  pixel by pixel in memory  ->  layers, in float32 or under bfloat16

Networks ask `image` and `front` whether they can take the rows, so that all refuse in the same words.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError
from everlearn.core.stream import Schema

PRECISIONS = ("float32", "bfloat16")


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


class Rounded(nn.Module):
    """Layers whose products are taken in bfloat16; weights, normalisation and what comes out stay float32.

    A bfloat16 has the range of a float32 and 8 of its 24 binary digits, so each product is off by up to 1 part in 256.

    >>> import torch
    >>> layer = torch.nn.Linear(1, 1, bias=False)
    >>> layer.weight.data.fill_(257.0)
    tensor([[257.]])
    >>> seen = Rounded([layer])(torch.ones(1, 1))
    >>> seen.item(), seen.dtype, layer.weight.dtype
    (256.0, torch.float32, torch.float32)
    """

    def __init__(self, layers: Sequence[nn.Module]):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        # Nothing is cached: a learner may change weights between two calls inside one context.
        with torch.autocast(x.device.type, dtype=torch.bfloat16, cache_enabled=False):
            z = self.layers(x)
        return z.float()


def computed(owner: str, layers: Sequence[nn.Module], precision: str) -> list[nn.Module]:
    """The layers as they are for "float32", or as one part that computes in "bfloat16". Raises ArgumentError for another name."""
    if precision not in PRECISIONS:
        raise ArgumentError(f"{owner}: precision must be 'float32' or 'bfloat16', got {precision!r}.")
    return list(layers) if precision == "float32" else [Rounded(layers)]


def image(owner: str, schema: Schema, least: int = 1) -> tuple[int, int, int]:
    """(channels, height, width) of rows that are images of `least` pixels or more on each side; refuse others."""
    if len(schema.shape) != 3:
        raise ArgumentError(
            f"{owner}: rows must be images of shape (channels, height, width), got {schema.shape}. Use mlp or auto."
        )
    channels, height, width = schema.shape
    if min(height, width) < least:
        raise ArgumentError(f"{owner}: images must have {least}x{least} pixels or more, got {height}x{width}. Use mlp.")
    return channels, height, width


def front(owner: str, schema: Schema, shift: float = 0.5) -> list[nn.Module]:
    """The layers before the first weight, once the schema is known to be one that a network can take."""
    if schema.outputs < 1:
        raise ArgumentError(f"{owner}: the schema names no classes; a network needs at least one.")
    if schema.dtype == torch.uint8:
        return [Scale(shift)]
    if schema.dtype != torch.float32:
        raise ArgumentError(f"{owner}: rows must be uint8 or float32, got {schema.dtype}. Convert them with x.float().")
    return []
