"""EcoTTA beside slow twins: the joint step, its gradients, its limits, its switches, its phases, and what it keeps."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from everlearn import Batch, Boundary, Budget, EcoTTA, FineTune
from everlearn.core.errors import InputError
from everlearn.core.random import isolated
from everlearn.core.state import capture, same
from everlearn.nn.entropy import entropies, sure_below
from everlearn.nn.meta_network import Adapted
from everlearn.nn.partition import partition
from everlearn.optim.optimizers import SGD

from .ecotta_networks import CLASSES, batch, learned, network, weights


def ready(dtype=torch.float64, epochs=2, depth=10, **options):
    """A warmed-up learner whose every answer counts as sure."""
    learner = EcoTTA(network(depth, dtype), entropy_margin=1.0, views=None, **options)
    learner.warm_up(batch(count=24, dtype=dtype), epochs=epochs)
    return learner


# ---- the step ----------------------------------------------------------------------------------------------------------------


def test_a_joint_step_is_what_plain_autograd_says():
    """The slow twin: the entropy by one pass, each R_k by a pass of its own whose input and target are cut off."""
    learner = ready(gradient="exact", strength=0.7, lr=0.05)
    twin = copy.deepcopy(learner.adapted)
    x = batch(5, dtype=torch.float64).x
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    for _ in range(2):  # the second step has momentum
        optimizer.zero_grad()
        entropies(twin(x)[0]).mean().backward()
        z = twin.pieces.stem.train()(x)
        for part, meta in zip(twin.pieces.parts, twin.metas, strict=True):
            z = z.detach()
            o = part.train()(z)
            z = meta(z, o.detach())
            (0.7 * (z - o.detach()).abs().mean()).backward()
        optimizer.step()
        learner.source.model.eval()
        learner.adapt(x)
    for found, wanted in zip(learner.adapted.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(found, wanted, atol=1e-10)


def test_two_passes_are_a_local_step_and_a_step_of_the_entropy():
    learner = ready(gradient="exact", strength=0.7, lr=0.05, order="two_pass")
    twin = copy.deepcopy(learner.adapted)
    x = batch(5, dtype=torch.float64).x
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    sum(0.7 * value for value in twin.apart(x)).backward()
    optimizer.step()
    optimizer.zero_grad()
    between = twin(x)[0]
    entropies(between).mean().backward()
    optimizer.step()
    assert torch.allclose(learner.adapt(x), between, atol=1e-10)
    for found, wanted in zip(learner.adapted.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(found, wanted, atol=1e-10)


def test_lean_is_exact_with_constant_statistics():
    """Check 5, on all weights of the meta networks, in double precision."""

    class Constant(nn.Module):
        def __init__(self, norm):
            super().__init__()
            self.norm = norm

        def forward(self, x):
            mean = x.mean((0, 2, 3), keepdim=True).detach()
            variance = x.var((0, 2, 3), unbiased=False, keepdim=True).detach()
            shape = (1, -1, 1, 1)
            return (x - mean) / (variance + self.norm.eps).sqrt() * self.norm.weight.view(shape) + self.norm.bias.view(shape)

    lean, twin = ready(depth=16), ready(depth=16)

    def constant(module):
        for name, child in module.named_children():
            setattr(module, name, Constant(child) if isinstance(child, nn.BatchNorm2d) else constant(child))
        return module

    held = twin.adapted
    pieces = held.pieces
    held._pieces[0] = type(pieces)(
        *(constant(copy.deepcopy(pieces.stem)), tuple(map(constant, copy.deepcopy(pieces.parts)))),
        constant(copy.deepcopy(pieces.head)),
        pieces.sizes,
    )
    x = batch(5, dtype=torch.float64).x
    slopes = []
    for found, gradient in ((lean.adapted, "lean"), (held, "exact"), (lean.adapted, "exact")):
        slopes.append(torch.autograd.grad(entropies(found(x, gradient)[0]).mean(), list(found.parameters())))
    assert max((a - b).abs().max() for a, b in zip(slopes[0], slopes[1], strict=True)) < 1e-8
    assert max((a - b).abs().max() for a, b in zip(slopes[0], slopes[2], strict=True)) > 1e-4  # the control


def test_lean_is_plain_autograd_where_no_part_has_batch_norm():
    with isolated(0):
        plain = (
            nn.Sequential(
                *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
                *(nn.Conv2d(4, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 2), nn.LeakyReLU(), nn.Conv2d(4, 4, 1), nn.ELU()),
                *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)),
            )
            .double()
            .eval()
        )
        found = Adapted("me", partition("me", plain))
    x = batch(5, dtype=torch.float64).x
    lean, exact = (
        torch.autograd.grad(entropies(found(x, mode)[0]).mean(), list(found.parameters())) for mode in ("lean", "exact")
    )
    assert max((a - b).abs().max() for a, b in zip(lean, exact, strict=True)) < 1e-8


@pytest.mark.parametrize("batch_stats", [True, False])
def test_answers_are_those_of_before_the_step(batch_stats):
    learner, other = ready(lr=0.05, batch_stats=batch_stats), ready(lr=0.05, batch_stats=not batch_stats)
    x = batch(5, dtype=torch.float64).x
    before = learner.predict(x)
    assert torch.equal(learner.adapt(x), before) and not torch.equal(learner.predict(x), before)
    assert not torch.equal(other.predict(x), before)


def test_only_sure_answers_are_learned_from():
    """By hand: the entropy's gradient over the sure rows alone, and the share of them in the metrics."""
    learner = ready(strength=0.0, lr=0.05, momentum=0.0)
    x = torch.cat([batch(5, dtype=torch.float64).x, torch.rand(6, 1, 8, 8, dtype=torch.float64)])
    scores = learner.adapted(x)[0]
    told = entropies(scores).detach()
    learner.entropy_margin = float((told.min() + told.max()) / 2) / sure_below(CLASSES, 1.0)
    kept = told < sure_below(CLASSES, learner.entropy_margin)
    assert 0 < int(kept.sum()) < len(x)
    wanted = torch.autograd.grad(entropies(learner.adapted(x, "lean")[0])[kept].mean(), list(learner.adapted.parameters()))
    before = weights(learner)
    metrics = learner.update(Batch(x))
    assert metrics["learned_from"] == pytest.approx(int(kept.sum()) / len(x))
    for old, new, slope in zip(before, weights(learner), wanted, strict=True):
        assert torch.allclose(new, old - 0.05 * slope, atol=1e-12)


@pytest.mark.parametrize("order", ["joint", "two_pass"])
def test_where_no_answer_is_sure_no_entropy_is_followed(order):
    learner = ready(order=order, strength=0.0)
    learner.entropy_margin = 0.0
    learner.adapt(batch(4, dtype=torch.float64).x)
    before = capture(learner)
    metrics = learner.update(batch(5, dtype=torch.float64, labelled=False))
    assert metrics == {"learned_from": 0} and same(before, capture(learner))


# ---- limits ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", ["lean", "exact", "cut"])
def test_a_rate_of_zero_leaves_the_warmed_up_network_to_the_bit(gradient):
    still, moving = ready(lr=0.0, gradient=gradient, dtype=torch.float32), ready(lr=0.0, dtype=torch.float32)
    probe = batch(9).x
    start = still.predict(probe)
    for number in range(3):
        still.adapt(batch(number).x)
    assert torch.equal(still.predict(probe), start) and torch.equal(moving.predict(probe), start)
    assert torch.equal(still.adapted(probe, gradient)[0], start)


def test_a_great_strength_holds_to_what_the_frozen_parts_say():
    """With the rate scaled down as the strength is scaled up, the distance falls from that of the warm-up; without it, it grows."""
    x = batch(5, noise=0.5, dtype=torch.float64).x

    def distances(learner):
        return sum(value.item() for value in learner.adapted.apart(x))

    held, free = ready(strength=1e6, lr=0.05e-6), ready(strength=0.0, lr=0.05)
    start = distances(held)
    for _ in range(10):
        held.adapt(x)
        free.adapt(x)
    assert distances(held) < start < distances(free)


def test_nothing_of_the_network_changes_in_a_hundred_updates():
    """Check 6: weights, running statistics and counters of the network, and no gradient ever reaches them."""
    learner = ready(dtype=torch.float32)
    model = learner.source.model
    before, metas = capture(model), weights(learner)
    for number in range(100):
        learner.adapt(batch(number, noise=0.5).x)
    assert same(before, capture(model)) and all(weight.grad is None for weight in model.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(metas, weights(learner), strict=True))
    assert not any(weight.requires_grad for weight in model.parameters())


# ---- phases ------------------------------------------------------------------------------------------------------------------


def test_as_long_as_there_are_labels_it_is_fine_tuning_to_the_bit():
    ours, plain = EcoTTA(network()), FineTune(network())
    for number in range(4):
        assert same(capture(ours.update(batch(number))), capture(plain.update(batch(number))))
    assert same(capture(ours.source), capture(plain.descent)) and torch.equal(
        ours.predict(batch(9).x), plain.predict(batch(9).x)
    )
    assert not ours.deployed and ours.memory.stored == 48


def test_the_first_rows_without_labels_deploy_it():
    learner = learned(EcoTTA(network()))
    model, metas = capture(learner.source.model), weights(learner)
    learner.update(batch(7, labelled=False))
    assert learner.deployed and learner.warmed and learner.memory.stored == 0 and learner.memory.nbytes == 0
    assert same(model, capture(learner.source.model)) and not torch.equal(metas[0], weights(learner)[0])
    state = capture(learner)
    assert learner.update(batch(8)) == {} and same(state, capture(learner))  # labels are not learned from any more


def test_by_a_warm_up_the_rows_kept_are_learned():
    scores = {}
    for epochs in (0, 10):
        learner = learned(EcoTTA(network(), warm_up_epochs=epochs), labelled=8)
        scores[epochs] = functional.cross_entropy(learner.adapt(batch(50).x), batch(50).y).item()
    assert scores[10] < 0.5 * scores[0]


def test_a_ready_network_that_was_not_warmed_up_answers_by_batch_statistics_and_says_so_once():
    learner = EcoTTA(network())
    x = batch(3).x
    with pytest.warns(UserWarning, match="Call warm_up"):
        answers = learner.adapt(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = learner.adapt(x)
    plain = network().train()
    assert (
        torch.equal(answers, again)
        and torch.allclose(answers, plain(x), atol=1e-6)
        and torch.equal(learner.predict(x), answers)
    )
    learner.warm_up(batch())
    assert not torch.equal(learner.adapt(x), answers)


def test_a_budget_of_no_rows_leaves_nothing_to_warm_up_on():
    learner = EcoTTA(network())
    Budget(replay=0).limit(learner)
    learner.update(batch())
    with pytest.warns(UserWarning, match="no source rows"):
        learner.update(batch(labelled=False))


def test_one_row_is_answered_by_the_source_network():
    learner = ready(dtype=torch.float32)
    x, state = batch(4, count=1).x, capture(learner)
    expected = learner.source.model.eval()(x).detach()
    assert torch.equal(learner.adapt(x), expected) and torch.equal(learner.predict(x), expected)
    assert same(state["adapted"], capture(learner)["adapted"])


def test_what_is_not_finite_changes_nothing():
    learner = learned(EcoTTA(network()), adapted=2)
    before = capture(learner)
    wrong = batch(labelled=False).x
    wrong[3, 0, 2, 2] = float("nan")
    for call in (lambda: learner.adapt(wrong), lambda: learner.update(Batch(wrong))):
        with pytest.raises(InputError, match="nan at \\(3, 0, 2, 2\\)"):
            call()
    assert same(before, capture(learner))
    huge = batch(labelled=False).x * 1e30  # finite, and its variance is not
    assert learner.update(Batch(huge))["learned_from"] == 0 and same(before["adapted"], capture(learner)["adapted"])
    beyond = ready(torch.float32, strength=1e39)  # past the largest float, so that the sum is infinite
    before = capture(beyond)
    told = beyond.update(batch(1, labelled=False))
    assert told["learned_from"] == 0 and told["not_finite"] == 1 and same(before["adapted"], capture(beyond)["adapted"])


def test_reset_and_known_changes():
    learner = learned(EcoTTA(network(), lr=0.05, entropy_margin=1.0))
    learner.update(batch(1, labelled=False))
    learner.reset()
    start, probe = capture(learner), batch(60).x
    scores = learner.predict(probe)
    for number in range(3):
        learner.update(batch(number, labelled=False))
    moved = learner.predict(probe)
    learner.boundary(Boundary(1))
    assert torch.equal(learner.predict(probe), moved) and not torch.equal(moved, scores)
    learner.reset()
    assert torch.equal(learner.predict(probe), scores)
    assert same(start["optimizer_of_metas"], capture(learner)["optimizer_of_metas"])
    again = learned(EcoTTA(network(), lr=0.05, entropy_margin=1.0, reset_at_boundaries=True), adapted=3)
    assert not same(again.origin, capture(again.adapted))
    again.boundary(Boundary(1))
    assert same(again.origin, capture(again.adapted))


# ---- switches ----------------------------------------------------------------------------------------------------------------


SWITCHES = {
    "partitions": {"partitions": 2},
    "named blocks": {"blocks": ["3", "4"]},
    "strength": {"strength": 0.0},
    "entropy_margin": {"entropy_margin": 0.999},
    "lr": {"lr": 0.05},
    "momentum": {"momentum": 0.0},
    "exact": {"gradient": "exact"},
    "cut": {"gradient": "cut"},
    "order": {"order": "two_pass"},
    "meta": {"meta": "1x1"},
    "batch_stats": {"batch_stats": False},
    "capacity": {"capacity": 20},
    "warm_up_epochs": {"warm_up_epochs": 1},
    "warm_up_lr": {"warm_up_lr": 0.01},
    "warm_up_batch": {"warm_up_batch": 16},
    "warm_up_schedule": {"warm_up_schedule": "cosine"},
    "views": {"views": None},
    "optimizer": {"optimizer": SGD(lr=0.02)},
    "seed": {"seed": 1},
}


def fold(**options):
    learner = learned(EcoTTA(network(), **{"entropy_margin": 0.9, "warm_up_epochs": 3, **options}), adapted=2)
    return learner.predict(batch(77, noise=0.3).x)


@pytest.fixture(scope="module")
def default():
    return fold()


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_changes_what_is_learned(name, default):
    assert not torch.equal(fold(**SWITCHES[name]), default)


def test_the_default_is_the_same_to_the_bit(default):
    assert torch.equal(fold(), default)
