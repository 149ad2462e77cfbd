"""A small stream of clouds, and monitors that count: what the tests of the fold run on."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from everlearn import Batch, Boundary, FineTune, HeldOut, Monitor, Replay, Schema, Stream
from everlearn.core.random import generator, isolated
from everlearn.optim.optimizers import SGD, Adam

FEATURES, CLASSES, ROWS = 8, 4, 6
MEANS = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(7))


class Clouds(Stream):
    """Normal clouds around one mean per class, by number: event i is a function of (seed, i)."""

    schema = Schema((FEATURES,), torch.float32, tuple("abcd"))

    def __init__(self, length, seed=0, boundaries=False, held_out=True, late=0):
        self.name = f"clouds(length={length}, seed={seed})"
        self.length, self.seed, self.boundaries, self.late = length, seed, boundaries, late
        self.held_out = [self._held_out(number) for number in range(2)] if held_out else ()
        self.checkpoints = tuple(sorted({max(1, length // 2), length})) if held_out and length else ()

    def __len__(self):
        return self.length

    def _rows(self, *labels, count=ROWS):
        source = generator(self.seed, *labels)
        y = torch.randint(CLASSES, (count,), generator=source)
        return MEANS[y] + torch.randn(count, FEATURES, generator=source), y

    def _held_out(self, number):
        return HeldOut(f"clouds {number}", *self._rows("held out", number, count=20))

    def __getitem__(self, index):
        if self.boundaries and index % 10 == 0:
            return Boundary(index // 10, tuple(range(CLASSES)))
        place = index // 2 if self.late else index
        x, y = self._rows(place)
        batch = Batch(x, y, id=tuple(f"{place}-{row}" for row in range(len(y))))
        return replace(batch, y=None) if self.late and index % 2 == 0 else batch


class Tally(Monitor):
    """Counts events, rows predicted, right answers and judgements; `log` is what it was asked to do."""

    name = "tally"
    parts = ("events", "rows", "right", "judged")

    def __init__(self, timed=False):
        self.events = self.rows = self.right = 0
        self.judged = []
        self.log = []

    def start(self, learner, stream):
        self.log.append("start")

    def wants_prediction(self, event):
        return isinstance(event, Batch) and event.y is not None

    def observe(self, step, learner):
        self.log.append(step)
        self.events += 1
        if step.prediction is not None and step.event.y is not None:
            self.rows += len(step.prediction)
            self.right += int((step.prediction.argmax(1) == step.event.y).sum())

    def judge(self, checkpoint, index, held_out, scores):
        self.judged.append([checkpoint, index, held_out.name, float((scores.argmax(1) == held_out.y).double().mean())])

    def record(self, learner):
        return {"rows": self.rows, "right": self.right}

    def figures(self):
        return {"events": self.events, "rows": self.rows, "right": self.right, "judged": self.judged}


def build_network(seed=0, dropout=0.0):
    with isolated(seed, "network"):
        return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, CLASSES))


def build_fine_tune(seed=0):
    return FineTune(build_network(seed), optimizer=SGD(0.1, momentum=0.9), seed=seed)


def build_replay(seed=0, capacity=40):
    return Replay(build_network(seed, dropout=0.3), capacity=capacity, optimizer=Adam(0.01), seed=seed)


@pytest.fixture
def clouds():
    return Clouds


@pytest.fixture
def tally():
    return Tally


@pytest.fixture
def network():
    return build_network


@pytest.fixture
def fine_tune():
    return build_fine_tune


@pytest.fixture
def replay():
    return build_replay
