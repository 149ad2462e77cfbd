"""Readings and the latch: one alarm for one trouble."""

from everlearn.core.state import capture, load
from everlearn.measure.reading import CALM, Latch, Reading, above, below


def told(latch, values, limit=1.0):
    return [latch([above(value, limit, "")]) is not None for value in values]


def test_a_figure_that_trembles_about_its_limit_is_told_once():
    assert told(Latch(), [0.9, 1.1, 0.9, 1.1, 0.95, 1.2]) == [False, True, False, False, False, False]


def test_it_is_told_again_after_it_was_calm():
    assert told(Latch(), [1.1, 0.7, 1.1]) == [True, False, True]


def test_calm_is_well_on_the_good_side():
    assert above(CALM, 1.0, "").calm
    assert not above(CALM + 0.01, 1.0, "").calm
    assert below(1.0 / CALM, 1.0, "").calm
    assert not below(1.2, 1.0, "").calm
    assert not above(1.0, 1.0, "").over
    assert not below(1.0, 1.0, "").over


def test_a_number_that_is_none_raises_nothing_and_calms_nothing():
    nan = above(float("nan"), 1.0, "")
    assert not nan.over
    assert not nan.calm


def test_all_readings_of_a_moment_must_be_calm_and_any_may_raise():
    latch, good, bad = Latch(), above(0.0, 1.0, "good"), above(2.0, 1.0, "bad")
    assert latch([good, bad]) is bad
    assert latch([good, bad]) is None
    assert latch.set
    assert latch([good]) is None
    assert not latch.set


def test_moments_without_readings_change_nothing_and_those_with_them_are_counted():
    latch, bad = Latch(), above(2.0, 1.0, "")
    latch([bad])
    for _ in range(3):
        latch([])
        latch([bad])
    assert (latch.set, latch.since) == (True, 3)
    latch.clear()
    assert latch([bad]) == Reading(2.0, 1.0, "", True, False)


def test_a_latch_that_is_restored_goes_on():
    latch, other = Latch(), Latch()
    told(latch, [1.1, 1.1])
    load(other, capture(latch))
    assert told(other, [1.5, 0.1, 1.5]) == [False, False, True]
