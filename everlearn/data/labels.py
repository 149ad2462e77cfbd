"""From answers to classes: whole numbers 0..K-1 for learners, the user's own labels for every table and chart.

Labels are sorted as a person would: numbers by value, texts with the numbers inside them by value (c2 before c10). A number
that takes many values is no class; `bins` cuts it at its quantiles, or at given edges, into half-open intervals [low, high).
"""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import DataError

MANY_NUMBERS = 20  # different values from which a target with fractions counts as a quantity
MANY_CLASSES = 1000
Bins = int | Sequence[float] | None


def natural(label: str) -> list[tuple[int, float, str]]:
    """A sort key under which c2 comes before c10.

    >>> sorted(["c10", "c2", "b"], key=natural)
    ['b', 'c2', 'c10']
    """
    pieces = re.split(r"(\d+)", label)
    return [(0, float(piece), piece) if piece.isdecimal() else (1, 0.0, piece) for piece in pieces if piece]


def encode(owner: str, labels: numpy.ndarray, bins: Bins = None, fix: str = "Use bins=4") -> tuple[Tensor, tuple[str, ...]]:
    """(y, classes): y (rows,) int64 with classes[y] the label.

    labels: (rows,) of strings, whole numbers, booleans or other numbers, none missing; owner: file or data set, with the column,
    for messages; bins: a number of intervals with about equally many rows each, or their inner edges; fix: what to advise where
    labels are a quantity. Raises DataError where they are one, where they look like identifiers, or where all rows are alike.

    >>> import numpy
    >>> encode("pets", numpy.array(["dog", "cat", "dog"]))
    (tensor([1, 0, 1]), ('cat', 'dog'))
    """
    labels = numpy.asarray(labels)
    if labels.ndim != 1:
        raise DataError(
            f"{owner}: labels must be one per row, shape (rows,), got shape {labels.shape}. Use y.argmax(1) for one-hot labels."
        )
    if len(labels) == 0:
        raise DataError(f"{owner}: there are no rows.")
    numeric = labels.dtype.kind in "iuf"
    if labels.dtype.kind == "f" and not numpy.isfinite(labels).all():
        row = int(numpy.argmin(numpy.isfinite(labels)))
        raise DataError(f"{owner}: the label of row {row + 1} is {labels[row]}; every row needs a label.")
    if bins is not None:
        if not numeric:
            raise DataError(f"{owner}: bins cut numbers, and the labels are {_kind(labels)}. Leave bins out.")
        return _cut(owner, labels.astype(numpy.float64), bins)
    if not numeric and labels.dtype.kind != "b":
        labels = labels.astype(str)
    values, y = numpy.unique(labels, return_inverse=True)
    if numeric:
        whole = bool((values == numpy.round(values)).all())
        if len(values) > (MANY_CLASSES if whole else MANY_NUMBERS):
            raise DataError(
                f"{owner}: the target takes {len(values)} different numbers ({values[0]:g} to {values[-1]:g}), which is a quantity "
                f"and not a class. {fix} to predict in which quarter of the values it lies."
            )
        names = [str(int(value)) if whole else f"{value:.15g}" for value in values]
    else:
        names = [str(value) for value in values]
        if len(names) > MANY_CLASSES:
            raise DataError(
                f"{owner}: the target takes {len(names)} different values in {len(labels)} rows, such as {names[0]!r}; that looks "
                "like an identifier or free text. Name the column of the classes."
            )
        order = sorted(range(len(names)), key=lambda index: natural(names[index]))
        names = [names[index] for index in order]
        y = numpy.argsort(order)[y]
    if len(names) == 1:
        raise DataError(f"{owner}: every row has the label {names[0]!r}; at least two classes are needed to learn from.")
    return torch.from_numpy(y.astype(numpy.int64)), tuple(names)


def indices(owner: str, labels: numpy.ndarray, classes: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """(y, classes) of labels that number given classes 0..K-1, or are their names. Raises DataError where they do neither."""
    names = tuple(map(str, classes))
    labels = numpy.asarray(labels)
    if len(set(names)) < len(names):
        raise DataError(f"{owner}: the names of the classes are not all different: {', '.join(names[:10])}.")
    if labels.ndim != 1:
        raise DataError(f"{owner}: labels must be one per row, shape (rows,), got shape {labels.shape}.")
    if labels.dtype.kind in "iufb":
        numbers = labels.astype(numpy.int64)
        if (numbers != labels).any() or (len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(names)):
            raise DataError(
                f"{owner}: labels run from {labels.min()} to {labels.max()}, and {len(names)} classes allow whole numbers 0 to "
                f"{len(names) - 1}. Leave the names of the classes out to keep the labels as they are."
            )
        return torch.from_numpy(numbers), names
    place = {name: number for number, name in enumerate(names)}
    values, inverse = numpy.unique(labels.astype(str), return_inverse=True)
    unknown = [value for value in values if value not in place]
    if unknown:
        raise DataError(f"{owner}: the label {unknown[0]!r} is not among the classes {', '.join(names[:10])}.")
    return torch.from_numpy(numpy.array([place[value] for value in values], numpy.int64)[inverse]), names


def _cut(owner: str, values: numpy.ndarray, bins: Bins) -> tuple[Tensor, tuple[str, ...]]:
    """Interval of each value: the number of edges at or below it."""
    if isinstance(bins, int) and not isinstance(bins, bool) and bins >= 2:
        edges = numpy.quantile(values, numpy.arange(1, bins) / bins)
        usable = numpy.unique(edges[edges > values.min()])
        if len(usable) < bins - 1:
            raise DataError(
                f"{owner}: the target has too many equal values for bins={bins}. "
                f"{f'Use bins={len(usable) + 1}, or name' if len(usable) else 'Name'} the edges, such as bins=(0.5, 1.5)."
            )
    elif isinstance(bins, (list, tuple)) and bins and all(isinstance(edge, (int, float)) for edge in bins):
        usable = numpy.array(bins, numpy.float64)
        if not numpy.isfinite(usable).all() or (numpy.diff(usable) <= 0).any():
            raise DataError(f"{owner}: the edges of bins must rise, got {bins!r}.")
    else:
        raise DataError(f"{owner}: bins must be an int >= 2 or rising edges such as (0.5, 1.5), got {bins!r}.")
    y = numpy.searchsorted(usable, values, side="right")
    if len(numpy.unique(y)) == 1:
        raise DataError(
            f"{owner}: every row falls into the same bin of {bins!r}; values run {values.min():g} to {values.max():g}."
        )
    for digits in range(3, 18):
        texts = [f"{edge:.{digits}g}" for edge in usable]
        if len(set(texts)) == len(texts):
            break
    between = [f"{low} to {high}" for low, high in pairwise(texts)]
    return torch.from_numpy(y.astype(numpy.int64)), (f"< {texts[0]}", *between, f">= {texts[-1]}")


def _kind(labels: numpy.ndarray) -> str:
    return "true or false" if labels.dtype.kind == "b" else f"text such as {str(labels[0])!r}"
