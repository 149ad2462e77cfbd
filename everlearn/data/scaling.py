"""Columns brought to one scale, from the rows that a deployed model would have had.

    x' = (x - mean) / deviation        mean, deviation and median over the first rows only

Whoever scales with the mean of all rows tells the first prediction what the last rows look like. So statistics come from a
prefix of the rows; where a column is constant (or missing) throughout it, the prefix is doubled until the column varies.
Values further than a million deviations away are held there, so that x stays finite in float32.
"""

import warnings
from dataclasses import dataclass

import numpy

LIMIT = 1e6  # deviations
SPREAD = 100.0  # ratio of column deviations from which networks learn visibly worse


@dataclass(frozen=True)
class Scale:
    """The mean, standard deviation (1 where the column is constant) and median of a column's first rows."""

    mean: float
    deviation: float
    median: float

    def apply(self, values: numpy.ndarray) -> numpy.ndarray:
        """(values - mean) / deviation as float32."""
        with numpy.errstate(over="ignore"):
            return numpy.clip((values - self.mean) / self.deviation, -LIMIT, LIMIT).astype(numpy.float32)


def measure(values: numpy.ndarray, first: int) -> Scale:
    """Statistics of the first rows of a column.

    values: (rows,) float64, NaN where missing, at least one value present; first: rows to look at, doubled while they hold
    fewer than two different values.
    """
    rows = min(first, len(values))
    while True:
        seen = values[:rows]
        seen = seen[~numpy.isnan(seen)]
        if rows == len(values) or (len(seen) and seen.min() < seen.max()):
            break
        rows = min(2 * rows, len(values))
    size = float(numpy.abs(seen).max()) or 1.0  # divided out, so that squares of huge values stay finite
    mean, deviation = float((seen / size).mean()) * size, float((seen / size).std()) * size
    constant = (
        seen.min() == seen.max() or deviation == 0.0
    )  # so close together that their deviation is below the least float
    return Scale(float(seen[0]) if constant else mean, 1.0 if constant else deviation, float(numpy.median(seen)))


def standardise(columns: numpy.ndarray, first: int | None = None) -> numpy.ndarray:
    """Columns with mean 0 and deviation 1 over their first rows (all rows where first is None).

    columns: (rows, columns) of finite numbers. Returns (rows, columns) float32; constant columns become 0.

    >>> import numpy
    >>> standardise(numpy.array([[1.0, 7.0], [3.0, 7.0], [9.0, 7.0]]), first=2).tolist()
    [[-1.0, 0.0], [1.0, 0.0], [7.0, 0.0]]
    """
    result = numpy.empty(columns.shape, numpy.float32)
    for column in range(columns.shape[1]):
        values = columns[:, column].astype(numpy.float64)
        result[:, column] = measure(values, first or len(values)).apply(values)
    return result


def warn_unscaled(name: str, x: numpy.ndarray) -> None:
    """Warn where columns of plain numbers have very different scales: networks learn badly from them."""
    if x.ndim != 2 or x.dtype == numpy.uint8 or len(x) < 2:
        return
    deviation = x.std(axis=0, dtype=numpy.float64)
    deviation = deviation[deviation > 0]
    if len(deviation) > 1 and deviation.max() > SPREAD * deviation.min():
        warnings.warn(
            f"{name}: the columns of x have very different scales (standard deviations {deviation.min():.3g} to "
            f"{deviation.max():.3g}), from which networks learn badly. Pass standardise=True.",
            stacklevel=3,
        )
