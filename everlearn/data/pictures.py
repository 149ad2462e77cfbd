"""Image files as rows of bytes: decoded at once into a tensor, or lazily by `Pictures`, which stands in a data set's x.

Reading lazily keeps file names instead of pixels: 12,000 photographs of 224 x 224 pixels take 1.8 GB as bytes and 5 MB as names.
The price is that every pass decodes them again.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

GREY = ("1", "L", "LA")
DEEP = ("I", "F", "I;16", "I;16B", "I;16L")


class Pictures:
    """Rows (channels, height, width) uint8 of image files, decoded each time that they are asked for.

    files: one per row; shape: (channels, height, width) to which images are brought. What a data set's x is asked for is here: `len`,
    `shape`, `dtype`, rows by number, slice, mask or numbers, and torch functions, which see all rows decoded. Nothing is kept.
    Raises DataError that names the file, when its row is asked for.
    """

    dtype = torch.uint8
    ndim = 4

    def __init__(self, files: Sequence[Path], shape: tuple[int, int, int]):
        self.files, self.row = tuple(files), tuple(shape)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> torch.Size:
        """(rows, channels, height, width)."""
        return torch.Size((len(self), *self.row))

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Decoded rows; one row without its first axis for a number."""
        if isinstance(index, int):
            return decode([self.files[index]], self.row)[0]
        return decode(self.take(index).files, self.row)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Decoded rows by their numbers; dim must be 0."""
        if dim != 0:
            raise IndexError(f"pictures are selected by row, dim 0, got {dim}.")
        return self[index]

    def take(self, index: slice | Tensor) -> "Pictures":
        """The same rows, not decoded yet."""
        return Pictures([self.files[row] for row in torch.arange(len(self))[index].tolist()], self.row)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return function(*map(_read, args), **{key: _read(value) for key, value in (kwargs or {}).items()})


def take(x: Tensor | Pictures, index: slice | Tensor) -> Tensor | Pictures:
    """The rows that an index names, decoded only where they were."""
    return x.take(index) if isinstance(x, Pictures) else x[index]


def pictures(
    files: Sequence[Path], count: int, pixels: tuple[int, int] | None, channels: int | None, lazy: bool
) -> tuple[Tensor | Pictures, Tensor | Pictures | None]:
    """(the first `count` images, the others, None where there are none), of one shape, which is that of the files where left out.

    Raises DataError for images of different sizes before any is decoded, and for one that cannot be read.
    """
    row = _shape(files, pixels, channels)
    whole = Pictures(files, row)
    x = whole if lazy else decode(files, row)
    return take(x, slice(count)), (take(x, slice(count, None)) if count < len(files) else None)


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


def decode(files: Sequence[Path], row: tuple[int, int, int]) -> Tensor:
    """(files, channels, height, width) uint8."""
    x = numpy.empty((len(files), *row), numpy.uint8)
    for number, file in enumerate(files):
        with _opened(file) as image:
            x[number] = plane(image, row[1:], row[0], str(file))
    return torch.from_numpy(x)


def _shape(files: Sequence[Path], pixels: tuple[int, int] | None, channels: int | None) -> tuple[int, int, int]:
    """(channels, height, width) as given, else of the files, by their headers."""
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
    return channels, *pixels


def _read(value: Any) -> Any:
    """An argument of a torch function with decoded rows in the place of pictures."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_read, value))
    return value[:] if isinstance(value, Pictures) else value


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
