"""The parts of explorers: the leader's mass, lifting to a floor, and what is refused."""

import numpy
import pytest
import torch

from everlearn.agents.committee import Bag
from everlearn.agents.confidence import LinUCB
from everlearn.agents.explorer import leader, led, only, raised
from everlearn.core.errors import InputError


def test_the_leader_is_the_lowest_number_among_equals():
    scores = numpy.array([[1.0, 0.0], [1.0, 2.0], [0.0, 2.0]])
    first, best = leader(scores)
    assert (first.tolist(), best.tolist()) == ([0, 1], [1.0, 2.0])
    assert only(first, scores.shape).tolist() == [[1, 0], [0, 1], [0, 0]]


def test_the_leader_never_gets_less_than_an_even_share():
    """Others that sum to more than 1 by rounding would leave it less than nothing."""
    others = numpy.array([[0.0], [0.5], [0.5 + 1e-15]])
    spread = led(others, numpy.array([0]), numpy.array([3.0]))
    assert spread[0, 0] == pytest.approx(0.25, abs=1e-15) and spread.sum() == pytest.approx(1.0, abs=1e-15)


def slow_raise(row, offered, least):
    """Lift one action after the other, lowest first, and scale the rest: the same end."""
    row, held = list(row), set()
    while True:
        below = [a for a in range(len(row)) if offered[a] and a not in held and row[a] < least - 1e-15]
        if not below:
            return row
        held.add(min(below, key=lambda a: row[a]))
        free = sum(row[a] for a in range(len(row)) if a not in held)
        row = [least if a in held else row[a] * (1 - least * len(held)) / free for a in range(len(row))]


def test_lifting_is_that_of_the_slow_twin():
    random = numpy.random.default_rng(1)
    for _ in range(30):
        offered = random.random(6) < 0.8
        offered[0] = True
        row = random.dirichlet(numpy.full(6, 0.3)) * offered
        row /= row.sum()
        least = random.random() / offered.sum()
        found = raised(row[:, None], offered[:, None], numpy.array([least]))[:, 0]
        numpy.testing.assert_allclose(found, slow_raise(row, offered, least), atol=1e-12)
        assert found.sum() == pytest.approx(1.0) and (found[offered] >= least - 1e-12).all()


def test_what_an_explorer_needs_is_asked_for():
    scores = torch.zeros(1, 2)
    with pytest.raises(InputError, match="linucb: it asks how uncertain each score is; give widths="):
        LinUCB().probabilities(scores)
    with pytest.raises(InputError, match="bag: it counts the votes of a committee"):
        Bag().probabilities(scores)
