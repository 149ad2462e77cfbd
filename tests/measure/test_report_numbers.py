"""Figures as people read them: each written by hand beside what is computed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.measure.report import numbers as say


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (say.percent, 0.8123, "81.2 %"),
        (say.percent, 1.0, "100.0 %"),
        (say.percent, None, "–"),
        (say.percent, float("nan"), "–"),
        (say.points, 0.013, "1.3 points"),
        (say.points, 0.01, "1.0 point"),
        (say.points, -0.01, "−1.0 point"),
        (say.signed_points, 0.013, "+1.3 points"),
        (say.signed_points, -0.013, "−1.3 points"),
        (say.signed_points, -0.0001, "0.0 points"),
        (say.milliseconds, 0.4123, "0.41 ms"),
        (say.milliseconds, 41.83, "41.8 ms"),
        (say.milliseconds, 2340.0, "2.3 s"),
        (say.seconds, 0.0447, "0.045 s"),
        (say.seconds, 29.72, "29.7 s"),
        (say.seconds, 312, "5 min 12 s"),
        (say.seconds, 60, "1 min"),
        (say.seconds, 7320, "2 h 2 min"),
        (say.size, 0, "0 bytes"),
        (say.size, 1, "1 byte"),
        (say.size, 392_000, "392 kB"),
        (say.size, 999_600, "1 MB"),
        (say.size, 1_234_567, "1.23 MB"),
        (say.size, 5e15, "5,000 TB"),
        (say.count, 12345, "12,345"),
        (say.ratio, 3.14, "3.1 times"),
        (say.ratio, 250.3, "250 times"),
        (say.seeds, 1, "one seed"),
        (say.seeds, 3, "3 seeds"),
    ],
)
def test_figures_are_written_for_people(write, value, text):
    assert write(value).replace(say.SPACE, " ") == text


def test_intervals_and_lists():
    assert say.interval(0.66, 0.722) == "66.0 to 72.2"
    assert say.interval(-0.004, 0.012) == "−0.4 to 1.2"
    assert say.interval(None, None) == ""
    assert say.listing(["a"]) == "a"
    assert say.listing(["a", "b", "c"]) == "a, b and c"
    assert say.listing(list("abcdefgh"), most=3) == "a, b, c and 5 more"
    assert say.plural(1, "label") == "1 label"
    assert say.plural(1438, "label") == "1,438 labels"


def test_labels_cannot_open_or_close_code():
    assert say.code("a`b") == "`a’b`"
    assert say.quoted("a`b") == "“a’b”"


@given(st.floats(min_value=-1e9, max_value=1e9), st.integers(0, 4))
def test_a_decimal_reads_back_to_within_half_a_unit_of_its_last_place(value, places):
    text = say.decimal(value, places)
    assert text != "−" + f"{0:.{places}f}"
    back = float(text.replace(say.MINUS, "-").replace(",", ""))
    assert math.isclose(back, value, rel_tol=1e-12, abs_tol=0.5 * 10.0**-places * (1 + 1e-9))


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_three_significant_figures_are_within_half_a_percent(value):
    back = float(say.significant(value).replace(",", ""))
    assert abs(back - value) <= 0.005 * value * (1 + 1e-9)
