"""Any map-style torch Dataset, read item by item, with the item named where it does not fit."""

import numpy
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from everlearn.core.errors import DataError
from everlearn.data.torch_data import from_torch


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_tensors_come_through_unchanged():
    x, y = torch.rand(9, 3, 4, 4), torch.arange(9) % 3
    data = from_torch(TensorDataset(x, y), name="mine", test=TensorDataset(x[:2], y[:2]))
    assert torch.equal(data.x, x) and torch.equal(data.y, y) and torch.equal(data.test_x, x[:2])
    assert data.name == "mine" and data.classes == ("0", "1", "2")


def test_images_become_bytes_channels_first():
    colour, grey = Image.new("RGB", (4, 2), (1, 2, 3)), Image.new("L", (4, 2), 9)
    data = from_torch(Items([(colour, "a"), (colour, "b")]))
    assert data.x.dtype == torch.uint8 and data.x.shape == (2, 3, 2, 4) and data.x[0, :, 0, 0].tolist() == [1, 2, 3]
    assert from_torch(Items([(grey, "a"), (grey, "b")])).x.shape == (2, 1, 2, 4)


def test_classes_are_the_datasets_unless_given():
    dataset = Items([(torch.zeros(2), 0), (torch.zeros(2), numpy.int64(1))])
    assert from_torch(dataset).classes == ("0", "1")
    dataset.classes = ["cat", "dog"]
    assert from_torch(dataset).classes == ("cat", "dog")
    assert from_torch(dataset, classes=("no", "yes")).classes == ("no", "yes")


def test_standardise():
    dataset = Items([(torch.tensor([1.0]), 0), (torch.tensor([3.0]), 1)])
    assert from_torch(dataset, standardise=True).x.tolist() == [[-1], [1]]
    assert from_torch(dataset).x.tolist() == [[1], [3]]


class Endless(IterableDataset):
    def __iter__(self):
        return iter(())


ZERO = torch.zeros(2)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (Items([ZERO, ZERO]), r"item 0 is Tensor; a pair \(x, y\) is expected"),
        (Items([{"image": ZERO, "label": 0}]), r"item 0 is dict with the keys image, label"),
        (Items([(ZERO, 0, 1)]), "item 0 is 3 values"),
        (Items([(ZERO, 0), (torch.zeros(3), 1)]), r"item 1 has x of shape \(3,\), float32, and item 0 of shape \(2,\)"),
        (Items([(ZERO, 0), (ZERO.int(), 1)]), "item 1 .* int32"),
        (Items([(ZERO, torch.zeros(2))]), r"label of item 0 has shape \(2,\)"),
        (Items([(ZERO, None)]), "label of item 0 is NoneType"),
        (Items([("text", 0)]), "x of item 0 is str"),
        (Items([(ZERO, 0), (ZERO, "a")]), "several kinds"),
        (Items([(ZERO, 0), (ZERO, 0)]), "every row has the label '0'"),
        (Items([]), "empty"),
        (Endless(), "no length"),
    ],
)
def test_items_that_do_not_fit_are_named(dataset, words):
    with pytest.raises(DataError, match=words):
        from_torch(dataset)
