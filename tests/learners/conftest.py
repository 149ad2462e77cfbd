"""A small world for learners: batches from a seed, small networks, and the fold cut in the middle."""

import copy

import pytest
import torch

from everlearn.core.events import Batch, Boundary
from everlearn.core.random import isolated
from everlearn.core.state import load_snapshot, same, save_snapshot


@pytest.fixture
def network():
    """network(seed) -> a perceptron 5-7-3, the same for the same seed."""

    def make(seed=0, inputs=5, classes=3):
        with isolated(seed, "test network"):
            return torch.nn.Sequential(torch.nn.Linear(inputs, 7), torch.nn.ReLU(), torch.nn.Linear(7, classes))

    return make


@pytest.fixture
def batches():
    """batches(count) -> labelled batches of 5 features and 3 classes; sizes vary, batches of one among them."""

    def make(count=12, seed=1, inputs=5, classes=3, sizes=(4, 1, 6)):
        random = torch.Generator().manual_seed(seed)
        return [
            Batch(
                torch.randn(sizes[number % len(sizes)], inputs, generator=random),
                torch.randint(classes, (sizes[number % len(sizes)],), generator=random),
            )
            for number in range(count)
        ]

    return make


@pytest.fixture
def fold():
    """fold(learner, events) -> the learner, after every event."""

    def run(learner, events):
        for event in events:
            learner.boundary(event) if isinstance(event, Boundary) else learner.update(event)
        return learner

    return run


@pytest.fixture
def continues(fold, tmp_path):
    """continues(make, events): whether the same seed gives the same bits, and so does a snapshot in the middle, on disk."""

    def check(make, events):
        whole = fold(make(), copy.deepcopy(events)).state_dict()
        again = fold(make(), events).state_dict()
        middle = len(events) // 2
        save_snapshot(tmp_path, middle, fold(make(), events[:middle]).state_dict())
        second = make()
        second.predict(
            next(event.x for event in events if isinstance(event, Batch))
        )  # whatever it holds by now must give way
        second.load_state_dict(load_snapshot(tmp_path / f"{middle:09d}.json")[1])
        return same(whole, again) and same(whole, fold(second, events[middle:]).state_dict())

    return check


@pytest.fixture
def weights():
    """weights(learner) -> all weights of its model in one row, copied."""

    def row(learner):
        return torch.cat([parameter.detach().flatten() for parameter in learner.descent.model.parameters()]).clone()

    return row
