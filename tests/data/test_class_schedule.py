"""Which classes a task has: published figures, slow twins of every draw, and that any span of tasks stands alone."""

from itertools import combinations, permutations
from math import comb

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from everlearn.core.errors import ArgumentError
from everlearn.data.class_schedule import (
    Cycle,
    Drawn,
    Imbalanced,
    Listed,
    inclusion,
    some_combinations,
    uniforms,
    unrank,
)


def entropy(p):
    return float(-(p * numpy.log(p)).sum())


def equal(classes):
    return numpy.full(classes, 1.0 / classes)


# ---- class probabilities ---------------------------------------------------------------------------------------------------


def test_imbalanced_probabilities_are_the_published_ones():
    first = Imbalanced(exponent=1, slope=0.05).probabilities(10)
    assert first.round(5).tolist() == [
        0.12903, 0.12258, 0.11613, 0.10968, 0.10323, 0.09677, 0.09032, 0.08387, 0.07742, 0.07097,
    ]  # fmt: skip
    assert entropy(first) == pytest.approx(2.285236, abs=5e-7)
    second = Imbalanced(exponent=2, slope=0.05).probabilities(10)
    assert second.round(5).tolist() == [
        0.16097, 0.14527, 0.13038, 0.11630, 0.10302, 0.09054, 0.07887, 0.06801, 0.05795, 0.04869,
    ]  # fmt: skip
    assert entropy(second) == pytest.approx(2.237093, abs=5e-7)
    many = Imbalanced(exponent=2, slope=0.01).probabilities(100)
    assert many.min() == pytest.approx(2.95552e-6, rel=2e-6) and many.max() == pytest.approx(2.955519e-2, rel=2e-7)
    assert many.max() / many.min() == pytest.approx(10_000, rel=1e-9)


def test_the_default_slope_is_that_of_the_published_settings():
    for classes, slope in ((10, 0.05), (20, 0.05), (100, 0.01), (50, 0.02)):
        default = Imbalanced(exponent=2).probabilities(classes)
        assert numpy.array_equal(default, Imbalanced(exponent=2, slope=slope).probabilities(classes))


def test_exponent_zero_is_uniform_and_more_is_more_uneven():
    assert numpy.allclose(Imbalanced(exponent=0).probabilities(10), 0.1, atol=1e-15)
    values = [entropy(Imbalanced(exponent=exponent).probabilities(10)) for exponent in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 4


def test_a_slope_that_makes_a_probability_negative_is_refused():
    with pytest.raises(ArgumentError, match=r"slope=0\.2 makes the probability of the last of 10 classes negative"):
        Imbalanced(slope=0.2).probabilities(10)
    with pytest.raises(ArgumentError, match="imbalanced: exponent must be a number between 0 and 100, got -1"):
        Imbalanced(exponent=-1)
    assert repr(Imbalanced(exponent=2, slope=0.05)) == "imbalanced(exponent=2, slope=0.05)"


# ---- random numbers --------------------------------------------------------------------------------------------------------


@given(start=st.integers(0, 300), count=st.integers(0, 7), width=st.integers(1, 9))
def test_any_rows_of_the_table_of_numbers_are_those_of_the_whole(start, count, width):
    whole = uniforms(3, 0, 310, width)
    assert numpy.array_equal(uniforms(3, start, start + count, width), whole[start : start + count])
    assert not numpy.array_equal(uniforms(4, 0, 310, width), whole)


# ---- draws without replacement ---------------------------------------------------------------------------------------------


def successive(p, count):
    """The slow twin: the probability of every ordered draw, one class after the other."""
    found = numpy.zeros(len(p))
    for order in permutations(range(len(p)), count):
        chance, left = 1.0, 1.0
        for label in order:
            chance *= p[label] / left
            left -= p[label]
        found[list(order)] += chance
    return found


@pytest.mark.parametrize("count", [1, 2, 3])
def test_inclusion_probabilities_are_those_of_successive_draws(count):
    for p in (numpy.array([0.5, 0.3, 0.15, 0.05]), numpy.array([0.6, 0.0, 0.3, 0.1, 0.0, 0.0])):
        positive = p[p > 0]
        exact = numpy.zeros(len(p))
        exact[p > 0] = successive(positive, count)
        assert numpy.allclose(inclusion(p, count), exact, atol=1e-12)
    assert numpy.allclose(inclusion(equal(10), count), count / 10, atol=1e-15)


def test_inclusion_is_not_the_count_times_the_probability():
    p = Imbalanced(exponent=2).probabilities(100)
    found = inclusion(p, 10)
    assert found.sum() == pytest.approx(10, abs=1e-9) and (numpy.diff(found) < 0).all()
    assert 10 * p[0] - found[0] > 0.01  # 0.2956 against 0.2789
    assert found[-1] > 10 * p[-1]


def test_classes_come_as_often_as_their_inclusion_says():
    """Chi-squared of single classes over 20,000 independent tasks at the 99.99 % point each; the control, n p_c, fails."""
    p, tasks = numpy.array([0.5, 0.2, 0.15, 0.1, 0.05]), 20_000
    counts = numpy.bincount(Drawn([(0, p)], 2, 1.0, seed=1).walk(0, tasks).ravel(), minlength=5)

    def distance(shares):
        return (counts - tasks * shares) ** 2 / (tasks * shares * (1 - shares))

    assert (distance(inclusion(p, 2)) < chi2.ppf(0.9999, 1)).all()
    assert (distance(numpy.minimum(2 * p, 0.999)) > chi2.ppf(0.9999, 1)).any()


def test_a_race_is_a_draw_without_replacement():
    """The race of one task by hand: the least E / p of the row of numbers that belongs to it."""
    p = numpy.array([0.4, 0.0, 0.35, 0.25])
    schedule = Drawn([(0, p)], 2, 1.0, seed=5)
    draws = uniforms(schedule._seed, 0, 50, 4)
    for number, found in enumerate(schedule.walk(0, 50)):
        keys = {label: -numpy.log1p(-draws[number, label]) / p[label] for label in (0, 2, 3)}
        assert found.tolist() == sorted(sorted(keys, key=keys.get)[:2])


@given(
    seed=st.integers(0, 50),
    start=st.integers(0, 60),
    count=st.integers(1, 5),
    reduction=st.sampled_from([1.0, 2.0]),
    change=st.integers(1, 40),
)
def test_any_span_of_tasks_is_that_of_the_whole_walk(seed, start, count, reduction, change):
    later = numpy.array([0, 0, 0.2, 0.3, 0.4, 0.1])
    spans = [(0, equal(6)), (change, later)]
    for schedule in (
        Drawn(spans, 3, reduction, seed),
        Cycle(spans, 3, 0.5, seed),
        Listed([(0, numpy.array([[0, 1], [2, 3], [4, 5]])), (change, numpy.array([[4, 5]]))], 6, True, seed),
    ):
        whole = schedule.walk(0, 70)
        assert numpy.array_equal(schedule.walk(start, start + count), whole[start : start + count])
        assert (numpy.diff(whole) > 0).all()  # distinct, rising
        if not isinstance(schedule, Listed):
            assert (whole[change:] > 1).all()


def test_walks_of_many_blocks_are_those_of_one(monkeypatch):
    schedule = Drawn([(0, equal(10))], 2, 1.0, seed=2)
    whole = schedule.walk(0, 500)
    monkeypatch.setattr("everlearn.data.class_schedule.BLOCK", 70)
    assert numpy.array_equal(schedule.walk(0, 500), whole)


def test_prob_reduction_divides_and_renormalises():
    """The slow twin keeps p, divides it after each task and makes it sum to 1 again."""
    p = Imbalanced(exponent=2).probabilities(8)
    schedule = Drawn([(0, p)], 3, 1.7, seed=3)
    draws, current = uniforms(schedule._seed, 0, 200, 8), p.copy()
    for number, found in enumerate(schedule.walk(0, 200)):
        assert found.tolist() == sorted(numpy.argsort(-numpy.log1p(-draws[number]) / current)[:3].tolist())
        current[found] /= 1.7
        current /= current.sum()
    assert schedule.shares(200) is None


def test_prob_reduction_spreads_the_classes():
    def spread(reduction):
        walk = Drawn([(0, Imbalanced(exponent=2).probabilities(10))], 2, reduction, seed=0).walk(0, 300)
        return numpy.ptp(numpy.bincount(walk.ravel(), minlength=10))

    assert spread(1.0) > 60 > spread(1.05) > spread(2.0)
    assert spread(2.0) <= 5
    assert spread(1e6) <= 1  # and does not overflow


# ---- combinations ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "count"), [(10, 2), (7, 3), (5, 5), (6, 1)])
def test_unrank_lists_the_combinations_in_order(classes, count):
    listed = [list(item) for item in combinations(range(classes), count)]
    assert [unrank(rank, classes, count) for rank in range(comb(classes, count))] == listed


def test_unrank_needs_no_list():
    assert unrank(comb(100, 10) - 1, 100, 10) == list(range(90, 100))


def test_a_cycle_is_every_pair_in_lexicographic_order_and_again():
    walk = Cycle([(0, equal(10))], 2, 0.0, seed=0).walk(0, 100)
    pairs = list(map(list, combinations(range(10), 2)))
    assert len(pairs) == 45
    assert walk.tolist() == [*pairs, *pairs, *pairs[:10]]
    assert numpy.allclose(Cycle([(0, equal(10))], 2, 0.0, 0).shares(45), numpy.bincount(walk[:45].ravel()) / 45)


def test_mix_replaces_classes_and_at_one_is_random():
    p = Imbalanced(exponent=2).probabilities(10)
    drawn = Drawn([(0, p)], 2, 1.0, seed=4).walk(0, 200)
    assert numpy.array_equal(Cycle([(0, p)], 2, 1.0, seed=4).walk(0, 200), drawn)
    fixed = Cycle([(0, equal(10))], 2, 0.0, seed=4).walk(0, 3000)
    for mix in (0.2, 0.6):
        mixed = Cycle([(0, equal(10))], 2, mix, seed=4).walk(0, 3000)
        kept = numpy.mean([len(set(a) & set(b)) for a, b in zip(fixed.tolist(), mixed.tolist(), strict=True)]) / 2
        # of two replaced classes one comes back with probability 2 / 10 each, of a single one with 1 / 9
        expected = (1 - mix) ** 2 + 2 * mix * (1 - mix) * (0.5 + 0.5 / 9) + mix**2 * 0.2
        assert kept == pytest.approx(expected, abs=4 * 0.5 / 3000**0.5)
        assert (numpy.diff(mixed) > 0).all()


def test_pairs_are_a_part_of_all_combinations():
    found = some_combinations(10, 2, 0.1, seed=0)
    assert found.shape == (4, 2) and len(set(map(tuple, found.tolist()))) == 4  # int(0.1 * 45)
    assert some_combinations(10, 2, 1.0, seed=0).tolist() == list(map(list, combinations(range(10), 2)))
    assert found.tolist() != some_combinations(10, 2, 0.1, seed=1).tolist()
    with pytest.raises(
        ArgumentError, match=r"mix=0\.01 of the 45 combinations of 2 of 10 classes leaves none. Use mix=0\.022"
    ):
        some_combinations(10, 2, 0.01, seed=0)
    with pytest.raises(ArgumentError, match="17,310,309,456,440 combinations of 10 of 100 classes are more"):
        some_combinations(100, 10, 0.1, seed=0)


# ---- lists -----------------------------------------------------------------------------------------------------------------


def test_a_list_is_repeated_in_order_or_drawn_from():
    groups = numpy.array([[0, 3], [1, 4], [2, 5]])
    assert Listed([(0, groups)], 6, False, seed=0).walk(2, 6).tolist() == [[2, 5], [0, 3], [1, 4], [2, 5]]
    counts = numpy.bincount(Listed([(0, groups)], 6, True, seed=0).walk(0, 3000)[:, 0], minlength=3)
    assert (abs(counts - 1000) < 4 * (3000 * 2 / 9) ** 0.5).all()


def test_shorter_tasks_are_filled_up():
    schedule = Listed([(0, numpy.array([[0, 1, 2]])), (2, numpy.array([[1, 2]]))], 3, False, seed=0)
    assert schedule.walk(1, 3).tolist() == [[0, 1, 2], [1, 2, -1]]
    assert schedule.shares(4).tolist() == [0.5, 1.0, 1.0]
