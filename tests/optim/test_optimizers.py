"""Optimisers as values: the update of each by hand, call strings, and what is refused."""

import math

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.core.spec import build, parse
from everlearn.optim.optimizers import OPTIMIZERS, SGD, Adam


def steps(optimizer, slopes, start=1.0):
    """The path of one weight under given slopes."""
    weight = torch.nn.Parameter(torch.tensor([start]))
    torch_optimizer = optimizer.make([weight])
    path = []
    for slope in slopes:
        weight.grad = torch.tensor([slope])
        torch_optimizer.step()
        path.append(weight.item())
    return path


def test_sgd_by_hand():
    assert steps(SGD(lr=0.5), [1.0, -2.0]) == [0.5, 1.5]


def test_momentum_by_hand():
    # v <- 0.5 v + g: 1, 1.5, 1.75; w <- w - 0.1 v
    assert steps(SGD(lr=0.1, momentum=0.5), [1.0, 1.0, 1.0]) == pytest.approx([0.9, 0.75, 0.575], rel=1e-6)


def test_weight_decay_by_hand():
    # sgd: g <- g + 0.2 w. adam decouples it: w <- w - lr * 0.2 * w, whatever the slope.
    assert steps(SGD(lr=0.5, weight_decay=0.2), [1.0]) == pytest.approx([1 - 0.5 * 1.2], rel=1e-6)
    assert steps(Adam(lr=0.5, weight_decay=0.2), [0.0]) == pytest.approx([0.9], rel=1e-6)


def test_adam_by_hand():
    # Bias-corrected moments of slopes 1 and 3: step 1 is lr * 1 / 1; step 2 has m = (0.09 + 0.3) / 0.19, v = (0.000999 + 0.009) / 0.001999.
    first = 1 - 0.1 / (1 + 1e-8)
    second = first - 0.1 * (0.39 / 0.19) / (math.sqrt(0.009999 / 0.001999) + 1e-8)
    assert steps(Adam(lr=0.1), [1.0, 3.0]) == pytest.approx([first, second], rel=1e-5)


@pytest.mark.parametrize(
    "value", [SGD(), SGD(lr=0.3, momentum=0.9), SGD(clip=10.0), Adam(), Adam(lr=0.1, clip=1.0)], ids=repr
)
def test_call_strings_are_read_back(value):
    assert build(parse(repr(value)), OPTIMIZERS) == value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(lr=-0.1), r"sgd: lr must be a number >= 0, got -0\.1"),
        (lambda: SGD(lr=float("nan")), "sgd: lr must be"),
        (lambda: SGD(momentum=1.5), "sgd: momentum must be a number between 0 and 1, got 1.5"),
        (lambda: SGD(weight_decay=-1), "sgd: weight_decay must be"),
        (lambda: Adam(lr="fast"), "adam: lr must be a number >= 0, got 'fast'"),
        (lambda: Adam(weight_decay=-1), "adam: weight_decay must be"),
        (lambda: SGD(clip=-1.0), r"sgd: clip must be a number >= 0, got -1\.0"),
        (lambda: Adam(clip=0), r"adam: clip=0 leaves no step at all\. Use clip=None"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1, momentum=0.9), Adam()], ids=repr)
def test_a_weight_may_get_its_first_gradient_late(optimizer):
    """It then moves as it would have moved from the start, and one without a gradient stays where it is."""
    early, late, alone = (torch.nn.Parameter(torch.tensor([1.0])) for _ in range(3))
    both, single = optimizer.make([early, late]), optimizer.make([alone])
    early.grad = torch.tensor([2.0])
    both.step()
    assert late.item() == 1.0
    for slope in (0.5, -3.0):
        late.grad, alone.grad = torch.tensor([slope]), torch.tensor([slope])
        both.step()
        single.step()
    assert late.item() == alone.item() != 1.0
