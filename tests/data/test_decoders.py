"""From stored arrays to rows: hand-worked residuals, a sparse matrix against scipy, and refusals."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data.decoders import hold_out, per_class, plain, readable, residual, sparse, undo_residual


def make_residual(images):
    """The inverse of `undo_residual`, one pixel after another: what the encoder did. images: (rows, 3, height, width) uint8."""
    images = images.astype(int)
    planes = numpy.stack([images[:, 1], images[:, 0] - images[:, 1], images[:, 2] - images[:, 1]])
    result = numpy.zeros(planes.shape, numpy.uint8)
    for plane, row, down, right in numpy.ndindex(*planes.shape):
        value = planes[plane, row, down, right]
        above = planes[plane, row, down - 1, right] if down else 0
        left = planes[plane, row, down, right - 1] if right else 0
        corner = planes[plane, row, down - 1, right - 1] if down and right else 0
        result[plane, row, down, right] = (value - above - left + corner) % 256
    return result


def test_a_residual_by_hand():
    planes = numpy.zeros((3, 1, 2, 2), numpy.uint8)
    planes[0, 0] = [[10, 250], [5, 1]]  # sums: 10, 260; 15, 266 -> green 10, 4; 15, 10 modulo 256
    planes[1, 0] = [[1, 0], [0, 0]]  # red is green + 1 everywhere
    planes[2, 0] = [[255, 0], [0, 0]]  # blue is green - 1
    assert undo_residual(planes).tolist() == [[[[11, 5], [16, 11]], [[10, 4], [15, 10]], [[9, 3], [14, 9]]]]


@given(arrays.arrays(numpy.uint8, st.tuples(st.integers(1, 3), st.just(3), st.integers(1, 5), st.integers(1, 5))))
def test_residuals_come_back_to_the_bit(images):
    assert numpy.array_equal(undo_residual(make_residual(images)), images)


def test_residual_names_its_arrays():
    images = numpy.arange(24, dtype=numpy.uint8).reshape(2, 3, 2, 2)
    stored = {"pictures": make_residual(images), "kind": numpy.array([0, 1])}
    fields = residual(stored, "f.npz", x="pictures", y="kind")
    assert numpy.array_equal(fields["x"], images) and set(fields) == {"x", "y"}
    with pytest.raises(DataError, match=r"f\.npz: unknown array 'kinds'; did you mean 'kind'"):
        residual(stored, "f.npz", x="pictures", y="kinds")
    with pytest.raises(DataError, match="int64"):
        undo_residual(images.astype(int))


def test_plain_finds_usual_names_and_prefers_given_ones():
    stored = {
        "X": numpy.zeros(3),
        "images": numpy.ones(3),
        "y": numpy.arange(3),
        "class_names": numpy.array(["a", "b", "c"]),
    }
    assert plain(stored, "f")["x"].sum() == 0
    assert plain(stored, "f", x="images")["x"].sum() == 3
    assert set(plain(stored, "f")) == {"x", "y", "classes"}
    keras = dict.fromkeys(("x_train", "y_train", "x_test", "y_test"), numpy.arange(2))
    assert set(plain(keras, "f")) == {"x", "y", "test_x", "test_y"}
    assert readable(set(keras)) and not readable({"X", "speed"})


def test_plain_says_what_it_looked_for():
    with pytest.raises(DataError, match=r"f.npz: no array for y among X, speed. Name it: npz"):
        plain({"X": numpy.zeros(3), "speed": numpy.zeros(3)}, "f.npz")
    with pytest.raises(DataError, match="both test_x and test_y"):
        plain({"x": numpy.zeros(3), "y": numpy.zeros(3), "x_test": numpy.zeros(3)}, "f.npz")


def test_per_class_keeps_the_last_examples_for_the_test():
    stacked = numpy.arange(2 * 4).reshape(2, 4, 1)
    fields = per_class({"images": stacked, "class_names": numpy.array(["a", "b"])}, "f", test=1)
    assert fields["x"].ravel().tolist() == [0, 1, 2, 4, 5, 6] and fields["y"].tolist() == [0, 0, 0, 1, 1, 1]
    assert fields["test_x"].ravel().tolist() == [3, 7] and fields["test_y"].tolist() == [0, 1]
    assert len(per_class({"images": stacked, "class_names": numpy.array(["a", "b"])}, "f", test=3)["x"]) == 2
    with pytest.raises(ArgumentError, match="between 1 and 3"):
        per_class({"images": stacked, "class_names": numpy.array(["a", "b"])}, "f", test=4)


@given(arrays.arrays(numpy.float32, (5, 7), elements=st.sampled_from([0.0, 0.0, 1.0, -2.0])))
def test_sparse_agrees_with_scipy(dense):
    from scipy.sparse import csr_matrix

    matrix = csr_matrix(dense)
    stored = {"indices": matrix.indices, "indptr": matrix.indptr, "shape": numpy.array(dense.shape), "data": matrix.data}
    assert numpy.array_equal(sparse({**stored, "y": numpy.zeros(5)}, "f")["x"], dense)


def test_sparse_with_one_value_and_a_corrupt_one():
    stored = {
        "indices": numpy.array([1, 0]),
        "indptr": numpy.array([0, 1, 2]),
        "shape": numpy.array([2, 2]),
        "y": numpy.zeros(2),
    }
    assert sparse({**stored, "value": numpy.array(0.5)}, "f")["x"].tolist() == [[0, 0.5], [0.5, 0]]
    with pytest.raises(DataError, match="corrupt"):
        sparse({**stored, "value": numpy.array(0.5), "indices": numpy.array([1, 2])}, "f")


def test_hold_out_is_a_partition_drawn_by_the_seed():
    fields = {"x": numpy.arange(10), "y": numpy.arange(10)}
    first, again, other = (hold_out(fields, 3, seed, "f") for seed in (0, 0, 1))
    assert sorted([*first["x"], *first["test_x"]]) == list(range(10)) and len(first["test_x"]) == 3
    assert first["x"].tolist() == first["y"].tolist() == again["x"].tolist() != other["x"].tolist()
    with pytest.raises(ArgumentError, match="between 1 and 9"):
        hold_out(fields, 10, 0, "f")
