"""Pictures of schedules: how far they go, what a bar says, and the file."""

import pytest

from everlearn.core.errors import ArgumentError, StateError
from everlearn.measure.schedule_plot import LINES, bars, plot_schedules, shown_steps
from everlearn.optim.schedules import (
    Constant,
    CosineCycle,
    Decay,
    Infinite,
    InverseSqrt,
    Join,
    RepeatedCosine,
    Scaled,
    Warmup,
    wsd,
)


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (Infinite(0.1, 10, 40, anneal_start=80, anneal_end=100), 100),
        (Infinite(0.1, 10, 40), 80),
        (wsd(0.1, 0), 1000),
        (RepeatedCosine(0.1, steps=70), 140),
        (CosineCycle(0.1, 0.2, 30), 60),
        (InverseSqrt(0.1, 20), 200),
        (Decay(0.1, 0.0, 15), 15),
        (Warmup(0.1, 12), 12),
        (Join(Warmup(0.1, 12), 12, Decay(0.1, 0.0, 15)), 27),
        (Scaled(Constant(0.1), 2.0), 1000),
    ],
)
def test_as_much_is_shown_as_tells_how_it_goes(schedule, steps):
    assert shown_steps(schedule) == steps


def test_bars_are_as_long_as_values_are_high():
    lines = bars(RepeatedCosine(0.1, steps=500, warmup=50), 1000).splitlines()
    assert len(lines) == LINES and lines[0] == "   0  0"
    rows = [line.split() for line in lines]
    for row in rows[1:]:
        value = float(row[1])
        assert value == pytest.approx(RepeatedCosine(0.1, steps=500, warmup=50)(int(row[0])), rel=1e-3)
        highest = max(float(other[1]) for other in rows)
        assert abs(len(row[2]) - 50 * value / highest) <= 1.0 if len(row) == 3 else 50 * value / highest < 1.0
    assert int(rows[-1][0]) == 1000


def test_nothing_but_zeros_is_drawn_too():
    assert bars(Constant(0.0), 3).splitlines() == [f"{step}  0" for step in range(4)]


def test_a_figure_is_written_or_the_reason_told(tmp_path):
    schedules = {"cosine": RepeatedCosine(0.1, steps=50), "infinite": Infinite(0.1, 5, 20)}
    path = plot_schedules(schedules, 100, tmp_path / "schedules.svg")
    text = path.read_text()
    assert text.lstrip().startswith("<?xml") and text.count("<path") > 4
    with pytest.raises(StateError, match="cannot draw"):
        plot_schedules(schedules, 100, tmp_path / "none" / "schedules.png")
    with pytest.raises(StateError, match="cannot draw"):
        plot_schedules(schedules, 100, tmp_path / "schedules.doc")
    with pytest.raises(ArgumentError, match="steps must be an int >= 1"):
        plot_schedules(schedules, 0, tmp_path / "schedules.png")
