"""Planted faults of learners: each is found by the contract checks, with the sentence that tells its author what to mend."""

import random
import time

import numpy
import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot, softmax

from everlearn import Batch, check_learner
from everlearn.core.errors import ContractError, InputError
from everlearn.core.random import generator, isolated
from everlearn.core.store import Store

from .planted import CLASSES, Softmax, learner


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
