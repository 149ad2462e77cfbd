"""A data set in memory: rows, the user's own labels, and (where there is one) the official test part."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from everlearn.core.errors import DataError
from everlearn.core.stream import Schema
from everlearn.data.encoder import Encoder
from everlearn.data.pictures import Pictures, take


@dataclass(frozen=True, repr=False)
class Data:
    """Rows to learn from.

    x: (rows, ...) tensor; images are uint8, channels first, and may be `Pictures`, which are decoded when rows are asked for;
    y: (rows,) int64; classes[y] is the user's label;
    features: column names; time: (rows,) float64, rising, where rows have an order; test_x, test_y: the official test part;
    coarse: coarse[y] is the superclass of a class, with coarse_classes their names, where the set has them;
    encoder: what turns raw rows of a table into rows of x; files: where each training row comes from
    an image file, its path below the folder of the set, by which index lists may name it.
    """

    name: str
    x: Tensor | Pictures
    y: Tensor
    classes: tuple[str, ...]
    features: tuple[str, ...] = ()
    time: Tensor | None = None
    test_x: Tensor | Pictures | None = None
    test_y: Tensor | None = None
    coarse: tuple[int, ...] = ()
    coarse_classes: tuple[str, ...] = ()
    encoder: Encoder | None = None
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.x) == 0:
            raise DataError(f"{self.name}: the data set is empty.")
        if len(self.x) != len(self.y):
            raise DataError(f"{self.name}: x has {len(self.x)} rows and y has {len(self.y)}.")
        if self.y.dtype != torch.int64 or self.y.ndim != 1 or self.y.min() < 0 or self.y.max() >= len(self.classes):
            raise DataError(
                f"{self.name}: y must be int64 class numbers 0..{len(self.classes) - 1}, one per row, got {self.y.dtype} of shape "
                f"{tuple(self.y.shape)}, {self.y.min().item()} to {self.y.max().item()}. Use from_arrays for labels of other kinds."
            )
        if self.x.dtype.is_floating_point and not torch.isfinite(self.x).all():
            raise DataError(f"{self.name}: x holds NaN or infinite values; fill or drop missing values first.")

    def __repr__(self) -> str:
        kind = str(self.x.dtype).removeprefix("torch.")
        shape = " x ".join(map(str, self.x.shape[1:]))
        test = "" if self.test_x is None else f", {len(self.test_x)} test rows"
        return f"Data({self.name}: {len(self)} rows of {shape} {kind}, {len(self.classes)} classes{test})"

    def __len__(self) -> int:
        return len(self.x)

    @property
    def schema(self) -> Schema:
        """What one row looks like."""
        return Schema(tuple(self.x.shape[1:]), self.x.dtype, self.classes, self.features, self.encoder)

    def split(self, fraction: float, seed: int) -> tuple["Data", "Data"]:
        """(training rows, test rows): the official split where there is one, else a seeded one, equal for every class."""
        if self.test_x is not None and self.test_y is not None:
            plain = replace(self, test_x=None, test_y=None)
            return plain, replace(plain, x=self.test_x, y=self.test_y, time=None, files=())
        random = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=random)
        order = order[torch.sort(self.y[order], stable=True).indices]
        sorted_y = self.y[order]
        counts = torch.bincount(sorted_y, minlength=len(self.classes))
        rank = torch.arange(len(self)) - (torch.cumsum(counts, 0) - counts)[sorted_y]
        test = rank < torch.round(counts[sorted_y] * fraction)
        return self.take(order[~test].sort().values), self.take(order[test].sort().values)

    def take(self, index: Tensor) -> "Data":
        """The rows that an index names, without the test part."""
        time = None if self.time is None else self.time[index]
        files = tuple(self.files[row] for row in torch.arange(len(self))[index].tolist()) if self.files else ()
        return replace(self, x=take(self.x, index), y=self.y[index], time=time, test_x=None, test_y=None, files=files)

    def per_class(self, train: int, test: int) -> "Data":
        """The first `train` rows of each class to learn from and the first `test` of its test part; fewer where there are fewer.

        Raises DataError where the data set has no test part of its own.
        """
        if self.test_x is None or self.test_y is None:
            raise DataError(f"{self.name}: it has no test part of its own to take rows of each class from.")
        few, judged = self.take(_first(self.y, train)), _first(self.test_y, test)
        return replace(few, test_x=take(self.test_x, judged), test_y=self.test_y[judged])


def _first(labels: Tensor, count: int) -> Tensor:
    """The numbers of the first `count` rows of each class, rising."""
    order = torch.sort(labels, stable=True).indices
    counts = torch.bincount(labels)
    rank = torch.arange(len(labels)) - (torch.cumsum(counts, 0) - counts)[labels[order]]
    return order[rank < count].sort().values
