"""Which rows a task has: shares, what is set aside, environments, and classes numbered anew."""

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data.dataset import Data
from everlearn.data.task_rows import TaskRows, check_lifelong, environments, keep_classes

NAMES = ("a", "b", "c", "d")


def rows(counts, per_class=None, replacement=False, share=1.0, validation=0.1, seed=0, used=None):
    """Class c in environment e has row numbers 1000 c + 100 e, 1000 c + 100 e + 1, ..."""
    groups = [
        [torch.arange(count) + 1000 * label + 100 * number for number, count in enumerate(own)]
        for label, own in enumerate(counts)
    ]
    options = {"per_class": per_class, "replacement": replacement, "share": share, "validation": validation, "seed": seed}
    return TaskRows(groups, NAMES, [True] * len(counts) if used is None else used, **options)


@given(
    count=st.integers(1, 40),
    per_class=st.one_of(st.none(), st.integers(1, 60)),
    share=st.sampled_from([1.0, 0.2]),
    validation=st.sampled_from([0.0, 0.1, 0.9]),
    task=st.integers(0, 9),
)
def test_rows_set_aside_are_never_trained_on_in_their_task(count, per_class, share, validation, task):
    for replacement in (False, True):
        if per_class is not None and per_class > count and not replacement:
            continue
        drawn = rows(
            [[count], [5]], per_class if replacement or (per_class or 0) <= 5 else None, replacement, share, validation
        )
        train, aside = drawn.of(task, (0, 1))
        assert not set(train.tolist()) & set(aside.tolist())
        assert len(set(aside.tolist())) == len(aside)
        assert replacement or len(set(train.tolist())) == len(train)
        assert (train < 1000).any() and (train >= 1000).any()  # each class has a row to learn from
        sizes = drawn.sizes(numpy.array([[0, 1]] * (task + 1)))
        assert sizes[task] == len(train)


def test_sizes_by_hand():
    """Of 20 rows a tenth is set aside; of 12 wanted 1 (1.2 rounded); of a class of one row none."""
    assert rows([[20], [30], [1]]).kept[:, 0].tolist() == [18, 27, 1]
    assert rows([[20], [30], [1]]).aside[:, 0].tolist() == [2, 3, 0]
    few = rows([[20], [30]], per_class=12)
    assert few.kept[:, 0].tolist() == [11, 11] and few.aside[:, 0].tolist() == [1, 1]
    assert rows([[20], [30]], share=0.2, validation=0.5).kept[:, 0].tolist() == [2, 3]
    assert rows([[20], [30]], validation=0.99).kept[:, 0].tolist() == [1, 1]
    assert rows([[20], [30]], per_class=50, replacement=True).kept[:, 0].tolist() == [48, 47]


def test_sizes_of_tasks_that_differ():
    drawn = rows([[20], [30], [10]], validation=0.0)
    assert drawn.sizes(numpy.array([[0, 1], [1, 2], [2, -1]])).tolist() == [50, 40, 10]


def test_rows_are_a_function_of_seed_and_task():
    drawn = rows([[40], [40]], per_class=10)
    first = drawn.of(7, (0, 1))
    drawn.of(3, (1,))
    assert all(torch.equal(left, right) for left, right in zip(first, drawn.of(7, (0, 1)), strict=True))
    assert not torch.equal(first[0], drawn.of(8, (0, 1))[0])
    assert not torch.equal(first[0], rows([[40], [40]], per_class=10, seed=1).of(7, (0, 1))[0])


def test_over_many_tasks_every_row_is_trained_on_and_set_aside():
    drawn = rows([[20]])
    train, aside = zip(*(drawn.of(task, (0,)) for task in range(100)), strict=True)
    assert len(torch.cat(train).unique()) == 20 and len(torch.cat(aside).unique()) == 20


def test_more_rows_than_a_class_has_are_refused_without_replacement():
    with pytest.raises(
        ArgumentError, match=r"samples_per_class=21 is more than the 20 rows of class 'a'\. Use .*=20 or fewer"
    ):
        rows([[20], [30]], per_class=21)
    assert rows([[20], [30]], per_class=21, used=[False, True]).kept[0, 0] == 0  # a class that never comes does not count
    train, _ = rows([[20], [30]], per_class=60, replacement=True).of(0, (0,))
    assert len(train) == 58 and len(train.unique()) < 20


def test_environments_take_turns():
    drawn = rows([[10, 20, 30], [8, 4]], validation=0.0)
    for task in range(7):
        train, _ = drawn.of(task, (0, 1))
        assert set((train[train < 1000] // 100).tolist()) == {task % 3}
        assert set((train[train >= 1000] % 1000 // 100).tolist()) == {task % 2}
    assert drawn.sizes(numpy.array([[0, 1]] * 6)).tolist() == [18, 24, 38, 14, 28, 34]
    with pytest.raises(ArgumentError, match="than the 4 rows of class 'b' in one of its environments"):
        rows([[10, 20, 30], [8, 4]], per_class=5)


def pets(**options):
    y = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    return Data(
        "pets", torch.arange(8.0)[:, None], y, ("cat", "dog", "trout", "carp"), coarse=(0, 0, 1, 1),
        coarse_classes=("mammal", "fish"), **options,
    )  # fmt: skip


def test_environments_are_the_classes_inside_superclasses():
    whole = pets()
    train, judged, groups = environments(whole, whole, lifelong=True)
    assert train.classes == judged.classes == ("mammal", "fish") and train.y.tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert [[own.tolist() for own in label] for label in groups] == [[[0, 7], [1, 6]], [[2, 5], [3, 4]]]
    plain = environments(whole, whole, lifelong=False)[2]
    assert [[own.tolist() for own in label] for label in plain] == [[[0, 7]], [[1, 6]], [[2, 5]], [[3, 4]]]


def test_without_superclasses_lifelong_is_refused(digits):
    check_lifelong(pets())
    with pytest.raises(DataError, match="whose classes have superclasses, and digits has none"):
        check_lifelong(digits)


def test_classes_kept_are_numbered_anew():
    whole = pets(test_x=torch.tensor([[90.0], [91.0], [92.0], [93.0]]), test_y=torch.tensor([0, 1, 2, 3]))
    for seed in range(6):
        few = keep_classes(whole, 3, False, seed)
        assert len(few.classes) == 3 and set(few.y.tolist()) == {0, 1, 2}
        for number, label in zip(few.x.flatten().tolist(), few.y.tolist(), strict=True):
            assert few.classes[label] == whole.classes[whole.y[int(number)]]
            assert few.coarse_classes[few.coarse[label]] == whole.coarse_classes[whole.coarse[whole.y[int(number)]]]
        assert [few.classes[label] for label in few.test_y] == [whole.classes[int(row) - 90] for row in few.test_x]
    assert len({keep_classes(whole, 3, False, seed).classes for seed in range(20)}) == 4
    assert keep_classes(whole, 4, False, 0).classes == whole.classes


def test_superclasses_kept_keep_all_their_classes():
    y = torch.tensor([0, 1, 2, 3, 4, 5])
    whole = Data("six", torch.zeros(6, 1), y, tuple("abcdef"), coarse=(0, 1, 2, 0, 1, 2), coarse_classes=("x", "y", "z"))
    found = {keep_classes(whole, 2, True, seed).classes for seed in range(20)}
    assert found == {("a", "b", "d", "e"), ("a", "c", "d", "f"), ("b", "c", "e", "f")}
    assert keep_classes(whole, 2, True, 0).coarse == (0, 1, 0, 1)


def test_too_many_or_too_few_classes_to_keep_are_refused():
    with pytest.raises(ArgumentError, match="subset=5 is more than the 4 classes of pets"):
        keep_classes(pets(), 5, False, 0)
    with pytest.raises(ArgumentError, match="subset=3 is more than the 2 classes of pets"):
        keep_classes(pets(), 3, True, 0)
    with pytest.raises(ArgumentError, match="subset must be an int >= 2, got 1"):
        keep_classes(pets(), 1, False, 0)
