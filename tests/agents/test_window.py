"""The window: rows in any order are the rows in order, old ones go, and a snapshot holds all of it."""

import numpy
import torch

from everlearn.agents.window import Window, tensor_of
from everlearn.core.state import capture, load, same


def filled(order, rows=200):
    random = numpy.random.default_rng(1)
    x, mask = random.normal(size=(rows, 3)).astype(numpy.float32), random.random((rows, 2)) < 0.5
    window = Window(2)
    for place in order:
        window.append(str(place), x[place], mask[place], place % 2, place / rows, 0.5, place // 50)
    return window


def test_the_order_in_which_rows_came_leaves_no_trace():
    first, second = filled(range(200)), filled(numpy.random.default_rng(2).permutation(200))
    assert not same(capture(first), capture(second))
    for window in (first, second):
        window.sort(oldest=1)
    assert same(capture(first), capture(second))
    assert first.ids == [str(place) for place in range(50, 200)]  # by size: "99" before "100"
    assert first["x"].shape == (150, 3) and first.known("60") == 10 and first.known("10") is None


def test_a_snapshot_goes_on():
    window, other = filled(range(70)), filled(range(3))
    load(other, capture(window))
    for one in (window, other):
        one.append("new", numpy.zeros(3, numpy.float32), numpy.array([True, True]), 1, 0.5, 0.5, 1)
    assert same(capture(window), capture(other)) and other.known("new") == 70 and other.known("5") == 5
    empty = Window(2)
    load(other, capture(empty))
    assert len(other) == 0 and same(capture(other), capture(empty))


def test_empty_arrays_become_tensors_that_states_take():
    assert tensor_of(numpy.zeros((0, 3), numpy.float32)).stride() == torch.zeros(0, 3).stride()
