"""Events: plain values, and the few operations on x that work on a tensor and on a dict of tensors alike."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from everlearn import Batch, Boundary, Feedback
from everlearn.core.events import join, map_x, rows, size

TENSOR = torch.arange(6.0).reshape(3, 2)
DICT = {"a": TENSOR, "b": torch.tensor([True, False, True])}


@pytest.mark.parametrize("x", [TENSOR, DICT], ids=["tensor", "dict"])
def test_rows_and_joins_undo_one_another(x):
    assert size(x) == 3 and len(Batch(x)) == 3
    again = join(rows(x, slice(0, 1)), rows(x, slice(1, 3)))
    assert all(map(torch.equal, parts(again), parts(x)))
    picked = rows(x, torch.tensor([2, 0]))
    assert all(torch.equal(one, two[[2, 0]]) for one, two in zip(parts(picked), parts(x), strict=True))


def parts(x):
    return [x] if isinstance(x, torch.Tensor) else list(x.values())


@given(st.integers(0, 3), st.integers(0, 3))
def test_a_slice_has_as_many_rows_as_it_says(start, stop):
    assert size(rows(DICT, slice(start, stop))) == max(0, stop - start)


def test_functions_reach_every_tensor():
    assert torch.equal(map_x(lambda value: value + 1, TENSOR), TENSOR + 1)
    assert map_x(len, DICT) == {"a": 3, "b": 3}


@pytest.mark.parametrize("event", [Batch(TENSOR), Boundary(1), Feedback("1", TENSOR, 0, None, 1.0)])
def test_events_cannot_be_changed(event):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, dataclasses.fields(event)[0].name, None)
    assert not hasattr(event, "__dict__")
