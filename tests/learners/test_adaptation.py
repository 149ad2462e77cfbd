"""What all learners share that adapt without labels: training first, deployment, what changes and what does not."""

import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from everlearn import EATA, NOTE, SAR, Adapter, Batch, BNStats, Boundary, CoTTA, FineTune, Rollback, Tent
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.random import isolated
from everlearn.core.state import capture, same
from everlearn.learners.adaptation import Adaptation, by_statistics, length, norm_weights, of_vectors, rows_of_scores, taught
from everlearn.nn.batch_statistics import batch_norms, by_batch
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD

STEPPING = (Tent, EATA, SAR, NOTE, CoTTA)
ALL = (BNStats, *STEPPING, Rollback)
SHORT = {
    CoTTA: {"augmentations": 2},
    NOTE: {"capacity": 16, "lr": 0.01},
    SAR: {"lr": 0.1, "reset_below": 0.0},
    EATA: {"redundancy": None},
}


def convolutions(seed=0, maps=False):
    """Two convolutions with batch norm, and scores of four classes, by row or by pixel."""
    with isolated(seed):
        body = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()]
        body += [nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
        head = [nn.Conv2d(8, 4, 1)] if maps else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
        model = nn.Sequential(*body, *head)
    with torch.no_grad():  # answers that are sure, so that filters let some through
        head[-1].weight.mul_(40.0)
    return model


def pictures(number, count=16):
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(number))


def made(cls, model=None, **arguments):
    return cls(model or convolutions(), **{**SHORT.get(cls, {}), **arguments})


@pytest.mark.parametrize("cls", ALL)
def test_with_labels_it_is_fine_tuning_to_the_bit(cls):
    learner, plain = made(cls), FineTune(convolutions())
    for number in range(3):
        batch = Batch(pictures(number), torch.arange(16) % 4)
        assert same(capture(learner.update(batch)), capture(plain.update(batch)))
    assert torch.equal(learner.predict(pictures(9)), plain.predict(pictures(9)))


@pytest.mark.parametrize("cls", ALL)
def test_answers_are_those_of_before_the_step_and_labels_no_longer_teach(cls):
    learner = made(cls)
    learner.update(Batch(pictures(0), torch.arange(16) % 4))
    learner.adapt(pictures(1))
    before = capture(learner)
    for number in range(2, 6):
        told = learner.predict(pictures(number))
        assert torch.equal(learner.adapt(pictures(number)), told)
    assert not told.requires_grad
    assert cls is BNStats or not torch.equal(learner.predict(pictures(5)), told)
    after = capture(learner)
    assert same(before, after) == (cls is BNStats)
    assert learner.update(Batch(pictures(7), torch.arange(16) % 4)) == {} and same(after, capture(learner))


@pytest.mark.parametrize("cls", STEPPING)
def test_only_what_adapts_changes_and_reset_brings_it_back(cls):
    learner = made(cls, reset_at_boundaries=True)
    learner.update(Batch(pictures(0), torch.arange(16) % 4))
    model = learner.adaptation.model
    before = capture(model)
    for number in range(1, 5):
        learner.adapt(pictures(number))
    changed = {name for name, value in capture(model).items() if not torch.equal(value, before[name])}
    norms = {"1.weight", "1.bias", "4.weight", "4.bias"}
    statistics = {f"{layer}.{held}" for layer in (1, 4) for held in ("running_mean", "running_var")}
    wanted = {Tent: norms, EATA: norms, SAR: {"1.weight", "1.bias"}, NOTE: norms | statistics}
    assert changed == wanted.get(cls, norms | {f"{layer}.{held}" for layer in (0, 3, 8) for held in ("weight", "bias")})
    asking = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert asking == changed - statistics
    learner.boundary(Boundary(1))
    assert same(before, capture(model))
    again = made(cls)
    again.load_state_dict(learner.state_dict())
    assert torch.equal(again.adapt(pictures(9)), learner.adapt(pictures(9)))
    fresh = made(cls)
    learner.load_state_dict(fresh.state_dict())  # back to the time with labels, in which everything learns
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("cls", ALL)
def test_maps_of_scores_are_answers_by_pixel(cls):
    learner = made(cls, convolutions(maps=True))
    if cls is NOTE:
        with pytest.raises(InputError, match="one answer a row"):
            learner.adapt(pictures(0))
        return
    scores = [learner.adapt(pictures(number)) for number in range(3)]
    assert scores[-1].shape == (16, 4, 6, 6) and torch.isfinite(scores[-1]).all()
    if cls is Tent:
        rows = rows_of_scores(scores[0])
        assert torch.equal(rows[37], scores[0][1, :, 0, 1])


@pytest.mark.parametrize("cls", ALL)
def test_one_row_alone_and_bad_rows(cls):
    learner = made(cls)
    learner.adapt(pictures(0))
    before = capture(learner)
    with pytest.raises(InputError, match="nan"):
        learner.adapt(torch.full((4, 3, 6, 6), math.nan))
    assert same(before, capture(learner))
    row = pictures(1, 1)
    scores = learner.adapt(row)
    if cls is NOTE:
        assert learner.memory.stored == 17 - 1 and learner.waiting == 1
        return
    network = learner.learner.adaptation if cls is Rollback else learner.adaptation
    assert torch.equal(scores, network.source.predict(row))
    assert same(before["adaptation"], capture(network)) if cls is not Rollback else True


def test_what_is_not_finite_changes_nothing():
    """A network whose scores are infinite for some rows that are themselves finite."""
    for cls in (Tent, EATA, SAR, CoTTA, NOTE):
        learner = made(cls)
        learner.adapt(pictures(0))
        weights = capture(learner.adaptation.model)
        with torch.no_grad():
            learner.adaptation.model[8].weight.mul_(1e38)
        broken = capture(learner.adaptation.model)
        for number in range(2):
            metrics = learner.update(Batch(1e5 * pictures(number)))
        assert metrics["learned_from"] == 0.0, cls
        assert same(broken, capture(learner.adaptation.model)) and not same(weights, broken)


def test_a_network_without_norms_is_refused_and_one_of_layer_norms_is_not():
    bare = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    for cls in (Tent, EATA, SAR, NOTE):
        with pytest.raises(ArgumentError, match="no norm layer"):
            cls(bare)
    with pytest.raises(ArgumentError, match="no batch norm"):
        BNStats(bare)
    assert isinstance(CoTTA(bare), Adapter)
    layered = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 3))
    for cls in (Tent, SAR):
        learner = cls(layered, entropy_margin=1.0, lr=0.1)
        assert not torch.equal(learner.adapt(torch.ones(1, 4)), learner.predict(torch.ones(1, 4)))  # a row is enough
    with pytest.raises(ArgumentError, match="trains a torch"):
        Tent("resnet18")
    with pytest.raises(ArgumentError, match="method must be one of"):
        Tent(convolutions(), method="lbfgs")
    assert [weight.shape[0] for weight in norm_weights("x", convolutions(), ("1",))] == [8, 8]


def test_the_time_with_labels_ends_at_the_first_rows_without():
    model = convolutions()
    weights = [weight for layer in batch_norms(model) for weight in layer.parameters()]
    begun = []
    adaptation = Adaptation(
        "x", model, SGD(), 0, weights, 0.5, "sgd", begin=lambda: begun.append(1), again=lambda: begun.append(2)
    )
    x = pictures(0)
    adaptation.boundary(Boundary(0))
    adaptation.reset()  # which is nothing before deployment
    adaptation.adapt(x)
    adaptation.adapt(x)
    assert adaptation.deployed and begun == [1]
    assert adaptation.step(weights[0].sum() * 2.0) and adaptation.steps == 1
    torch.testing.assert_close(adaptation.origin[0] - weights[0].detach(), torch.full((6,), 0.5 * 2.0))
    assert not adaptation.step(weights[0].sum() * math.inf) and adaptation.steps == 1
    assert not adaptation.step(weights[0].sum() + math.inf) and adaptation.steps == 1  # whose slope is 1
    steep = (weights[0] - weights[0].detach()).sqrt().sum()  # 0, with a slope without end
    assert steep.item() == 0.0 and not adaptation.step(steep) and adaptation.steps == 1
    assert length([torch.full((4,), 2.0), torch.full((3, 3), 1.0)]).item() == 5.0
    adaptation.boundary(Boundary(1))
    assert begun == [1] and not torch.equal(weights[0], adaptation.origin[0])
    adaptation.reset()
    assert torch.equal(weights[0], adaptation.origin[0]) and begun == [1, 2]
    adaptation.step(weights[0].sum() * 2.0)  # without the momentum of the steps before
    torch.testing.assert_close(adaptation.origin[0] - weights[0].detach(), torch.full((6,), 0.5 * 2.0))


def test_answers_follow_the_rule_of_the_statistics_and_teach_nothing_where_nothing_is_told_to():
    """Without `learn` the answers are those of batch norm by the rule: here half of running and batch statistics."""
    layer = nn.BatchNorm1d(2)  # running mean 0, variance 1
    adaptation = Adaptation("x", nn.Sequential(layer, nn.Linear(2, 3)), SGD(), 0, rule=by_batch(0.5))
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])  # means 2 and 4, biased variances 1 and 4
    assert torch.equal(adaptation.predict(x), adaptation.source.predict(x))  # not yet deployed
    before = capture(adaptation.model)
    scores = adaptation.adapt(x)
    middle = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5])
    wanted = adaptation.model[1]((x - middle[0]) / (middle[1] + layer.eps).sqrt())
    torch.testing.assert_close(scores, wanted.detach())
    assert torch.equal(adaptation.predict(x), scores) and not scores.requires_grad
    assert torch.equal(adaptation.by_statistics(x), scores) and adaptation.update(Batch(x)) == {}
    assert same(before, capture(adaptation.model)) and adaptation.steps == 0
    assert not torch.equal(adaptation.scores(x, by_batch()), adaptation.scores(x))
    assert torch.equal(by_statistics(adaptation.model, x), adaptation.scores(x, by_batch()))


def test_training_with_labels_passes_over_one_vector_and_not_over_one_image():
    flat, round_ = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), convolutions()
    assert of_vectors(flat) and not of_vectors(round_)
    for model, x, steps in ((flat, torch.zeros(1, 2), 0), (round_, pictures(0, 1), 1)):
        source = Descent(model, SGD())
        assert bool(taught(source, Batch(x, torch.tensor([2])), of_vectors(model))) == bool(steps)
        assert source.steps == steps


def test_a_copy_of_a_learner_learns_by_itself():
    """What the shared part calls are methods, so that a copy of the learner does not teach the first one."""
    for cls in STEPPING:
        learner = made(cls)
        learner.adapt(pictures(0))
        copied = deepcopy(learner)
        before = capture(learner)
        for number in range(1, 4):
            copied.adapt(pictures(number))
        copied.reset()
        assert same(before, capture(learner)) and not same(before, capture(copied)), cls
