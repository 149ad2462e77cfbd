"""Small streams on which monitors are watched."""

import pytest
import torch

from everlearn.core.events import Batch, Boundary
from everlearn.core.stream import HeldOut, Schema, Stream


class Listed(Stream):
    """A stream of given events."""

    def __init__(self, events, classes=("red", "green", "blue"), shape=(4,), **attributes):
        self.name = "listed"
        self.schema = Schema(shape, torch.float32, classes)
        self.events = events
        for key, value in attributes.items():
            setattr(self, key, value)

    def __len__(self):
        return len(self.events)

    def __getitem__(self, index):
        return self.events[index]


def clouds(random, label, count):
    """Rows around a corner of the cube that belongs to the label."""
    return torch.randn(count, 4, generator=random) * 0.5 + torch.nn.functional.one_hot(torch.tensor(label), 4) * 3.0


@pytest.fixture
def listed():
    return Listed


@pytest.fixture
def incremental():
    """Three classes, one after the other, ten batches of 8 each, judged after each; half of the middle answers come late."""

    def make(**attributes):
        random = torch.Generator().manual_seed(5)
        events, held_out, late = [], [], []
        for label in range(3):
            events.append(Boundary(label, (label,)))
            for number in range(10):
                batch = Batch(clouds(random, label, 8), torch.full((8,), label))
                if label == 1 and number % 2:
                    names = tuple(f"{number}.{row}" for row in range(8))
                    events.append(Batch(batch.x, None, id=names))
                    late.append(Batch(batch.x, batch.y, id=names))
                else:
                    events.append(batch)
            events += late[:3]
            late = late[3:]
            held_out.append(HeldOut(f"only {label}", clouds(random, label, 20), torch.full((20,), label)))
        events += late
        settings = {
            "held_out": held_out,
            "checkpoints": (11, 25, len(events)),
            "deployed": 11,
            "boundaries": True,
            "changes": (11, 25),
        }
        return Listed(events, **(settings | attributes))

    return make


@pytest.fixture
def network():
    """A small ReLU network, the same each time."""

    def make(seed=0):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))

    return make
