"""The rate that regulates itself: the published decisions, slow twins of every imagined step, what each switch changes, bad input."""

import copy
import json
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, InputError, StateError
from everlearn.core.random import generator, isolated
from everlearn.core.state import capture, same
from everlearn.optim.descent import Descent
from everlearn.optim.homeostatic import HomeostaticLR, effects_of, upper_half
from everlearn.optim.optimizers import SGD

from .official import EPOCH, LR, ROWS, TRACE, by_reference, problem

OPTIMIZERS = {
    "plain": lambda weights: torch.optim.SGD(weights, lr=0.05),
    "decayed": lambda weights: torch.optim.SGD(weights, lr=0.05, weight_decay=0.01),
    "momentum": lambda weights: torch.optim.SGD(weights, lr=0.02, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda weights: torch.optim.SGD(weights, lr=0.02, momentum=0.9, nesterov=True),
    "adam": lambda weights: torch.optim.Adam(weights, lr=0.01, weight_decay=0.01),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda weights: torch.optim.RMSprop(weights, lr=0.002),
}


def perceptron(seed=0, classes=4):
    with isolated(seed, "network"):
        return nn.Sequential(nn.Linear(6, 16), nn.ELU(), nn.Linear(16, classes))


def small_cnn(seed=0, drop=0.0):
    with isolated(seed, "network"):
        layers = [nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(drop), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(16, 4))


def stream(count, size=5, seed=0, swap=15, classes=4):
    """Batches of separable classes; every so many batches two labels are exchanged."""
    random = generator(seed, "stream")
    centres, mapping = 1.5 * torch.randn(classes, 6, generator=random), torch.arange(classes)
    for number in range(count):
        if number and number % swap == 0:
            first, second = torch.randperm(classes, generator=random)[:2].tolist()
            mapping[[first, second]] = mapping[[second, first]]
        y = torch.randint(classes, (size,), generator=random)
        yield centres[y] + torch.randn(size, 6, generator=random), mapping[y]


def regulated(model=None, make="plain", **switches):
    model = perceptron() if model is None else model
    return model, HomeostaticLR(OPTIMIZERS[make](model.parameters()), **switches)


def trace(count=60, model=None, make="plain", **switches):
    model, rule = regulated(model, make, **switches)
    return [rule.step(model, x, y) for x, y in stream(count)], model, rule


# ---- the published rule ------------------------------------------------------------------------------------------------------


def by_rule(**others):
    """The decisions of the preset on the stored problem, in the form of the trace."""
    model, x, y, swaps = problem()
    rule = HomeostaticLR.paper(torch.optim.SGD(model.parameters(), lr=LR), **({"epoch": EPOCH} | others))
    mapping, found = torch.arange(10), []
    for start in range(0, ROWS, 10):
        if start in swaps:
            exchange = torch.arange(10)
            exchange[list(swaps[start])] = exchange[list(swaps[start])[::-1]]
            mapping = exchange[mapping]
            rule.announce(exchange.tolist())
        event = rule.step(model, x[start : start + 10], mapping[y[start : start + 10]])
        if event.imagined is not None:
            found.append([start, event.predicted, event.true, *event.imagined, event.taken, event.lr])
    return found


def test_the_preset_follows_the_trace_of_the_plain_loops():
    """All 194 decisions on 2,000 rows, ten of which are taken and three of these by mistake, to the last bit of both accuracies."""
    stored, found = json.loads(TRACE.read_text()), by_rule()
    assert len(stored) == 194 and sum(decision[5] for decision in stored) == 10
    assert [decision[:6] for decision in found] == [decision[:6] for decision in stored]
    assert [decision[6] for decision in found] == pytest.approx([decision[6] for decision in stored], abs=1e-12)
    assert stored[0][0] == 30 and next(row for row, *_ in stored if row >= 1000) == 1030  # the index begins anew


@pytest.mark.slow
def test_the_stored_trace_is_that_of_the_plain_loops():
    stored, found = json.loads(TRACE.read_text()), by_reference()
    assert [decision[:6] for decision in stored] == [list(decision[:6]) for decision in found]


@pytest.mark.parametrize(
    "other", [{"relabel": False}, {"gradient": "batch"}, {"signal": "loss"}, {"epoch": None}, {"memory": 10}]
)
def test_each_part_of_the_preset_is_needed_for_the_trace(other):
    stored = json.loads(TRACE.read_text())
    assert [decision[:6] for decision in by_rule(**other)] != [decision[:6] for decision in stored]


def test_rows_that_are_all_alike_tell_nothing():
    """Accuracy on 20 equal rows is the same in both futures, so nothing is taken."""
    model = perceptron()
    rule = HomeostaticLR.paper(torch.optim.SGD(model.parameters(), lr=0.05))
    x, y = torch.ones(10, 6), torch.full((10,), 3)
    events = [rule.step(model, x, y) for _ in range(40)]
    told = [event.imagined for event in events if event.imagined is not None]
    assert len(told) == 37 and all(leave == take for leave, take in told)
    assert not any(event.taken for event in events) and rule.lr == 0.05


# ---- slow twins --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("network", [perceptron, small_cnn])
def test_the_last_step_is_imagined_as_the_optimiser_would_have_taken_it(make, network):
    """Against a copy of model and optimiser that takes the last step again with the other rate. Losses of order 1 in float32: 1e-5."""
    model, rule = regulated(network(), make)
    before, compared = None, 0
    for x, y in stream(25):
        if before is not None:
            twin, optimizer, gradients, g = before
            for group in optimizer.param_groups:
                group["lr"] = min(max(rule.lr + upper_half(4)[g] * rule.by, rule.min_lr), rule.max_lr)
            for weight, gradient in zip(twin.parameters(), gradients, strict=True):
                weight.grad = gradient
            optimizer.step()
            twin.load_state_dict({**twin.state_dict(), **dict(model.named_buffers())})
            twin.eval() if network is small_cnn else twin.train()
            expected = float(cross_entropy(twin(x), y).detach())
        copied = copy.deepcopy(model)
        optimizer_copy = OPTIMIZERS[make](copied.parameters())
        optimizer_copy.load_state_dict(copy.deepcopy(rule._steps.optimizer.state_dict()))
        lr = rule.lr
        with torch.no_grad():
            recognised = int(copy.deepcopy(model).train()(x)[-1].argmax())
        event = rule.step(model, x, y)
        gradients = [weight.grad.clone() for weight in model.parameters()]
        if before is not None:
            assert event.predicted == g and event.imagined[1] == pytest.approx(expected, abs=1e-5)
            moved = event.lr - lr
            assert moved == pytest.approx(upper_half(4)[event.true] * rule.by * event.taken) or event.clipped
            compared += abs(event.imagined[0] - event.imagined[1]) > 1e-4
        before = (copied, optimizer_copy, gradients, recognised)
    assert compared >= 5  # the two futures do differ


@pytest.mark.parametrize("make", ["plain", "momentum"])
@pytest.mark.parametrize("gradient", ["batch", "first_sample"])
@pytest.mark.parametrize("network", [perceptron, small_cnn])
def test_steps_to_come_are_imagined_on_the_memory_as_they_would_be_taken(make, gradient, network):
    model, rule = regulated(network(), make, evaluate_on="memory", gradient=gradient)
    seen_x, seen_y, decided = torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64), 0
    for x, y in stream(16):
        expected = []
        g = int(copy.deepcopy(model).train()(x)[0].argmax())
        other = rule.lr + upper_half(4)[g] * rule.by
        for lr in (rule.lr, other):
            twin = copy.deepcopy(model).train()
            twin(x)  # normalisation has seen the batch by the time of the decision
            statistics = copy.deepcopy(dict(twin.named_buffers()))
            optimizer = OPTIMIZERS[make](twin.parameters())
            optimizer.load_state_dict(copy.deepcopy(rule._steps.optimizer.state_dict()))
            optimizer.param_groups[0]["lr"] = lr
            optimizer.zero_grad()
            if gradient == "batch":
                cross_entropy(twin(x), y).backward()
            else:
                (cross_entropy(twin.eval()(x[:1]), y[:1]) / len(y)).backward()
            optimizer.step()
            twin.load_state_dict({**twin.state_dict(), **statistics})
            if len(seen_y) >= 20:
                expected.append(float(cross_entropy(twin.eval()(seen_x[-20:]), seen_y[-20:]).detach()))
        event = rule.step(model, x, y)
        if event.imagined is not None:
            assert event.imagined == pytest.approx(expected, abs=1e-5)
        decided += event.imagined is not None
        seen_x, seen_y = torch.cat([seen_x, x]), torch.cat([seen_y, y])
        assert torch.equal(rule.remembered_x, seen_x[-20:]) and torch.equal(rule.remembered_y, seen_y[-20:])
    assert decided == 11  # from the sixth batch on, when more than 20 rows have been seen


def test_algebra_and_moved_weights_give_the_same_decisions(monkeypatch):
    by_algebra, *_ = trace(make="plain", evaluate_on="memory", gradient="first_sample")
    monkeypatch.setattr("everlearn.optim.imagined.chain_of", lambda model: None)
    explicit, *_ = trace(make="plain", evaluate_on="memory", gradient="first_sample")
    for first, second in zip(by_algebra[6:], explicit[6:], strict=True):
        assert first.imagined == pytest.approx(second.imagined, abs=1e-6)


# ---- what regulation leaves alone --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("switches", [{"every": math.inf}, {}, {"evaluate_on": "memory"}])
def test_weights_are_those_of_plain_descent_at_the_same_rates(make, switches):
    """To the bit, with dropout: imagining draws no random number and leaves no trace. Without decisions the rate never moves."""
    with isolated(3, "run"):
        events, model, _ = trace(30, small_cnn(drop=0.3), make, **switches)
    plain = small_cnn(drop=0.3).train()
    optimizer = OPTIMIZERS[make](plain.parameters())
    with isolated(3, "run"):
        for event, (x, y) in zip(events, stream(30), strict=True):
            optimizer.param_groups[0]["lr"] = event.lr
            optimizer.zero_grad()
            cross_entropy(plain(x), y).backward()
            optimizer.step()
    assert same(capture(model), capture(plain))
    rates = {event.lr for event in events}
    assert (len(rates) == 1) == ("every" in switches)


def test_a_constant_effect_can_only_raise_the_rate():
    with pytest.warns(UserWarning, match=r"effect is \+1 for every class"):
        events, *_ = trace(effect=[1, 1, 1, 1])
    rates = [event.lr for event in events]
    assert rates == sorted(rates) and rates[-1] > rates[0]


def test_what_is_recognised_has_the_effect_that_was_imagined():
    events, _, rule = trace(120)
    lr, right, mistaken = 0.05, 0, 0
    for event in events:
        if event.taken and not event.clipped:
            felt = round((event.lr - lr) / rule.by)
            assert felt == upper_half(4)[event.true]
            assert event.wrong == (upper_half(4)[event.predicted] != felt)
            right += not event.wrong
            mistaken += event.wrong
            assert not event.wrong or event.predicted != event.true
        lr = event.lr
    assert right >= 10 and mistaken >= 3


# ---- switches ----------------------------------------------------------------------------------------------------------------


SWITCHES = [
    {"effect": (1, -1, 1, -1)},
    {"effect": lambda label: 1 if label in (0, 3) else -1},
    {"step": 0.001},
    {"every": 3},
    {"evaluate_on": "memory"},
    {"signal": "accuracy"},
    {"min_lr": 0.049},
    {"max_lr": 0.056},
    {"suffers": "predicted"},
    {"suffers": "random"},
    {"shuffle": True},
]


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: ",".join(switch))
def test_each_switch_changes_the_rates(switch):
    plain, other = trace()[0], trace(**switch)[0]
    assert [event.lr for event in plain] != [event.lr for event in other]


@pytest.mark.parametrize("switch", [{"memory": 7}, {"gradient": "first_sample"}, {"epoch": 50}])
def test_each_switch_of_the_memory_changes_the_rates(switch):
    plain, other = trace(evaluate_on="memory")[0], trace(evaluate_on="memory", **switch)[0]
    assert [event.lr for event in plain] != [event.lr for event in other]


def test_effects_as_predicted_are_never_mistaken_and_random_ones_are_the_seeds():
    events, _, rule = trace(suffers="predicted")
    lr = 0.05
    for event in events:
        if event.taken and not event.clipped:
            assert round((event.lr - lr) / rule.by) == upper_half(4)[event.predicted]
        lr = event.lr
    rates = [[event.lr for event in trace(suffers="random", seed=seed)[0]] for seed in (0, 0, 1)]
    assert rates[0] == rates[1] != rates[2]


def test_decisions_come_every_so_many_batches():
    events = trace(30, every=4)[0]
    assert [number for number, event in enumerate(events) if event.imagined is not None] == [4, 8, 12, 16, 20, 24, 28]


def test_rates_stay_between_their_limits_and_say_when_they_hit_them():
    events = trace(120, min_lr=0.045, max_lr=0.055)[0]
    assert {round(event.lr, 3) for event in events} == {0.045, 0.05, 0.055}
    assert any(event.clipped for event in events)
    assert all(event.lr in (0.045, 0.055) for event in events if event.clipped)


def test_labels_are_remembered_as_shown_unless_relabel_says_otherwise():
    for relabel, expected in ((False, [0, 1, 2]), (True, [1, 0, 2])):
        model, rule = regulated(evaluate_on="memory", relabel=relabel)
        rule.step(model, torch.ones(3, 6), torch.tensor([0, 1, 2]))
        rule.announce([1, 0, 2, 3])
        assert rule.remembered_y.tolist() == expected


def test_groups_of_the_optimiser_keep_the_ratio_of_their_rates():
    model = perceptron()
    groups = [{"params": model[0].parameters(), "lr": 0.05}, {"params": model[2].parameters(), "lr": 0.01}]
    rule = HomeostaticLR(torch.optim.SGD(groups, lr=0.05))
    for x, y in stream(20):
        rule.step(model, x, y)
    first, second = (group["lr"] for group in rule._steps.optimizer.param_groups)
    assert first == rule.lr != 0.05 and second == pytest.approx(rule.lr / 5)


# ---- state -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ["plain", "adam"])
@pytest.mark.parametrize(
    "switches", [{}, {"evaluate_on": "memory"}, {"evaluate_on": "memory", "epoch": 40, "suffers": "random"}]
)
def test_a_saved_rule_goes_on_to_the_same_bits(make, switches):
    batches = list(stream(40))
    model, rule = regulated(small_cnn(), make, **switches)
    for x, y in batches[:23]:
        rule.step(model, x, y)
    saved = capture(model), copy.deepcopy(rule._steps.optimizer.state_dict()), rule.state_dict()
    rest = [rule.step(model, x, y).lr for x, y in batches[23:]]
    other_model, other = regulated(small_cnn(seed=1), make, **switches)
    other_model.load_state_dict(saved[0])
    other._steps.optimizer.load_state_dict(saved[1])
    other.load_state_dict(saved[2])
    assert [other.step(other_model, x, y).lr for x, y in batches[23:]] == rest and len(set(rest)) > 1
    assert same(capture(model), capture(other_model))
    with pytest.raises(StateError):
        other.load_state_dict({"lr": 0.1})


# ---- bad input ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64), "one label for each of 1 or more rows"),
        (torch.zeros(2, 6), torch.tensor([0, 4]), "label 4 is out of range; allowed: 0..3"),
        (torch.zeros(2, 6), torch.tensor([0, -1]), "int64 class numbers >= 0"),
        (torch.zeros(2, 6), torch.tensor([0.0, 1.0]), "int64 class numbers >= 0"),
        (torch.zeros(2, 6), torch.tensor([1]), r"got \(1,\) for 2"),
    ],
)
def test_bad_batches_are_refused_with_nothing_changed(x, y, words):
    _, model, rule = trace(12)
    before = capture(model), rule.state_dict()
    with pytest.raises(
        InputError, match=words.replace("is out of range; allowed", "(has no effect|is out of range); allowed")
    ):
        rule.step(model, x, y)
    assert same(before[0], capture(model)) and same(before[1], rule.state_dict())


@pytest.mark.parametrize("network", [perceptron, small_cnn])
@pytest.mark.parametrize("switches", [{}, {"evaluate_on": "memory"}])
def test_a_loss_that_is_not_finite_is_flagged_and_nothing_is_learned(switches, network):
    _, model, rule = trace(12, network(), **switches)
    before = capture(model), rule.state_dict()
    event = rule.step(model, torch.full((3, 6), math.nan), torch.tensor([0, 1, 2]))
    assert not event.finite and not event.taken and event.lr == rule.lr and not event.metrics()["finite"]
    assert same(before[0], capture(model)) and same(before[1], rule.state_dict())


@pytest.mark.parametrize("switches", [{}, {"evaluate_on": "memory", "gradient": "first_sample"}])
def test_a_last_short_batch_is_a_batch(switches):
    _, model, rule = trace(12, **switches)
    event = rule.step(model, torch.ones(1, 6), torch.tensor([2]))
    assert event.finite and event.imagined is not None and (event.true == 2 or not switches)


def test_a_memory_larger_than_what_was_seen_waits():
    assert not any(event.imagined for event in trace(20, evaluate_on="memory", memory=100)[0])
    assert sum(event.imagined is not None for event in trace(22, evaluate_on="memory", memory=100)[0]) == 1


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        ({"effect": (1, -1)}, r"effect must give \+1 or -1 for each of the 4 classes, got \[1, -1\]"),
        ({"effect": (1, -1, 0, 1)}, r"effect must give \+1 or -1"),
        ({"step": 0.0}, "step must be above 0"),
        ({"step": -0.1}, "step must be a number >= 0"),
        ({"step": math.nan}, "step must be a number >= 0"),
        ({"memory": 0}, "memory must be an int >= 1"),
        ({"every": 0}, "every must be an int >= 1"),
        ({"epoch": 0}, "epoch must be an int >= 1"),
        ({"min_lr": 0.6}, "max_lr must be above min_lr=0.6, got 0.5"),
        ({"max_lr": math.nan}, "max_lr must be above"),
        ({"max_lr": 0.01}, "lr=0.05 must lie within"),
        ({"evaluate_on": "now"}, "evaluate_on must be one of 'next_batch', 'memory', got 'now'"),
        ({"signal": "kappa"}, "signal must be one of"),
        ({"gradient": "all"}, "gradient must be one of"),
        ({"suffers": "all"}, "suffers must be one of"),
    ],
)
def test_wrong_arguments_are_refused(switches, words):
    with pytest.raises(ArgumentError, match=f"HomeostaticLR: .*{words}"):
        trace(2, **switches)


def test_an_effect_that_does_not_fit_is_refused_before_anything_is_learned():
    model, rule = regulated(effect=(1, -1))
    before = capture(model)
    with pytest.raises(ArgumentError):
        rule.step(model, torch.ones(2, 6), torch.tensor([0, 1]))
    assert same(before, capture(model)) and rule.batches == 0


def test_the_optimiser_must_be_that_of_the_model():
    with pytest.raises(ArgumentError, match="optimizer must be a torch optimiser"):
        HomeostaticLR("sgd")
    _, rule = regulated()
    with pytest.raises(ArgumentError, match="must hold the trained parameters of the model"):
        rule.step(perceptron(), torch.ones(1, 6), torch.tensor([0]))
    with pytest.raises(ArgumentError, match="lr must be above 0"):
        HomeostaticLR(torch.optim.SGD(perceptron().parameters(), lr=0.0))


def test_it_warns_where_frequent_classes_push_the_rate_one_way():
    x = torch.randn(500, 6, generator=generator(0, "x"))
    for y, pushed in ((torch.full((500,), 3), True), (torch.arange(500) % 4, False)):
        model, rule = regulated()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(4):
                rule.step(model, x, y)
        assert [("mean effect of 1000 labels is +1.00" in str(item.message)) for item in caught] == [True] * pushed
        assert rule.balance == (1.0 if pushed else 0.0)


def test_upper_halves_and_callables_are_effects():
    assert upper_half(10) == (-1,) * 5 + (1,) * 5 and upper_half(3) == (-1, 1, 1)
    assert effects_of("x", lambda label: -1 if label else 1, 3) == (1, -1, -1)
    assert effects_of("x", (1, -1, 1, -1), 3) == (1, -1, 1)  # more than there are classes


def test_a_descent_is_regulated_as_its_optimiser_is():
    first, second = perceptron(), perceptron()
    by_descent = HomeostaticLR(Descent(first, SGD(lr=0.05)))
    by_torch = HomeostaticLR(torch.optim.SGD(second.parameters(), lr=0.05))
    for x, y in stream(40):
        assert by_descent.step(first, x, y).lr == pytest.approx(by_torch.step(second, x, y).lr)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
