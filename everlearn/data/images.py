"""Folders of images by class become uint8 rows, channels first.

folder/CLASS/*.png          or          folder/train/CLASS/*.png with folder/test/CLASS/*.png
"""

from pathlib import Path

import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.spec import describe
from everlearn.data.dataset import Data
from everlearn.data.labels import natural
from everlearn.data.pictures import pictures, plane

__all__ = ["ENDINGS", "check_lazy", "image_size", "images", "plane"]

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def images(
    folder: str | Path, *, size: int | tuple[int, int] | None = None, channels: int | None = None, lazy: bool = False
) -> Data:
    """A folder of images by class.

    folder: FOLDER/CLASS/*.png (jpg, bmp, gif, webp, tif, ppm), or FOLDER/train/CLASS and FOLDER/test/CLASS; size: pixels, one number
    or (height, width), to which every image is resized (bilinear), None where all have one size; channels: 1 (grey) or 3 (colour),
    None for grey where all images are; lazy: whether an image is decoded each time that its row is asked for, for sets larger than
    memory, instead of once. Classes are sorted, c2 before c10, and files within them. Index lists may name the files of training rows.

    Returns Data with x (rows, channels, height, width) uint8. Raises DataError that names the file; ArgumentError.
    """
    folder = Path(folder)
    if channels not in (None, 1, 3):
        raise ArgumentError(f"images: channels must be 1 (grey), 3 (colour) or left out, got {channels!r}.")
    pixels = image_size(size)
    check_lazy("images", lazy)
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
    count = sum(map(len, train.values()))
    x, test_x = pictures(files, count, pixels, channels, lazy)
    y = torch.tensor(labels)
    options = {"size": size, "channels": channels, "lazy": lazy or None}
    texts = [f"{key}={describe(value)}" for key, value in options.items() if value is not None]
    name = f"images({', '.join([repr(str(folder)), *texts])})"
    test_y = y[count:] if test else None
    named = tuple(f"{file.parent.name}/{file.name}" for file in files[:count])
    return Data(name, x, y[:count], classes, test_x=test_x, test_y=test_y, files=named)


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


def check_lazy(owner: str, lazy: bool) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(lazy, bool):
        raise ArgumentError(f"{owner}: lazy must be True or False, got {lazy!r}.")
