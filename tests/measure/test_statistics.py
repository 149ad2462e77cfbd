"""Intervals against closed forms and scipy, permutation p by enumeration, coverage with a control that must fail."""

from itertools import product

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from everlearn.core.errors import ArgumentError
from everlearn.measure.statistics import mean_interval, paired, sign_flip_p

NUMBERS = some.lists(some.floats(-100, 100, allow_nan=False).map(lambda value: round(value, 3)), min_size=2, max_size=9)


def test_three_values_by_hand():
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    half = 4.302652729749464 / 3**0.5  # t(2 degrees of freedom, 97.5 %); s = 1
    assert (mean, low, high) == pytest.approx((2.0, 2.0 - half, 2.0 + half), abs=1e-12)


@given(NUMBERS, some.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_interval_equals_scipys(values, level):
    mean, low, high = mean_interval(values, level)
    assert low <= mean <= high
    if min(values) < max(values):
        expected = stats.t.interval(level, len(values) - 1, numpy.mean(values), stats.sem(values))
        assert (low, high) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    else:
        assert low == mean == high == values[0]


def test_one_value_has_no_interval():
    assert mean_interval([0.3]) == (0.3, None, None)
    assert paired([0.3], [0.1]) == {
        "difference": pytest.approx(0.2),
        "low": None,
        "high": None,
        "p": None,
        "p_exact": None,
        "clear": False,
    }


def test_a_higher_level_is_wider():
    widths = [high - low for _, low, high in (mean_interval([1.0, 2.0, 4.0], level) for level in (0.5, 0.9, 0.99))]
    assert widths == sorted(widths) and widths[0] < widths[1] < widths[2]


@pytest.mark.parametrize("values", [[], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_nothing_or_not_finite_is_refused(values):
    with pytest.raises(ArgumentError, match="at least one value"):
        mean_interval(values)


def test_wrong_arguments_are_refused():
    with pytest.raises(ArgumentError, match="level"):
        mean_interval([1.0, 2.0], level=1.0)
    with pytest.raises(ArgumentError, match="same seeds, got 2 and 3"):
        paired([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ArgumentError, match="at most 16"):
        sign_flip_p([1.0] * 17)


@given(NUMBERS, some.integers(0, 2**32 - 1))
def test_paired_equals_scipys_paired_t_test(first, seed):
    second = [
        value + shift
        for value, shift in zip(first, numpy.random.default_rng(seed).normal(0.5, 1.0, len(first)), strict=True)
    ]
    found = paired(first, second)
    expected = stats.ttest_rel(first, second)
    assert found["p"] == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-9)
    assert found["clear"] == (expected.pvalue < 0.05)
    swapped = paired(second, first)
    assert (swapped["difference"], swapped["low"], swapped["high"]) == pytest.approx(
        (-found["difference"], -found["high"], -found["low"])
    )
    assert swapped["p_exact"] == pytest.approx(found["p_exact"])


def test_equal_differences():
    zero = paired([0.5, 0.7, 0.6], [0.5, 0.7, 0.6])
    assert (zero["difference"], zero["low"], zero["high"], zero["p"], zero["clear"]) == (0.0, 0.0, 0.0, 1.0, False)
    one = paired([1.5, 1.75, 1.25], [0.5, 0.75, 0.25])
    assert (one["difference"], one["low"], one["high"], one["p"], one["clear"]) == (1.0, 1.0, 1.0, 0.0, True)


@given(NUMBERS)
def test_sign_flip_p_by_enumeration(differences):
    observed = abs(sum(differences))
    room = 1e-12 * max(map(abs, differences))
    count = 0
    for signs in product((1, -1), repeat=len(differences)):
        count += abs(sum(sign * value for sign, value in zip(signs, differences, strict=True))) >= observed - room
    assert sign_flip_p(differences) == count / 2 ** len(differences)


def test_sign_flip_p_is_never_below_two_in_two_to_the_n():
    assert sign_flip_p([1.0, 1.0, 1.0]) == 0.25
    assert sign_flip_p([3.0, 1.0, 2.0, 5.0, 4.0, 6.0]) == 2 / 64
    assert paired([1.0] * 17, list(range(17)))["p_exact"] is None


def test_coverage_of_the_interval_and_a_control_that_must_fail():
    random = numpy.random.default_rng(0)
    samples = random.normal(1.0, 2.0, (4000, 3))
    covered = wrong = 0
    for sample in samples:
        mean, low, high = mean_interval(list(sample))
        covered += low <= 1.0 <= high
        half = 1.959964 * sample.std(ddof=1) / 3**0.5  # the normal quantile in the place of Student's
        wrong += mean - half <= 1.0 <= mean + half
    room = 4 * (0.95 * 0.05 / 4000) ** 0.5  # four standard errors of the counted share
    assert abs(covered / 4000 - 0.95) < room
    assert wrong / 4000 < 0.95 - room
