"""The networks, rows and ready learners on which EcoTTA is tested."""

import torch

from everlearn import Batch
from everlearn.core.random import isolated
from everlearn.core.stream import Schema
from everlearn.measure.activation_memory import saved_for_backward
from everlearn.nn.wide_resnet import wide_resnet

CLASSES = 3


SCHEMA = Schema((1, 8, 8), torch.float32, ("a", "b", "c"))


def network(depth=10, dtype=torch.float32):
    with isolated(0, "network"):
        return wide_resnet(SCHEMA, depth=depth, width=1).to(dtype)


def batch(number=0, count=12, labelled=True, noise=0.1, dtype=torch.float32):
    """Bright bars at a height that is the class."""
    random = torch.Generator().manual_seed(number)
    y = torch.arange(count) % CLASSES
    x = noise * torch.rand(count, 1, 8, 8, generator=random)
    for row, label in enumerate(y.tolist()):
        x[row, 0, 2 * label + 1] += 0.7
    return Batch(x.to(dtype), y if labelled else None)


def learned(learner, labelled=4, adapted=0):
    for number in range(labelled):
        learner.update(batch(number))
    for number in range(adapted):
        learner.update(batch(100 + number, labelled=False, noise=0.3))
    return learner


def weights(learner):
    return [weight.detach().clone() for weight in learner.adapted.parameters()]


def kept(step, *networks):
    """(bytes of numbers, bytes of masks) kept for backward, without weights and buffers."""
    weights = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
    return saved_for_backward(step, weights)[1:]
