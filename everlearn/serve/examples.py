"""A handful of rows from files, in the shape that a model takes: image files and folders of them, npz files, tables.

What does not fit is refused with the name of the file, before anything is learned.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
from torch import Tensor

from everlearn.core.errors import DataError, ServeError
from everlearn.data.arrays import read_npz
from everlearn.data.decoders import USUAL
from everlearn.data.images import ENDINGS
from everlearn.data.labels import natural
from everlearn.data.pictures import plane
from everlearn.serve.input_spec import InputSpec

TABLES = (".csv", ".tsv", ".parquet", ".pq")


def examples(paths: Sequence[str | Path], spec: InputSpec, *, resize: bool = False) -> Tensor:
    """(rows, *spec.shape) of the dtype of `spec`, from files in the order given, for a model whose rows `spec` describes.

    paths: images (png, jpg, ...) or folders of them, where rows are uint8 of (1 or 3 channels, height, width), one row each; npz files
    with the rows as x, or as their only array; tables (csv, tsv, parquet) with the model's columns by name, others are passed over;
    resize: bring images to the model's size (bilinear) instead of refusing those of another.
    Raises DataError that names the file.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "cats.npz")
    >>> numpy.savez(path, x=[[1, 2], [3, 4]])
    >>> examples([path], InputSpec("classes", (2,), "float32", classes=("dog",))).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    if not paths:
        raise DataError("no images were named: give the files of the class, such as cats/*.png, or an npz file or table.")
    rows: list[bytes] = []
    for path in _files(paths):
        ending = path.suffix.lower()
        if ending == ".npz":
            found = _of_npz(path, spec)
        elif ending in TABLES:
            found = _of_table(path, spec)
        elif ending in ENDINGS:
            found = [_of_image(path, spec, resize)]
        else:
            raise DataError(f"{path}: is no image ({', '.join(ENDINGS)}), npz file or table ({', '.join(TABLES)}).")
        for number, row in enumerate(found):
            try:
                rows.append(spec.row(row))
            except ServeError as error:
                raise DataError(f"{path}{f', row {number + 1}' if len(found) > 1 else ''}: {error}") from error
    return spec.tensor(rows)


def _files(paths: Sequence[str | Path]) -> list[Path]:
    """The files named, and the images in the folders named."""
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise DataError(f"{path}: there is no such file.")
        if not path.is_dir():
            found.append(path)
            continue
        inside = (item for item in path.iterdir() if item.suffix.lower() in ENDINGS and not item.name.startswith("."))
        images = sorted(inside, key=lambda item: natural(item.name))
        if not images:
            raise DataError(f"{path}: the folder holds no images ({', '.join(ENDINGS)}).")
        found += images
    return found


def _of_image(path: Path, spec: InputSpec, resize: bool) -> numpy.ndarray:
    from PIL import Image

    if spec.dtype != "uint8" or len(spec.shape) != 3 or spec.shape[0] not in (1, 3):
        raise DataError(
            f"{path} is an image, and this model takes rows of shape {list(spec.shape)} and dtype {spec.dtype}. "
            "Give an npz file with such rows" + (", or a table." if spec.features else ".")
        )
    channels, height, width = spec.shape
    try:
        with Image.open(path) as image:
            pixels = plane(image, (height, width) if resize else None, channels, str(path))
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image. ({str(error) or type(error).__name__})") from error
    if pixels.shape != spec.shape:
        raise DataError(
            f"{path}: is {pixels.shape[1]}x{pixels.shape[2]} (height x width), and this model takes {height}x{width}. "
            "Resize it first, or add --resize."
        )
    return pixels


def _of_npz(path: Path, spec: InputSpec) -> list[numpy.ndarray]:
    arrays = read_npz(path)
    name = next((usual for usual in USUAL["x"] if usual in arrays), next(iter(arrays)) if len(arrays) == 1 else None)
    if name is None:
        raise DataError(
            f"{path}: no array of rows among {', '.join(arrays) or 'none'}. Save it with numpy.savez(path, x=x)."
        )
    x = arrays[name]
    if x.shape == spec.shape:
        x = x[None]
    if x.shape[1:] != spec.shape or not len(x):
        raise DataError(
            f"{path}: {name} has shape {list(x.shape)}, and this model takes rows of shape {list(spec.shape)}: [rows, "
            f"{', '.join(map(str, spec.shape))}] with at least one row."
        )
    return list(x)


def _of_table(path: Path, spec: InputSpec) -> list[dict[str, Any]]:
    names = spec.schema.encoder.names if spec.encoder is not None else spec.features
    if not names:
        raise DataError(f"{path} is a table, and the columns of this model have no names. Give an npz file with its rows.")
    table = _read(path)
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise DataError(
            f"{path}: the column {missing[0]!r} is missing ({len(missing)} of {len(names)} in all); "
            f"there are {', '.join(table.column_names[:10])}."
        )
    if not table.num_rows:
        raise DataError(f"{path}: the table has no rows.")
    return table.select(list(names)).to_pylist()


def _read(path: Path) -> Any:
    """A small table, its cells understood column by column."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pyarrow.parquet.read_table(path)
        between = "\t" if path.suffix.lower() == ".tsv" else ","
        gaps = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
        return pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter=between), convert_options=gaps)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a table. ({' '.join(str(error).split())[:200]})") from error
