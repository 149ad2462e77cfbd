"""Which classes are chosen, and which rows of a class stay when it comes back."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.core.state import capture, restore, same
from everlearn.data.frequency import Frequencies, Refreshed, refresh_size
from everlearn.data.memory import Memory


def traced(**options):
    found = Frequencies(**options)
    found.tasks, found.counts = 100, {0: 5.0, 1: 1.0, 2: 3.0, 3: 9.0}
    found.occurrences = {0: 5, 1: 1, 2: 3, 3: 9}
    return found


def test_the_hand_trace():
    found = traced()
    assert found.select([0]) == [2]  # class 1 came once only; class 2 has 0.03
    assert found.select([2]) == [0]  # 0.05
    assert traced(high=0.02).select([0]) == []
    assert found.select([1, 5]) == [2, 0]
    assert found.select([1, 5, 6]) == [2, 0, 3]
    assert found.select([]) == []


def test_each_limit_of_the_band_matters():
    assert traced(high=0.05).select([1, 5, 6]) == [2, 0]  # up to and with high
    assert traced(low=0.03).select([1, 5, 6]) == [0, 3]  # above low
    assert traced(min_occurrences=1).select([0]) == [2]  # class 1 has 0.01, which is not above low
    assert traced(min_occurrences=1, low=0.0).select([0]) == [1]
    assert traced(min_occurrences=4).select([1, 5]) == [0, 3]


def test_a_task_counts_for_its_classes_by_their_weights():
    found = Frequencies()
    found.record({0: 1.0, 3: 0.25})
    found.record({3: 0.5})
    assert (found.tasks, found.counts, found.occurrences) == (2, {0: 1.0, 3: 0.75}, {0: 1, 3: 2})
    other = Frequencies()
    restore(other, capture(found))
    assert other.counts == found.counts and other.occurrences == found.occurrences


def test_refreshes_shrink_to_ten():
    assert [refresh_size(200, before) for before in (0, 1, 2, 3, 4, 9, 19, 30)] == [200, 100, 66, 50, 40, 20, 10, 10]
    with pytest.raises(ArgumentError, match="per_class"):
        Refreshed(0)


def memory(per_class=20, classes=3, capacity=None):
    return Memory(capacity or per_class * classes, keep=Refreshed(per_class))


def offer(memory, task, *counts):
    """Rows of each class, marked by their task, in pieces of seven."""
    memory.keeper.begin()
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(task))]
    for piece in labels.split(7):
        memory.insert(x=torch.full((len(piece), 1), float(task)), y=piece)


def kept(memory, label):
    """How many rows of a class are kept from each task."""
    held = memory.rows()
    tasks = held["x"][held["y"] == label].flatten().int().tolist()
    return {task: tasks.count(task) for task in sorted(set(tasks))}


def test_a_class_fills_its_places_and_gives_some_up_at_each_return():
    rows = memory()
    offer(rows, 0, 30, 5)
    assert kept(rows, 0) == {0: 20} and kept(rows, 1) == {0: 5}
    offer(rows, 1, 30)
    assert kept(rows, 0) == {0: 10, 1: 10} and kept(rows, 1) == {0: 5}
    offer(rows, 2, 0, 30)
    assert kept(rows, 1) == {0: 5, 2: 10}  # ten at its first return, which find room
    offer(rows, 3, 30, 4)
    found = kept(rows, 0)
    assert found[3] == 10 and sum(found.values()) == 20 and kept(rows, 1)[3] == 4


def test_slots_name_the_rows_of_their_classes():
    rows = memory()
    for task in range(6):
        offer(rows, task, *[(7, 0, 12), (0, 25, 3), (30, 4, 0)][task % 3])
    held = rows.rows()
    for label in range(3):
        slots = rows.keeper.slots([label])
        assert len(slots) == len(set(slots)) == int((held["y"] == label).sum()) > 0
        assert set(held["y"][slots].tolist()) == {label}
    drawn = rows.pick(rows.keeper.slots([1]))
    assert set(drawn["y"].tolist()) == {1} and rows.replayed == len(drawn["y"])


def test_rows_that_stay_are_drawn_evenly():
    counts = torch.zeros(20)
    for seed in range(400):
        rows = Memory(20, keep=Refreshed(20), seed=seed)
        rows.insert(x=torch.arange(20.0)[:, None], y=torch.zeros(20, dtype=torch.int64))
        rows.keeper.begin()
        rows.insert(x=torch.full((15, 1), -1.0), y=torch.zeros(15, dtype=torch.int64))
        left = rows.rows()["x"].flatten()
        assert int((left < 0).sum()) == 10
        counts[left[left >= 0].long()] += 1
    chi = ((counts - 200) ** 2 / 100).sum()  # each stays with probability 1/2: variance 100, less than independent
    assert chi < 43.8  # 99.9 % of chi-square with 19 degrees of freedom


def test_too_little_room_is_shared():
    rows = memory(per_class=20, classes=3, capacity=12)
    for task in range(5):
        offer(rows, task, 20, 20, 20)
        assert rows.stored <= 12
    shares = {label: sum(kept(rows, label).values()) for label in range(3)}
    assert shares == {0: 4, 1: 4, 2: 4}


def test_a_memory_goes_on_where_it_was():
    whole, part = memory(), memory()
    for task in range(4):
        offer(whole, task, 9, 14, 6)
    for task in range(2):
        offer(part, task, 9, 14, 6)
    other = memory()
    restore(other, capture(part))
    for task in range(2, 4):
        offer(other, task, 9, 14, 6)
    assert same(capture(whole), capture(other))
