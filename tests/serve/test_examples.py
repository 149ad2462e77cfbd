"""Rows of one class from files: what is read to the number, and what does not fit is refused with the name of the file."""

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from everlearn.core.errors import DataError
from everlearn.data.encoder import Categories, Encoder, Numbers
from everlearn.data.scaling import Scale
from everlearn.serve.examples import examples
from everlearn.serve.input_spec import InputSpec

GREY = InputSpec("classes", (1, 2, 3), "uint8", classes=("a",))
PLAIN = InputSpec("classes", (2,), "float32", classes=("a",))
NAMED = InputSpec("classes", (2,), "float32", classes=("a",), features=("width", "height"))
ENCODER = Encoder((Numbers("age", Scale(40.0, 2.0, 41.0)), Categories("colour", ("blue", "red"), missing=True)))
RAW = InputSpec("classes", (4,), "float32", classes=("a",), features=ENCODER.features, encoder=ENCODER.to_json())


def picture(path, pixels, mode="L"):
    Image.fromarray(numpy.array(pixels, numpy.uint8), mode).save(path)
    return path


def test_images_are_their_pixels_in_the_order_given(tmp_path):
    first, second = [[0, 1, 2], [3, 4, 255]], [[9, 9, 9], [8, 8, 8]]
    files = [picture(tmp_path / "b.png", first), picture(tmp_path / "a.png", second)]
    found = examples(files, GREY)
    assert found.dtype == torch.uint8 and found.tolist() == [[first], [second]]


def test_a_folder_stands_for_its_images_c2_before_c10(tmp_path):
    for name, value in (("c10.png", 10), ("c2.png", 2)):
        picture(tmp_path / name, [[value] * 3] * 2)
    (tmp_path / "notes.txt").write_text("no image")
    assert examples([tmp_path], GREY)[:, 0, 0, 0].tolist() == [2, 10]


def test_colours_become_the_channels_of_the_model(tmp_path):
    file = picture(tmp_path / "c.png", [[[255, 0, 0]] * 3] * 2, "RGB")
    colour = InputSpec("classes", (3, 2, 3), "uint8", classes=("a",))
    assert examples([file], colour)[0, :, 0, 0].tolist() == [255, 0, 0]
    assert examples([file], GREY)[0, :, 0, 0].tolist() == [76]  # 0.299 of 255


def test_another_size_is_refused_unless_resizing_is_asked_for(tmp_path):
    file = picture(tmp_path / "large.png", [[7] * 6] * 4)
    with pytest.raises(DataError, match=r"large\.png: is 4x6 .* takes 2x3.*--resize"):
        examples([file], GREY)
    assert examples([file], GREY, resize=True).tolist() == [[[[7] * 3] * 2]]


def test_rows_of_an_npz_by_their_usual_name_or_alone(tmp_path):
    numpy.savez(tmp_path / "two.npz", y=[1, 1], x=[[1, 2], [3, 4]])
    numpy.savez(tmp_path / "alone.npz", mine=[5.5, 6.0])  # one row
    found = examples([tmp_path / "two.npz", tmp_path / "alone.npz"], PLAIN)
    assert found.dtype == torch.float32 and found.tolist() == [[1, 2], [3, 4], [5.5, 6.0]]


def test_rows_of_a_table_by_the_names_of_its_columns(tmp_path):
    (tmp_path / "t.csv").write_text("height,kind,width\n2,cat,1\n4,dog,3.5\n")
    assert examples([tmp_path / "t.csv"], NAMED).tolist() == [[1, 2], [3.5, 4]]
    pyarrow.parquet.write_table(pyarrow.table({"width": [1.0], "height": [2]}), tmp_path / "t.parquet")
    assert examples([tmp_path / "t.parquet"], NAMED).tolist() == [[1, 2]]


def test_raw_rows_are_encoded_as_the_model_learned_them(tmp_path):
    (tmp_path / "t.tsv").write_text("colour\tage\nred\t41\n\t38\n")
    assert examples([tmp_path / "t.tsv"], RAW).tolist() == [[0.5, 0, 1, 0], [-1, 0, 0, 1]]


@pytest.mark.parametrize(
    ("name", "content", "spec", "told"),
    [
        ("a.png", b"no image", GREY, "a.png: cannot be read as an image"),
        ("a.png", b"", PLAIN, r"a.png is an image, and this model takes rows of shape \[2\]"),
        ("a.npz", b"no zip", PLAIN, "a.npz: is no npz file"),
        ("a.npz", {"one": [[1, 2]], "other": [[1, 2]]}, PLAIN, "no array of rows among one, other"),
        ("a.npz", {"x": [[1, 2, 3]]}, PLAIN, r"x has shape \[1, 3\], and this model takes rows of shape \[2\]"),
        ("a.npz", {"x": numpy.zeros((0, 2))}, PLAIN, "at least one row"),
        ("a.npz", {"x": [[1, 2], [numpy.nan, 2]]}, PLAIN, r"a.npz, row 2: x\[0\] is not a finite float32"),
        ("a.npz", {"x": numpy.full((1, 1, 2, 3), 256)}, GREY, r"must be a whole number in 0..255, got 256"),
        ("a.csv", b"width\n1\n", NAMED, "the column 'height' is missing"),
        ("a.csv", b"width,height\n", NAMED, "the table has no rows"),
        ("a.csv", b"width,height\n1,tall\n", NAMED, "a.csv: x must hold numbers"),
        ("a.csv", b"width,height\n1,2,3\n", NAMED, "a.csv: cannot be read as a table"),
        ("a.csv", b"width,height\n1,2\n", PLAIN, "the columns of this model have no names"),
        ("a.csv", b"age,colour\nold,red\n", RAW, "a.csv: x: .*age"),
        ("a.doc", b"", GREY, "a.doc: is no image"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, name, content, spec, told):
    if isinstance(content, dict):
        numpy.savez(tmp_path / name, **content)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told):
        examples([tmp_path / name], spec)


def test_nothing_named_and_nothing_there_are_refused(tmp_path):
    with pytest.raises(DataError, match="no images were named"):
        examples([], GREY)
    with pytest.raises(DataError, match="there is no such file"):
        examples([tmp_path / "a.png"], GREY)
    with pytest.raises(DataError, match="holds no images"):
        examples([tmp_path], GREY)
