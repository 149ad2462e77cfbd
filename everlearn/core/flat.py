"""Many tensors as one row of numbers, and a row as views in their shapes, so that a step works on all weights at once.

flat([a, b]) = (a_1 ... a_n b_1 ... b_m)        cut(flat(tensors), tensors) = tensors
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """(numbers,) all numbers of some tensors in one row, copied, in whatever order they lie in memory; gradients flow through it.

    >>> flat([torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])])
    tensor([1., 2., 3.])
    """
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def cut(row: Tensor, likes: Sequence[Tensor]) -> list[Tensor]:
    """Views of a row (numbers,) in the shapes of some tensors, one after the other.

    >>> cut(torch.tensor([1.0, 2.0, 3.0]), [torch.zeros(1, 2), torch.zeros(1)])
    [tensor([[1., 2.]]), tensor([3.])]
    """
    return [piece.view(like.shape) for piece, like in zip(row.split([like.numel() for like in likes]), likes, strict=True)]
