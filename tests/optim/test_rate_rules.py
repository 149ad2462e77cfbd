"""What homeostatic learning is compared with: the reflected walk, alarms, the hypergradient, and a rate that stays."""

import math

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.random import generator, isolated
from everlearn.core.state import capture, restore, same
from everlearn.optim.rate_rules import ConstantLR, DriftLR, HypergradientLR, RandomLR, cosine


def network(seed=0):
    with isolated(seed, "network"):
        return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))


def sgd(model, lr=0.0058):
    return torch.optim.SGD(model.parameters(), lr=lr)


def batch(label, seed=0, size=3):
    return torch.randn(size, 5, generator=generator(seed, "x")), torch.full((size,), label)


class Told:
    """A detector that alarms where it is told to."""

    parts = ("count",)

    def __init__(self, *alarms):
        self.alarms, self.count, self.heard = alarms, 0, []

    def update(self, error):
        self.heard.append(error)
        self.count += 1
        return self.count in self.alarms


RULES = {
    "constant": ConstantLR,
    "random": RandomLR,
    "drift": lambda optimizer: DriftLR(optimizer, Told(5)),
    "hypergradient": HypergradientLR,
}


def test_ten_inhibitory_steps_reach_the_floor_and_an_excitatory_one_leaves_it():
    """From 10 steps high, ten steps down end at 0 but for rounding, and the next one up at one step: floor 1e-8 and rounding 1e-17."""
    model = network()
    rule = RandomLR(sgd(model), probability=1.0)
    rates = [rule.step(model, *batch(0)).lr for _ in range(10)]
    assert rates == pytest.approx([0.0058 - 0.00058 * count for count in range(1, 11)], abs=2e-8)
    event = rule.step(model, *batch(1))
    assert event.lr == pytest.approx(1e-8) and event.clipped
    assert rule.step(model, *batch(3)).lr == pytest.approx(0.00058, abs=2e-8)


def test_the_walk_changes_half_of_the_time_by_the_first_rows_class():
    """Of 400 tosses 200 are heads, within four deviations of sqrt(400) / 2 = 10."""
    model = network()
    rule, lr, taken = RandomLR(sgd(model), seed=1), 0.0058, 0
    for number in range(400):
        event = rule.step(model, *batch(number % 4))
        moved = (event.lr - lr) / 0.00058
        if event.taken and not event.clipped:
            assert round(moved) == (1 if number % 4 >= 2 else -1) and event.true == number % 4
        elif not event.taken:
            assert moved == 0.0
        lr, taken = event.lr, taken + event.taken
    assert abs(taken - 200) < 40


def test_the_walk_is_its_seeds_and_every_so_many_batches():
    def rates(**options):
        model = network()
        rule = RandomLR(sgd(model), **options)
        return [rule.step(model, *batch(number % 4)).lr for number in range(30)]

    assert rates(seed=1) == rates(seed=1) != rates(seed=2)
    steps = rates(probability=1.0, every=3)
    assert all(steps[number] == steps[number - 1] for number in range(1, 30) if number % 3)
    assert len({round(rate, 9) for rate in rates(probability=0.0)}) == 1
    assert min(rates(probability=1.0, min_lr=0.005)) == 0.005
    assert max(rates(probability=1.0, effect=(1, 1, 1, -1), max_lr=0.006)) == 0.006


def test_an_alarm_raises_the_rate_for_a_span_of_rows():
    """Alarm on row 5 (second batch of three rows): tenfold for 7 rows, that is for batches 2, 3 and 4."""
    model = network()
    rule = DriftLR(sgd(model), Told(5), span=7)
    events = [rule.step(model, *batch(number % 4)) for number in range(6)]
    assert [round(event.lr / 0.0058) for event in events] == [1, 10, 10, 10, 1, 1]
    assert [event.taken for event in events] == [False, True, False, False, False, False]
    assert set(rule.detector.heard) <= {0.0, 1.0} and len(rule.detector.heard) == 18


def test_the_hypergradient_follows_the_cosine_of_gradient_and_last_step():
    model, twin = network(), network()
    rule, lr, last = HypergradientLR(sgd(model, 0.1), rate=0.05), 0.1, None
    for number in range(6):
        x, y = batch(number % 4, seed=number % 2)
        gradients = torch.autograd.grad(nn.functional.cross_entropy(twin(x), y), list(twin.parameters()))
        row = torch.cat([gradient.flatten() for gradient in gradients])
        if last is not None:
            lr *= 1.0 + 0.05 * float(row @ last / row.norm() / last.norm())
        last = row
        event = rule.step(model, x, y)
        assert event.lr == pytest.approx(lr, rel=1e-5)
        with torch.no_grad():
            for weight, gradient in zip(twin.parameters(), gradients, strict=True):
                weight -= lr * gradient
    assert event.lr != 0.1
    assert cosine([torch.ones(2)], [-torch.ones(2)]) == pytest.approx(-1.0) and cosine([], [torch.ones(1)]) == 0.0
    assert cosine([torch.zeros(2)], [torch.ones(2)]) == 0.0


@pytest.mark.parametrize("make", RULES)
def test_weights_are_those_of_plain_descent_at_the_same_rates(make):
    model, plain = network(), network()
    rule, optimizer = RULES[make](sgd(model, 0.05)), sgd(plain, 0.05)
    rates = set()
    for number in range(20):
        x, y = batch(number % 4, number)
        event = rule.step(model, x, y)
        optimizer.param_groups[0]["lr"] = event.lr
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(x), y).backward()
        optimizer.step()
        rates.add(event.lr)
    assert same(capture(model), capture(plain)) and (len(rates) == 1) == (make == "constant")


@pytest.mark.parametrize("make", RULES)
def test_a_loss_that_is_not_finite_is_flagged_and_bad_batches_are_refused(make):
    model = network()
    rule = RULES[make](sgd(model))
    for number in range(4):
        rule.step(model, *batch(number))
    before = capture(model), capture(rule)
    assert not rule.step(model, torch.full((2, 5), math.nan), torch.tensor([0, 1])).finite
    with pytest.raises(InputError):
        rule.step(model, torch.zeros(0, 5), torch.zeros(0).long())
    with pytest.raises(InputError):
        rule.step(model, torch.zeros(1, 5), torch.tensor([4]))
    assert same(before[0], capture(model)) and same(before[1], capture(rule))


@pytest.mark.parametrize("make", RULES)
def test_a_saved_rule_goes_on_to_the_same_rates(make):
    model = network()
    rule = RULES[make](sgd(model))
    for number in range(2):
        rule.step(model, *batch(number))
    other_model = network()
    other = RULES[make](sgd(other_model))
    restore(other_model, capture(model))
    restore(other, capture(rule))
    for number in range(8):
        assert rule.step(model, *batch(number % 4)).lr == other.step(other_model, *batch(number % 4)).lr
    assert same(capture(model), capture(other_model))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda optimizer: RandomLR(optimizer, step=-1.0), "RandomLR: step must be a number >= 0"),
        (lambda optimizer: RandomLR(optimizer, every=0), "RandomLR: every must be an int >= 1"),
        (lambda optimizer: RandomLR(optimizer, probability=1.5), "RandomLR: probability must be a number between 0 and 1"),
        (lambda optimizer: RandomLR(optimizer, min_lr=0.2, max_lr=0.1), "RandomLR: max_lr must be above min_lr=0.2"),
        (lambda optimizer: DriftLR(optimizer, "adwin"), r"DriftLR: detector must have update\(error\)"),
        (lambda optimizer: DriftLR(optimizer, Told(), factor=0.5), "DriftLR: factor must be a number >= 1"),
        (lambda optimizer: DriftLR(optimizer, Told(), span=0), "DriftLR: span must be an int >= 1"),
        (lambda optimizer: HypergradientLR(optimizer, rate=2.0), "HypergradientLR: rate must be a number between 0 and 1"),
        (lambda optimizer: ConstantLR(None), "ConstantLR: optimizer must be a torch optimiser"),
    ],
)
def test_wrong_arguments_are_refused(make, words):
    with pytest.raises(ArgumentError, match=words):
        make(sgd(network()))
