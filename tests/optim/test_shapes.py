"""Shapes of a fall: their ends, their values where those are known, and what is refused."""

import math

import pytest

from everlearn.core.errors import ArgumentError
from everlearn.optim.shapes import ANNEALS, COOLDOWNS, SHAPES, check_shape, cosine_decay


def test_a_decay_goes_from_one_to_nothing():
    assert [cosine_decay(share / 4) for share in range(5)] == pytest.approx(
        [1.0, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2, 0.0]
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_falls_from_high_to_low(shape):
    values = [SHAPES[shape](0.8, 0.2, share / 20) for share in range(21)]
    assert values[0] == pytest.approx(0.8) and values[-1] == pytest.approx(0.2)
    assert values == sorted(values, reverse=True)


def test_shapes_at_known_points():
    """A quarter and half of the way from 0.5 to 0.1."""
    known = {
        "cosine": (0.1 + 0.4 * (0.5 + 0.5 / math.sqrt(2.0)), 0.3),
        "linear": (0.4, 0.3),
        "exponential": (0.5 * 0.2**0.25, 0.5 * 0.2**0.5),
        "one_minus_sqrt": (0.3, 0.5 - 0.4 * 0.5**0.5),
        "reciprocal": (0.25, 1 / 6),
        "inv_sqrt": (0.2334374, 0.1611245),  # 0.1 + 0.8 (v - 0.5) for v = .6667967 and .5764056, the values from 1 to 0.5
    }
    assert set(known) == set(SHAPES) == {*COOLDOWNS, *ANNEALS}
    for name, (quarter, half) in known.items():
        assert SHAPES[name](0.5, 0.1, 0.25) == pytest.approx(quarter, rel=1e-6), name
        assert SHAPES[name](0.5, 0.1, 0.5) == pytest.approx(half, rel=1e-6), name


def test_a_shape_that_is_unknown_or_never_ends_is_refused():
    check_shape("decay", "shape", "linear", COOLDOWNS, low=0.0)
    with pytest.raises(ArgumentError, match="decay: unknown shape 'linaer'; did you mean 'linear'"):
        check_shape("decay", "shape", "linaer", COOLDOWNS)
    for shape in ("exponential", "reciprocal"):
        check_shape("decay", "shape", shape, ANNEALS, low=1e-9)
        with pytest.raises(ArgumentError, match=rf"decay: the {shape} shape never reaches 0; low must be above 0, got 0\.0"):
            check_shape("decay", "shape", shape, ANNEALS, low=0.0)
