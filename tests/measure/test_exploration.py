"""Propensities: the effective share by hand, and what a collapse of exploration looks like."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.core.state import capture, load
from everlearn.measure.exploration import Exploration, effective_share


def test_the_effective_share_by_hand():
    assert effective_share([1.0] * 7) == 1.0
    assert effective_share([1.0, 3.0]) == pytest.approx(16.0 / 20.0)
    assert effective_share([1e9] + [1.0] * 9) == pytest.approx(0.1, rel=1e-6)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=50), st.floats(0.1, 10.0))
def test_the_effective_share_lies_between_one_row_and_all_and_knows_no_unit(weights, unit):
    share = effective_share(weights)
    assert 1.0 / len(weights) - 1e-9 <= share <= 1.0 + 1e-9
    assert effective_share([unit * weight for weight in weights]) == pytest.approx(share)


def test_each_limit_is_held_window_by_window():
    watch = Exploration(least=0.01, effective=0.2, window=10)
    assert watch.add([0.5] * 9) == []
    assert [reading.over for reading in watch.add([0.5])] == [False, False]
    least, effective = watch.add([0.9] * 9 + [0.005])
    assert (least.value, least.over) == (0.005, True)
    weights = [1.0 / 0.9] * 9 + [200.0]
    assert (effective.value, effective.over) == (pytest.approx(effective_share(weights)), True)
    assert watch.figures == [0.005, effective.value]


def test_a_greedy_policy_with_a_floor_passes_and_one_without_does_not():
    """Epsilon-greedy among ten, epsilon 0.1: a policy in common use. With epsilon 0.0005 it hardly explores."""

    def drawn(epsilon):
        source = random.Random(0)
        return [1.0 - 0.9 * epsilon if source.random() < 1.0 - 0.9 * epsilon else epsilon / 10.0 for _ in range(100_000)]

    def told(epsilon):
        return any(reading.over for reading in Exploration().add(drawn(epsilon)))

    assert not told(0.1)
    assert told(0.0005)


def test_a_propensity_of_zero_is_worth_nothing():
    (least, effective) = Exploration(window=2).add([0.0, 1.0])
    assert (least.over, effective.value) == (True, 0.0)


@pytest.mark.parametrize("limits", [{"least": None}, {"effective": None}])
def test_what_is_switched_off_gives_no_reading(limits):
    assert len(Exploration(window=2, **limits).add([0.5, 0.5])) == 1


def test_state_goes_on_where_it_was():
    first, second = Exploration(window=10), Exploration(window=10)
    first.add([0.3] * 7)
    load(second, capture(first))
    assert first.add([1e-5] * 3) == second.add([1e-5] * 3) != []
