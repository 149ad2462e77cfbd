"""A rise of the error is told, a fall is not; figures are in the words of the measure."""

import random

import pytest

from everlearn.core.errors import ArgumentError
from everlearn.core.state import capture, load, same
from everlearn.measure.error_rise import SCALING, ErrorRise


def wrong(seed, *pieces):
    """Errors 0 and 1: pieces of (length, rate)."""
    source = random.Random(seed)
    return [float(source.random() < rate) for length, rate in pieces for _ in range(length)]


def fed(rise, errors, batch=32):
    """[(rows taken, reading)]"""
    return [
        (start + batch, reading)
        for start in range(0, len(errors), batch)
        for reading in rise.add(errors[start : start + batch])
    ]


def test_a_rise_is_told_with_the_accuracy_before_and_after():
    readings = fed(ErrorRise(), wrong(0, (2000, 0.1), (1000, 0.4)))
    rows, first = readings[0]
    assert 2000 < rows <= 2200
    assert first.over
    assert first.limit == pytest.approx(0.9, abs=0.03)
    assert first.value == pytest.approx(0.6, abs=0.15)
    assert "accuracy" in first.message


def test_a_sharp_change_is_found_where_it_is():
    """ADWIN keeps errors of both kinds when it alarms; the two means are those on either side of the change, not of all it kept."""
    (rows, reading), *_ = fed(ErrorRise(), [0.0] * 512 + [1.0] * 100)
    assert rows == 544
    assert (reading.limit, reading.value) == (1.0, 0.0)
    assert "over the newest 32 answers" in reading.message


def test_a_learner_that_improves_raises_nothing():
    errors = wrong(1, *[(300, rate) for rate in (0.9, 0.6, 0.4, 0.3, 0.2, 0.1)])
    rise = ErrorRise()
    assert fed(rise, errors) == []
    assert rise.detector.width < len(errors)  # ADWIN had noticed


def test_an_alarm_lasts_until_half_of_the_rise_is_back():
    rise = ErrorRise(window=100)
    readings = [reading for _, reading in fed(rise, wrong(2, (2000, 0.1), (1000, 0.6), (600, 0.1)))]
    assert [reading.over for reading in readings][:9] == [True] * 9
    calm = [reading.calm for reading in readings].index(True)
    assert readings[calm].value > 0.6
    assert rise.risen == 0.0
    assert all(reading.calm != reading.over for reading in readings)


@pytest.mark.parametrize("seed", range(5))
def test_errors_that_stay_as_they_are_raise_nothing(seed):
    assert fed(ErrorRise(), wrong(seed, (20_000, 0.25))) == []


def test_values_are_scaled_by_their_first_spread_whatever_their_unit():
    source = random.Random(3)
    errors = [abs(source.gauss(0.0, 1.0)) for _ in range(2000)] + [abs(source.gauss(0.0, 4.0)) for _ in range(500)]
    plain = fed(ErrorRise(measure="error"), errors)
    scaled = fed(ErrorRise(measure="error"), [1e6 * error for error in errors])
    assert [rows for rows, _ in plain] == [rows for rows, _ in scaled]
    assert 2000 < plain[0][0] < 2200
    assert scaled[0][1].value == pytest.approx(1e6 * plain[0][1].value)
    assert plain[0][1].limit == pytest.approx(0.8, abs=0.1)  # mean of |N(0, 1)|
    assert "mean absolute error" in plain[0][1].message


def test_one_wild_error_is_no_rise():
    source = random.Random(4)
    errors = [abs(source.gauss(0.0, 1.0)) for _ in range(1000)]
    errors[600] = 1e12
    assert fed(ErrorRise(measure="error"), errors) == []


def test_rewards_that_fall_are_told_as_rewards():
    source = random.Random(5)
    errors = [-(3.0 + source.random()) for _ in range(1500)] + [-(2.0 + source.random()) for _ in range(500)]
    ((rows, reading), *_) = fed(ErrorRise(measure="reward"), errors)
    assert 1500 < rows <= 1600
    assert reading.limit == pytest.approx(3.5, abs=0.05)
    assert reading.value < 3.2
    assert "mean reward" in reading.message


def test_errors_that_are_all_equal_at_first_have_a_unit_too():
    rise = ErrorRise(measure="error")
    assert fed(rise, [0.0] * SCALING) == []
    assert len(fed(rise, [0.0] * 300 + [1.0] * 64)) == 1


def test_a_larger_delta_is_quicker_and_less_sure():
    errors = wrong(6, (2000, 0.2), (1200, 0.6))
    assert fed(ErrorRise(0.2), errors)[0][0] < fed(ErrorRise(1e-9), errors)[0][0]


def test_state_goes_on_where_it_was():
    for measure in ("accuracy", "error"):
        errors = wrong(7, (1500, 0.1), (800, 0.5), (900, 0.1))
        first, second = ErrorRise(measure=measure, window=100), ErrorRise(measure=measure, window=100)
        first.add(errors[:1700])
        load(second, capture(first))
        assert first.add(errors[1700:]) == second.add(errors[1700:])
        assert same(capture(first), capture(second))


def test_an_unknown_measure_is_refused():
    with pytest.raises(ArgumentError, match="unknown measure 'acuracy'; did you mean 'accuracy'"):
        ErrorRise(measure="acuracy")
