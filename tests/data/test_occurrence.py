"""How often classes come back: closed forms against sums, simulations and published figures, and the graph of who meets whom."""

from fractions import Fraction
from math import comb

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError
from everlearn.data.class_schedule import Drawn
from everlearn.data.occurrence import CoOccurrence, expected_coverage, mask_warning, unseen_probability
from everlearn.data.recurring import recurring
from everlearn.data.split import split


def table(classes, tasks):
    found = torch.zeros(len(tasks), classes, dtype=torch.bool)
    for number, task in enumerate(tasks):
        found[number, list(task)] = True
    return found


# ---- probabilities ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "count", "published", "half"),
    [(10, 2, 1.427e-5, 5e-9), (100, 10, 5.1538e-3, 5e-8), (100, 2, 0.36417, 5e-6)],
)
def test_the_probability_of_a_class_unseen_after_fifty_tasks(classes, count, published, half):
    """half: a half unit of the last digit that is published."""
    assert unseen_probability(classes, count, 50) == pytest.approx(published, abs=half)
    assert unseen_probability(classes, count, 0) == 1.0 and unseen_probability(classes, classes, 1) == 0.0


def sum_of_the_coupon_collector(classes, count):
    """The slow twin: inclusion and exclusion over the classes that are missing, in exact fractions."""
    total = comb(classes, count)
    terms = (
        (-1) ** (j + 1) * Fraction(comb(classes, j)) / (1 - Fraction(comb(classes - j, count), total))
        for j in range(1, classes + 1)
    )
    return float(sum(terms))


def test_tasks_until_every_class_has_come():
    assert expected_coverage(10, 2) == pytest.approx(14.123362, abs=5e-7)
    assert expected_coverage(10) == pytest.approx(29.289683, abs=5e-7)
    assert expected_coverage(7, 7) == 1.0
    for classes, count in ((2, 1), (6, 5), (9, 3), (40, 2), (100, 10)):
        assert expected_coverage(classes, count) == pytest.approx(sum_of_the_coupon_collector(classes, count), rel=1e-12)


def test_a_simulated_stream_takes_as_long_until_every_class_has_come():
    """Mean of 2,000 independent walks against the formula: four standard errors."""
    walk = Drawn([(0, numpy.full(10, 0.1))], 2, 1.0, seed=0).walk(0, 2000 * 120).reshape(2000, 120, 2)
    first = numpy.stack([(walk == label).any(2).argmax(1) for label in range(10)]).max(0) + 1
    assert abs(first.mean() - expected_coverage(10, 2)) < 4 * first.std() / 2000**0.5


def test_more_classes_than_there_are_is_refused():
    with pytest.raises(ArgumentError, match="classes_per_task=3 is more than the 2 classes"):
        expected_coverage(2, 3)
    with pytest.raises(ArgumentError, match="tasks must be an int >= 0, got -1"):
        unseen_probability(10, 2, -1)


# ---- the graph -------------------------------------------------------------------------------------------------------------


def test_classes_are_linked_through_shared_tasks():
    graph = CoOccurrence.of(table(7, [(0, 4), (2, 5), (4, 6), (0, 4)]))
    assert graph.components == ((0, 4, 6), (2, 5))  # 1 and 3 never came
    assert graph.edges == {(0, 4), (2, 5), (4, 6)} and not graph.connected
    assert graph.meetings[0].tolist() == [2, 0, 0, 0, 2, 0, 0] and graph.meetings[4, 4] == 3
    assert CoOccurrence.of(table(7, [(0, 4), (2, 5), (4, 6), (5, 0)])).connected
    assert CoOccurrence.of(table(3, [])).connected


@given(tasks=st.lists(st.sets(st.integers(0, 8), min_size=1, max_size=4), max_size=8))
def test_components_are_those_of_merging_sets(tasks):
    """The slow twin: tasks that share a class are merged until none do."""
    groups = [set(task) for task in tasks]
    for task in tasks:
        touched = [group for group in groups if group & task]
        groups = [group for group in groups if not group & task] + [set().union(*touched)]
    graph = CoOccurrence.of(table(9, tasks))
    assert {frozenset(group) for group in graph.components} == set(map(frozenset, groups))
    assert graph.connected == (len(groups) <= 1)


# ---- the warning -----------------------------------------------------------------------------------------------------------


def test_a_masked_loss_is_warned_of_where_classes_never_meet(digits):
    stream = recurring(digits, tasks=20, structure="partition", classes_per_task=5)
    first, second = (", ".join(map(str, group)) for group in stream.recurrence.components)
    assert mask_warning(stream) == (
        "recurring(digits, tasks=20, classes_per_task=5, structure='partition'): its classes fall into 2 groups that never share "
        f"a task ({first} | {second}). A loss masked by batch never compares classes of different groups, so the head cannot "
        "rank them. Use loss=plain(), or a stream in which classes meet, such as structure='random'."
    )
    assert mask_warning(recurring(digits, tasks=40)) is None
    assert mask_warning(split(digits)) is None  # knows nothing of how classes come back


def test_the_warning_names_only_some_groups(numbered):
    stream = recurring(numbered([9] * 24), tasks=24, structure="partition")
    text = mask_warning(stream)
    assert "12 groups" in text and text.count(" | ") == 5 and "| and 7 more)" in text


def test_tasks_of_one_class_are_warned_of(digits):
    assert "every task has one class, and a loss masked by batch is 0" in mask_warning(
        recurring(digits, tasks=9, classes_per_task=1)
    )
