"""Folders of images by class: layouts, sizes, channels, and the file named where one cannot be read."""

import numpy
import pytest
import torch
from PIL import Image

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.spec import build, parse
from everlearn.data.images import images
from everlearn.data.load import SOURCES


def put(folder, name, shape=(4, 6), colour=(10, 20, 30), mode="RGB", **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (shape[1], shape[0]), colour).save(path, **options)
    return path


def test_classes_and_files_in_natural_order(tmp_path):
    for name in ("c10/a.png", "c2/10.png", "c2/9.png"):
        put(tmp_path, name, colour=(len(name), 0, 0) if "10/" in name else (int(name[3:-4]), 0, 0))
    (tmp_path / "c2" / "notes.txt").write_text("not an image")
    (tmp_path / "c2" / ".hidden.png").write_text("not an image")
    data = images(tmp_path)
    assert data.classes == ("c2", "c10") and data.y.tolist() == [0, 0, 1]
    assert data.x.shape == (3, 3, 4, 6) and data.x.dtype == torch.uint8
    assert data.x[:2, 0, 0, 0].tolist() == [9, 10]


def test_pixels_are_those_of_the_file(tmp_path):
    random = numpy.random.default_rng(0)
    pixels = random.integers(0, 256, (5, 7, 3), numpy.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "1.png")
    put(tmp_path, "b/1.png", (5, 7))
    assert numpy.array_equal(images(tmp_path).x[0].numpy(), pixels.transpose(2, 0, 1))


def test_train_and_test_folders(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "train/b/2.png", "test/b/1.png"):
        put(tmp_path, name)
    data = images(tmp_path)
    assert data.classes == ("a", "b") and data.y.tolist() == [0, 1, 1] and data.test_y.tolist() == [1]
    put(tmp_path, "test/c/1.png")
    with pytest.raises(DataError, match="class 'c' that the training part lacks"):
        images(tmp_path)


def test_channels_by_themselves_and_as_asked(tmp_path):
    put(tmp_path, "a/1.png", mode="L", colour=100)
    put(tmp_path, "b/1.png", mode="L", colour=200)
    assert images(tmp_path).x.shape == (2, 1, 4, 6)
    assert images(tmp_path, channels=3).x[0, :, 0, 0].tolist() == [100, 100, 100]
    put(tmp_path, "b/2.png", mode="RGBA", colour=(255, 0, 0, 255))
    assert images(tmp_path).x.shape == (3, 3, 4, 6)
    assert images(tmp_path, channels=1).x[2, 0, 0, 0] == 76  # 0.299 of red


def test_size_resizes_and_without_it_different_sizes_are_refused(tmp_path):
    put(tmp_path, "a/1.png", (4, 6))
    odd = put(tmp_path, "b/1.png", (8, 6))
    with pytest.raises(DataError, match=r"differ in size: .*1.png is 4x6 and .*1.png is 8x6 .*size=32") as caught:
        images(tmp_path)
    assert str(odd) in str(caught.value)
    assert images(tmp_path, size=5).x.shape == (2, 3, 5, 5)
    data = images(tmp_path, size=(8, 3), channels=3)
    assert data.x.shape == (2, 3, 8, 3) and (data.x[0, :, 3, 1] == torch.tensor([10, 20, 30])).all()
    assert data.name == f"images({str(tmp_path)!r}, size=(8, 3), channels=3)"
    assert torch.equal(build(parse(data.name), SOURCES, "data set").x, data.x)


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    put(tmp_path, "a/1.jpg", (4, 6), exif=exif)
    put(tmp_path, "b/1.jpg", (6, 4))
    assert images(tmp_path).x.shape == (2, 3, 6, 4)


@pytest.mark.parametrize("cut", [0, 20, 60])
def test_a_file_that_cannot_be_read_is_named(tmp_path, cut):
    put(tmp_path, "a/1.png", (40, 60))
    bad = put(tmp_path, "b/bad.png", (40, 60))
    bad.write_bytes(bad.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"bad\.png"):
        images(tmp_path)
    with pytest.raises(DataError, match=r"bad\.png"):
        images(tmp_path, size=8, channels=3)


def test_folders_that_hold_no_classes(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        images(tmp_path / "none")
    with pytest.raises(DataError, match=r"holds no folders; one folder per class is expected"):
        images(tmp_path)
    put(tmp_path, "1.png")
    with pytest.raises(DataError, match="holds 1 images and no folders"):
        images(tmp_path)
    put(tmp_path, "a/1.png")
    with pytest.raises(DataError, match="every image is of the class 'a'"):
        images(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="b: holds no images"):
        images(tmp_path)


def test_deep_images_and_bad_arguments(tmp_path):
    put(tmp_path, "a/1.png", mode="I;16", colour=1000)
    put(tmp_path, "b/1.png", mode="I;16", colour=1000)
    with pytest.raises(DataError, match="more than 8 bits"):
        images(tmp_path)
    for options in ({"channels": 2}, {"size": 0}, {"size": (1, 2, 3)}, {"size": True}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            images(tmp_path, **options)
