"""Data sets for the tests of scenarios: real digits, and rows that carry their own number."""

import pytest
import torch
from sklearn.datasets import load_digits

from everlearn.data.dataset import Data


@pytest.fixture(scope="session")
def digits():
    bunch = load_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32)
    return Data("digits", x, torch.tensor(bunch.target), tuple(map(str, bunch.target_names)))


@pytest.fixture(scope="session")
def numbered():
    """numbered([3, 5]): three rows of class "c0" and five of "c1", shuffled; x[i, 0] and time[i] are i, x[i, 1] is y."""

    def make(counts, name="numbered"):
        y = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
        y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(5))]
        number = torch.arange(len(y), dtype=torch.float32)
        classes = tuple(f"c{label}" for label in range(len(counts)))
        return Data(name, torch.stack([number, y.float()], dim=1), y, classes, time=number.double())

    return make
