"""Tasks of two classes for sparse learners, and a small network to learn them."""

import torch
from torch import nn

from everlearn import Batch, Boundary
from everlearn.core.random import isolated

TEN = tuple((2 * task, 2 * task + 1) for task in range(10))
SHORT = {"update_every": 2, "task_steps": 12}


def network(seed=0, classes=20, normalisation=nn.BatchNorm1d):
    with isolated(seed, "network"):
        return nn.Sequential(
            nn.Linear(8, 32), normalisation(32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, classes)
        )


def rows(task, step=0, count=16, shape=(8,)):
    source = torch.Generator().manual_seed(100 * task + step)
    y = torch.arange(count) % 2
    x = torch.randn(count, *shape, generator=source)
    x[:, 0] += (2.0 * y - 1.0).view(-1, *[1] * (x.ndim - 2))
    return Batch(x, y + 2 * task, task=task)


def taught(learner, number, steps=12, shape=(8,)):
    """The learner after the first tasks."""
    for task in range(number):
        teach(learner, task, steps, shape)
    return learner


def teach(learner, task, steps=12, shape=(8,)):
    learner.boundary(Boundary(task, TEN[task], rows(task, shape=shape)))
    for step in range(steps):
        learner.update(rows(task, step, shape=shape))


PROBE = rows(0, 99).x
