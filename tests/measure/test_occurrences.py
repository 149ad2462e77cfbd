"""Occurrences against numbers worked out by hand and against a slow twin that keeps every task."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.events import Batch, Boundary, Feedback
from everlearn.core.state import capture, restore, same
from everlearn.measure.occurrences import Occurrences


def batch(*labels, task=None):
    return Batch(torch.zeros(len(labels), 1), torch.tensor(labels), task=task)


def watched(events, classes=4, window=None):
    found = Occurrences(classes, window)
    for position, event in enumerate(events):
        found.see(event, position)
    return found


def test_by_hand():
    """Tasks {0, 1}, {2, 3}, {0, 1}, {0}: two groups, classes 0 and 1 come back once, 0 stays in the last task."""
    events = [
        Boundary(0), batch(0, 0), batch(1), Boundary(1), batch(2, 3), Boundary(2), batch(1), batch(0, 1), Boundary(3), batch(0),
    ]  # fmt: skip
    found = watched(events)
    assert found.tasks == 4
    assert found.count.tolist() == [3, 2, 1, 1]
    assert found.frequencies().tolist() == [0.75, 0.5, 0.25, 0.25]
    assert found.returns.tolist() == [1, 1, 0, 0]
    assert found.absences().tolist() == [0, 1, 2, 2]
    facts = found.facts()
    assert facts["classes_per_task"] == 7 / 4
    assert facts["expected_gaps"] == [4 / 3, 2.0, 4.0, 4.0]
    assert not facts["connected"] and facts["components"] == [[0, 1], [2, 3]]


def test_a_chain_of_meetings_joins():
    tasks = [(0, 1), (2, 3), (1, 2)]
    two = watched([batch(*pair, task=number) for number, pair in enumerate(tasks[:2])])
    assert two.components() == [[0, 1], [2, 3]]
    three = watched([batch(*pair, task=number) for number, pair in enumerate(tasks)])
    assert three.components() == [[0, 1, 2, 3]] and three.facts()["connected"]


def test_classes_that_never_came_have_no_gap_and_no_group():
    facts = watched([batch(0, task=0), batch(2, task=1)]).facts()
    assert facts["expected_gaps"] == [2.0, None, 2.0, None]
    assert facts["components"] == [[0], [2]]
    empty = watched([]).facts()
    assert empty == {
        "tasks": 0, "classes_per_task": None, "expected_gaps": [None] * 4, "connected": True, "components": [],
    }  # fmt: skip


def test_a_boundary_and_the_number_of_its_batches_are_one_task():
    announced = watched([Boundary(5), batch(0, task=5), batch(1, task=5), Boundary(6), batch(0, task=6)])
    unnumbered = watched([Boundary(None), batch(0, task=5), batch(1, task=5), Boundary(None), batch(0, task=6)])
    numbered = watched([batch(0, task=5), batch(1, task=5), batch(0, task=6)])
    early = watched([batch(0), batch(1), Boundary(None), batch(0)])
    for found in (announced, unnumbered, numbered, early):
        assert (found.tasks, found.count.tolist()) == (2, [2, 1, 0, 0])


def test_without_tasks_windows_count_and_only_batches_join():
    events = [batch(0, 1), batch(2, 3), batch(0, 0), batch(0, 2)]
    found = watched(events, window=2)
    assert (found.tasks, found.count.tolist()) == (2, [2, 1, 2, 1])
    assert found.components() == [[0, 1, 2, 3]]
    assert watched(events[:3], window=2).components() == [[0, 1], [2, 3]]
    assert watched(events, window=1).returns.tolist() == [1, 0, 1, 0]


def test_events_without_labels_count_nothing():
    found = watched(
        [Batch(torch.zeros(2, 1)), Feedback("a", torch.zeros(1), 0, None, 1.0), Batch(torch.zeros(1, 1), task=3)]
    )
    assert found.count.sum() == 0
    assert found.tasks == 1


def twin(tasks, classes):
    """The same from a list of all tasks."""
    count = [sum(c in task for task in tasks) for c in range(classes)]
    where = [[number for number, task in enumerate(tasks) if c in task] for c in range(classes)]
    returns = [sum(b - a > 1 for a, b in pairwise(places)) for places in where]
    absences = [len(tasks) - 1 - places[-1] if places else -1 for places in where]
    groups = [set(task) for task in tasks]
    merged = True
    while merged:
        merged = False
        for a in range(len(groups)):
            for b in range(a + 1, len(groups)):
                if not merged and groups[a] & groups[b]:
                    groups[a] |= groups.pop(b)
                    merged = True
                    break
            if merged:
                break
    return count, returns, absences, sorted(sorted(group) for group in groups)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 5), min_size=1, max_size=3), min_size=1, max_size=12), st.integers(0, 11))
def test_against_a_slow_twin_and_resumed_anywhere(tasks, at):
    events = [Boundary(None) if kind else batch(*sorted(task)) for task in tasks for kind in (True, False)]
    found = Occurrences(6, None)
    for position, event in enumerate(events):
        if position == at:
            state = capture(found)
            found = Occurrences(6, None)
            restore(found, state)
        found.see(event, position)
    count, returns, absences, groups = twin(tasks, 6)
    assert found.count.tolist() == count
    assert found.returns.tolist() == returns
    assert found.absences().tolist() == absences
    assert found.components() == groups
    assert same(capture(found), capture(watched(events, classes=6)))


@pytest.mark.parametrize("uniform", [2, 3])
def test_the_expected_gap_of_uniform_draws(uniform):
    """n of 10 classes drawn for each task: a class is expected back after 10/n tasks."""
    random = torch.Generator().manual_seed(0)
    draws = torch.rand(4000, 10, generator=random).argsort(1)[:, :uniform]
    found = watched([batch(*row, task=number) for number, row in enumerate(draws.tolist())], classes=10)
    share = uniform / 10
    error = (share * (1 - share) / 4000) ** 0.5
    assert max(abs(found.frequencies() - share)) < 4.5 * error  # ten classes: 4.5 standard errors
    assert found.facts()["classes_per_task"] == uniform
