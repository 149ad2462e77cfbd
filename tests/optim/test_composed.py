"""Schedules made of schedules: at known points, begun again as published, and refused where they are made of nothing."""

import pytest

from everlearn.core.errors import ArgumentError
from everlearn.optim.composed import Join, Product, Restarted, Scaled
from everlearn.optim.schedules import Constant, Decay, InverseSqrt, Warmup


def test_schedules_compose():
    joined = Join(Warmup(0.1, steps=10), 10, InverseSqrt(0.1, warmup=4))
    assert [joined(step) for step in (5, 9, 10, 14, 26)] == pytest.approx([0.05, 0.09, 0.0, 0.1, 0.05])
    assert Scaled(joined, 0.5)(26) == pytest.approx(0.025)
    assert Product(Warmup(1.0, steps=10), Constant(0.1))(3) == pytest.approx(0.03)


def test_a_restarted_schedule_at_the_published_setting():
    """125,000 updates, a reset after each 1,000: a warm-up of 10,000 is over after 80 updates of an interval."""
    total, every = 125_000, 1000
    whole = Join(Warmup(7e-4, steps=10_000), 10_000, Decay(7e-4, 0.0, steps=115_000, shape="linear"))
    restarted = Restarted(whole, total, every)
    some = [*range(0, 3000, 7), 999, 1000, 1001, 77_777, 124_999]
    assert [restarted(step) for step in some] == [whole((step * (total // every)) % total) for step in some]
    assert restarted(79) < restarted(80) == 7e-4 > restarted(81)
    assert restarted(1080) == 7e-4 and restarted(1000) == restarted(50_000) == 0.0
    assert restarted(540) == pytest.approx(7e-4 * (1 - (67_500 - 10_000) / 115_000))
    assert whole(1000) == pytest.approx(7e-5)  # what everything else has by then


def test_an_interval_begins_with_its_reset_where_the_length_does_not_divide():
    restarted = Restarted(Warmup(1.0, steps=100), 100, 30)  # three times as fast; 3 * 30 is not 100
    assert [restarted(step) for step in (0, 29, 30, 59, 60)] == [0.0, 0.87, 0.0, 0.87, 0.0]


@pytest.mark.parametrize(("stop", "last"), [(0, 0), (10, 0), (11, 20), (20, 20), (21, 30), (None, 100)])
def test_after_the_last_interval_the_schedule_goes_on_as_elsewhere(stop, last):
    """Resets after update 10, 20, ... before `stop`: none for 0 and 10, one for 11 and 20, two for 21."""
    whole = Warmup(1.0, steps=100)
    restarted = Restarted(whole, 100, 10, stop)
    assert [restarted(step) for step in range(100)] == [
        whole(step % 10 * 10) if step < last else whole(step) for step in range(100)
    ]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: Join(0.1, 5, Constant(0.1)), r"first must be a schedule such as constant\(0\.1\), got 0\.1"),
        (lambda: Scaled(Constant(0.1), -1.0), "factor must be a number >= 0"),
        (lambda: Restarted(Constant(0.1), steps=10, every=0), "every must be an int >= 1"),
        (lambda: Restarted(Constant(0.1), steps=10, every=11), "every must be at most steps, got every=11 and steps=10"),
        (lambda: Restarted(0.1, steps=10, every=5), "schedule must be a schedule"),
        (lambda: Restarted(Constant(0.1), steps=10, every=5, stop=-1), "stop must be an int >= 0, got -1"),
        (lambda: Join(Constant(0.1), 0, Constant(0.2)), "steps must be an int >= 1, got 0"),
        (lambda: Join(Constant(0.1), 5, "constant"), "second must be a schedule such as .* got 'constant'"),
        (lambda: Product(Constant(0.1), 2.0), "second must be a schedule"),
        (lambda: Scaled(2.0, 0.5), "schedule must be a schedule"),
    ],
)
def test_what_is_made_of_no_schedule_is_refused(wrong, told):
    with pytest.raises(ArgumentError, match=told):
        wrong()
