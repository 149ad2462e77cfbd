"""The learner whose rate follows its own gradient."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.core.state import same
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.hypergradient import HypergradientRate
from everlearn.optim.optimizers import SGD
from everlearn.optim.rate_rules import HypergradientLR


def test_at_a_rate_of_zero_it_is_fine_tuning_to_the_bit(network, batches, fold, weights):
    learner, plain = HypergradientRate(network(), rate=0.0), FineTune(network(), optimizer=SGD(lr=0.0058))
    fold(learner, batches(12))
    fold(plain, batches(12))
    assert same(weights(learner), weights(plain))


def test_its_rate_is_that_of_the_rule(network, batches):
    model = network()
    rule, learner = HypergradientLR(torch.optim.SGD(model.parameters(), lr=0.0058)), HypergradientRate(network())
    for batch in batches(12):
        assert learner.update(batch)["lr"] == pytest.approx(rule.step(model, batch.x, batch.y).lr, rel=1e-6)
    assert learner.regulation.lr != 0.0058


def test_wrong_arguments_are_refused(network):
    for options in ({"rate": -1.0}, {"min_lr": 0.9}):
        with pytest.raises(ArgumentError, match="hypergradient: "):
            HypergradientRate(network(), **options)
