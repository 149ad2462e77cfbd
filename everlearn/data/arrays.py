"""Arrays in memory become a data set: numpy arrays, tensors, pandas frames, and the arrays of an npz file.

uint8 (rows, h, w), (rows, h, w, 3), (rows, 3, h, w)    images, kept as bytes, channels first
other numbers (rows, ...)                               float32
"""

import sys
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.spec import describe
from everlearn.data.dataset import Data
from everlearn.data.labels import Bins, encode, indices
from everlearn.data.scaling import standardise as scaled
from everlearn.data.scaling import warn_unscaled

CHANNELS = (1, 3, 4)


def from_arrays(
    x: Any,
    y: Any,
    *,
    name: str = "arrays",
    classes: Sequence[str] | None = None,
    features: Sequence[str] = (),
    time: Any = None,
    test: tuple[Any, Any] | None = None,
    bins: Bins = None,
    standardise: bool = False,
) -> Data:
    """A data set of arrays, tensors or a pandas frame.

    x: (rows, ...) numbers, uint8 for images; or a DataFrame, whose columns are treated as those of `table`, with means and
    deviations from all rows; y: (rows,) labels of any kind; classes: names of the classes where y numbers them 0..K-1; features:
    names of columns; time: (rows,) numbers by which rows are sorted; test: (x, y) of an official test part; bins: cut a numeric y;
    standardise: give columns mean 0 and deviation 1 over the training rows. Raises DataError, ArgumentError.

    >>> import numpy
    >>> data = from_arrays(numpy.array([[1.0, 2.0], [3.0, 5.0]]), ["no", "yes"])
    >>> data.classes, data.y.tolist(), data.x.dtype
    (('no', 'yes'), [0, 1], torch.float32)
    """
    if _is_frame(x):
        if test is not None or len(features) or standardise:
            raise ArgumentError(
                f"{name}: test, features and standardise do not go with a DataFrame, whose columns are encoded anyway."
            )
        x, features = _frame(x, name)
    rows = image_rows(name, x)
    labels = _labels(y)
    if len(rows) != len(labels):
        raise DataError(f"{name}: x has {len(rows)} rows and y has {len(labels)}.")
    if features and (rows.ndim != 2 or rows.shape[1] != len(features)):
        raise DataError(f"{name}: {len(features)} names of features do not fit x of shape {tuple(rows.shape)}.")
    test_rows = test_labels = None
    if test is not None:
        test_rows, test_labels = image_rows(f"{name}, test part", test[0]), _labels(test[1])
        if test_rows.shape[1:] != rows.shape[1:] or test_rows.dtype != rows.dtype or len(test_rows) != len(test_labels):
            raise DataError(
                f"{name}: the test part has x {tuple(test_rows.shape)} {test_rows.dtype} and {len(test_labels)} labels; "
                f"rows such as those of x {tuple(rows.shape)} {rows.dtype} are expected."
            )
    together = labels if test_labels is None else numpy.concatenate([labels, test_labels])
    y_all, names = encode(name, together, bins) if classes is None else indices(name, together, classes)
    if standardise:
        rows, test_rows = _standardised(name, rows, test_rows)
    else:
        warn_unscaled(name, rows)
    x_all, moments = torch.from_numpy(rows), None
    y_train = y_all[: len(rows)]
    if time is not None:
        moments = _moments(name, time, len(rows))
        order = torch.sort(moments, stable=True).indices
        x_all, y_train, moments = x_all[order], y_train[order], moments[order]
    held_out = (None, None) if test_rows is None else (torch.from_numpy(test_rows), y_all[len(rows) :])
    return Data(name, x_all, y_train, names, tuple(features), moments, *held_out)


def image_rows(name: str, x: Any) -> numpy.ndarray:
    """x as an array that networks take: uint8 images channels first, everything else float32. Raises DataError."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    try:
        x = numpy.asarray(x)
    except ValueError as error:
        raise DataError(f"{name}: x must be an array with rows of one shape. ({error})") from error
    if x.dtype.kind not in "biuf":
        raise DataError(
            f"{name}: x must hold numbers, got {x.dtype} of shape {x.shape}. Use table(...) for columns of text."
        )
    if x.ndim < 2:
        raise DataError(f"{name}: x must have shape (rows, ...), got {x.shape}. Use x[:, None] for a single column.")
    if x.dtype == numpy.uint8:
        if x.ndim == 3:
            x = x[:, None]
        elif x.ndim == 4 and x.shape[3] in CHANNELS and x.shape[1] not in CHANNELS:
            x = numpy.moveaxis(x, 3, 1)
        return _own(x, numpy.uint8)
    with numpy.errstate(over="ignore"):
        rows = _own(x, numpy.float32)
    if not numpy.isfinite(rows).all():
        row = int(numpy.argmin(numpy.isfinite(rows.reshape(len(rows), -1)).all(axis=1)))
        raise DataError(f"{name}: row {row} of x (from 0) holds NaN or infinite values. Fill or drop such rows first.")
    return rows


def npz(
    path: str | Path,
    x: str | None = None,
    y: str | None = None,
    *,
    classes: str | None = None,
    test_x: str | None = None,
    test_y: str | None = None,
    standardise: bool = False,
    bins: Bins = None,
) -> Data:
    """The arrays of an npz file.

    x, y, classes, test_x, test_y: names of arrays in the file; those left out are found where they bear a usual name (x, X, images,
    x_train; y, labels, y_train; class_names; x_test, ...). The other arguments are those of `from_arrays`.
    Raises DataError where the file cannot be read or lacks an array.
    """
    from everlearn.data.decoders import plain

    path = Path(path)
    fields = plain(read_npz(path), str(path), x=x, y=y, classes=classes, test_x=test_x, test_y=test_y)
    given = {"x": x, "y": y, "classes": classes, "test_x": test_x, "test_y": test_y, "bins": bins}
    texts = [repr(str(path)), *(f"{key}={describe(value)}" for key, value in given.items() if value is not None)]
    name = f"npz({', '.join([*texts, *(['standardise=True'] if standardise else [])])})"
    return assemble(name, fields, standardise=standardise, bins=bins)


def read_npz(path: Path) -> dict[str, numpy.ndarray]:
    """All arrays of an npz file by name. Raises DataError where it is missing, corrupt, or holds Python objects."""
    if not path.exists():
        raise DataError(f"{path}: there is no such file.")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: is no npz file, or one that was cut short. Save it with numpy.savez(path, x=x, y=y).")
    try:
        with numpy.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
    ) as error:
        what = (
            "holds Python objects, which are not loaded"
            if "pickle" in str(error)
            else "cannot be read as npz; the file is corrupt"
        )
        raise DataError(f"{path}: {what}. ({str(error).splitlines()[0] if str(error) else type(error).__name__})") from error


def assemble(name: str, fields: Mapping[str, Any], *, standardise: bool | None = False, bins: Bins = None) -> Data:
    """A data set of decoded arrays: x, y, and where there are, classes, features, test_x, test_y, coarse, coarse_classes.

    standardise: None leaves columns as they are without a warning about their scales.
    """
    test = None if fields.get("test_x") is None else (fields["test_x"], fields["test_y"])
    with warnings.catch_warnings():
        if standardise is None:
            warnings.simplefilter("ignore")
        data = from_arrays(
            fields["x"],
            fields["y"],
            name=name,
            classes=fields.get("classes"),
            features=tuple(map(str, fields.get("features", ()))),
            test=test,
            bins=bins,
            standardise=bool(standardise),
        )
    if "coarse" not in fields:
        return data
    coarse = tuple(int(value) for value in fields["coarse"])
    return replace(data, coarse=coarse, coarse_classes=tuple(map(str, fields["coarse_classes"])))


def _own(x: numpy.ndarray, dtype: Any) -> numpy.ndarray:
    """A contiguous copy, so that nobody else's array changes with ours."""
    return numpy.array(x, dtype=dtype, order="C")


def _labels(y: Any) -> numpy.ndarray:
    if isinstance(y, Tensor):
        return y.detach().cpu().numpy()
    labels = numpy.asarray(y)
    if labels.dtype.kind != "O":
        return labels
    kinds = {type(label) for label in labels.flat}
    if kinds <= {int, bool, float, numpy.float64, numpy.int64} and len(kinds) == 1:
        return labels.astype(kinds.pop())
    missing = [row for row, label in enumerate(labels.flat) if label is None or label != label]
    if missing:
        raise DataError(f"the label of row {missing[0]} (from 0) is missing; every row needs a label.")
    return labels.astype(str)


def _moments(name: str, time: Any, rows: int) -> Tensor:
    values = numpy.asarray(time)
    if values.dtype.kind == "M":
        values = values.astype("datetime64[us]").astype(numpy.int64) / 1e6
    if values.shape != (rows,) or values.dtype.kind not in "iuf" or not numpy.isfinite(values).all():
        raise DataError(f"{name}: time must be {rows} finite numbers or dates, got {values.dtype} of shape {values.shape}.")
    return torch.from_numpy(values.astype(numpy.float64))


def _standardised(name: str, rows: numpy.ndarray, test: numpy.ndarray | None) -> tuple[numpy.ndarray, numpy.ndarray | None]:
    if rows.ndim != 2 or rows.dtype == numpy.uint8:
        raise ArgumentError(
            f"{name}: standardise=True is for columns of numbers, and x has shape {rows.shape}, {rows.dtype}."
        )
    if test is None:
        return scaled(rows), None
    both = scaled(numpy.concatenate([rows, test]), first=len(rows))
    return both[: len(rows)], both[len(rows) :]


def _is_frame(x: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(x, pandas.DataFrame)


def _frame(frame: Any, name: str) -> tuple[numpy.ndarray, tuple[str, ...]]:
    """The columns of a pandas frame, encoded as those of a table."""
    import pyarrow

    from everlearn.data.columns import encode, understand
    from everlearn.data.table_files import Source

    frame = frame.rename(columns=str)
    try:
        table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    except (pyarrow.ArrowException, ValueError) as error:
        raise DataError(f"{name}: the DataFrame has a column of mixed kinds: {str(error).splitlines()[0]}") from error
    source = Source(name, table, False, lambda row: f"row {row}")
    columns = [understand(source, column, categorical=False, max_categories=50) for column in table.column_names]
    return encode(columns, len(frame), 50)
