"""Batch statistics beside training mode; the mixture; what is refused."""

import pytest
import torch
from torch import nn

from everlearn import BNStats
from everlearn.core.errors import ArgumentError
from everlearn.core.state import capture, same


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    model[1].running_mean.fill_(0.3)
    return model


def test_answers_are_those_of_training_mode_and_nothing_changes():
    x = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model = network()
    learner = BNStats(model)
    before = capture(model)
    scores = learner.adapt(x)
    assert same(before, capture(model))
    torch.testing.assert_close(scores, network().train()(x).detach())
    torch.testing.assert_close(BNStats(network(), alpha=0.0).adapt(x), network().eval()(x).detach())
    assert not torch.allclose(BNStats(network(), alpha=0.1).adapt(x), scores)
    assert not torch.allclose(BNStats(network(), alpha=0.1).adapt(x), network().eval()(x))
    assert repr(BNStats(network(), alpha=0.1)) == "bn_stats(alpha=0.1)"


def test_a_part_is_between_none_and_all():
    with pytest.raises(ArgumentError, match="alpha must be a number between 0 and 1, got 2"):
        BNStats(network(), alpha=2)
