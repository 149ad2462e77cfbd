"""Rows of numbers and the tensors that they are made of."""

import pytest
import torch

from everlearn.core.flat import cut, flat


def test_what_is_cut_is_what_was_laid_flat():
    tensors = [
        torch.randn(2, 3),
        torch.randn(4),
        torch.randn(()),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    ]
    row = flat(tensors)
    assert row.shape == (6 + 4 + 1 + 96,)
    assert all(torch.equal(piece, tensor) for piece, tensor in zip(cut(row, tensors), tensors, strict=True))


def test_a_row_is_a_copy_and_its_pieces_are_views():
    tensor = torch.zeros(2)
    row = flat([tensor])
    (piece,) = cut(row, [tensor])
    piece.fill_(5.0)
    assert row.tolist() == [5.0, 5.0] and tensor.tolist() == [0.0, 0.0]


def test_gradients_flow_through_a_row():
    weight = torch.ones(2, requires_grad=True)
    flat([weight, weight]).sum().backward()
    assert weight.grad.tolist() == [2.0, 2.0]


def test_a_row_of_another_length_is_not_cut():
    with pytest.raises(RuntimeError):
        cut(torch.zeros(3), [torch.zeros(2)])
