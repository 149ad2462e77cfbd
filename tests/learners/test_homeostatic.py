"""The learner of homeostatic rates: fine-tuning at the rates of its rule, its presets and switches, what it refuses."""

import math

import pytest
import torch

from everlearn.comparison.building import build_learner
from everlearn.core.errors import ArgumentError
from everlearn.core.events import Batch
from everlearn.core.state import same
from everlearn.data.label_swaps import label_swaps
from everlearn.data.load import load
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.homeostatic import Homeostatic
from everlearn.optim.homeostatic import HomeostaticLR
from everlearn.optim.optimizers import SGD, Adam


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05), SGD(lr=0.05, momentum=0.9, clip=1.0), Adam(lr=0.01)])
def test_without_decisions_it_is_fine_tuning_to_the_bit(network, batches, fold, weights, optimizer):
    learner, plain = (
        cls(network(), optimizer=optimizer, **more) for cls, more in ((Homeostatic, {"every": None}), (FineTune, {}))
    )
    fold(learner, batches(20))
    fold(plain, batches(20))
    assert same(weights(learner), weights(plain))
    other = Homeostatic(network(), optimizer=optimizer)
    fold(other, batches(20))
    assert not same(weights(other), weights(plain))


def test_its_rate_is_that_of_the_rule_around_a_torch_optimiser(network, batches):
    model = network()
    rule, learner = HomeostaticLR(torch.optim.SGD(model.parameters(), lr=0.0058)), Homeostatic(network())
    for batch in batches(20):
        event, metrics = rule.step(model, batch.x, batch.y), learner.update(batch)
        assert metrics["lr"] == pytest.approx(event.lr) and metrics["taken"] == event.taken
        assert metrics["loss"] == pytest.approx(float(event.loss), abs=1e-5)
    assert learner.regulation.lr != 0.0058


def test_the_published_rule_is_a_preset_whose_parts_can_be_changed(network):
    rule = Homeostatic(network(), rule="paper", epoch=1000, signal="loss").regulation
    assert (rule.evaluate_on, rule.signal, rule.gradient, rule.max_lr, rule.epoch) == (
        "memory",
        "loss",
        "first_sample",
        math.inf,
        1000,
    )
    paper = HomeostaticLR.paper(torch.optim.SGD(network().parameters(), lr=0.0058))
    rule = Homeostatic(network(), rule="paper").regulation
    for name in ("evaluate_on", "signal", "gradient", "max_lr", "min_lr", "memory", "by", "every"):
        assert getattr(rule, name) == getattr(paper, name)
    plain = Homeostatic(network()).regulation
    assert (plain.evaluate_on, plain.signal, plain.max_lr) == ("next_batch", "loss", 0.5)


def test_unlabelled_batches_teach_nothing_and_boundaries_change_nothing(network, batches, fold):
    learner = Homeostatic(network())
    fold(learner, batches(5))
    before = learner.state_dict()
    assert learner.update(Batch(torch.zeros(3, 5))) == {}
    assert same(before, learner.state_dict())


def test_it_is_built_from_its_call_string():
    stream = label_swaps(load("digits"), swaps=2, epochs=1)
    call = "homeostatic(rule='paper', optimizer=adam(lr=0.002), effect=(1, -1, 1, -1, 1, -1, 1, -1, 1, -1), memory=40)"
    learner = build_learner(call, stream, "elu_mlp", 0)
    assert repr(learner) == call
    assert learner.regulation.memory == 40 and learner.regulation.by == pytest.approx(0.0002)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "best"}, "rule must be one of 'next_batch', 'paper', got 'best'"),
        ({"effect": (1, -1)}, "effect must give"),
        ({"step": 0.0}, "step must be above 0"),
        ({"max_lr": 0.001}, "must lie within"),
        ({"every": 0}, "every must be an int >= 1"),
        ({"signal": "kappa"}, "signal must be one of"),
    ],
)
def test_wrong_arguments_are_refused(network, options, words):
    with pytest.raises(ArgumentError, match=f"homeostatic: .*{words}"):
        Homeostatic(network(), **options)
