"""Schedules at the points where their values are known, continuous where they must be, and refused where they are none."""

import math
import pickle

import pytest

from everlearn.comparison.catalog import values
from everlearn.core.errors import ArgumentError
from everlearn.core.spec import build, parse
from everlearn.optim.schedules import (
    SCHEDULES,
    CosineCycle,
    Decay,
    Infinite,
    InverseSqrt,
    RepeatedCosine,
    Warmup,
    wsd,
)
from everlearn.optim.shapes import ANNEALS, COOLDOWNS

PUBLISHED = Infinite(1e-3, 50, 300, const_lr=5e-4, min_lr=1e-5, anneal_start=800, anneal_end=1000)


def test_the_published_cycle_of_gradient_temperatures():
    cycle = CosineCycle(0.09 / 0.16, 0.09 / 0.05, 500)
    values = {0: 0.5625, 125: 1.18125, 250: 1.8, 375: 1.18125, 499: 0.56254885, 500: 0.5625}
    for index, value in values.items():
        assert cycle(index) == pytest.approx(value, abs=1e-7)
    assert cycle(1234) == pytest.approx(cycle(234))
    assert sum(cycle(index) for index in range(500)) / 500 == pytest.approx((0.5625 + 1.8) / 2)


def test_a_cycle_of_one_value_stands_still():
    assert {CosineCycle(0.7, 0.7, 9)(index) for index in range(20)} == {0.7}


@pytest.mark.parametrize("wrong", [(1.0, 0.5, 10), (0.0, math.inf, 10), (0.0, 1.0, 0)])
def test_what_is_no_cycle_is_refused(wrong):
    with pytest.raises(ArgumentError):
        CosineCycle(*wrong)


def test_the_infinite_schedule_at_the_steps_of_its_reference():
    known = {0: 0.0, 1: 2e-5, 25: 5e-4, 50: 1e-3, 100: 9.522542e-4, 175: 7.5e-4, 250: 5.477458e-4, 300: 5e-4, 550: 5e-4}
    known |= {800: 5e-4, 850: 1.880302e-4, 900: 7.071068e-5, 999: 1.019753e-5, 1000: 1e-5}
    for step, value in known.items():
        assert PUBLISHED(step) == pytest.approx(value, rel=1e-6)
    assert sum(map(PUBLISHED, range(1000))) == pytest.approx(0.4875468, abs=5e-8)
    assert PUBLISHED(5000) == 1e-5


def test_repeated_cosine_at_the_steps_of_its_reference():
    rate = RepeatedCosine(1e-3, steps=1000, warmup=50, min_lr=1e-5)
    assert [rate.phase(step) for step in (0, 25, 50, 525, 1000)] == pytest.approx([0.0, 5e-4, 1e-3, 5.05e-4, 1e-5])
    assert sum(map(rate, range(1000))) == pytest.approx(0.504745, abs=5e-7)
    assert rate(1000) == rate(3000) == 0.0 and rate(1025) == pytest.approx(5e-4)
    assert RepeatedCosine(0.2, steps=10).low == pytest.approx(0.02)


@pytest.mark.parametrize("cooldown", COOLDOWNS)
@pytest.mark.parametrize("anneal", ANNEALS)
def test_the_infinite_schedule_is_continuous_at_every_border(cooldown, anneal):
    fine = 10**6  # steps so short that a jump would show
    rate = Infinite(
        1.0, 50 * fine, 300 * fine, cooldown=cooldown, anneal=anneal, anneal_start=800 * fine, anneal_end=1000 * fine
    )
    for border in (50 * fine, 300 * fine, 800 * fine, 1000 * fine):
        assert rate(border - 1) == pytest.approx(rate(border), abs=1e-3)
        assert rate(border + 1) == pytest.approx(rate(border), abs=1e-3)
    phases = [rate.phase(at * fine) for at in (0, 50, 299, 300, 800, 1000, 1001)]
    assert phases == ["warmup", "cooldown", "cooldown", "constant", "anneal", "anneal", "end"]


def test_a_cool_down_and_a_decay_at_known_points():
    found = [Infinite(1e-3, 0, 100, cooldown="inv_sqrt")(step) for step in (25, 50, 75)]
    assert found == pytest.approx([6.667967e-4, 5.764056e-4, 5.296968e-4], rel=1e-6)
    assert Decay(1e-3, 0.0, steps=4, shape="one_minus_sqrt")(1) == pytest.approx(5e-4)


def test_an_annealing_in_the_cool_down_begins_where_the_rate_stands():
    rate = Infinite(1e-3, 0, 100, anneal_start=50, anneal_end=60)
    assert rate(50) == pytest.approx(7.5e-4) and rate(60) == pytest.approx(1e-4) and rate(49) > rate(50) > rate(51)


def test_wsd_is_the_infinite_schedule_without_a_cool_down():
    rate = wsd(0.1, 10, 100, 120, decay="linear")
    assert [rate(step) for step in (5, 10, 50, 100, 110, 120, 200)] == pytest.approx([0.05, 0.1, 0.1, 0.1, 0.05, 0.0, 0.0])
    assert wsd(0.1, 10)(10**6) == 0.1


def test_the_inverse_square_root_warms_up_in_equal_steps():
    assert [InverseSqrt(0.1, warmup=10)(step) for step in (0, 1, 5, 10, 40)] == pytest.approx([0.0, 0.01, 0.05, 0.1, 0.05])


@pytest.mark.parametrize(
    "text",
    [
        "infinite(0.001, 50, 300, anneal_start=800, anneal_end=1000)",
        "join(warmup(0.1, steps=10), 10, decay(0.1, 0.0, steps=20, shape='linear'))",
        "product(scaled(constant(0.2), 0.5), repeated_cosine(1.0, steps=100))",
        "wsd(0.1, warmup=10)",
        "restarted(wsd(0.1, warmup=10), steps=900, every=90, stop=400)",
    ],
)
def test_a_schedule_is_named_by_the_text_it_is_read_from(text):
    made = build(parse(text), values())
    again = build(parse(repr(made)), values())
    assert again == made == pickle.loads(pickle.dumps(made)) and [again(step) for step in range(0, 900, 50)] == [
        made(step) for step in range(0, 900, 50)
    ]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: Infinite(1e-3, 5, 10, const_lr=2e-3), "max_lr=0.001 and const_lr=0.002 and min_lr=0.0001"),
        (lambda: Infinite(1e-3, 5, 10, const_lr=1e-4, min_lr=2e-4), "max_lr >= const_lr >= min_lr must hold"),
        (lambda: Infinite(1e-3, 11, 10), "warmup=11 and cooldown_end=10"),
        (lambda: Infinite(1e-3, 5, 10, min_lr=0.0), "never reaches 0; min_lr must be above 0"),
        (lambda: Infinite(1e-3, 5, 10, anneal="sudden"), "unknown anneal 'sudden'"),
        (lambda: Infinite(1e-3, 5, 10, cooldown="exponential"), "unknown cooldown 'exponential'"),
        (lambda: Infinite(1e-3, 5, 10, anneal_start=4, anneal_end=9), "must start after the warm-up"),
        (lambda: Infinite(1e-3, 5, 10, anneal_start=9, anneal_end=9), "end later than it starts"),
        (lambda: Infinite(1e-3, 5, 10, anneal_start=9), "go together"),
        (lambda: Infinite(math.nan, 5, 10), "max_lr must be a number"),
        (lambda: RepeatedCosine(1e-3, steps=10, warmup=10), "warmup must be below steps"),
        (lambda: Decay(0.1, 0.2, steps=10), "high >= low must hold, got high=0.1 and low=0.2"),
        (lambda: Decay(math.inf, 0.2, steps=10), "high >= low must hold"),
        (lambda: Warmup(0.1, steps=0), "steps must be an int >= 1"),
    ],
)
def test_what_is_no_schedule_is_refused(wrong, told):
    with pytest.raises(ArgumentError, match=told):
        wrong()


def test_every_schedule_has_its_name():
    assert all(made.name == name for name, made in SCHEDULES.items() if isinstance(made, type))
