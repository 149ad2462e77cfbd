"""Any map-style torch Dataset of pairs (x, y) becomes a data set in memory."""

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import DataError
from everlearn.data.arrays import from_arrays
from everlearn.data.dataset import Data
from everlearn.data.pictures import GREY, plane


def from_torch(
    dataset: Any, *, name: str = "dataset", classes: Sequence[str] | None = None, test: Any = None, standardise: bool = False
) -> Data:
    """Read every item of a torch.utils.data.Dataset.

    dataset: map-style (`len(dataset)`, `dataset[i]`), items (x, y) with x a tensor, array or PIL image of one shape throughout and y a
    label; classes: names of labels 0..K-1 (taken from `dataset.classes` where it has them); test: a Dataset that is the official test
    part; standardise: columns with mean 0 and deviation 1. Raises DataError that names the item.

    >>> from torch.utils.data import TensorDataset
    >>> data = from_torch(TensorDataset(torch.rand(6, 3), torch.tensor([0, 1, 0, 1, 0, 1])), classes=("no", "yes"))
    >>> tuple(data.x.shape), data.classes
    ((6, 3), ('no', 'yes'))
    """
    x, y = _read(dataset, name)
    if classes is None:
        classes = getattr(dataset, "classes", None)
    part = None if test is None else _read(test, f"{name}, test part")
    return from_arrays(x, y, name=name, classes=classes, test=part, standardise=standardise)


def _read(dataset: Any, name: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    try:
        count = len(dataset)
    except TypeError as error:
        raise DataError(
            f"{name}: {type(dataset).__name__} has no length; a map-style Dataset with len() and dataset[i] is expected. "
            "Collect an iterable one into a list of pairs (x, y) first."
        ) from error
    if count == 0:
        raise DataError(f"{name}: the data set is empty.")
    x: Any = None
    labels = []
    for index in range(count):
        row, label = _pair(dataset[index], name, index)
        if x is None:
            x = numpy.empty((count, *row.shape), row.dtype)
        if row.shape != x.shape[1:] or row.dtype != x.dtype:
            raise DataError(
                f"{name}: item {index} has x of shape {row.shape}, {row.dtype}, and item 0 of shape {x.shape[1:]}, {x.dtype}. "
                "Resize or pad items to one shape in the Dataset."
            )
        x[index] = row
        labels.append(label)
    kinds = {type(label).__name__ for label in labels}
    if len(kinds) > 1:
        raise DataError(f"{name}: labels are of several kinds ({', '.join(sorted(kinds))}); use one.")
    return x, numpy.array(labels)


def _pair(item: Any, name: str, index: int) -> tuple[numpy.ndarray, Any]:
    """(x, label) of one item, or an error that says what came instead."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        found = f"{len(item)} values" if isinstance(item, (tuple, list)) else f"{type(item).__name__}"
        hint = f" with the keys {', '.join(map(str, item))}" if isinstance(item, dict) else ""
        raise DataError(
            f"{name}: item {index} is {found}{hint}; a pair (x, y) is expected, x a tensor and y its label. "
            "Wrap the Dataset in one whose __getitem__ returns (x, y)."
        )
    x, y = item
    if isinstance(y, (Tensor, numpy.ndarray, numpy.generic)):
        if numpy.asarray(y).size != 1:
            raise DataError(f"{name}: the label of item {index} has shape {tuple(y.shape)}; a single label is expected.")
        y = y.item()
    if not isinstance(y, (bool, int, float, str)):
        raise DataError(f"{name}: the label of item {index} is {type(y).__name__}; a number or a text is expected.")
    return _array(x, name, index), y


def _array(x: Any, name: str, index: int) -> numpy.ndarray:
    from PIL import Image

    if isinstance(x, Image.Image):
        return plane(x, None, 1 if x.mode in GREY else 3, f"{name}: item {index}")
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    try:
        row = numpy.asarray(x)
    except ValueError as error:
        raise DataError(f"{name}: x of item {index} is no array: {error}.") from error
    if row.dtype.kind not in "biuf":
        raise DataError(f"{name}: x of item {index} is {type(x).__name__}; a tensor, an array or an image is expected.")
    return row if row.ndim else row[None]
