"""Folders of images by class become uint8 rows, channels first.

folder/CLASS/*.png          or          folder/train/CLASS/*.png with folder/test/CLASS/*.png
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.spec import describe
from everlearn.data.dataset import Data
from everlearn.data.labels import natural

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
GREY = ("1", "L", "LA")
DEEP = ("I", "F", "I;16", "I;16B", "I;16L")


def images(folder: str | Path, *, size: int | tuple[int, int] | None = None, channels: int | None = None) -> Data:
    """A folder of images by class.

    folder: FOLDER/CLASS/*.png (jpg, bmp, gif, webp, tif, ppm), or FOLDER/train/CLASS and FOLDER/test/CLASS; size: pixels, one number
    or (height, width), to which every image is resized (bilinear), None where all have one size; channels: 1 (grey) or 3 (colour),
    None for grey where all images are. Classes are sorted, c2 before c10, and files within them.

    Returns Data with x (rows, channels, height, width) uint8. Raises DataError that names the file; ArgumentError.
    """
    folder = Path(folder)
    if channels not in (None, 1, 3):
        raise ArgumentError(f"images: channels must be 1 (grey), 3 (colour) or left out, got {channels!r}.")
    pixels = image_size(size)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder.")
    parted = (folder / "train").is_dir() and (folder / "test").is_dir()
    train = _by_class(folder / "train" if parted else folder)
    test = _by_class(folder / "test") if parted else {}
    strange = [name for name in test if name not in train]
    if strange:
        raise DataError(f"{folder}: the test part has a class {strange[0]!r} that the training part lacks.")
    if len(train) < 2:
        raise DataError(
            f"{folder}: every image is of the class {next(iter(train))!r}; at least two classes are needed to learn from."
        )
    classes = tuple(train)
    files = [file for group in (train, test) for name in group for file in group[name]]
    labels = [classes.index(name) for group in (train, test) for name in group for _ in group[name]]
    x = decode(files, pixels, channels)
    y = torch.tensor(labels)
    count = sum(map(len, train.values()))
    texts = [f"{key}={describe(value)}" for key, value in (("size", size), ("channels", channels)) if value is not None]
    name = f"images({', '.join([repr(str(folder)), *texts])})"
    held_out = (x[count:], y[count:]) if test else (None, None)
    return Data(name, x[:count], y[:count], classes, (), None, *held_out)


def plane(image: "Image", pixels: tuple[int, int] | None, channels: int, owner: str) -> numpy.ndarray:
    """(channels, height, width) uint8 of one image, turned upright and resized where pixels (height, width) is given."""
    from PIL import Image, ImageOps

    if image.mode in DEEP:
        raise DataError(f"{owner}: has more than 8 bits per pixel (mode {image.mode}). Convert it to 8 bits first.")
    image = ImageOps.exif_transpose(image)
    image = image.convert("L" if channels == 1 else "RGB")
    if pixels is not None and (image.height, image.width) != pixels:
        image = image.resize((pixels[1], pixels[0]), Image.Resampling.BILINEAR)
    values = numpy.asarray(image)
    return values[None] if channels == 1 else numpy.moveaxis(values, 2, 0)


def decode(files: Sequence[Path], pixels: tuple[int, int] | None, channels: int | None) -> Tensor:
    """Headers first, so that images of different sizes are refused before any is decoded; then the pixels, into one tensor."""
    if pixels is None or channels is None:
        first = None
        grey = True
        for file in files:
            with _opened(file) as image:
                shape = _upright(image)
                grey = grey and image.mode in GREY
            if pixels is None and first is not None and shape != first[1]:
                raise DataError(
                    f"images differ in size: {first[0]} is {first[1][0]}x{first[1][1]} and {file} is {shape[0]}x{shape[1]} "
                    "(height x width). Pass size=32, say, to resize them all."
                )
            first = first or (file, shape)
        pixels = pixels or first[1]
        channels = channels or (1 if grey else 3)
    x = numpy.empty((len(files), channels, *pixels), numpy.uint8)
    for row, file in enumerate(files):
        with _opened(file) as image:
            x[row] = plane(image, pixels, channels, str(file))
    return torch.from_numpy(x)


@contextmanager
def _opened(file: Path) -> "Iterator[Image]":
    """An image whose header has been read. What goes wrong with it inside the block is an error that names the file."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            yield image
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        words = str(error) or type(error).__name__
        raise DataError(f"{file}: cannot be read as an image; mend or remove it. ({words})") from error


def _upright(image: "Image") -> tuple[int, int]:
    """(height, width) once a photograph's orientation is followed."""
    turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
    return (image.width, image.height) if turned else (image.height, image.width)


def _by_class(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class folder, both sorted."""
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    groups = sorted((path for path in entries if path.is_dir()), key=lambda path: natural(path.name))
    if not groups:
        loose = sum(path.suffix.lower() in ENDINGS for path in entries)
        there = f"holds {loose} images and no folders" if loose else "holds no folders"
        raise DataError(f"{folder}: {there}; one folder per class is expected: {folder.name}/CLASS/*.png.")
    found = {}
    for group in groups:
        files = (path for path in group.iterdir() if path.suffix.lower() in ENDINGS and not path.name.startswith("."))
        found[group.name] = sorted(files, key=lambda path: natural(path.name))
        if not found[group.name]:
            raise DataError(f"{group}: holds no images ({', '.join(ENDINGS)}). Add some or remove the folder.")
    return found


def image_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) of the argument `size`. Raises ArgumentError."""
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else size
    good = isinstance(pair, (list, tuple)) and len(pair) == 2 and not isinstance(size, bool)
    if not good or not all(isinstance(side, int) and side >= 1 for side in pair):
        raise ArgumentError(f"images: size must be an int >= 1 or (height, width), got {size!r}.")
    return tuple(pair)
