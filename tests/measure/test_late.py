"""Late and missing answers: limits by hand, memory that does not grow, and a sample that stays fair."""

import random

import pytest

from everlearn.core.state import capture, load, same
from everlearn.measure.late import KEPT, LabelDelay, MissingLabels, quantile


def overs(readings):
    return [reading.over for reading in readings]


# ---- late ------------------------------------------------------------------------------------------------------------------


def test_quantiles_by_hand():
    ordered = [float(value) for value in range(1, 11)]
    assert [quantile(ordered, share) for share in (0.0, 0.1, 0.11, 0.5, 0.9, 0.95, 1.0)] == [1, 1, 2, 5, 9, 10, 10]


def test_a_delay_is_held_against_the_first_ones():
    delays = LabelDelay(times=3.0, window=10)
    assert delays.add([float(value) for value in range(1, 11)]) == []
    assert (delays.usual, delays.patience) == (9.0, 20.0)
    (good,) = delays.add([27.0] * 10)
    (bad,) = delays.add([1.0] * 8 + [27.1] * 2)
    assert (good.value, good.limit, good.over) == (27.0, 27.0, False)
    assert (bad.value, bad.over) == (27.1, True)


def test_a_limit_of_its_own_holds_from_the_first_window_on():
    delays = LabelDelay(times=None, seconds=5.0, window=4)
    assert overs(delays.add([4.0] * 4 + [6.0] * 4)) == [False, True]
    both = LabelDelay(times=3.0, seconds=5.0, window=4)
    assert [reading.limit for reading in both.add([1.0] * 8)] == [5.0, 3.0]


def test_delays_of_less_than_a_second_are_no_trouble():
    delays = LabelDelay(window=4)
    assert overs(delays.add([0.001] * 4 + [0.9] * 4 + [1.1] * 4)) == [False, True]
    assert delays.patience == 1.0


def test_clocks_that_disagree_do_not_make_delays_negative():
    delays = LabelDelay(window=2)
    delays.add([-5.0, -7.0])
    assert delays.usual == 0.0


def test_switched_off_it_still_knows_the_usual_delay():
    delays = LabelDelay(times=None, window=2)
    assert delays.add([2.0] * 20) == []
    assert delays.patience == 4.0


def test_renewed_delays_learn_what_is_usual_anew():
    delays = LabelDelay(window=4)
    delays.add([2.0] * 4)
    delays.renew()
    assert delays.patience == 4.0
    assert overs(delays.add([50.0] * 8)) == [False]
    assert delays.patience == 100.0


# ---- missing ---------------------------------------------------------------------------------------------------------------


def feed(missing, numbers, answered, delay=5.0, patience=10.0):
    """One prediction a second; `answered(number)` ones are answered after so many seconds. Readings, in order."""
    readings = []
    for number in numbers:
        missing.ask([(f"id-{number}", float(number))])
        early = number - int(delay)
        if early >= 0 and answered(early):
            missing.tell([(f"id-{early}", float(number))])
        readings += missing.judge(patience)
    return readings


def test_answers_that_stop_coming_are_missed():
    missing = MissingLabels(window=50)
    readings = feed(missing, range(400), lambda number: number < 200)
    assert [round(reading.value, 2) for reading in readings] == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    assert overs(readings) == [False, False, False, True, True, True]
    assert readings[0].limit == pytest.approx(0.3)


def test_what_is_usual_is_no_trouble_and_the_limit_is_a_part_of_the_answers_that_came():
    missing = MissingLabels(lost=0.5, window=100)
    readings = feed(missing, range(1200), lambda number: number % 5 == 0)
    assert not any(overs(readings))
    assert missing.usual == 0.8
    # 1 - 0.2 x 0.5, or four standard errors of two shares from 100 each, whichever is more
    assert readings[0].limit == pytest.approx(max(0.9, 0.8 + 4.0 * (0.16 * 0.02) ** 0.5))


def test_an_answer_after_the_patience_comes_too_late_to_count():
    assert feed(MissingLabels(window=50), range(300), lambda number: number < 100, delay=5.0)[-1].over
    late = MissingLabels(window=50)
    feed(late, range(80), lambda number: True)
    assert late.usual == 0.0
    readings = feed(late, range(80, 300), lambda number: True, delay=12.0)
    assert readings[-1].value == 1.0


def test_without_known_patience_nothing_is_judged_and_memory_stays_bounded():
    missing = MissingLabels(window=50)
    for number in range(20_000):
        missing.ask([(f"id-{number}", float(number))])
        assert missing.judge(None) == []
        assert len(missing.hashes) <= KEPT
    assert missing.thinning >= 16
    assert len(missing.hashes) == len(missing.times) == len(missing.told) == len(missing._place)


def test_the_thinned_sample_is_fair():
    """Answers take 3,000 s at one prediction a second: three times as many wait as are kept; four in ten are answered."""
    source = random.Random(0)
    wanted = {number: source.random() < 0.4 for number in range(30_000)}
    missing = MissingLabels(window=250)
    readings = feed(missing, range(30_000), wanted.__getitem__, delay=3000.0, patience=3500.0)
    assert missing.thinning > 1
    assert len(missing.hashes) <= KEPT
    assert len(readings) > 10
    assert all(abs(reading.value - 0.6) < 4.0 * (0.24 / 250) ** 0.5 for reading in readings)
    assert not any(overs(readings))


def test_ids_that_come_again_or_were_never_asked_do_no_harm():
    missing = MissingLabels(window=10)
    for _ in range(3):
        missing.ask([("same", 1.0)])
    missing.tell([("unknown", 2.0)])
    assert len(missing.hashes) == 1
    missing.ask([("later", 50.0)])
    assert missing.judge(10.0) == []
    assert missing.outcomes == [False]


def test_state_goes_on_where_it_was_and_holds_no_id():
    first, second = MissingLabels(window=40), MissingLabels(window=40)
    feed(first, range(150), lambda number: True)
    assert "id-1" not in repr(capture(first))
    load(second, capture(first))
    rest = [feed(missing, range(150, 500), lambda number: number < 300) for missing in (first, second)]
    assert rest[0] == rest[1]
    assert any(overs(rest[0]))
    assert same(capture(first), capture(second))


def test_renewed_it_learns_what_is_usual_anew():
    missing = MissingLabels(window=50)
    feed(missing, range(200), lambda number: True)
    missing.renew()
    assert not any(overs(feed(missing, range(200, 500), lambda number: False)))
    assert missing.usual >= 0.9
