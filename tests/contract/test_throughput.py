"""Learners spend their time in the network: beside a bare loop, a step takes little more than the passes that it makes.

The benchmark `throughput` has the figures of every learner and asks for 0.85; the limit here is 0.6, since machines that run tests are
busy. A learner that makes one more pass than it counts is below it.
"""

import statistics
from time import process_time

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from everlearn.comparison.catalog import learners
from everlearn.core.events import Batch, Boundary
from everlearn.core.learner import Learner
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.learners.fine_tune import FineTune
from everlearn.nn.networks import conv4

ROWS, STEPS, ROUNDS, LEAST = 32, 4, 7, 0.6
SCHEMA = Schema((1, 28, 28), torch.uint8, tuple("0123456789"))
FORWARD = 0.34  # of a whole pass, which a pass without gradients takes


class Counted(nn.Module):
    """Adds up the passes of rows, copies of it too."""

    passes = 0.0

    def forward(self, x):
        Counted.passes += len(x) / ROWS * (1.0 if torch.is_grad_enabled() else FORWARD)
        return x


class Wasteful(Learner):
    """Fine-tuning that trains another network beside, which nobody counts."""

    name = "wasteful"
    parts = ("inner",)

    def __init__(self, model):
        self.inner = FineTune(model)
        self.other = conv4(SCHEMA)

    def predict(self, x):
        return self.inner.predict(x)

    def update(self, batch):
        cross_entropy(self.other(batch.x), batch.y).backward()
        return self.inner.update(batch)

    def boundary(self, boundary):
        self.inner.boundary(boundary)


def batches(first, count):
    random = torch.Generator().manual_seed(first)
    x = torch.randint(256, (count, ROWS, *SCHEMA.shape), dtype=torch.uint8, generator=random)
    return [Batch(rows, first + torch.randint(5, (ROWS,), generator=random)) for rows in x]


def in_its_second_task(make, counted):
    with isolated(0, "network"):
        network = conv4(SCHEMA)
    learner = make(nn.Sequential(Counted(), *network) if counted else network)
    for first in (0, 5):
        for batch in batches(first, 4):
            learner.update(batch)
        if first == 0:
            learner.boundary(Boundary(1))
    return learner


def share(make):
    """The bare loop's time for as many passes, over the learner's time: the median over rounds in which both take turns."""
    given = batches(5, STEPS)
    learner = in_its_second_task(make, counted=True)
    Counted.passes = 0.0
    for batch in given:
        learner.update(batch)
    passes = Counted.passes / STEPS
    learner, bare = in_its_second_task(make, counted=False), conv4(SCHEMA).train()
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.05, fused=True)
    found = []
    for _ in range(ROUNDS):
        started = process_time()
        for batch in given:
            optimizer.zero_grad()
            cross_entropy(bare(batch.x), batch.y).backward()
            optimizer.step()
        middle = process_time()
        for batch in given:
            learner.update(batch)
        found.append(passes * (middle - started) / (process_time() - middle))
    return statistics.median(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["agem", "der", "derpp", "er_ace", "fine_tune", "icarl", "lwf", "mir", "online_ewc", "replay", "si"]
)
def test_a_step_takes_little_more_than_its_passes(name):
    assert share(learners()[name]) > LEAST


@pytest.mark.slow
def test_a_pass_that_is_not_counted_shows():
    assert share(Wasteful) < LEAST
