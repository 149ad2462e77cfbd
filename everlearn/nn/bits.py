"""Truth values of a tensor, eight to the byte, and back: what a mask costs is one thirty-second of the float32 it belongs to.

Eight bytes 0 or 1 read as one 64-bit number, times a constant that shifts the j-th of them to bit 56 + j, have all eight in the
highest byte; no two summands meet, since 8 j - 9 k differs for each pair (j, k) of 0..7.
"""

import torch
from torch import Tensor

GATHER = 0x8040201008040201 - 2**64  # bits 0, 9, 18 ... 63, as a signed number
ONES = 0x0101010101010101


def pack_bits(values: Tensor) -> Tensor:
    """(ceil(n / 8),) uint8: the truth values of a bool tensor of n, in the order in which they lie in memory where it is dense.

    >>> pack_bits(torch.tensor([True, False, True])).numel()
    1
    """
    flat = values.as_strided((values.numel(),), (1,)) if _dense(values) else values.reshape(-1)
    missing = -flat.numel() % 8
    if missing or flat.storage_offset() % 8:
        flat = torch.cat([flat, flat.new_zeros(missing)])
    return ((flat.view(torch.int64) * GATHER) >> 56).to(torch.uint8)


def unpack_bits(bits: Tensor, shape: torch.Size, stride: tuple[int, ...]) -> Tensor:
    """The bool tensor that `pack_bits` was given, of that shape and, where it was dense, with those strides.

    >>> values = torch.tensor([[True, False], [True, True]])
    >>> torch.equal(unpack_bits(pack_bits(values), values.shape, values.stride()), values)
    True
    """
    wide = (bits.to(torch.int64) * GATHER >> 7) & ONES
    flat = wide.view(torch.bool)[: shape.numel()]
    like = torch.empty_strided(shape, stride, device="meta")
    return flat.as_strided(shape, stride) if _dense(like) else flat.view(shape)


def _dense(values: Tensor) -> bool:
    """Whether a tensor fills its memory without gaps, in whatever order of its axes."""
    expected = 1
    for size, step in sorted(zip(values.shape, values.stride(), strict=True), key=lambda pair: (pair[1], pair[0])):
        if size > 1 and step != expected:
            return False
        expected *= size
    return True
