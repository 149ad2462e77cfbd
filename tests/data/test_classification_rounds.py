"""A table as rounds: each row once, in an order of the seed, from a name, from data and from a pair."""

import pytest
import torch

from everlearn.core.errors import DataError
from everlearn.data.classification_rounds import rounds
from everlearn.data.load import load


def test_each_row_comes_once_with_its_label():
    data = load("digits")
    x, y = rounds("digits", seed=2)
    everything = torch.cat([data.x, data.y[:, None].float()], 1)
    found = torch.cat([x, y[:, None].float()], 1)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, everything.tolist()))
    assert torch.equal(rounds(data, seed=2)[0], x) and not torch.equal(rounds(data, seed=3)[1], y)
    assert torch.equal(rounds("digits", limit=9, seed=2)[0], x[:9])


def test_pairs_and_images_become_flat_rows():
    x, y = rounds((torch.arange(12.0).reshape(3, 2, 2), torch.tensor([2, 0, 1])), seed=1)
    assert x.shape == (3, 4) and [[2, 0, 1][int(row[0]) // 4] for row in x] == y.tolist()


def test_refusals():
    with pytest.raises(DataError, match="as many rows"):
        rounds((torch.zeros(3, 1), torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(DataError, match="digitz"):
        rounds("digitz")
