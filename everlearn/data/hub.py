"""Data sets of the Hugging Face hub, through its own client library `datasets` (pip install 'everlearn[hub]').

A column of images becomes uint8 rows; otherwise all columns beside the label are encoded as those of a table. Without a network,
or with HF_HUB_OFFLINE=1, only what was downloaded before is there; the error says so at once.
"""

from pathlib import Path
from typing import Any

import numpy

from everlearn.core.errors import DataError, closest, first_line, optional
from everlearn.core.spec import describe
from everlearn.data.arrays import from_arrays
from everlearn.data.dataset import Data
from everlearn.data.images import image_size
from everlearn.data.pictures import GREY, plane
from everlearn.data.table_files import Source

LABELS = ("label", "labels", "fine_label", "target", "class", "y")
SECONDS = 10  # to wait for the hub's first answer


def hub(
    name: str,
    *,
    target: str | None = None,
    config: str | None = None,
    split: str = "train",
    test: str | None = "test",
    size: int | tuple[int, int] | None = None,
    drop: tuple[str, ...] = (),
) -> Data:
    """A data set of the Hugging Face hub, `user/name`, or a folder in its layout.

    target: the column of labels (label, labels, fine_label, target, class or y where left out); config: which of its configurations;
    split, test: the parts to learn from and to judge on (no test part where the set has none); size: pixels to which images are
    resized; drop: columns to leave out. Numeric columns have mean 0 and deviation 1 over the training part.
    Raises DataError where the hub lacks it, cannot be reached, or has columns that no network here takes; MissingExtraError.
    """
    pixels = image_size(size)
    parts = download(name, config)
    if split not in parts:
        raise DataError(f"hub({name!r}): {closest('split', split, parts)}")
    train, judged = parts[split], parts.get(test) if test is not None else None
    label = _label(name, train.features, target)
    picture = next((key for key, value in train.features.items() if type(value).__name__ == "Image" and key != label), None)
    names = getattr(train.features[label], "names", None)
    given = {"target": target, "config": config, "split": split, "test": test, "size": size, "drop": tuple(drop)}
    defaults = {"split": "train", "test": "test", "drop": ()}
    texts = [f"{key}={describe(value)}" for key, value in given.items() if value != defaults.get(key)]
    called = f"hub({', '.join([repr(name), *texts])})"
    frames = [part for part in (train, judged) if part is not None and len(part)]
    if picture is not None:
        rows, features = _pictures(name, frames, picture, pixels), ()
    else:
        rows, features = _columns(name, frames, [key for key in train.features if key != label and key not in drop])
    labels = [numpy.asarray(part[label][:]) for part in frames]
    held_out = (rows[1], labels[1]) if len(frames) == 2 else None
    return from_arrays(rows[0], labels[0], name=called, classes=names, features=features, test=held_out)


def download(name: str, config: str | None = None) -> dict[str, Any]:
    """{split: datasets.Dataset} of a name, from the hub or from what was downloaded before. Raises DataError at once where neither."""
    _refuse_unreachable(name)
    datasets = optional("datasets", "hub", f"hub({name!r})")
    try:
        loaded = datasets.load_dataset(name, config)
    except Exception as error:
        raise DataError(f"hub({name!r}): {_sentence(error)}") from error
    return dict(loaded)


def _refuse_unreachable(name: str) -> None:
    """Ask the hub once whether it has the name, with a short wait, before the client library tries for minutes."""
    client = optional("huggingface_hub", "hub", f"hub({name!r})")
    constants, errors = (optional(f"huggingface_hub.{part}", "hub", f"hub({name!r})") for part in ("constants", "errors"))
    if constants.HF_HUB_OFFLINE or Path(name).is_dir():
        return
    try:
        client.HfApi().dataset_info(name, timeout=SECONDS)
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise DataError(f"hub({name!r}): the Hugging Face hub has no data set of this name that is open to you.") from error
    except Exception as error:
        raise DataError(
            f"hub({name!r}): the Hugging Face hub cannot be reached ({_sentence(error)}) "
            "Check the network, or set HF_HUB_OFFLINE=1 to use what was downloaded before."
        ) from error


def _label(name: str, features: Any, target: str | None) -> str:
    if target is not None:
        if target not in features:
            raise DataError(f"hub({name!r}): target: {closest('column', target, features)}")
        return target
    for usual in LABELS:
        if usual in features:
            return usual
    raise DataError(f"hub({name!r}): no column is named like a label; name one with target=: {', '.join(features)}.")


def _pictures(name: str, frames: list[Any], column: str, pixels: tuple[int, int] | None) -> list[numpy.ndarray]:
    """(rows, channels, height, width) uint8 of each part."""
    first = [_picture(name, frame, row, column) for frame in frames for row in range(min(100, len(frame)))]
    grey = all(image.mode in GREY for image in first)
    parts = []
    for frame in frames:
        rows: list[numpy.ndarray] = []
        for index in range(len(frame)):
            rows.append(plane(_picture(name, frame, index, column), pixels, 1 if grey else 3, f"hub({name!r}): row {index}"))
            if rows[-1].shape != rows[0].shape:
                raise DataError(
                    f"hub({name!r}): row {index} is an image of {rows[-1].shape[1:]} pixels and row 0 of {rows[0].shape[1:]}. "
                    "Pass size=32, say, to resize them all."
                )
        parts.append(numpy.stack(rows))
    return parts


def _picture(name: str, frame: Any, row: int, column: str) -> Any:
    """The image in a row. Raises DataError where there is none or it cannot be read."""
    try:
        image = frame[row][column]
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(
            f"hub({name!r}): row {row} cannot be read as an image; mend or remove it. ({_sentence(error)})"
        ) from error
    if image is None:
        raise DataError(f"hub({name!r}): row {row} has no image in the column {column}. Remove the row.")
    return image


def _columns(name: str, frames: list[Any], columns: list[str]) -> tuple[list[numpy.ndarray], tuple[str, ...]]:
    """Encoded columns of each part, with statistics of the first."""
    import pyarrow

    from everlearn.data.columns import encode, understand

    if not columns:
        raise DataError(f"hub({name!r}): no columns are left to learn from.")
    tables = [frame.select_columns(columns).with_format("arrow")[:] for frame in frames]
    together = pyarrow.concat_tables(tables)
    source = Source(f"hub({name!r})", together, False, lambda row: f"row {row + 1}")
    found = [understand(source, column, categorical=False, max_categories=50) for column in columns]
    x, features = encode(found, len(frames[0]), 50)
    return numpy.split(x, [len(frames[0])]) if len(frames) == 2 else [x], features


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error).rstrip('.')}."
