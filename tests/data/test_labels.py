"""From answers to classes and back: the user's own labels, in a natural order."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.core.errors import DataError
from everlearn.data.labels import encode, indices, natural

NUL_FREE = st.text(st.characters(exclude_characters="\x00", codec="utf8"), max_size=6)


@given(st.lists(NUL_FREE, min_size=2, max_size=30).filter(lambda labels: len(set(labels)) > 1))
def test_the_users_labels_come_back(labels):
    y, classes = encode("rows", numpy.array(labels))
    assert [classes[index] for index in y] == labels
    assert len(set(classes)) == len(classes)


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=30).filter(lambda labels: len(set(labels)) > 1))
def test_numbers_are_sorted_by_value(labels):
    y, classes = encode("rows", numpy.array(labels))
    assert list(map(int, classes)) == sorted(set(labels))
    assert [int(classes[index]) for index in y] == labels


def test_texts_are_sorted_as_a_person_would():
    assert encode("rows", numpy.array(["c10", "c2", "b", "c2"]))[1] == ("b", "c2", "c10")
    assert natural("a2b10") < natural("a10b2")


def test_booleans_and_whole_floats():
    assert encode("rows", numpy.array([True, False]))[1] == ("False", "True")
    assert encode("rows", numpy.array([1.0, -1.0, 1.0]))[1] == ("-1", "1")
    assert encode("rows", numpy.array([0.5, 1.5]))[1] == ("0.5", "1.5")


def test_bins_by_hand():
    # quartiles of 1..8 (linear interpolation): 2.75, 4.5, 6.25
    y, classes = encode("rows", numpy.arange(1.0, 9.0), bins=4)
    assert y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert classes == ("< 2.75", "2.75 to 4.5", "4.5 to 6.25", ">= 6.25")


def test_edges_are_half_open_and_another_number_of_bins_is_another_answer():
    y, classes = encode("rows", numpy.array([-1.0, 0.0, 9.9, 10.0, 11.0]), bins=(0, 10))
    assert y.tolist() == [0, 1, 1, 2, 2] and classes == ("< 0", "0 to 10", ">= 10")
    assert len(encode("rows", numpy.arange(9), bins=3)[1]) == 3


@given(st.lists(st.integers(-1000, 1000), min_size=20, max_size=60, unique=True), st.integers(2, 5))
def test_bins_hold_equally_many_rows(values, bins):
    y, _ = encode("rows", numpy.array(values), bins=bins)
    counts = numpy.bincount(y, minlength=bins)
    assert counts.max() - counts.min() <= 1


def test_close_edges_keep_different_names():
    _, classes = encode("rows", numpy.array([1.0, 1.00001, 1.00002, 1.00003]), bins=(1.000005, 1.000015))
    assert len(set(classes)) == 3


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        (["a", "a"], {}, "every row has the label 'a'"),
        ([0.1 * value for value in range(50)], {}, "bins=4"),
        (list(range(2000)), {}, "quantity"),
        ([f"id{value}" for value in range(1500)], {}, "identifier"),
        ([1.0, float("nan")], {}, "row 2 is nan"),
        (["a", "b"], {"bins": 3}, "text such as 'a'"),
        ([0, 0, 0, 0, 0, 0, 0, 1], {"bins": 4}, "edges"),
        ([0, 0, 0, 1, 2, 3], {"bins": 3}, "bins=2"),
        ([1, 2, 3], {"bins": 1}, ">= 2"),
        ([1, 2, 3], {"bins": (2, 1)}, "must rise"),
        ([1, 2, 3], {"bins": (10,)}, "same bin"),
        ([[1, 0], [0, 1]], {}, "argmax"),
        ([], {}, "no rows"),
    ],
)
def test_what_is_no_class_is_refused(labels, options, words):
    with pytest.raises(DataError, match=words):
        encode("rows", numpy.array(labels), **options)


def test_given_classes_are_numbered_or_named():
    assert indices("rows", numpy.array([1, 0]), ("no", "yes"))[0].tolist() == [1, 0]
    assert indices("rows", numpy.array(["yes", "no", "yes"]), ("no", "yes"))[0].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("labels", "classes", "words"),
    [
        ([0, 2], ("no", "yes"), "0 to 2"),
        ([0.5, 1.0], ("no", "yes"), "whole numbers 0 to 1"),
        (["maybe"], ("no", "yes"), "'maybe'"),
        ([0, 1], ("no", "no"), "not all different"),
    ],
)
def test_labels_outside_the_given_classes_are_refused(labels, classes, words):
    with pytest.raises(DataError, match=words):
        indices("rows", numpy.array(labels), classes)
