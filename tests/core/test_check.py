"""The contract checks pass what is right and refuse what they cannot try; the faults that they find stand in test_check_faults.py."""

import random
import re
import time
from dataclasses import replace

import numpy
import pytest
import torch
from torch import nn

from everlearn import Adapter, Batch, Boundary, FineTune, Learner, check_learner
from everlearn.core.contract import refusals
from everlearn.core.errors import ArgumentError, ContractError
from everlearn.core.guard import Guard
from everlearn.core.random import isolated

from .planted import CLASSES, Softmax, learner


def test_what_is_right_passes_and_says_what_was_checked(capsys):
    passed = check_learner(learner(), verbose=True)
    assert len(passed) == len(set(passed)) == 12
    assert capsys.readouterr().out.splitlines() == [f"ok  {sentence}" for sentence in passed]


class Drift(Learner):
    """Forecasts the last value plus the mean rise seen so far. Abstract, as `Softmax` is."""

    gives = ("values",)
    parts = ("rise", "guard")

    def __init__(self, targets):
        self.rise = torch.zeros(targets)
        self.guard = Guard(self.name, targets=targets)

    def predict(self, x):
        self.guard.inputs(x)
        return x[:, -1, : len(self.rise)] + self.rise

    def update(self, batch):
        self.guard.batch(batch)
        if batch.y is not None:
            self.rise = 0.9 * self.rise + 0.1 * (batch.y - batch.x[:, -1, : len(self.rise)]).mean(dim=0)
        return {}


def forecaster(**members):
    members.setdefault("boundary", lambda self, boundary: None)
    return type("Planted", (Drift,), {"name": "planted", **members})


@pytest.mark.parametrize("targets", [1, 3])
def test_learners_of_values_pass(targets):
    assert len(check_learner(lambda seed: forecaster()(targets), targets=targets)) == 12
    generous = forecaster(
        __init__=lambda self, targets: (Drift.__init__(self, targets), setattr(self.guard, "targets", 0))[0]
    )
    check_learner(
        lambda seed: generous(targets), targets=targets
    )  # who takes the first batch's number of values for the rule
    windows, next_values = torch.randn(20, 6, targets), torch.randn(20, targets)
    check_learner(lambda seed: forecaster()(targets), example=Batch(windows, next_values), targets=targets)
    events = [Batch(windows[k : k + 5], next_values[k : k + 5]) for k in range(0, 20, 5)]
    check_learner(lambda seed: forecaster()(targets), events=events, targets=targets)


def guardless(self, batch):
    self.guard.batch(replace(batch, y=None) if isinstance(batch, Batch) else batch)
    return {}


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        (
            {"predict": lambda self, x: (self.guard.inputs(x), x[:, -1, :1])[1]},
            r"scores of shape \(6, 3\) for 6 rows, got \(6, 1\)",
        ),
        ({"predict": lambda self, x: (self.guard.inputs(x), x[:, -1] / 0)[1]}, "scores that are not finite"),
        ({"update": guardless}, "was accepted; refuse it with an InputError"),
    ],
)
def test_faults_of_learners_of_values_are_found(members, sentence):
    with pytest.raises(ContractError, match=sentence):
        check_learner(lambda seed: forecaster(**members)(3), targets=3)


@pytest.mark.parametrize(
    "wrong",
    ["y of dtype int64", "y of dtype float64", r"y of shape \(rows,\)", "NaN in y", "Inf in y", "y of another width"],
)
def test_each_kind_of_wrong_values_is_tried(wrong, monkeypatch):
    """A guard that lets one kind of wrong y through is found by that kind."""
    kept = refusals.bad_batches
    monkeypatch.setattr(
        refusals, "bad_batches", lambda *given, **named: [c for c in kept(*given, **named) if re.fullmatch(wrong, c[0])]
    )
    with pytest.raises(ContractError, match=f"update with {wrong} was accepted"):
        check_learner(lambda seed: forecaster(update=guardless)(3), targets=3)


@pytest.mark.parametrize("hidden", [nn.Identity, nn.Dropout, lambda: nn.LayerNorm(16)])
def test_fine_tuning_passes(hidden):
    def make(seed):
        with isolated(seed, "network"):
            return FineTune(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), hidden(), nn.Linear(16, CLASSES)), seed=seed)

    check_learner(make)


def test_learners_of_other_rows_pass_on_an_example():
    source = torch.Generator().manual_seed(0)
    x, y = torch.randint(0, 256, (30, 1, 4, 4), dtype=torch.uint8, generator=source), torch.arange(30) % 3

    class Pixels(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(16, 3)

        def forward(self, x):
            return self.linear(x.flatten(1) / 255.0)

    def make(seed):
        with isolated(seed, "network"):
            return FineTune(Pixels(), seed=seed)

    check_learner(make, example=Batch(x, y), classes=3)
    with pytest.raises(ContractError, match=r"shape \(8, 5\)"):
        check_learner(make, example=Batch(x, y), classes=5)


def test_learners_of_dicts_pass_on_events():
    source = torch.Generator().manual_seed(0)

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.linear = nn.Embedding(10, 6), nn.Linear(6, 2)

        def forward(self, x):
            weight = x["mask"][..., None]
            return self.linear((self.embedding(x["tokens"]) * weight).sum(1) / weight.sum(1).clamp(min=1.0))

    def make(seed):
        with isolated(seed, "network"):
            return FineTune(Masked(), seed=seed)

    def batch():
        tokens = torch.randint(10, (6, 5), generator=source)
        return Batch({"tokens": tokens, "mask": (tokens > 2).float()}, tokens[:, 0] % 2)

    check_learner(make, events=[Boundary(0), *(batch() for _ in range(8))], classes=2)


def test_a_capacity_needs_a_store():
    class Hoarder(Softmax):
        name = "hoarder"
        parts = (*Softmax.parts, "rows")

        def __init__(self, seed=0, capacity=20):
            self.capacity = capacity
            super().__init__(seed)
            self.rows = torch.zeros(0, 8)

        def learn(self, x, y):
            self.rows = torch.cat([self.rows, x])[-self.capacity :]
            self.descend(x, y, 0.1)

        def boundary(self, boundary):
            """Nothing."""

    with pytest.raises(ContractError, match="no budget can limit"):
        check_learner(lambda seed: Hoarder(seed))


def test_inheriting_from_a_final_class_is_refused():
    class Tweaked(FineTune):
        name = "tweaked"

    with pytest.raises(ContractError, match="inherits from the final class FineTune"):
        check_learner(lambda seed: Tweaked(nn.Linear(8, 4)))


def test_something_else_than_a_learner_is_refused():
    with pytest.raises(ContractError, match=r"make\(seed\) must give a Learner, got Linear"):
        check_learner(lambda seed: nn.Linear(8, 4))


def test_learners_that_need_boundaries_are_given_them():
    heard = []

    def boundary(self, boundary):
        heard.append(boundary.task)

    check_learner(learner(boundary=boundary, needs_boundaries=True))
    assert heard[:2] == [0, 1]


class Turncoat(Adapter):
    """Moves a bias towards the mean of what it is asked."""

    name = "turncoat"
    parts = ("bias", "guard")

    def __init__(self, seed=0, guarded=True):
        self.bias = torch.zeros(CLASSES)
        self.guarded = guarded
        self.guard = Guard(self.name, CLASSES, model=nn.Linear(8, 4))

    def predict(self, x):
        self.guard.inputs(x)
        return x[:, :CLASSES] - self.bias

    def adapt(self, x):
        if self.guarded:
            self.guard.inputs(x)
        self.bias = 0.9 * self.bias + 0.1 * x[:, :CLASSES].mean(0)
        return x[:, :CLASSES] - self.bias

    def update(self, batch):
        self.guard.batch(batch)
        return {}

    def boundary(self, boundary):
        """Nothing."""


def test_adapters_are_held_to_the_contract_in_adapt_as_well():
    check_learner(lambda seed: Turncoat(seed))
    with pytest.raises(ContractError, match=r"adapt with .* (was accepted|raised)"):
        check_learner(lambda seed: Turncoat(seed, guarded=False))


def test_the_world_is_left_as_it_was():
    torch.manual_seed(5)
    numpy.random.seed(5)
    random.seed(5)
    expected = torch.rand(1), numpy.random.rand(), random.random()
    torch.manual_seed(5)
    numpy.random.seed(5)
    random.seed(5)
    clocks = time.time, time.perf_counter
    check_learner(learner())
    assert (torch.rand(1), numpy.random.rand(), random.random()) == expected
    assert (time.time, time.perf_counter) == clocks


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"classes": 0}, "classes must be an int >= 1"),
        ({"events": [Boundary(0)]}, "at least 3 labelled batches, got 0"),
        ({"events": 3 * [Batch(torch.zeros(1, 8), torch.zeros(1, dtype=torch.int64))]}, "at least 2 rows"),
        ({"example": Batch(torch.zeros(4, 8))}, "labels y"),
        ({"example": Batch(torch.zeros(4, 8)), "events": []}, "give one of them"),
    ],
)
def test_arguments_that_cannot_serve_are_refused(arguments, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        check_learner(learner(), **arguments)
