"""Columns on one scale: hand-worked numbers, limits, and no look ahead."""

import warnings

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from everlearn.data.scaling import Scale, measure, standardise, warn_unscaled


def test_measure_by_hand():
    # 2, 4, 4, 6: mean 4, variance (4 + 0 + 0 + 4) / 4 = 2, median 4; the 100 lies beyond the first rows
    assert measure(numpy.array([2.0, 4.0, numpy.nan, 4.0, 6.0, 100.0]), first=5) == Scale(4.0, pytest.approx(2**0.5), 4.0)


def test_a_column_constant_at_first_is_measured_further_on():
    # rows 0..1 are 5, 5; the prefix is doubled to 5, 5, 5, 9: mean 6, variance (3 * 1 + 9) / 4 = 3
    assert measure(numpy.array([5.0, 5.0, 5.0, 9.0, 1e6]), first=2) == Scale(pytest.approx(6.0), pytest.approx(3**0.5), 5.0)


def test_a_column_missing_at_first_is_measured_where_it_begins():
    values = numpy.array([numpy.nan] * 4 + [1.0, 3.0] + [1e6] * 2)
    assert measure(values, first=3).mean == pytest.approx(2.0)  # 3 -> 6 rows: 1 and 3


def test_a_constant_column_becomes_zero_exactly():
    assert standardise(numpy.full((7, 1), 0.1)).tolist() == [[0.0]] * 7


def test_huge_values_do_not_overflow():
    assert standardise(numpy.array([[-1e300], [1e300]])).tolist() == [[-1.0], [1.0]]


def test_what_lies_a_million_deviations_away_is_held_there():
    assert standardise(numpy.array([[0.0], [1e-300], [1.0], [-1e300]]), first=2)[2:].tolist() == [[1e6], [-1e6]]


@given(arrays.arrays(numpy.float64, (9, 2), elements=st.floats(-1e6, 1e6)), st.floats(-1e6, 1e6))
def test_later_rows_do_not_change_earlier_ones(columns, other):
    if (columns[:4].min(axis=0) == columns[:4].max(axis=0)).any():
        return  # a constant prefix may look further, as it must
    changed = columns.copy()
    changed[4:] = other
    assert numpy.array_equal(standardise(columns, first=4)[:4], standardise(changed, first=4)[:4])


def test_standardise_matches_scikit_learn_on_all_rows():
    from sklearn.datasets import load_wine
    from sklearn.preprocessing import StandardScaler

    x = load_wine().data
    assert numpy.allclose(standardise(x), StandardScaler().fit_transform(x), atol=1e-5)


def test_the_first_rows_alone_set_the_scale():
    x = numpy.arange(40.0)[:, None] ** 2
    assert not numpy.allclose(standardise(x, first=10), standardise(x))
    assert standardise(x, first=10)[:10].mean() == pytest.approx(0, abs=1e-6)


def test_unscaled_columns_are_warned_about_and_scaled_ones_are_not():
    x = numpy.stack([numpy.arange(10.0), 1000 * numpy.arange(10.0)], axis=1)
    with pytest.warns(UserWarning, match="standardise=True"):
        warn_unscaled("rows", x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_unscaled("rows", standardise(x))
        warn_unscaled("bytes", x.astype(numpy.uint8))


def test_values_whose_deviation_no_float_holds_count_as_constant():
    columns = numpy.array([[0.0], [5e-324], [0.0], [7.0]])
    assert numpy.isfinite(standardise(columns, first=3)).all()
