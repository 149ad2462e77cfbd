"""Windows of several series: which columns are forecast, and what the newest value of each is.

    x: (rows, window, columns), or a dict that holds such a tensor beside others (`loads` and `dt`, say)

The newest value of a target is the forecast that any other one must beat: tomorrow as today (persistence).
"""

from torch import Tensor

from everlearn.core.events import X
from everlearn.core.stream import Schema


def target_columns(schema: Schema) -> tuple[int, ...] | None:
    """The places of a schema's targets among the columns of its windows; None where one of them is not there.

    >>> import torch
    >>> target_columns(Schema((24, 3), torch.float32, (), ("a", "b", "c"), targets=("c", "a")))
    (2, 0)
    """
    if len(schema.shape) != 2 or schema.shape[-1] != len(schema.features) or not schema.targets:
        return None
    places = {name: place for place, name in enumerate(schema.features)}
    found = [places.get(name) for name in schema.targets]
    return None if None in found else tuple(found)


def series(x: X) -> Tensor:
    """The windows (rows, window, columns) in an input: itself, or the first tensor of three axes in a dict.

    >>> import torch
    >>> series({"loads": torch.zeros(5, 24, 2), "dt": torch.ones(5, 24)}).shape
    torch.Size([5, 24, 2])
    """
    return x if isinstance(x, Tensor) else next(value for value in x.values() if value.dim() == 3)


def newest(x: X, columns: tuple[int, ...]) -> Tensor:
    """The last value of some columns in each window, (rows, len(columns))."""
    return series(x)[:, -1, list(columns)]
