"""How the arrays of an npz file become rows and labels: pure functions from arrays to fields.

| decoder | the file holds |
|---|---|
| `plain` | x and y, perhaps a test part, names of classes and columns |
| `residual` | images as two-dimensional differences modulo 256, the red and blue planes less the green one |
| `per_class` | x (classes, examples, ...), the last examples of each class being its test part |
| `sparse` | a matrix in compressed rows (indices, indptr, shape, data or one value) and y |

A folder names its decoder in `everlearn.json`: {"decoder": "residual", "x": "images", "y": "labels"}; the other keys are the
decoder's arguments, the names of arrays. Fields are x, y, classes, features, test_x, test_y, coarse, coarse_classes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy

from everlearn.core.errors import ArgumentError, DataError, closest

Arrays = Mapping[str, numpy.ndarray]
Fields = dict[str, Any]

USUAL = {
    "x": ("x", "X", "images", "x_train", "X_train", "train_x", "train_images", "data"),
    "y": ("y", "Y", "labels", "label", "y_train", "Y_train", "train_y", "train_labels", "target", "targets"),
    "test_x": ("x_test", "X_test", "test_x", "test_images"),
    "test_y": ("y_test", "Y_test", "test_y", "test_labels"),
    "classes": ("classes", "class_names"),
    "features": ("feature_names", "columns"),
}


def plain(
    arrays: Arrays,
    owner: str,
    *,
    x: str | None = None,
    y: str | None = None,
    classes: str | None = None,
    features: str | None = None,
    test_x: str | None = None,
    test_y: str | None = None,
) -> Fields:
    """Arrays as they are; arguments are their names, and those left out are found under usual ones. Raises DataError."""
    fields = {
        "x": _pick(arrays, owner, "x", x, needed=True),
        "y": _pick(arrays, owner, "y", y, needed=True),
        "test_x": _pick(arrays, owner, "test_x", test_x),
        "test_y": _pick(arrays, owner, "test_y", test_y),
        "classes": _pick(arrays, owner, "classes", classes),
        "features": _pick(arrays, owner, "features", features),
    }
    if ("test_x" in _given(fields)) != ("test_y" in _given(fields)):
        raise DataError(f"{owner}: a test part needs both test_x and test_y; only {'test_x' if test_x else 'one'} is there.")
    return _given(fields)


def residual(
    arrays: Arrays,
    owner: str,
    *,
    x: str = "train_residual",
    y: str = "train_label",
    test_x: str | None = "test_residual",
    test_y: str | None = "test_label",
    classes: str | None = "fine_names",
    coarse: str | None = "coarse_of_fine",
    coarse_classes: str | None = "coarse_names",
) -> Fields:
    """Colour images stored as residuals (see `undo_residual`), with superclasses of the classes where there are."""
    fields: Fields = {"x": undo_residual(_need(arrays, owner, x), owner), "y": _need(arrays, owner, y)}
    if test_x in arrays:
        fields |= {"test_x": undo_residual(arrays[test_x], owner), "test_y": _need(arrays, owner, test_y)}
    if classes in arrays:
        fields["classes"] = arrays[classes]
    if coarse in arrays:
        fields |= {"coarse": arrays[coarse], "coarse_classes": _need(arrays, owner, coarse_classes)}
    return fields


def undo_residual(planes: numpy.ndarray, owner: str = "residual") -> numpy.ndarray:
    """(rows, 3, height, width) uint8, red, green, blue, from residuals (3, rows, height, width) uint8. Exact.

    With P the cumulative sum of the residuals down the columns and along the rows, all modulo 256:
    green = P[0], red = P[1] + P[0], blue = P[2] + P[0].
    """
    if planes.ndim != 4 or planes.shape[0] != 3 or planes.dtype != numpy.uint8:
        raise DataError(
            f"{owner}: residuals must be uint8 of shape (3, rows, height, width), got {planes.dtype} of shape {planes.shape}."
        )
    images = numpy.empty((planes.shape[1], 3, *planes.shape[2:]), numpy.uint8)
    for channel, plane in ((1, 0), (0, 1), (2, 2)):
        down = numpy.cumsum(planes[plane], axis=1, dtype=numpy.uint8)
        numpy.cumsum(down, axis=2, dtype=numpy.uint8, out=images[:, channel])
    images[:, 0] += images[:, 1]
    images[:, 2] += images[:, 1]
    return images


def per_class(
    arrays: Arrays,
    owner: str,
    *,
    x: str = "images",
    classes: str = "class_names",
    test: int = 5,
    coarse: str | None = "alphabet",
    coarse_classes: str | None = "alphabet_names",
) -> Fields:
    """x (classes, examples, ...): the last `test` examples of every class are its test part; rows come class by class."""
    stacked, names = _need(arrays, owner, x), _need(arrays, owner, classes)
    if stacked.ndim < 3 or len(names) != len(stacked):
        raise DataError(
            f"{owner}: {x!r} has shape {stacked.shape}, which does not hold examples of each of {len(names)} classes."
        )
    if not isinstance(test, int) or isinstance(test, bool) or not 0 < test < stacked.shape[1]:
        raise ArgumentError(
            f"{owner}: test must be an int between 1 and {stacked.shape[1] - 1} examples per class, got {test!r}."
        )
    parts = stacked[:, :-test], stacked[:, -test:]
    rows = [part.reshape(-1, *stacked.shape[2:]) for part in parts]
    labels = [numpy.repeat(numpy.arange(len(names)), part.shape[1]) for part in parts]
    fields: Fields = {"x": rows[0], "y": labels[0], "test_x": rows[1], "test_y": labels[1], "classes": names}
    if coarse in arrays:
        fields |= {"coarse": arrays[coarse], "coarse_classes": _need(arrays, owner, coarse_classes)}
    return fields


def sparse(arrays: Arrays, owner: str, *, y: str = "y") -> Fields:
    """A sparse matrix in compressed rows as a dense one: row i has its values at columns indices[indptr[i] : indptr[i + 1]]."""
    columns, starts = _need(arrays, owner, "indices"), _need(arrays, owner, "indptr")
    shape = tuple(int(size) for size in _need(arrays, owner, "shape"))
    values = arrays["data"] if "data" in arrays else _need(arrays, owner, "value")
    counts = numpy.diff(starts.astype(numpy.int64))
    good = len(shape) == 2 and len(counts) == shape[0] and (counts >= 0).all() and starts[-1] == len(columns)
    if not good or (len(columns) and columns.max() >= shape[1]):
        raise DataError(f"{owner}: indices and indptr do not describe a matrix of shape {shape}; the file is corrupt.")
    x = numpy.zeros(shape, numpy.float32)
    x[numpy.repeat(numpy.arange(shape[0]), counts), columns] = values
    return {"x": x, "y": _need(arrays, owner, y)}


DECODERS: dict[str, Callable[..., Fields]] = {
    "plain": plain,
    "residual": residual,
    "per_class": per_class,
    "sparse": sparse,
}


def hold_out(fields: Fields, rows: int, seed: int, owner: str) -> Fields:
    """The last `rows` of a permutation drawn from the seed as test part, the others, in that order, to learn from."""
    count = len(fields["x"])
    if not isinstance(rows, int) or isinstance(rows, bool) or not 0 < rows < count:
        raise ArgumentError(f"{owner}: test_rows must be an int between 1 and {count - 1}, got {rows!r}.")
    order = numpy.random.default_rng(seed).permutation(count)
    train, test = order[:-rows], order[-rows:]
    x, y = fields["x"], fields["y"]
    return {**fields, "x": x[train], "y": y[train], "test_x": x[test], "test_y": y[test]}


def readable(names: set[str]) -> bool:
    """Whether `plain` would find rows and labels among arrays of these names."""
    return all(any(name in names for name in USUAL[field]) for field in ("x", "y"))


def _pick(arrays: Arrays, owner: str, field: str, name: str | None, needed: bool = False) -> numpy.ndarray | None:
    """The array that was named, or the first that bears a usual name."""
    if name is not None:
        return _need(arrays, owner, name)
    for usual in USUAL[field]:
        if usual in arrays:
            return arrays[usual]
    if needed:
        raise DataError(
            f"{owner}: no array for {field} among {', '.join(arrays)}. Name it: npz(path, x='NAME', y='NAME'), "
            "or in an everlearn.json beside the file."
        )
    return None


def _need(arrays: Arrays, owner: str, name: str | None) -> numpy.ndarray:
    if name not in arrays:
        raise DataError(f"{owner}: {closest('array', str(name), arrays)}")
    return arrays[name]


def _given(fields: Fields) -> Fields:
    return {key: value for key, value in fields.items() if value is not None}
