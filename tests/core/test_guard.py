"""What enters a learner is refused in one sentence, with the value received and what is allowed, before anything changes."""

import math
from collections import UserDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from everlearn import Batch
from everlearn.core.errors import InputError
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.state import capture, same

X = torch.arange(12.0).reshape(3, 4)
Y = torch.tensor([0, 2, 1])
CONTENT = [
    (Batch([[1.0]], Y), "x must be a tensor or a dict of tensors, got list"),
    (Batch({}, Y), "x must be a tensor or a dict of tensors, got dict"),
    (Batch({"a": X, "b": [1]}, Y), "x must be a tensor or a dict of tensors, got dict"),
    (Batch({"a": X, "b": X[:2]}, Y), r"the same number of rows, got \{'a': 3, 'b': 2\}"),
    (Batch({"a": torch.tensor(1.0)}, Y), r"at least one row, got shape \(\)"),
    (Batch(torch.tensor(1.0), Y), r"at least one row, got shape \(\)"),
    (Batch(X[:0], Y[:0]), r"x must hold at least one row, got shape \(0, 4\)"),
    (Batch(X.index_fill(1, torch.tensor([2]), torch.nan), Y), r"x holds nan at \(0, 2\) \(3 such values in all\)"),
    (Batch(X / 0.0, Y), r"x holds nan at \(0, 0\) \(12 such values in all\)"),
    (Batch(-1.0 / (X - 5.0), Y), r"x holds -?inf at \(1, 1\) \(1 such values in all\); fill or drop missing values first"),
    (Batch({"a": X, "b": X.log()}, Y), r"x\['b'\] holds -inf at \(0, 0\)"),
    (Batch(X, Y.float()), "y must be an int64 tensor of class numbers, got torch.float32"),
    (Batch(X, Y.int()), "got torch.int32"),
    (Batch(X, [0, 2, 1]), "got list"),
    (Batch(X, Y[:2]), r"y must have shape \(3,\) for 3 rows of x, got \(2,\)"),
    (Batch(X, Y[:, None]), r"got \(3, 1\)"),
    (Batch(X, torch.tensor(1)), r"got \(\)"),
    (Batch(X, Y - 1), r"label -1 is out of range; allowed: 0\.\.2"),
    (Batch(X, Y + 1), r"label 3 is out of range; allowed: 0\.\.2"),
    (Batch(X, Y, id=("a",)), "id must name each of the 3 rows of x, got 1"),
    (Batch(X, Y, time=torch.zeros(4)), "time must name each of the 3 rows of x, got 4"),
    ((X, Y), r"update takes a Batch\(x, y\), got tuple"),
    (None, r"update takes a Batch\(x, y\), got NoneType"),
]


@pytest.mark.parametrize(("batch", "sentence"), CONTENT)
def test_what_cannot_be_learned_from_is_refused_and_nothing_is_remembered(batch, sentence):
    guard = Guard("owner", classes=3)
    with pytest.raises(InputError, match=f"^owner: .*{sentence}"):
        guard.batch(batch)
    assert guard.shapes == [] and guard.dtypes == []
    guard.batch(Batch(X, Y))


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (
            torch.zeros(2, 5),
            r"shape \(5,\) and dtype torch.float32; this learner learned from shape \(4,\) and dtype torch.float32",
        ),
        (torch.zeros(2), r"have shape \(\)"),
        (torch.zeros(2, 4, 1), r"have shape \(4, 1\)"),
        (X.double(), r"dtype torch.float64; this learner learned from"),
        (X.long(), "dtype torch.int64; this learner"),
        ({"a": X}, "dtype a: torch.float32; this learner"),
    ],
)
def test_rows_differ_from_the_first(x, sentence):
    guard = Guard("owner")
    guard.batch(Batch(X, Y))
    for call in (guard.inputs, lambda x: guard.batch(Batch(x))):
        with pytest.raises(InputError, match=sentence):
            call(x)
    guard.inputs(X[:1])


def test_dicts_are_known_by_their_keys():
    guard = Guard("owner")
    guard.batch(Batch({"tokens": X, "mask": X > 2}, Y))
    guard.inputs({"mask": X > 0, "tokens": X})
    guard.inputs(UserDict(tokens=X, mask=X > 0))
    for other in ({"tokens": X, "weight": X > 2}, {"tokens": X}, {"tokens": X > 2, "mask": X}, X):
        with pytest.raises(InputError, match="learned from"):
            guard.inputs(other)


def test_predicting_sets_no_rule():
    guard = Guard("owner")
    guard.inputs(torch.zeros(2, 7))
    guard.batch(Batch(X, Y))
    assert guard.shapes == [[4]] and guard.dtypes == ["torch.float32"]


def test_without_a_number_of_classes_only_negative_labels_are_refused():
    guard = Guard("owner")
    guard.batch(Batch(X, Y + 1000))
    with pytest.raises(InputError, match="label -2 is out of range; allowed: >= 0"):
        guard.batch(Batch(X, Y - 2))


def test_missing_values_may_be_let_through():
    guard = Guard("owner", finite=False)
    guard.batch(Batch(X * torch.nan, Y))
    with pytest.raises(InputError):
        Guard("owner").batch(Batch(X * torch.nan, Y))


V = torch.tensor([[1.0, -2.0], [0.5, 3.0], [4.0, 0.0]])
VALUES = [
    (Y, "y must be a float32 tensor of values, got torch.int64"),
    (V.double(), "got torch.float64"),
    (V.tolist(), "got list"),
    (V[:2], r"y must have shape \(3, 2\) for 3 rows of x, got \(2, 2\)"),
    (V[:, 0], r"y must have shape \(3, 2\) for 3 rows of x, got \(3,\)"),
    (V[:, :1], r"y must have shape \(3, 2\) for 3 rows of x, got \(3, 1\)"),
    (V.log(), r"y holds nan at \(0, 1\); leave out rows whose answer is not known"),
    (V / V.flip(0) * torch.inf, r"y holds inf at \(0, 0\)"),
]


@pytest.mark.parametrize(("y", "sentence"), VALUES)
@pytest.mark.parametrize("told", [True, False])
def test_values_that_cannot_be_learned_from_are_refused(y, sentence, told):
    """The number of targets is told, or that of the first batch with answers."""
    guard = Guard("owner", targets=2 if told else 0)
    guard.batch(Batch(X))
    guard.batch(Batch(X, V))
    before = capture(guard)
    with pytest.raises(InputError, match=f"^owner: .*{sentence}"):
        guard.batch(Batch(X, y))
    assert same(before, capture(guard)) and guard.width == 2
    guard.batch(Batch(X, V))
    with pytest.raises(InputError, match=r"learned from shape \(4,\) and dtype torch.float32\.$"):
        guard.inputs(X[:, :3])


def test_the_first_answers_tell_how_many_values_there_are():
    guard = Guard("owner", targets=0)
    with pytest.raises(InputError, match=r"y must have shape \(3, targets\) for 3 rows of x, got \(3, 0\)"):
        guard.batch(Batch(X, V[:, :0]))
    guard.batch(Batch({"a": X, "b": X}))
    assert guard.width is None and guard.shapes == [[4], [4]]
    guard.batch(Batch({"a": X, "b": X}, V))
    assert guard.width == 2 and guard.shapes == [[4], [4], [2]] and len(guard.dtypes) == 2
    guard.inputs({"a": X, "b": X})
    other = Guard("owner", targets=0)
    other.shapes, other.dtypes = guard.shapes, guard.dtypes  # its state is all that it knows
    with pytest.raises(InputError, match=r"\(3, 2\)"):
        other.batch(Batch({"a": X, "b": X}, V[:, :1]))


def test_huge_values_are_finite():
    """Their sum overflows, they do not."""
    for x in (torch.full((4, 4), 3e38), torch.full((4, 4), 6e4, dtype=torch.float16), torch.tensor([[3e38, 3e38, -3e38]])):
        guard = Guard("owner")
        guard.batch(Batch(x))
        assert guard.shapes == [list(x.shape[1:])]


@given(st.integers(1, 5), st.integers(1, 5), st.data())
@settings(max_examples=100, deadline=None)
def test_one_bad_value_anywhere_is_found_where_it_is(count, width, data):
    x = torch.ones(count, width) * data.draw(st.sampled_from([1.0, -1.0, 3e38]))
    place = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, width - 1))
    x[place] = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    with pytest.raises(InputError) as caught:
        Guard("owner").inputs(x)
    assert f"at {place} (1 such values" in str(caught.value)


def test_bytes_and_booleans_need_no_look():
    for dtype in (torch.uint8, torch.bool):
        guard = Guard("owner")
        guard.batch(Batch(torch.zeros(2, 3, dtype=dtype)))
        assert guard.dtypes == [str(dtype)]


# ---- the network that x must fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (torch.zeros(3, 5), r"the network cannot take rows of shape \(5,\) and dtype torch.float32: mat1 and mat2"),
        (X.double(), r"rows of shape \(4,\) and dtype torch.float64: "),
        (X.long(), r"dtype torch.int64: "),
        ({"a": X}, r"dtype a: torch.float32: "),
    ],
)
def test_the_first_row_is_tried_on_the_network(x, sentence):
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.BatchNorm1d(3))
    guard, before = Guard("owner", 3, model=model), capture(model)
    for call in (guard.inputs, lambda x: guard.batch(Batch(x, Y))):
        with pytest.raises(InputError, match=sentence) as caught:
            call(x)
        assert "\n" not in str(caught.value)
    assert guard.shapes == [] and same(capture(model), before) and model.training
    shared = torch.get_rng_state()
    guard.batch(Batch(X, Y))
    assert guard.shapes == [[4]] and same(capture(model), before) and model.training
    assert torch.equal(shared, torch.get_rng_state())


def test_the_network_is_tried_only_until_something_is_learned():
    tried = []

    class Counted(nn.Module):
        def forward(self, x):
            tried.append(len(x))
            return x

    guard = Guard("owner", model=Counted())
    guard.inputs(X)
    guard.batch(Batch(X, Y))
    guard.batch(Batch(X, Y))
    guard.inputs(X)
    assert tried == [1, 1]


def test_the_number_of_classes_is_read_off_the_last_linear_layer():
    assert count_outputs(nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3))) == 3
    assert count_outputs(nn.Sequential(nn.Conv2d(1, 2, 3))) is None
