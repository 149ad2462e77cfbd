"""Small networks beside the frozen parts of a large one: they alone learn, and are held to what the frozen parts say.

    x_{k+1} = BN_k(o_k) + ReLU(BN'_k(conv_k(x_k))),   o_k = F_k(x_k),   x_1 = stem(x)
    R_k = mean |x_{k+1} - o_k|, with x_k and o_k held constant

F_k is the k-th part, frozen; BN_k, BN'_k and conv_k are its meta network. All batch norms go by the statistics of the batch.

Reference: Song et al. (2023), EcoTTA, arXiv 2303.01904, equations 1 to 4.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from everlearn.core.errors import ArgumentError
from everlearn.nn.bits import pack_bits, unpack_bits
from everlearn.nn.lean import frozen, rectified
from everlearn.nn.partition import Partition

FORMS = ("3x3", "1x1")
SIDES = (32, 64, 224)  # of images tried where nobody says how large they are
NORMS = nn.modules.batchnorm._BatchNorm


class _Distance(torch.autograd.Function):
    """mean |x - o| with o held constant. Keeps two bits for each number: the sign of the difference."""

    @staticmethod
    def forward(ctx, x, o):
        difference = x - o
        above, below = difference.clamp(min=0).bool(), difference.clamp(max=0).bool()  # quicker than comparisons
        ctx.save_for_backward(pack_bits(above), pack_bits(below))
        ctx.kept_as = (above.shape, above.stride())
        return difference.abs_().mean()

    @staticmethod
    def backward(ctx, gradient):
        above, below = (unpack_bits(bits, *ctx.kept_as) for bits in ctx.saved_tensors)
        signs = (above.view(torch.int8) - below.view(torch.int8)).to(gradient.dtype)
        return signs.mul_(gradient / above.numel()), None


def distance(x: Tensor, o: Tensor) -> Tensor:
    """mean |x - o|, differentiated for x alone.

    >>> distance(torch.tensor([1.0, -2.0]), torch.tensor([0.0, 0.0])).item()
    1.5
    """
    return _Distance.apply(x, o)


class MetaNetwork(nn.Module):
    """What stands beside one part: batch norm of its output, plus ReLU of the batch norm of a convolution of its input.

    inputs, outputs: channels; stride: how many times smaller the part makes each side of the plane (() for vectors, whose
    convolution is a linear layer); side: 3 or 1, of the convolution. Where part and convolution disagree by a pixel, the latter
    is pooled to the part's plane.

    >>> meta = MetaNetwork(4, 6, (2, 2))
    >>> meta(torch.randn(3, 4, 8, 8), torch.randn(3, 6, 4, 4)).shape
    torch.Size([3, 6, 4, 4])
    """

    def __init__(self, inputs: int, outputs: int, stride: Sequence[int], side: int = 3):
        super().__init__()
        dimensions = len(stride)
        norm = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d)[dimensions]
        self.norm = norm(outputs, track_running_stats=False)
        if dimensions:
            kind = (nn.Conv1d, nn.Conv2d)[dimensions - 1]
            self.convolution: nn.Module = kind(inputs, outputs, side, tuple(stride), padding=side // 2, bias=False)
        else:
            self.convolution = nn.Linear(inputs, outputs, bias=False)
        self.inner_norm = norm(outputs, track_running_stats=False)

    def forward(self, x: Tensor, o: Tensor) -> Tensor:
        """x: (batch, inputs, ...), the part's input; o: (batch, outputs, ...), its output."""
        z = self.convolution(x)
        if z.shape != o.shape:
            pool = functional.adaptive_avg_pool1d if z.ndim == 3 else functional.adaptive_avg_pool2d
            z = pool(z, tuple(o.shape[2:]))
        return self.norm(o) + rectified(self.inner_norm(z))


class Adapted(nn.Module):
    """A network in parts with a meta network beside each. Its own weights are the meta networks' alone.

    pieces: the network, cut; form: of the meta networks' convolutions, "3x3" as published, or "1x1", which has a ninth of the
    weights (for networks of many channels, such as the ResNet-50); shape: of one row, where it cannot be told from the network.

    Raises ArgumentError where the network has no batch norm, or its parts give neither vectors nor planes of channels.
    """

    def __init__(self, owner: str, pieces: Partition, form: str = "3x3", shape: Sequence[int] | None = None):
        super().__init__()
        if form not in FORMS:
            raise ArgumentError(f"{owner}: meta must be '3x3' or '1x1', got {form!r}.")
        self._pieces = [pieces]  # in a list, so that frozen weights are no weights of this module
        found = _layouts(owner, pieces, shape)
        like = next(weight for piece in (pieces.stem, *pieces.parts, pieces.head) for weight in piece.parameters())
        self.metas = nn.ModuleList(
            MetaNetwork(inputs, outputs, stride, int(form[0])) for inputs, outputs, stride in found
        ).to(like)

    @property
    def pieces(self) -> Partition:
        """The frozen network."""
        return self._pieces[0]

    def forward(
        self, x: Tensor, gradient: str = "exact", batch_stats: bool = True, apart: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """(scores, [R_1 ... R_K] or []); gradient: how it passes the frozen parts, as in `nn.lean.frozen`; apart: R_k as well."""
        z = frozen(self.pieces.stem, x, "cut", batch_stats)
        held = []
        for part, meta in zip(self.pieces.parts, self.metas, strict=True):
            o, z = self._through(part, meta, z, gradient, batch_stats)
            if apart:
                held.append(distance(z, o))
        head = "exact" if gradient == "cut" else gradient  # the loss itself must reach the last part
        return frozen(self.pieces.head, z, head, batch_stats), held

    def apart(self, x: Tensor, batch_stats: bool = True) -> Iterator[Tensor]:
        """R_1, then R_2 ... R_K, each part with an input that carries no gradient."""
        z = frozen(self.pieces.stem, x, "cut", batch_stats)
        for part, meta in zip(self.pieces.parts, self.metas, strict=True):
            o, z = self._through(part, meta, z.detach(), "cut", batch_stats)
            yield distance(z, o)

    def _through(
        self, part: nn.Module, meta: nn.Module, z: Tensor, gradient: str, batch_stats: bool
    ) -> tuple[Tensor, Tensor]:
        """(o_k, x_{k+1})."""
        o = frozen(part, z, gradient, batch_stats)
        kind = next(meta.parameters()).dtype
        return o, meta(z.to(kind), o.to(kind))

    def frozen_alone(self, x: Tensor, batch_stats: bool = True) -> Tensor:
        """The scores of the network without its meta networks."""
        for piece in (self.pieces.stem, *self.pieces.parts, self.pieces.head):
            x = frozen(piece, x, "cut", batch_stats)
        return x

    def planes(self, x: Tensor) -> list[tuple[int, int]]:
        """[(|x_k|, |o_k|)]: how many numbers go into each part and come out of it, for one row: what the published count is made of."""
        shapes = _seen(self.pieces, x)
        return [(z[1:].numel(), o[1:].numel()) for z, o in pairwise(shapes)]


def _layouts(owner: str, pieces: Partition, shape: Sequence[int] | None) -> list[tuple[int, int, tuple[int, ...]]]:
    """(channels in, channels out, strides) of each part, found by sending rows of zeros through."""
    layers = [layer for piece in (pieces.stem, *pieces.parts, pieces.head) for layer in piece.modules()]
    if not any(isinstance(layer, NORMS) for layer in layers):
        raise ArgumentError(
            f"{owner}: the network has no batch norm, whose statistics follow the data; got {_kinds(layers)}. Use a network with "
            "batch norm, such as resnet18 or wide_resnet (--model resnet18 in a shell)."
        )
    reason = "no layer tells the shape of a row"
    for tried in [tuple(shape)] if shape is not None else _shapes(layers):
        like = next(weight for layer in layers for weight in layer.parameters())
        try:
            seen = _seen(pieces, torch.zeros(2, *tried, dtype=like.dtype, device=like.device))
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:160]
            continue
        found = []
        for number, (z, o) in enumerate(pairwise(seen), start=1):
            if len(z) != len(o) or not 2 <= len(o) <= 4:
                raise ArgumentError(
                    f"{owner}: part {number} takes {z} and gives {o}; parts must keep vectors (batch, channels) or planes "
                    "(batch, channels, height, width) what they are. Name other blocks=..."
                )
            stride = tuple(max(1, round(a / b)) for a, b in zip(z[2:], o[2:], strict=True))
            found.append((z[1], o[1], stride))
        return found
    raise ArgumentError(
        f"{owner}: cannot tell what the parts of the network take ({reason}). Give the shape of a row: shape=(3, 32, 32)."
    )


def _seen(pieces: Partition, x: Tensor) -> list[torch.Size]:
    """The shapes of what goes into the first part, and comes out of each."""
    z = frozen(pieces.stem, x, "cut")
    shapes = [z.shape]
    for part in pieces.parts:
        z = frozen(part, z, "cut")
        shapes.append(z.shape)
    return shapes


def _shapes(layers: Sequence[nn.Module]) -> list[tuple[int, ...]]:
    """Shapes that a row may have, by the first layer with weights."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            return [(layer.in_features,)]
        if isinstance(layer, nn.Conv1d):
            return [(layer.in_channels, side) for side in SIDES]
        if isinstance(layer, nn.Conv2d):
            return [(layer.in_channels, side, side) for side in SIDES]
    return []


def _kinds(layers: Sequence[nn.Module]) -> str:
    names = dict.fromkeys(type(layer).__name__ for layer in layers if next(layer.children(), None) is None)
    return ", ".join(list(names)[:6]) or "no layers"
