"""Counters of memories, added up over a learner's parts."""

import torch

from everlearn import Budget, FineTune, Learner, run
from everlearn.core.store import Store
from everlearn.measure.memory_use import MemoryUse


class Shelf(Store):
    """Keeps the newest rows."""

    parts = ("kept", "seen", "replayed")

    def __init__(self, capacity):
        self.capacity, self.kept, self.seen, self.replayed = capacity, torch.zeros(0, 4), 0, 0

    @property
    def stored(self):
        return len(self.kept)

    @property
    def nbytes(self):
        return self.kept.nbytes

    def limit(self, samples, nbytes):
        if samples is not None:
            self.capacity = samples


class Librarian(Learner):
    name, parts = "librarian", ("shelves",)

    def __init__(self, *capacities):
        self.shelves = [Shelf(capacity) for capacity in capacities]

    def predict(self, x):
        return torch.zeros(len(x), 3)

    def update(self, batch):
        for shelf in self.shelves:
            shelf.kept = torch.cat([shelf.kept, batch.x])
            shelf.kept = shelf.kept if shelf.capacity is None else shelf.kept[-shelf.capacity :]
            shelf.seen += len(batch)
            shelf.replayed += 2
        return {}

    def boundary(self, boundary):
        pass


def test_counters_are_added_up(incremental):
    result = run(Librarian(10, 20), incremental(), monitors=[MemoryUse()])
    batches = 35
    assert result.figures["memory"] == {
        "seen": 2 * 8 * batches,
        "stored": 30,
        "replayed": 2 * 2 * batches,
        "bytes": 30 * 16,
        "capacity": 30,
    }
    assert result.curve[1]["memory"] == {"stored": 16, "bytes": 16 * 16}  # one batch of 8 on each of two shelves


def test_no_limit_is_none_and_a_budget_shows(incremental):
    assert run(Librarian(10, None), incremental(), monitors=[MemoryUse()]).figures["memory"]["capacity"] is None
    limited = run(Librarian(10, None), incremental(), budget=Budget(replay=6), monitors=[MemoryUse()]).figures["memory"]
    assert (limited["capacity"], limited["stored"]) == (6, 6)


def test_a_learner_without_a_memory_has_zeros(incremental, network):
    found = run(FineTune(network()), incremental(), monitors=[MemoryUse()]).figures["memory"]
    assert found == {"seen": 0, "stored": 0, "replayed": 0, "bytes": 0, "capacity": 0}
