"""Every figure of accuracy with its formula, computed from what was stored: the accuracy matrix or counts by class.

R[t, i] is the accuracy on held-out set i after checkpoint t (both from 0), T the number of checkpoints, N of held-out sets. R is
square (T = N) where checkpoint t follows the learning of set i = t; the formulas that need to know which set was learned when
are defined for square R only. Accuracies are shares of rows, each set counts equally whatever its size, nothing is clipped
at 0, and a figure that is not defined is None. float64 throughout.
Reference: Lopez-Paz & Ranzato (2017), arXiv 1706.08840. Chaudhry et al. (2018), arXiv 1801.10112. Cohen (1960), A coefficient
of agreement for nominal scales.
"""

from collections.abc import Sequence

import numpy
from torch import Tensor

from everlearn.core.errors import ArgumentError

Matrix = Sequence[Sequence[float]] | numpy.ndarray


def guesses(scores: Tensor, y: Tensor, masked: bool = False) -> Tensor:
    """The class with the highest score, (rows,) int64.

    scores: (rows, classes); y: (rows,). masked=True lets only the classes that occur in y compete: the task-incremental setting,
    where the task of a row is known when it is judged.
    """
    if not masked:
        return scores.argmax(dim=1)
    present = y.unique()
    return present[scores[:, present].argmax(dim=1)]


def average_accuracy(matrix: Matrix) -> float | None:
    """mean_i R[T-1, i]: the mean over all N held-out sets at the end, each set with equal weight.

    >>> average_accuracy([[1.0, 0.0], [0.5, 1.0]])
    0.75
    """
    table = _table(matrix)
    return float(table[-1].mean()) if table.size else None


def seen_accuracy(matrix: Matrix) -> list[float]:
    """For each checkpoint t: mean of R[t, 0..t] where R is square (sets not yet learned do not count), else mean of R[t, :]."""
    table = _table(matrix)
    square = _square(table)
    return [float((row[: index + 1] if square else row).mean()) for index, row in enumerate(table)]


def anytime_accuracy(matrix: Matrix) -> float | None:
    """1/T sum_t mean_{i<=t} R[t, i]: how good the model was all along, on what it had been taught by then (square R).

    Where R is not square every set counts at every checkpoint: 1/T sum_t mean_i R[t, i].

    >>> anytime_accuracy([[1.0, 0.0], [0.5, 1.0]])
    0.875
    """
    seen = seen_accuracy(matrix)
    return float(numpy.mean(seen)) if seen else None


def forgetting(matrix: Matrix) -> float | None:
    """1/(T-1) sum_{i<T-1} ( max_{t<T-1} R[t, i] - R[T-1, i] ): over the T-1 earlier sets, negative where they improved.

    Where R is not square all N sets count. None with fewer than two checkpoints.

    >>> forgetting([[1.0, 0.0], [0.5, 1.0]])
    0.5
    """
    table = _table(matrix)
    if len(table) < 2:
        return None
    if _square(table):
        table = table[:, :-1]
    return float((table[:-1].max(axis=0) - table[-1]).mean())


def backward_transfer(matrix: Matrix) -> float | None:
    """1/(T-1) sum_{i<T-1} ( R[T-1, i] - R[i, i] ): what later learning did to earlier sets. Square R with T >= 2, else None.

    >>> backward_transfer([[1.0, 0.0], [0.5, 1.0]])
    -0.5
    """
    table = _table(matrix)
    if len(table) < 2 or not _square(table):
        return None
    return float((table[-1] - table.diagonal())[:-1].mean())


def learning_accuracy(matrix: Matrix) -> float | None:
    """Mean accuracy on each set when it had just been learned, the diagonal; None unless there is one checkpoint for each set.

    >>> learning_accuracy([[1.0, 0.0], [0.5, 0.8]])
    0.9
    """
    table = _table(matrix)
    return float(table.diagonal().mean()) if _square(table) else None


def forward_transfer(matrix: Matrix, baseline: Sequence[float]) -> float | None:
    """1/(T-1) sum_{i>0} ( R[i-1, i] - b[i] ): what earlier learning did for sets still to come. Square R with T >= 2, else None.

    baseline: b[i], the accuracy on set i before anything was learned.

    >>> forward_transfer([[1.0, 0.75], [0.5, 1.0]], baseline=[0.5, 0.5])
    0.25
    """
    table = _table(matrix)
    if len(table) < 2 or not _square(table):
        return None
    before = numpy.asarray(baseline, dtype=numpy.float64)
    if before.shape != table[0].shape:
        raise ArgumentError(
            f"forward_transfer: baseline needs one accuracy for each of {len(table)} sets, got {len(before)}."
        )
    return float((table.diagonal(offset=1) - before[1:]).mean())


def class_accuracy(right: Sequence[int], labelled: Sequence[int], classes: Sequence[str]) -> dict[str, float]:
    """{label: right answers / rows of that class}, for the classes that have rows.

    >>> class_accuracy([1, 0, 0], [2, 0, 4], ["cat", "dog", "owl"])
    {'cat': 0.5, 'owl': 0.0}
    """
    return {
        str(label): int(hits) / int(rows)
        for hits, rows, label in zip(right, labelled, classes, strict=True)
        if int(rows) > 0
    }


def kappa(right: int, labelled: Sequence[int], named: Sequence[int]) -> float | None:
    """(p - q) / (1 - q): the accuracy p = right/n above that of chance, q = sum_c labelled[c] named[c] / n^2.

    labelled: rows of each class; named: how often each class was answered. 0 is chance, 1 is perfect; None where q = 1 (one
    class only) or nothing was scored.

    >>> kappa(6, labelled=[4, 4], named=[4, 4])
    0.5
    """
    rows = sum(map(int, labelled))
    if rows == 0:
        return None
    chance = sum(int(first) * int(second) for first, second in zip(labelled, named, strict=True)) / rows**2
    return None if chance == 1.0 else (right / rows - chance) / (1.0 - chance)


def _table(matrix: Matrix) -> numpy.ndarray:
    table = numpy.asarray(matrix, dtype=numpy.float64)
    if table.size and table.ndim != 2:
        raise ArgumentError(
            f"an accuracy matrix has a row per checkpoint and a column per held-out set, got shape {table.shape}."
        )
    return table


def _square(table: numpy.ndarray) -> bool:
    return table.ndim == 2 and table.shape[0] == table.shape[1]
