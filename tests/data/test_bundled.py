"""Real data that comes along: sizes, scales and the names of classes."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.data.bundled import BUNDLED, digits


def test_digits_are_pixels_between_zero_and_one():
    from sklearn.datasets import load_digits

    data = digits()
    assert data.x.shape == (1797, 64) and data.x.dtype == torch.float32
    assert torch.equal(data.x * 16, torch.tensor(load_digits().data, dtype=torch.float32))
    assert data.classes == tuple("0123456789") and data.features[9] == "pixel_1_1"


@pytest.mark.parametrize(
    ("name", "rows", "classes"),
    [
        ("iris", 150, ("setosa", "versicolor", "virginica")),
        ("wine", 178, ("class_0", "class_1", "class_2")),
        ("breast_cancer", 569, ("malignant", "benign")),
    ],
)
def test_tables_are_standardised(name, rows, classes):
    data = BUNDLED[name]()
    assert len(data) == rows and data.classes == classes and len(data.features) == data.x.shape[1] and data.name == name
    assert torch.allclose(data.x.mean(dim=0), torch.zeros(data.x.shape[1]), atol=1e-5)
    assert torch.allclose(data.x.std(dim=0, correction=0), torch.ones(data.x.shape[1]), atol=1e-4)


def test_digits_come_as_images_of_bytes_whose_pixels_are_repeated():
    columns, small, large = digits(), digits(side=8), digits(side=24)
    assert small.x.shape == (1797, 1, 8, 8) and small.x.dtype == torch.uint8 and small.features == ()
    assert torch.equal(small.x.flatten(1), (columns.x * 255).round().to(torch.uint8))
    assert torch.equal(large.x[:, :, 1::3, 2::3], small.x)
    assert large.name == "digits(side=24)"
    for side in (0, 12, 8.0):
        with pytest.raises(ArgumentError, match="side must be a multiple of 8"):
            digits(side=side)
