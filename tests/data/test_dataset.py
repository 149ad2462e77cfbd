"""Rows in memory: what is refused, and how they are split."""

import pytest
import torch

from everlearn.core.errors import DataError
from everlearn.data.dataset import Data


def data(counts, **options):
    y = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    x = torch.arange(len(y), dtype=torch.float32)[:, None]
    return Data("rows", x, y, tuple(f"c{label}" for label in range(len(counts))), **options)


def test_split_takes_the_same_part_of_every_class_and_every_row_once():
    whole = data([10, 20, 5])
    train, test = whole.split(0.2, seed=3)
    assert torch.bincount(test.y).tolist() == [2, 4, 1]
    assert sorted(torch.cat([train.x, test.x]).flatten().tolist()) == list(range(35))
    assert train.x.flatten().tolist() == sorted(train.x.flatten().tolist())  # the order of rows stays


def test_split_depends_on_the_seed_and_only_on_it():
    whole = data([40, 40])
    assert torch.equal(whole.split(0.5, seed=1)[1].x, whole.split(0.5, seed=1)[1].x)
    assert not torch.equal(whole.split(0.5, seed=1)[1].x, whole.split(0.5, seed=2)[1].x)


def test_an_official_test_part_is_the_split():
    whole = data([3, 3], test_x=torch.tensor([[9.0]]), test_y=torch.tensor([1]))
    train, test = whole.split(0.5, seed=0)
    assert len(train) == 6 and train.test_x is None
    assert test.x.tolist() == [[9.0]] and test.y.tolist() == [1]


def test_take_keeps_time_beside_its_rows():
    whole = data([2, 2], time=torch.tensor([0.5, 1.5, 2.5, 3.5], dtype=torch.float64))
    part = whole.take(torch.tensor([3, 1]))
    assert part.x.flatten().tolist() == [3, 1] and part.time.tolist() == [3.5, 1.5]


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), "empty"),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), "3 rows and y has 2"),
        (torch.tensor([[float("nan")]]), torch.tensor([0]), "NaN"),
        (torch.zeros(2, 1), torch.tensor([0, 2]), "0 to 2"),
        (torch.zeros(2, 1), torch.tensor([-1, 1]), "-1 to 1"),
        (torch.zeros(2, 1), torch.tensor([0.0, 1.0]), "float32"),
    ],
)
def test_bad_rows_are_refused(x, y, words):
    with pytest.raises(DataError, match=words):
        Data("rows", x, y, ("a", "b"))


def test_its_text_is_one_line_and_holds_no_rows():
    data = Data("pets", torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("cat", "dog"))
    assert repr(data) == "Data(pets: 4 rows of 1 x 8 x 8 uint8, 2 classes)"
    official = Data(
        "pets",
        torch.zeros(4, 3),
        torch.tensor([0, 1, 0, 1]),
        ("a", "b"),
        test_x=torch.zeros(2, 3),
        test_y=torch.tensor([0, 1]),
    )
    assert repr(official) == "Data(pets: 4 rows of 3 float32, 2 classes, 2 test rows)"


def test_the_first_rows_of_each_class():
    labels = torch.tensor([0, 1, 1, 0, 0, 1, 2])
    data = Data(
        "kinds", torch.arange(7.0)[:, None], labels, ("a", "b", "c"), test_x=torch.arange(7.0)[:, None] + 10, test_y=labels
    )
    few = data.per_class(2, 1)
    assert few.x.flatten().tolist() == [0, 1, 2, 3, 6] and few.y.tolist() == [0, 1, 1, 0, 2]
    assert few.test_x.flatten().tolist() == [10, 11, 16] and few.test_y.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="no test part"):
        few.take(torch.tensor([0, 1])).per_class(1, 1)
