"""Targets are found among the columns by their names, and their newest values at the end of each window."""

import pytest
import torch

from everlearn import Schema
from everlearn.data.windows import newest, series, target_columns

X = torch.arange(24.0).reshape(2, 4, 3)


def schema(shape, features, targets):
    return Schema(shape, torch.float32, (), features, targets=targets)


def test_targets_are_found_by_name_in_their_own_order():
    assert target_columns(schema((4, 3), ("a", "b", "c"), ("c", "a"))) == (2, 0)
    assert target_columns(schema((4, 3), ("a", "b", "c"), ("c", "d"))) is None
    assert target_columns(schema((4, 3), (), ("c",))) is None  # columns without names
    assert target_columns(schema((3,), ("a", "b", "c"), ("c",))) is None  # rows, no windows
    assert target_columns(Schema((4, 3), torch.float32, ("no", "yes"), ("a", "b", "c"))) is None


@pytest.mark.parametrize("x", [X, {"dt": torch.ones(2, 4), "loads": X}])
def test_the_newest_values_end_each_window(x):
    assert torch.equal(series(x), X)
    assert newest(x, (2, 0)).tolist() == [[11.0, 9.0], [23.0, 21.0]]
