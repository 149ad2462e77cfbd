"""Public image sets in the layouts in which they are published: CIFAR-100, miniImageNet and CUB-200-2011, at full size.

    cifar100        the Parquet files of the hub (uoft-cs/cifar100), downloaded or in a folder
    mini_imagenet   FOLDER/train.csv, val.csv, test.csv (or FOLDER/split/...) with the columns filename and label, images in FOLDER/images
    cub200          FOLDER/images.txt, image_class_labels.txt, train_test_split.txt, classes.txt, images in FOLDER/images

References: Krizhevsky (2009), Learning multiple layers of features from tiny images; Vinyals et al. (2016), Matching networks for one
shot learning, arXiv 1606.04080; Wah et al. (2011), The Caltech-UCSD Birds-200-2011 dataset.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.spec import describe
from everlearn.data.dataset import Data
from everlearn.data.folders import roots, where
from everlearn.data.hub import hub
from everlearn.data.images import check_lazy, image_size
from everlearn.data.pictures import pictures

HUB = "uoft-cs/cifar100"
PARQUET = (
    f"Its train-00000-of-00001.parquet and test-00000-of-00001.parquet are at huggingface.co/datasets/{HUB}; put both there."
)
SPLITS = ("train", "val", "test")
FROM = {
    "mini_imagenet": "Its images are a part of ImageNet (image-net.org, on its terms); its lists train.csv and test.csv for "
    "class-incremental work are public at github.com/icoz69/CEC-CVPR2021.",
    "cub200": "It is published as CUB_200_2011.tgz at www.vision.caltech.edu/datasets/cub_200_2011; mind the terms of its photographs.",
}


def cifar100(labels: str = "fine") -> Data:
    """CIFAR-100 in full: 500 training and 100 test images of each of 100 classes, 3x32x32 uint8, from the hub or a folder.

    The folder `cifar100` of EVERLEARN_DATA, with the hub's Parquet files (train-*.parquet, test-*.parquet), goes before the hub.
    labels: "fine" (100 classes) or "coarse" (20 superclasses). Needs everlearn[hub]. Raises DataError.
    """
    if labels not in ("fine", "coarse"):
        raise ArgumentError(f"cifar100: labels must be 'fine' or 'coarse', got {labels!r}.")
    folder = _folder("cifar100")
    if folder is not None:
        for split in ("train", "test"):
            if not any(folder.rglob(f"{split}*.parquet")):
                raise DataError(f"cifar100: {folder} holds no {split}-*.parquet. {PARQUET}")
    try:
        data = hub(HUB if folder is None else str(folder), target=f"{labels}_label")
    except DataError as error:
        if folder is not None:
            raise
        raise DataError(f"{error} Or make a folder cifar100 in {where()}. {PARQUET}") from error
    return replace(data, name="cifar100" if labels == "fine" else "cifar100(labels='coarse')")


def mini_imagenet(folder: str | None = None, *, size: int | tuple[int, int] = 84, lazy: bool = False) -> Data:
    """miniImageNet: 100 classes of 600 images, by its lists of files; uint8, resized to `size`.

    folder: has train.csv, val.csv and test.csv (filename, label), directly or in FOLDER/split, and the images, FOLDER/images/NAME,
    FOLDER/NAME or FOLDER/.../LABEL/NAME; the folder `mini_imagenet` of EVERLEARN_DATA where left out. Where train.csv and test.csv
    name the same classes (500 and 100 images of each, the lists of class-incremental work) they are the two parts. Where no class is
    in both (64, 16 and 20 classes, the lists of few-shot work) all rows are to learn from, and streams hold out their own.
    lazy: whether an image is decoded each time that its row is asked for, instead of all at once into 1.3 GB.
    Raises DataError that names the list and its line.
    """
    place, train_list = _given("mini_imagenet", folder, "train.csv", "split/train.csv")
    lists = {split: _pairs(path) for split in SPLITS if (path := train_list.with_name(f"{split}.csv")).is_file()}
    names = {split: {label for _, label in rows} for split, rows in lists.items()}
    parted = "test" in lists and bool(names["train"] & names["test"])
    if parted and not names["test"] <= names["train"]:
        strange = min(names["test"] - names["train"])
        raise DataError(f"{train_list.with_name('test.csv')}: names the class {strange!r}, which train.csv does not.")
    train = [row for split in SPLITS if split != "test" or not parted for row in lists.get(split, [])]
    test = lists["test"] if parted else []
    files = [_image(place, name, label) for name, label in (*train, *test)]
    if twice := _repeated(files):
        raise DataError(f"{train_list.parent}: the lists name {twice} twice. Leave each image in one place.")
    called = _called("mini_imagenet", folder, {"size": (size, 84), "lazy": (lazy, False)})
    return _made(called, place, files, [label for _, label in (*train, *test)], len(train), size, lazy)


def cub200(folder: str | None = None, *, size: int | tuple[int, int] = 224, lazy: bool = False) -> Data:
    """CUB-200-2011: 200 species of birds, 5,994 training and 5,794 test photographs, uint8, resized to `size`.

    folder: CUB_200_2011 as it is unpacked; the folder `cub200` of EVERLEARN_DATA where left out. lazy: whether an image is
    decoded each time that its row is asked for, instead of all at once into 1.8 GB. Images are not cropped to the birds.
    Raises DataError that names the list and its line.
    """
    place, _ = _given("cub200", folder, "images.txt")
    paths, labels, parts, classes = (
        _numbered(place / f"{name}.txt") for name in ("images", "image_class_labels", "train_test_split", "classes")
    )
    for name, found in (("image_class_labels", labels), ("train_test_split", parts)):
        if found.keys() != paths.keys():
            number = min(found.keys() ^ paths.keys())
            raise DataError(f"{place / name}.txt: image {number} is there or in images.txt, not in both.")
    wrong = next((number for number in paths if parts[number] not in ("0", "1")), None)
    if wrong is not None:
        raise DataError(
            f"{place / 'train_test_split.txt'}: image {wrong} has {parts[wrong]!r}; 1 (training) or 0 (test) is expected."
        )
    if "1" not in parts.values():
        raise DataError(f"{place / 'train_test_split.txt'}: no image is a training image (1).")
    wrong = next((number for number in paths if not labels[number].isdigit() or int(labels[number]) not in classes), None)
    if wrong is not None:
        raise DataError(
            f"{place / 'image_class_labels.txt'}: image {wrong} has class {labels[wrong]!r}, which classes.txt lacks."
        )
    order = sorted(paths, key=lambda number: (parts[number] != "1", number))  # 1: training
    files = [_image(place, paths[number], "") for number in order]
    names = [classes[int(labels[number])] for number in order]
    if twice := _repeated(files):
        raise DataError(f"{place / 'images.txt'}: names {twice} twice. Leave each image in one place.")
    called = _called("cub200", folder, {"size": (size, 224), "lazy": (lazy, False)})
    return _made(called, place, files, names, sum(part == "1" for part in parts.values()), size, lazy)


def _folder(name: str) -> Path | None:
    """The folder of this name in EVERLEARN_DATA."""
    return next((root / name for root in roots() if (root / name).is_dir()), None)


def _given(name: str, folder: str | None, *wanted: str) -> tuple[Path, Path]:
    """The folder of a set, and the first of some files that it holds."""
    place = _folder(name) if folder is None else Path(folder)
    if place is None:
        raise DataError(f"{name}: not found in {where()}. {FROM[name]} Pass its folder: {name}('FOLDER').")
    found = next((place / file for file in wanted if (place / file).is_file()), None)
    if found is None:
        raise DataError(
            f"{name}: {place} holds no {wanted[0]}. Pass the folder in which the published files lie. {FROM[name]}"
        )
    return place, found


def _called(name: str, folder: str | None, options: dict[str, tuple]) -> str:
    """The call; options: (value, default) of each."""
    texts = [] if folder is None else [repr(str(folder))]
    texts += [f"{key}={describe(value)}" for key, (value, default) in options.items() if value != default]
    return f"{name}({', '.join(texts)})" if texts else name


def _pairs(path: Path) -> list[tuple[str, str]]:
    """(file name, label) of each line of a list with these columns."""
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        if not {"filename", "label"} <= set(reader.fieldnames or ()):
            raise DataError(f"{path}: the first line must name the columns filename and label, got {reader.fieldnames}.")
        rows = []
        for row in reader:
            if not row["filename"] or not row["label"]:
                raise DataError(f"{path}:{reader.line_num}: a file name and a label are expected.")
            rows.append((row["filename"], row["label"]))
    if not rows:
        raise DataError(f"{path}: the list is empty.")
    return rows


def _numbered(path: Path) -> dict[int, str]:
    """{number: text} of a list of lines 'NUMBER TEXT'."""
    if not path.is_file():
        raise DataError(f"cub200: {path} is missing.")
    found: dict[int, str] = {}
    for line, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        number, _, rest = text.strip().partition(" ")
        if not number.isdigit() or not rest or int(number) in found:
            raise DataError(f"{path}:{line}: a number of its own and a text are expected, got {text!r}.")
        found[int(number)] = rest
    return found


def _image(place: Path, name: str, label: str) -> Path:
    """Where an image of a list lies."""
    tried = [place / "images" / name, place / name]
    tried += [place / part / label / name for part in ("", "images", *SPLITS)] if label else []
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise DataError(f"{place}: the image {name} of the lists is missing (looked for {tried[0]}).")
    return found


def _repeated(files: Sequence[Path]) -> Path | None:
    """A file that stands twice."""
    return next((file for file, count in Counter(files).items() if count > 1), None)


def _made(
    name: str, place: Path, files: Sequence[Path], labels: Sequence[str], count: int, size: int | tuple[int, int], lazy: bool
) -> Data:
    """Images in rows, classes sorted; the first `count` are to learn from, the rest are the test part."""
    classes = tuple(sorted(set(labels)))
    position = {label: number for number, label in enumerate(classes)}
    check_lazy(name, lazy)
    x, test_x = pictures(files, count, image_size(size), 3, lazy)
    y = torch.tensor([position[label] for label in labels])
    test_y = None if test_x is None else y[count:]
    named = tuple(path.relative_to(place).as_posix().removeprefix("images/") for path in files[:count])
    return Data(name, x, y[:count], classes, test_x=test_x, test_y=test_y, files=named)
