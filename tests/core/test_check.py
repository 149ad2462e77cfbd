"""The contract checks find planted faults, each with the sentence that tells its author what to mend, and pass what is right."""

import random
import re
import time
from dataclasses import replace

import numpy
import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot, softmax

from everlearn import Adapter, Batch, Boundary, FineTune, Learner, check_learner
from everlearn.core.contract import refusals
from everlearn.core.errors import ArgumentError, ContractError, InputError
from everlearn.core.guard import Guard
from everlearn.core.random import generator, isolated
from everlearn.core.store import Store

CLASSES = 4


class Softmax(Learner):
    """What all learners here share: softmax regression by hand. Abstract, so that each of them is a final class of its own."""

    parts = ("model", "guard")
    rate = 0.1

    def __init__(self, seed=0):
        self.seed = seed
        self.model = nn.Linear(8, CLASSES, bias=False)
        nn.init.zeros_(self.model.weight)
        self.guard = Guard(self.name, CLASSES, model=self.model)
        self.begin()

    def begin(self):
        """Attributes of its own."""

    def predict(self, x):
        self.guard.inputs(x)
        return self.score(x)

    def score(self, x):
        with torch.no_grad():
            return self.model(x)

    def update(self, batch):
        self.guard.batch(batch)
        if batch.y is not None:
            self.learn(batch.x, batch.y)
        return {}

    def learn(self, x, y):
        self.descend(x, y, self.rate)

    def descend(self, x, y, rate):
        error = softmax(self.score(x), dim=1) - one_hot(y, CLASSES)
        with torch.no_grad():
            self.model.weight -= rate * error.T @ x / len(x)


def learner(**members):
    """A final learner class with these members on top of softmax regression."""
    members.setdefault("boundary", lambda self, boundary: None)
    return type("Planted", (Softmax,), {"name": "planted", **members})


def test_what_is_right_passes_and_says_what_was_checked(capsys):
    passed = check_learner(learner(), verbose=True)
    assert len(passed) == len(set(passed)) == 12
    assert capsys.readouterr().out.splitlines() == [f"ok  {sentence}" for sentence in passed]


class Drift(Learner):
    """Forecasts the last value plus the mean rise seen so far. Abstract, as above."""

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


# ---- planted faults --------------------------------------------------------------------------------------------------------


def _global_torch(self, x, y):
    self.descend(x + 0.01 * torch.randn_like(x), y, 0.1)


def _global_numpy(self, x, y):
    self.descend(x, y, 0.1 * numpy.random.rand())


def _global_python(self, x, y):
    self.descend(x, y, 0.1 * random.random())


def _reseeds(self, x, y):
    torch.manual_seed(self.seed)
    self.descend(x + 0.01 * torch.randn_like(x), y, 0.1)


def _clock(self, x, y):
    self.descend(x, y, 0.1 if int(time.time()) % 2 else 0.2)


def _stopwatch(self, x, y):
    self.descend(x, y, 0.1 + 1e-9 * time.perf_counter())


def _counts_predictions(self, x):
    self.asked += 1
    with torch.no_grad():
        return self.model(x)


def _noisy(self, x):
    return self.score(x) + torch.randn(len(x), CLASSES, generator=self.noise)


def _noisy_global(self, x):
    return self.score(x) + torch.randn(len(x), CLASSES)


def _momentum(self, x, y):
    error = softmax(self.score(x), dim=1) - one_hot(y, CLASSES)
    self.velocity = 0.9 * self.velocity + error.T @ x / len(x)
    with torch.no_grad():
        self.model.weight -= 0.1 * self.velocity


def _decays(self, x, y):
    self.seen += len(x)
    self.descend(x, y, 0.1 if self.seen < 10**6 else 0.01)


def _private_decay(self, x, y):
    self._seen += len(x)
    self.descend(x, y, 1.0 / (10 + self._seen))


def _normalises_in_place(self, batch):
    self.guard.batch(batch)
    if batch.y is not None:
        self.learn(batch.x.sub_(batch.x.mean(0)), batch.y)
    return {}


def _clips_in_place(self, x):
    self.guard.inputs(x)
    return self.score(x.clamp_(-0.1, 0.1))


def _keeps_rows(self, x, y):
    self.kept = [*self.kept[-5:], x]
    self.descend(x, y, 0.1)


def _counts_before_the_guard(self, batch):
    self.calls += 1
    self.guard.batch(batch)
    return {}


def _secretly_counts_before_the_guard(self, batch):
    self._calls += 1
    self.guard.batch(batch)
    if batch.y is not None:
        self.descend(batch.x, batch.y, 1.0 / (10 + self._calls))
    return {}


def _restore_calls(self):
    self._calls = 0


def _no_guard(self, batch):
    if batch.y is not None:
        self.learn(batch.x, batch.y)
    return {}


def _widens(self, batch):
    if not self.guard.shapes and isinstance(batch, Batch) and torch.is_tensor(batch.x) and batch.x.shape[-1:] == (9,):
        self.seen += 1
        raise InputError("planted: rows have 8 columns.")
    return Softmax.update(self, batch)


def _standardises(self, x, y):
    if len(x) < 2:
        raise ValueError("expected more than one row")
    self.descend(x, y, 0.1)


def _needs_answers(self, batch):
    self.guard.batch(batch)
    self.learn(batch.x, batch.y)
    return {}


def _refuses_boundary(self, boundary):
    raise NotImplementedError("no boundaries here")


def _expects_data(self, boundary):
    self.model.weight.data *= float(boundary.data.x.isfinite().all())


def _learns_by_mode(self, x, y):
    self.descend(x, y, 0.1 if self.model.training else 0.2)


def _evaluates(self, x):
    self.guard.inputs(x)
    self.model.eval()
    return self.score(x)


def _teaches(self, x, y):
    if self.teacher is None:
        with isolated(0):
            self.teacher = nn.Linear(8, CLASSES, bias=False)
        nn.init.ones_(self.teacher.weight)
    with torch.no_grad():
        self.descend(x, y, 0.1 + 0.0 * float(self.teacher(x).sum()))


def _means(self, x, y):
    for label in y.tolist():
        self.counts[label] = self.counts.get(label, 0) + 1
    self.descend(x, y, 0.1 / self.counts.get(int(y[0]), 1))


class Pile(Store):
    """A store that never says no."""

    parts = ("capacity", "seen", "replayed", "x")

    def __init__(self, capacity, obedient):
        self.capacity, self.obedient, self.seen, self.replayed, self.x = capacity, obedient, 0, 0, torch.zeros(0, 8)

    @property
    def stored(self):
        return len(self.x)

    @property
    def nbytes(self):
        return self.x.nbytes

    def limit(self, samples, nbytes):
        if samples is not None:
            self.capacity = samples

    def insert(self, x):
        limit = 10 if self.obedient else 10**9
        self.x = torch.cat([self.x, x])[-limit:]
        self.seen += len(x)


def _piles(self, x, y):
    self.memory.insert(x)
    self.descend(x, y, 0.1)


def begins(**attributes):
    """A `begin` that sets these attributes, each made anew by its function."""

    def begin(self):
        for name, make in attributes.items():
            setattr(self, name, make())

    return begin


SHARED = nn.Linear(8, CLASSES, bias=False)


def _shares(self):
    self.model = SHARED


def _draws_weights(self):
    nn.init.normal_(self.model.weight)


def live_state(self):
    return {"model": dict(self.model.state_dict()), "guard": {"shapes": self.guard.shapes, "dtypes": self.guard.dtypes}}


def borrow_state(self, state):
    self.model.weight.data = state["model"]["weight"]
    self.guard.shapes, self.guard.dtypes = state["guard"]["shapes"], state["guard"]["dtypes"]


PARTS = Softmax.parts
FAULTS = {
    "initial weights from the global state": ({"begin": _draws_weights}, "initial state.*core.random.isolated"),
    "one network for all": ({"begin": _shares}, "begins with what that one learned"),
    "numbers from torch's global state": ({"learn": _global_torch}, "update draws from the global random state"),
    "numbers from numpy's global state": ({"learn": _global_numpy}, "update draws from the global random state"),
    "numbers from Python's global state": ({"learn": _global_python}, "update draws from the global random state"),
    "seeding the global state": ({"learn": _reseeds}, "draws from the global random state, or seeds"),
    "reading the time of day": ({"learn": _clock}, r"\(model.weight\) when the clock.*Read no clock"),
    "reading a stopwatch": ({"learn": _stopwatch}, "Read no clock"),
    "counting predictions": (
        {"parts": (*PARTS, "asked"), "begin": begins(asked=int), "score": _counts_predictions},
        r"predict changes its state \(asked\)",
    ),
    "noise from a generator in predict": (
        {"begin": begins(noise=lambda: generator(0)), "predict": _noisy},
        "two answers for the same rows",
    ),
    "noise from the global state in predict": ({"predict": _noisy_global}, "predict draws from the global random state"),
    "scores that are state": (
        {"begin": begins(table=lambda: torch.zeros(8, CLASSES)), "predict": lambda self, x: self.table[: len(x)]},
        "returns a tensor of its state",
    ),
    "labels for scores": ({"predict": lambda self, x: self.score(x).argmax(1)}, "floating-point tensor of scores.*int64"),
    "one score": ({"predict": lambda self, x: self.score(x)[:, 0]}, r"shape \(6, 4\) for 6 rows, got \(6,\)"),
    "one class too many": ({"predict": lambda self, x: torch.zeros(len(x), 5)}, r"shape \(6, 4\).*got \(6, 5\)"),
    "an array of scores": ({"predict": lambda self, x: self.score(x).numpy()}, "got ndarray"),
    "infinite scores": ({"predict": lambda self, x: self.score(x) - torch.inf}, "not finite, such as -inf"),
    "scores with a gradient": ({"predict": lambda self, x: self.model(x)}, "torch.no_grad"),
    "a forgotten tensor": (
        {"begin": begins(velocity=lambda: torch.zeros(CLASSES, 8)), "learn": _momentum},
        "`velocity`.*parts",
    ),
    "a forgotten counter that will matter later": ({"begin": begins(seen=int), "learn": _decays}, "learning changes `seen`"),
    "a forgotten private counter": ({"begin": begins(_seen=int), "learn": _private_decay}, "Not carried along: `_seen`"),
    "a forgotten generator": (
        {
            "begin": begins(noise=lambda: generator(0)),
            "learn": lambda self, x, y: self.descend(x + torch.randn(x.shape, generator=self.noise), y, 0.1),
        },
        "Not carried along: `noise`",
    ),
    "a network that is made later": (
        {"parts": (*PARTS, "teacher"), "begin": begins(teacher=lambda: None), "learn": _teaches},
        "make the object in __init__",
    ),
    "a dict with numbers for keys": (
        {"parts": (*PARTS, "counts"), "begin": begins(counts=dict), "learn": _means},
        "keys of a dict come back as text",
    ),
    "a state that goes on living": ({"state_dict": live_state}, "later updates changed"),
    "a state that is borrowed": (
        {"load_state_dict": borrow_state},
        "writes to the tensors that load_state_dict was given",
    ),
    "update that writes to x": ({"update": _normalises_in_place}, "update changes the tensors it is given"),
    "predict that writes to x": ({"predict": _clips_in_place}, "predict changes the tensor it is given"),
    "keeping what was lent": (
        {"parts": (*PARTS, "kept"), "begin": begins(kept=list), "learn": _keeps_rows},
        r"keeps a reference to the tensors it was given \(kept\)",
    ),
    "predictions that change learning": (
        {"predict": _evaluates, "learn": _learns_by_mode},
        "when predictions are made in between",
    ),
    "no guard": ({"update": _no_guard}, "(NaN|zero rows).*(was accepted|raised)"),
    "NaN let through": (
        {"begin": lambda self: setattr(self.guard, "finite", False)},
        "update with NaN in x was accepted",
    ),
    "labels without end": ({"begin": lambda self: setattr(self.guard, "classes", None)}, "the label 4 of 4 classes"),
    "an untried network": ({"begin": lambda self: setattr(self.guard, "model", None)}, "model=model"),
    "counting before refusing": (
        {"parts": (*PARTS, "calls"), "begin": begins(calls=int), "update": _counts_before_the_guard},
        r"refused, but only after the state had changed \(calls\)",
    ),
    "counting secretly before refusing": (
        {"begin": begins(_calls=int), "update": _secretly_counts_before_the_guard, "restored": _restore_calls},
        "goes on to other bits|learned something else than without",
    ),
    "half a refusal of the first batch": (
        {"parts": (*PARTS, "seen"), "begin": begins(seen=int), "update": _widens},
        r"first update with rows of another shape was refused, but only after .* \(seen\)",
    ),
    "no single rows": ({"learn": _standardises}, "raised ValueError: expected more than one row"),
    "no late answers": ({"update": _needs_answers}, r"update with x \(8, 8\) torch.float32 raised"),
    "no boundaries": ({"boundary": _refuses_boundary}, r"boundary\(task=None.* raised NotImplementedError"),
    "boundaries only with data": ({"boundary": _expects_data}, r"boundary\(task=None"),
    "no metrics": ({"update": lambda self, batch: None}, "dict of metrics, got NoneType"),
    "metrics that are no numbers": ({"update": lambda self, batch: {"when": object()}}, "reading the metrics.*got object"),
    "a memory that overflows": (
        {"parts": (*PARTS, "memory"), "begin": begins(memory=lambda: Pile(10, obedient=False)), "learn": _piles},
        "a memory holds 16 rows; its capacity is 10",
    ),
    "a memory that minds no budget": (
        {"parts": (*PARTS, "memory"), "begin": begins(memory=lambda: Pile(None, obedient=True)), "learn": _piles},
        "a memory holds 8 rows; its capacity is 3",
    ),
    "a part that is not there": ({"parts": (*PARTS, "memory")}, "`parts` names 'memory'"),
    "parts that are one text": ({"parts": "model"}, "with the comma"),
    "a name that cannot be typed": ({"name": "my method"}, "`name` must be an identifier"),
    "a text that cannot be read": ({"__repr__": lambda self: "<planted>"}, "not a call string"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_named(fault):
    members, sentence = FAULTS[fault]
    with pytest.raises(ContractError, match=sentence):
        check_learner(learner(**members))


def test_private_caches_that_are_made_anew_are_no_fault():
    def solve(self, x):
        if self._cache is None:
            self._cache = self.model.weight.detach().clone()
        return x @ self._cache.T

    def learn(self, x, y):
        self.descend(x, y, 0.1)
        self._cache = None

    def restored(self):
        self._cache = None

    members = {"begin": begins(_cache=lambda: None), "learn": learn, "score": solve}
    assert check_learner(learner(**members, restored=restored))
    with pytest.raises(ContractError, match="`_cache`"):
        check_learner(learner(**members))


def test_a_capacity_needs_a_store():
    class Hoarder(Softmax):
        name = "hoarder"
        parts = (*PARTS, "rows")

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
