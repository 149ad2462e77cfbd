"""Ranges against their slow twin, sets of numbers."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.serve.ranges import common, joined, within, without

SOME = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: (min(pair), max(pair))), max_size=6)


def numbers(ranges):
    return {number for low, high in ranges for number in range(low, high + 1)}


@given(SOME, SOME, st.integers(0, 30), st.integers(0, 30))
def test_ranges_are_sets_of_numbers(first, second, low, high):
    assert numbers(joined(first)) == numbers(first)
    assert numbers(without(first, second)) == numbers(first) - numbers(second)
    assert numbers(common(first, second)) == numbers(first) & numbers(second)
    assert numbers(within(first, low, high)) == numbers(first) & set(range(low, high + 1))
    for made in (joined(first), without(first, second), common(first, second), within(first, low, high)):
        assert all(start <= stop for start, stop in made)
        assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(made))  # sorted, and none touch


@pytest.mark.parametrize("function", [without, common])
def test_nothing_is_a_range_too(function):
    assert function([], [(1, 2)]) == ()
    assert without([(1, 2)], []) == ((1, 2),) and common([(1, 2)], []) == ()
    assert joined([(3, 1)]) == () and joined([(5, 5), (6, 4)]) == ((5, 5),)
