"""What one column holds, cell by cell, and the columns of x that it becomes."""

import datetime

import numpy
import pyarrow
import pytest

from everlearn.core.errors import DataError
from everlearn.data.columns import Column, answers, encode, times, understand
from everlearn.data.table_files import Source


def source(text=True, **columns):
    return Source("t.csv", pyarrow.table(columns), text, lambda row: f"row {row + 1}")


def column(values, text=True, categorical=False, max_categories=50):
    return understand(source(text, a=values), "a", categorical=categorical, max_categories=max_categories)


def test_texts_of_numbers_are_numbers():
    found = column(["1", "-2.5", None, "1e3", ".5", "+4"])
    assert found.categories is None and not found.flag
    assert numpy.array_equal(found.values, [1, -2.5, numpy.nan, 1000, 0.5, 4], equal_nan=True)


def test_texts_of_numbers_in_parquet_stay_texts():
    assert column(["01", "02", "01"], text=False).categories == ("01", "02")


def test_numbers_named_as_categorical_are_categories():
    assert column(["7", "8", "7", None], categorical=True).categories == ("7", "8")
    found = column([7, 8, 7, None], text=False, categorical=True)
    assert found.categories == ("7", "8") and found.values.tolist() == [0, 1, 0, -1]


def test_true_and_false():
    for found in (column(["True", "false", None, "TRUE"]), column([True, False, None, True], text=False)):
        assert found.flag and numpy.array_equal(found.values, [1, 0, numpy.nan, 1], equal_nan=True)


def test_nan_is_missing_and_infinity_is_refused():
    assert column([1.0, float("nan")], text=False).missing.tolist() == [False, True]
    for values, text in ((["1", "inf"], True), ([1.0, float("-inf")], False)):
        with pytest.raises(DataError, match=r"t.csv: column 'a', row 2: the value is -?inf"):
            column(values, text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            ["1"] * 50 + ["oops"] + ["2"] * 9,
            r"column 'a', row 51: it holds numbers such as '1' before.*text 'oops'.*null=\('oops',\)",
        ),
        (["1", "2", "x", "y"], r"row 3: .*text 'x'"),
        (
            ["x", "y", None, "3", "4"],
            r"row 4: it holds text such as 'x' before, and here the number '3'.*categorical=\('a',\)",
        ),
        ([None, None], r"no values. Leave it out with drop=\('a',\)"),
        ([f"note {row}" for row in range(60)], r"60 different texts in 60 rows, such as 'note 0'"),
        ([f"2024-01-01T00:{row:02d}" for row in range(60)], r"time='a'"),
    ],
)
def test_columns_that_cannot_be_understood(values, words):
    with pytest.raises(DataError, match=words):
        column(values)


def test_a_few_numbers_among_texts_are_categories():
    assert column(["x"] * 30 + ["3"]).categories == ("x", "3")


def test_columns_of_other_types_are_refused_by_name():
    with pytest.raises(DataError, match=r"column 'a' holds list.*drop=\('a',\)"):
        column([[1], [2]], text=False)
    with pytest.raises(DataError, match=r"column 'a' holds timestamp.*time='a'"):
        column([datetime.datetime(2024, 1, 1)], text=False)


def test_missing_numbers_by_hand():
    # first four rows: 1, missing, 3, 5 -> mean 3, deviation sqrt(8/3), median 3
    x, features = encode([Column("a", numpy.array([1.0, numpy.nan, 3.0, 5.0, 11.0]))], 4, 50)
    deviation = (8 / 3) ** 0.5
    assert features == ("a", "a missing")
    assert x[:, 0] == pytest.approx([-2 / deviation, 0, 0, 2 / deviation, 8 / deviation])
    assert x[:, 1].tolist() == [0, 1, 0, 0, 0]


def test_a_missing_number_becomes_the_median_and_not_the_mean():
    x, _ = encode([Column("a", numpy.array([0.0, 0.0, 9.0, numpy.nan]))], 4, 50)
    assert x[3, 0] == x[0, 0]


def test_flags_are_not_standardised():
    x, features = encode([Column("a", numpy.array([1.0, 0.0, 0.0, numpy.nan]), flag=True)], 4, 50)
    assert features == ("a", "a missing") and x.tolist() == [[1, 0], [0, 0], [0, 0], [0, 1]]


def test_categories_by_hand():
    x, features = encode([Column("a", numpy.array([0, 1, -1, 0]), ("c10", "c2"))], 4, 50)
    assert features == ("a=c2", "a=c10", "a missing")
    assert x.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_frequent_categories_are_those_of_the_first_rows():
    codes = numpy.array([0, 1, 1, 2, 3, 3, 3, 3])
    names = ("a", "b", "c", "d")
    # in the first four rows b is most frequent; a and c come once each, a earlier; d only later
    x, features = encode([Column("k", codes, names)], 4, 3)
    assert features == ("k=a", "k=b", "k other")
    assert x[:, 2].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert encode([Column("k", codes, names)], 8, 3)[1] == ("k=b", "k=d", "k other")
    assert encode([Column("k", codes, names)], 4, 4)[1] == ("k=a", "k=b", "k=c", "k=d")


def test_every_row_has_exactly_one_category():
    codes = numpy.random.default_rng(0).integers(-1, 30, 500)
    x, _ = encode([Column("k", codes, tuple(map(str, range(30))))], 50, 10)
    assert (x.sum(axis=1) == 1).all() and x.shape[1] == 11  # nine kept, others, missing


def test_times_of_every_kind():
    day = 86400.0
    assert times(source(t=["3", "1.5"]), "t").tolist() == [3, 1.5]
    assert times(source(t=["1970-01-02", "1970-01-03"]), "t").tolist() == [day, 2 * day]
    assert times(source(t=["1970-01-01T00:00:01.5", "1970-01-01 01:00"]), "t").tolist() == [1.5, 3600]
    assert times(source(t=["1970-01-01T00:00:00Z", "1970-01-01T02:00:00+01:00"]), "t").tolist() == [0, 3600]
    typed = [datetime.datetime(1970, 1, 1, 0, 1), datetime.datetime(1970, 1, 2)]
    assert times(source(False, t=typed), "t").tolist() == [60, day]
    assert times(source(False, t=[datetime.date(1970, 1, 2)]), "t").tolist() == [day]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            ["2024-01-01", "2024-01-02", "yesterday", "2024-01-04"],
            r"column 't', row 3: 'yesterday' cannot .*like '2024-01-01'",
        ),
        (["1", "2", "three"], r"row 3: 'three'"),
        (["2024-01-01", None], r"row 2: the time is missing"),
        (["1", "inf"], r"row 2: the time is inf"),
        (["01.02.2024", "02.02.2024"], r"row 1: '01.02.2024' cannot be read as a time.*ISO"),
    ],
)
def test_times_that_cannot_be_read(values, words):
    with pytest.raises(DataError, match=words):
        times(source(t=values), "t")


def test_answers_keep_the_users_words():
    labels, present = answers(source(y=["yes", None, "no"]), "y")
    assert labels[present].tolist() == ["yes", "no"]
    labels, present = answers(source(y=["1", None, "2"]), "y")
    assert labels[present].tolist() == [1, 2] and present.tolist() == [True, False, True]
    labels, _ = answers(source(False, y=[True, False]), "y")
    assert labels.tolist() == [True, False]
    assert answers(source(y=["1", "2", "3+"]), "y")[0].tolist() == ["1", "2", "3+"]


def test_a_number_column_with_a_slip_is_no_set_of_classes():
    with pytest.raises(DataError, match=r"column 'y', row 41: .*'oops'"):
        answers(source(y=[*map(str, range(40)), "oops"]), "y")
    with pytest.raises(DataError, match="no values"):
        answers(source(y=pyarrow.array([None, None], pyarrow.string())), "y")
