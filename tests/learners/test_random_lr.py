"""The learner whose rate walks at random: fine-tuning at the rates of its rule."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.core.state import same
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.random_lr import RandomRate
from everlearn.optim.optimizers import SGD
from everlearn.optim.rate_rules import RandomLR


def test_without_tosses_it_is_fine_tuning_to_the_bit(network, batches, fold, weights):
    learner, plain = RandomRate(network(), probability=0.0), FineTune(network(), optimizer=SGD(lr=0.0058))
    fold(learner, batches(12))
    fold(plain, batches(12))
    assert same(weights(learner), weights(plain))


def test_its_rate_is_that_of_the_rule(network, batches):
    model = network()
    rule = RandomLR(torch.optim.SGD(model.parameters(), lr=0.0058), seed=4)
    learner = RandomRate(network(), seed=4)
    rates = [(rule.step(model, batch.x, batch.y).lr, learner.update(batch)["lr"]) for batch in batches(20)]
    assert [one for one, _ in rates] == [other for _, other in rates] and len(set(rates)) == 3


def test_wrong_arguments_are_refused(network):
    for options in ({"effect": (1,)}, {"probability": 2.0}, {"min_lr": 1.0, "max_lr": 0.5}):
        with pytest.raises(ArgumentError, match="random_lr: "):
            RandomRate(network(), **options)
