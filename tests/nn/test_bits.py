"""Truth values packed and unpacked: the same values, an eighth of the bytes, whatever their number and order in memory."""

import pytest
import torch

from everlearn.nn.bits import pack_bits, unpack_bits


def drawn(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (9,), (3, 5, 7, 2), (4, 8, 6, 6)])
def test_there_and_back(shape):
    values = drawn(*shape)
    layouts = [values, values.flatten()[1:]]
    if values.ndim == 4:
        layouts += [values.contiguous(memory_format=torch.channels_last), values[:, ::2], values.transpose(0, 2)]
    for given in layouts:
        bits = pack_bits(given)
        assert bits.dtype == torch.uint8 and bits.numel() == -(-given.numel() // 8)
        assert torch.equal(unpack_bits(bits, given.shape, given.stride()), given)


def test_every_byte_by_hand():
    """The slow twin: bit 7 - k of a byte is the k-th of its eight values, on a machine that stores low bytes first."""
    values = torch.tensor([[bool(byte >> (7 - place) & 1) for place in range(8)] for byte in range(256)])
    assert pack_bits(values).tolist() == list(range(256))
