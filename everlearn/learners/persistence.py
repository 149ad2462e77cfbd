"""Persistence: tomorrow as today. The forecast that costs nothing, and that every other one must beat.

f(t + h) = y(t)      the newest value of each target in the window
"""

from collections.abc import Sequence

from torch import Tensor

from everlearn.core.errors import InputError
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard
from everlearn.core.learner import Learner
from everlearn.data.windows import newest, series


class Persistence(Learner):
    """Forecasts that each target stays as it is, and learns nothing.

    columns: the places of the targets among the columns of x (rows, window, columns); None for all columns.

    >>> import torch
    >>> Persistence().predict(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).tolist()
    [[3.0, 4.0]]
    """

    name = "persistence"
    parts = ("guard",)
    gives = ("values",)

    def __init__(self, columns: Sequence[int] | None = None, *, seed: int = 0):
        self.columns = None if columns is None else tuple(columns)
        self.seed = seed
        self.guard = Guard(self.name, targets=0 if self.columns is None else len(self.columns))

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        check_windows(self.name, x, self.columns)
        return newest(x, self.columns or tuple(range(series(x).shape[2])))

    def update(self, batch: Batch) -> Metrics:
        if isinstance(batch, Batch):
            check_windows(self.name, batch.x, self.columns, batch.y)
        self.guard.batch(batch)
        return {}

    def boundary(self, boundary: Boundary) -> None:
        """Nothing changes."""


def check_windows(
    owner: str, x: X, columns: tuple[int, ...] | None, y: Tensor | None = None, window: int | None = None
) -> None:
    """Refuse what is no window of series (rows, window, columns), or holds fewer columns than there are targets.

    Tensors only are looked at: what else is wrong with x is for the guard to say. Raises InputError.
    """
    found = x if isinstance(x, Tensor) else None
    if not isinstance(x, Tensor) and hasattr(x, "values"):
        found = next((value for value in x.values() if isinstance(value, Tensor) and value.dim() == 3), None)
    if found is None:
        return
    if found.dim() != 3 or 0 in found.shape[1:] or not found.dtype.is_floating_point:
        raise InputError(
            f"{owner}: x must be windows (rows, window, columns) of floats, got {tuple(found.shape)} {found.dtype}."
        )
    if window is not None and found.shape[1] != window:
        raise InputError(
            f"{owner}: windows have {found.shape[1]} steps; this forecaster takes {window}. Give window={found.shape[1]}."
        )
    if columns is not None and max(columns) >= found.shape[2]:
        raise InputError(f"{owner}: x has {found.shape[2]} columns, and columns={columns} names one beyond.")
    if columns is None and isinstance(y, Tensor) and y.dim() == 2 and y.shape[1] != found.shape[2]:
        raise InputError(
            f"{owner}: y has {y.shape[1]} targets and x {found.shape[2]} columns; say which are the targets with columns=(...)."
        )
