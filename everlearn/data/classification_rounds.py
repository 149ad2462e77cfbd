"""A labelled table as the rounds of a bandit: each row once, in an order drawn once for each seed; reward 1 where action and class agree.

    reward_t = [a_t = y_t],    t = 1 .. n        progressive validation: each row is answered before it is learned from

Reference: Bietti, Agarwal & Langford (2021), A contextual bandit bake-off, JMLR, arXiv 1802.04064.
"""

import torch
from torch import Tensor

from everlearn.core.errors import DataError
from everlearn.core.random import generator
from everlearn.data.dataset import Data
from everlearn.data.load import load


def rounds(data: Data | str | tuple[Tensor, Tensor], *, limit: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(x (n, d) float32, y (n,) int64) in the order of their rounds.

    data: labelled rows, (x, y), or a name that `load` knows: 'digits', 'letter' and twenty more of `bandit_classification`.
    A test part counts as rows like others. limit: rounds at most.

    >>> x, y = rounds("digits", limit=5, seed=1)
    >>> x.shape, y.dtype
    (torch.Size([5, 64]), torch.int64)
    """
    x, y = _rows(data)
    if len(x) != len(y) or not len(x):
        raise DataError(f"rounds: x and y must have as many rows, at least one, got {len(x)} and {len(y)}.")
    order = torch.randperm(len(x), generator=generator(seed, "rounds"))[:limit]
    return x[order].reshape(len(order), -1).float(), y[order].long()


def _rows(data: Data | str | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    if isinstance(data, tuple):
        return data
    if isinstance(data, str):
        data = load(data)
    x = torch.cat([data.x, data.test_x]) if data.test_x is not None else data.x
    y = torch.cat([data.y, data.test_y]) if data.test_y is not None else data.y
    return x, y
