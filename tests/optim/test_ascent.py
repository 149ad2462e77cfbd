"""Moves uphill: numbers by hand, sharpness-aware steps, what stays untouched, and a training loop of one's own."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, InputError
from everlearn.optim.ascent import Ascent, relative
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Adam

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(8) % 3


class Point(nn.Module):
    """Weights alone."""

    def __init__(self, *numbers):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(numbers, dtype=torch.float64))


def network(dropout=0.0, norm=False):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3)
    )


def weights(model):
    return torch.cat([weight.detach().reshape(-1) for weight in model.parameters()])


def quadratic(point):
    return lambda: 0.5 * (torch.tensor([4.0, 1.0], dtype=torch.float64) * point.weight.square()).sum()


# ---- numbers by hand -------------------------------------------------------------------------------------------------------


def test_a_quadratic_bowl_worked_out_by_hand():
    """H = diag(4, 1), w = (1, 1), 1/F = diag(.5, 1), rate .05, lr .1: up to (1.1, 1.05), down to (.66, .945)."""
    point = Point(1.0, 1.0)
    descent = Descent(point, SGD(lr=0.1))
    ascent = Ascent(point, rate=0.05, scale="gradient", damping=0.0)
    ascent.precondition(torch.tensor([2.0, 1.0], dtype=torch.float64))
    descent.start_uphill(ascent)
    loss, gradients = descent.gradients(quadratic(point))
    assert point.weight.tolist() == pytest.approx([1.1, 1.05], rel=1e-12)
    assert loss.item() == pytest.approx(0.5 * (4 * 1.1**2 + 1.05**2), rel=1e-12)
    assert ascent.before.item() == 2.5
    descent.follow(gradients)
    assert point.weight.tolist() == pytest.approx([0.66, 0.945], rel=1e-12)
    # to second order, here exactly: w - (lr - rate / F) g - lr rate H g / F
    assert point.weight.tolist() == pytest.approx([1 - 0.3 - 0.04, 1 - 0.05 - 0.005], rel=1e-12)


@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_a_relative_move_has_the_length_of_a_share_of_the_weights(size):
    point = Point(3.0, 4.0)
    Ascent(point, rate=1e-5).move([size * torch.tensor([0.0, 2.0], dtype=torch.float64)])
    assert point.weight.tolist() == pytest.approx([3.0, 4.00005], rel=1e-12)


def test_relative_moves_are_divided_by_one_plus_the_damped_fisher():
    point = Point(3.0, 4.0)
    ascent = Ascent(point, rate=0.1)
    ascent.precondition(torch.tensor([0.0, 1000.0], dtype=torch.float64))
    ascent.move([torch.tensor([0.0, 2.0], dtype=torch.float64)])
    assert point.weight.tolist() == pytest.approx([3.0, 4.25])  # 4 + 0.1 * 5 / (1 + 0.001 * 1000)


def test_weights_without_a_slope_and_weights_of_zero_stay():
    zero = torch.zeros(2)
    assert not any(move.any() for move in relative([torch.ones(2), zero], [zero, torch.ones(2)]))
    point = Point(3.0, 4.0)
    Ascent(point, rate=1.0, noise=5.0).move([None])  # plays no part: not even noise moves it
    assert point.weight.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("fisher, scale", [(0.0, 1.0), (3.0, 0.5)])
def test_noise_has_the_spread_of_a_langevin_step(fisher, scale):
    """noise * sqrt(2 rate / (F + 1)): the spread of 40,000 draws is within 4 / sqrt(80,000) = 1.5 % of it."""
    point = Point(*[0.0] * 40_000)
    ascent = Ascent(point, rate=0.02, scale="gradient", noise=0.5)
    ascent.precondition(torch.full((40_000,), fisher, dtype=torch.float64))
    ascent.move([torch.zeros(40_000, dtype=torch.float64)], 0)
    assert point.weight.std().item() == pytest.approx(scale * 0.5 * math.sqrt(0.04), rel=0.015)
    first = point.weight.detach().clone()
    for place, same in ((0, True), (1, False)):
        point.weight.data.zero_()
        ascent.move([torch.zeros(40_000, dtype=torch.float64)], place)
        assert torch.equal(point.weight, first) is same


def test_more_steps_climb_on():
    point = Point(1.0, 1.0)
    descent = Descent(point, SGD(lr=0.1))
    descent.start_uphill(Ascent(point, rate=0.05, steps=2, scale="gradient"))
    descent.gradients(quadratic(point))
    assert point.weight.tolist() == pytest.approx([1.2**2, 1.05**2])


# ---- sharpness-aware -------------------------------------------------------------------------------------------------------


def test_with_a_return_it_is_a_sharpness_aware_step():
    """rho = rate * |g|: e = rho g / |g|, w <- w - lr g(w + e)."""
    model, twin = network().double(), network().double()
    x = X.double()
    descent = Descent(model, SGD(lr=0.3))
    descent.start_uphill(Ascent(model, rate=0.2, scale="gradient", return_to_start=True))
    descent(lambda: cross_entropy(model(x), Y))
    slopes = torch.autograd.grad(cross_entropy(twin(x), Y), list(twin.parameters()))
    norm = torch.cat([slope.reshape(-1) for slope in slopes]).norm()
    rho = 0.2 * norm
    start = [weight.detach().clone() for weight in twin.parameters()]
    with torch.no_grad():
        for weight, slope in zip(twin.parameters(), slopes, strict=True):
            weight += rho * slope / norm
    slopes = torch.autograd.grad(cross_entropy(twin(x), Y), list(twin.parameters()))
    expected = torch.cat([(at - 0.3 * slope).reshape(-1) for at, slope in zip(start, slopes, strict=True)])
    torch.testing.assert_close(weights(model), expected, rtol=1e-12, atol=1e-14)


def test_the_weights_are_back_to_the_bit_before_the_step_is_taken():
    model = network()
    before = weights(model)
    descent = Descent(model, SGD(lr=0.1))
    descent.start_uphill(Ascent(model, rate=0.5, return_to_start=True))
    _, uphill = descent.gradients(lambda: cross_entropy(model(X), Y))
    assert torch.equal(weights(model), before)
    _, plain = Descent(model, SGD(lr=0.1)).gradients(lambda: cross_entropy(model(X), Y))
    assert not torch.allclose(uphill[0], plain[0])  # the slopes are those of the point uphill


# ---- what stays untouched --------------------------------------------------------------------------------------------------


def test_batch_statistics_count_each_batch_once():
    model, plain = network(norm=True), network(norm=True)
    for each, ascent in ((model, Ascent(model, rate=0.0001, steps=3, return_to_start=True)), (plain, None)):
        descent = Descent(each, SGD(lr=0.0))
        if ascent is not None:
            descent.start_uphill(ascent)
        descent(lambda each=each: cross_entropy(each(X), Y))
    assert int(model[1].num_batches_tracked) == int(plain[1].num_batches_tracked) == 1
    torch.testing.assert_close(model[1].running_mean, plain[1].running_mean, rtol=1e-2, atol=1e-4)
    assert model[1].track_running_stats


def test_dropout_is_the_same_uphill_and_down():
    """Each evaluation of one step leaves out the same units."""
    model, seen = network(dropout=0.5), []
    model[3].register_forward_hook(lambda layer, given, out: seen.append(out == 0))
    descent = Descent(model, SGD(lr=0.1))
    descent.start_uphill(Ascent(model, rate=0.01))
    for _ in range(2):
        descent(lambda: cross_entropy(model(X), Y))
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[2], seen[3]) and not torch.equal(seen[0], seen[2])


# ---- a loop of one's own ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9), lambda w: torch.optim.Adam(w, lr=0.01)]
)
def test_without_a_rate_a_loop_is_what_it_was_to_the_bit(make):
    model, plain = network(dropout=0.5), network(dropout=0.5)
    ours, theirs = make(model.parameters()), make(plain.parameters())
    ascent = Ascent(model, rate=0.0, noise=1.0)
    for number in range(5):
        torch.manual_seed(number)
        ascent.step(ours, lambda: cross_entropy(model(X), Y))
        torch.manual_seed(number)
        theirs.zero_grad()
        cross_entropy(plain(X), Y).backward()
        theirs.step()
    assert torch.equal(weights(model), weights(plain))


def test_a_loop_takes_the_steps_that_a_descent_takes():
    model, other = network(), network()
    optimizer, ascent = torch.optim.SGD(model.parameters(), lr=0.1), Ascent(model, rate=0.01, noise=0.1, seed=4)
    descent = Descent(other, SGD(lr=0.1))
    descent.start_uphill(Ascent(other, rate=0.01, noise=0.1, seed=4))
    for _ in range(5):
        mine = ascent.step(optimizer, lambda: cross_entropy(model(X), Y))
        assert torch.equal(mine, descent(lambda: cross_entropy(other(X), Y)))
    torch.testing.assert_close(weights(model), weights(other))
    assert descent.ascent is not None and Descent(other, Adam()).ascent is None


# ---- refusals --------------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_the_step():
    model = network()
    descent = Descent(model, SGD(lr=0.1))
    descent.start_uphill(Ascent(model, rate=0.01, owner="refresh(fine_tune)"))
    descent(lambda: cross_entropy(model(X), Y))
    before = weights(model)
    with pytest.raises(InputError, match=r"refresh\(fine_tune\): the loss is nan at step 2, before the weights were moved"):
        descent(lambda: model(X).sum() * math.nan)
    assert torch.equal(weights(model), before)
    with pytest.raises(InputError, match=r"at step 2, after the weights were moved uphill by rate=1e\+30"):
        descent.start_uphill(Ascent(model, rate=1e30, scale="gradient"))
        descent(lambda: model(X).square().sum())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rate": -1.0}, "rate must be a number >= 0, got -1.0"),
        ({"rate": math.nan}, "rate must be a number >= 0"),
        ({"rate": 0.1, "steps": 0}, "steps must be an int >= 1"),
        ({"rate": 0.1, "noise": -1}, "noise must be a number >= 0"),
        ({"rate": 0.1, "scale": "weights"}, "scale must be one of 'weight_norm', 'gradient', got 'weights'"),
        ({"rate": 0.1, "damping": 0.0}, "damping must be above 0"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        Ascent(network(), **options)


def test_a_division_by_zero_is_refused():
    point = Point(1.0, 1.0)
    with pytest.raises(ArgumentError, match="damping=0 leaves a division by zero"):
        Ascent(point, rate=0.1, scale="gradient", damping=0.0).precondition(torch.tensor([0.0, 1.0]))
