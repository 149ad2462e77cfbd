"""Persistence gives the newest value of each target, and refuses what is no window."""

import pytest
import torch

from everlearn import Batch
from everlearn.core.errors import InputError
from everlearn.learners.persistence import Persistence

X = torch.arange(24.0).reshape(2, 4, 3)


def test_the_newest_values_are_its_forecast():
    assert Persistence().predict(X).tolist() == [[9.0, 10.0, 11.0], [21.0, 22.0, 23.0]]
    assert Persistence(columns=(2, 0)).predict(X).tolist() == [[11.0, 9.0], [23.0, 21.0]]
    assert Persistence(columns=(1,)).predict({"dt": torch.ones(2, 4), "loads": X}).tolist() == [[10.0], [22.0]]
    assert Persistence(columns=(1,)).update(Batch(X, torch.ones(2, 1))) == {}


@pytest.mark.parametrize(
    ("columns", "x", "y", "message"),
    [
        (None, X[0], torch.ones(4, 3), r"x must be windows \(rows, window, columns\) of floats, got \(4, 3\)"),
        (None, X.long(), torch.ones(2, 3), "of floats, got .* torch.int64"),
        ((3,), X, torch.ones(2, 1), r"x has 3 columns, and columns=\(3,\) names one beyond"),
        (None, X, torch.ones(2, 2), r"y has 2 targets and x 3 columns; say which are the targets with columns=\(...\)"),
        ((0, 1), X, torch.ones(2, 3), r"y must have shape \(2, 2\) for 2 rows of x, got \(2, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(columns, x, y, message):
    learner = Persistence(columns=columns)
    with pytest.raises(InputError, match=f"persistence: .*{message}"):
        learner.update(Batch(x, y))
    assert learner.guard.shapes == []
