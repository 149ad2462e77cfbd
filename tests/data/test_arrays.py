"""Arrays, tensors, frames and npz files in memory: dtypes and layouts by hand, every option, refusals."""

import warnings

import numpy
import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.spec import build, parse
from everlearn.data.arrays import from_arrays, image_rows, npz
from everlearn.data.load import SOURCES


def test_what_becomes_bytes_and_what_float32():
    byte = numpy.zeros((2, 4, 5), numpy.uint8)
    assert image_rows("x", byte).shape == (2, 1, 4, 5)
    assert image_rows("x", numpy.zeros((2, 8, 5, 3), numpy.uint8)).shape == (2, 3, 8, 5)
    assert image_rows("x", numpy.zeros((2, 3, 4, 5), numpy.uint8)).shape == (2, 3, 4, 5)
    assert image_rows("x", numpy.zeros((2, 64), numpy.uint8)).dtype == numpy.uint8
    for other in (
        numpy.zeros((2, 3)),
        numpy.zeros((2, 3), bool),
        numpy.zeros((2, 3), numpy.int64),
        torch.zeros(2, 3).bfloat16(),
    ):
        assert image_rows("x", other).dtype == numpy.float32


def test_channels_move_with_their_pixels():
    x = numpy.arange(24, dtype=numpy.uint8).reshape(2, 2, 2, 3)
    assert image_rows("x", x)[1, 2, 0, 1] == x[1, 0, 1, 2]


def test_the_callers_array_is_copied():
    x = numpy.zeros((2, 1), numpy.float32)
    data = from_arrays(x, [0, 1])
    x[:] = 7
    assert data.x.sum() == 0


def test_labels_of_any_kind_and_given_classes():
    x = numpy.eye(3)
    assert from_arrays(x, ["b", "a", "b"]).classes == ("a", "b")
    assert from_arrays(x, torch.tensor([5, 7, 5])).y.tolist() == [0, 1, 0]
    data = from_arrays(x, [0, 2, 0], classes=("no", "maybe", "yes"))
    assert data.classes == ("no", "maybe", "yes") and data.y.tolist() == [0, 2, 0]
    assert from_arrays(x, [0.1, 0.5, 0.9], bins=(0.4,)).classes == ("< 0.4", ">= 0.4")


def test_rows_are_sorted_by_time():
    data = from_arrays([[1.0], [2.0], [3.0]], ["a", "b", "c"], time=[3, 1, 2])
    assert data.x.flatten().tolist() == [2, 3, 1] and data.time.tolist() == [1, 2, 3]
    assert [data.classes[y] for y in data.y] == ["b", "c", "a"]
    dates = numpy.array(["1970-01-02", "1970-01-01"], "datetime64[D]")
    assert from_arrays([[1.0], [2.0]], ["a", "b"], time=dates).time.tolist() == [0, 86400]


def test_standardise_uses_the_training_rows_only():
    data = from_arrays([[1.0], [3.0]], ["a", "b"], test=([[9.0]], ["a"]), standardise=True)
    assert data.x.tolist() == [[-1], [1]] and data.test_x.tolist() == [[7]] and data.test_y.tolist() == [0]
    assert from_arrays([[1.0], [3.0]], ["a", "b"]).x.tolist() == [[1], [3]]


def test_unscaled_columns_bring_a_warning():
    with pytest.warns(UserWarning, match="standardise=True"):
        from_arrays([[1.0, 1000.0], [2.0, 5000.0]], ["a", "b"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_arrays([[1.0, 1000.0], [2.0, 5000.0]], ["a", "b"], standardise=True)


def test_a_frame_is_encoded_like_a_table():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"size": [1.0, 3.0, None], "fur": ["long", "short", "long"], "tame": [True, False, True]})
    data = from_arrays(frame, pandas.Series(["cat", "dog", "cat"]), name="pets")
    assert data.features == ("size", "size missing", "fur=long", "fur=short", "tame")
    assert data.x.tolist() == [[-1, 0, 1, 0, 1], [1, 0, 0, 1, 0], [0, 1, 1, 0, 1]]
    assert data.classes == ("cat", "dog")
    with pytest.raises(DataError, match="mixed kinds"):
        from_arrays(pandas.DataFrame({"a": [1, "x"]}), [0, 1])
    with pytest.raises(ArgumentError, match="DataFrame"):
        from_arrays(frame, [0, 1, 0], standardise=True)


@pytest.mark.parametrize(
    ("x", "y", "options", "words"),
    [
        ([[1.0], [2.0]], [0], {}, "x has 2 rows and y has 1"),
        ([1.0, 2.0], [0, 1], {}, r"x\[:, None\]"),
        ([["a"], ["b"]], [0, 1], {}, "must hold numbers"),
        ([[1.0], [2.0, 3.0]], [0, 1], {}, "rows of one shape"),
        ([[1.0], [float("nan")]], [0, 1], {}, "row 1 of x .* NaN"),
        ([[1.0], [1e300]], [0, 1], {}, "row 1 of x .* infinite"),
        ([[1.0], [2.0]], ["a", None], {}, "label of row 1 .* missing"),
        ([[1.0], [2.0]], [0, 1], {"features": ("a", "b")}, "2 names of features"),
        ([[1.0], [2.0]], [0, 1], {"time": [1, float("nan")]}, "time must be 2 finite"),
        ([[1.0], [2.0]], [0, 1], {"test": ([[1.0, 2.0]], [0])}, r"\(1, 2\)"),
        ([[1.0], [2.0]], [0, 5], {"classes": ("a", "b")}, "0 to 5"),
    ],
)
def test_bad_arrays_are_refused(x, y, options, words):
    with pytest.raises(DataError, match=words):
        from_arrays(x, y, **options)


def test_images_cannot_be_standardised():
    with pytest.raises(ArgumentError, match="columns of numbers"):
        from_arrays(numpy.zeros((2, 4, 4), numpy.uint8), [0, 1], standardise=True)


def test_npz_by_usual_and_by_given_names(tmp_path):
    path = tmp_path / "set.npz"
    numpy.savez(path, X=numpy.eye(3), z=2 * numpy.eye(3), y=numpy.array([0, 1, 0]), names=numpy.array(["no", "yes"]))
    assert npz(path).x.max() == 1 and npz(path).classes == ("0", "1")
    named = npz(path, x="z", classes="names", standardise=True)
    assert named.classes == ("no", "yes") and named.x[:, 0].mean() == pytest.approx(0, abs=1e-6)
    assert named.name == f"npz({str(path)!r}, x='z', classes='names', standardise=True)"
    assert torch.equal(build(parse(named.name), SOURCES, "data set").x, named.x)
    with pytest.raises(DataError, match="unknown array 'Z'"):
        npz(path, x="Z")


def test_npz_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "set.npz"
    with pytest.raises(DataError, match="no such file"):
        npz(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"set.npz: "):
        npz(path)
    numpy.savez(path, x=numpy.array([{}], dtype=object), y=numpy.zeros(1))
    with pytest.raises(DataError, match="holds Python objects"):
        npz(path)
    numpy.savez(path, x=numpy.random.default_rng(0).random((500, 3)), y=numpy.arange(500))
    content = bytearray(path.read_bytes())
    content[400:420] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(DataError, match="corrupt"):
        npz(path)
    path.write_bytes(content[:2000])
    with pytest.raises(DataError, match="cut short"):
        npz(path)
    numpy.save(tmp_path / "one.npy", numpy.zeros(3))
    with pytest.raises(DataError, match="is no npz"):
        npz(tmp_path / "one.npy")
