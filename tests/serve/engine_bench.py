"""The bench on which rules about engines are tried: three small models, rows by number, and the verbs of a test.

`Bench(opener, folder)` opens engines on one folder, `ask`, `tell`, `go` and `flood` talk to one, `settle` waits until learning stands
still, `refused` holds that a call is refused, and `folded` makes the fold anew, to compare weights with.
"""

import time
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from everlearn.agents.uniform import Uniform
from everlearn.core.errors import ServeError
from everlearn.core.events import Batch
from everlearn.core.learner import Learner
from everlearn.core.random import isolated
from everlearn.core.state import digest
from everlearn.learners.replay import Replay
from everlearn.optim.optimizers import Adam
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.records import Ask, Told

CLASSES = ("ant", "bee", "cow")
SIDE = 4
PATIENCE = 30.0  # seconds until a test gives up waiting


class Slope(Learner):
    """Least mean squares: w += rate * mean((y - w x) x); the smallest learner of numbers."""

    name = "slope"
    parts = ("weight",)

    def __init__(self, features: int = SIDE, rate: float = 0.1):
        self.rate = rate
        self.weight = torch.zeros(features, dtype=torch.float64)

    def predict(self, x):
        return (x.double() @ self.weight)[:, None].float()

    def update(self, batch):
        if batch.y is None:
            return {}
        error = batch.y[:, 0].double() - batch.x.double() @ self.weight
        self.weight = self.weight + self.rate * (error[:, None] * batch.x.double()).mean(dim=0)
        return {"error": float(error.abs().mean())}

    def boundary(self, boundary):
        pass


def classifier() -> Replay:
    """A learner with everything that a careless server would lose: dropout, Adam, a reservoir."""
    with isolated(0, "network"):
        network = nn.Sequential(nn.Linear(SIDE, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, len(CLASSES)))
        return Replay(network, capacity=20, replay_batch=8, optimizer=Adam(lr=0.01))


def slope() -> Slope:
    """A learner of numbers."""
    return Slope()


def agent() -> Uniform:
    """An agent whose actions do not depend on what it has learned."""
    return Uniform(actions=3)


@dataclass(frozen=True)
class Model:
    """What is served."""

    make: object
    spec: InputSpec


MODELS = {
    "classes": Model(classifier, InputSpec("classes", (SIDE,), "float32", classes=CLASSES)),
    "values": Model(slope, InputSpec("values", (SIDE,), "float32", targets=("height",))),
    "actions": Model(agent, InputSpec("actions", (SIDE,), "float32")),
}


def local_opener(model, folder, options, **named):
    """An engine of this process, as `Bench` opens one."""
    served = MODELS[model]
    return LocalEngine(served.make(), served.spec, folder, options, **named)


def row(number: int):
    """(x as bytes, y as it is stored) of the request with a number: three Gaussian classes."""
    source = torch.Generator().manual_seed(number)
    y = number * 7 % 3
    centre = torch.zeros(SIDE)
    centre[y] = 2.0
    return (centre + torch.randn(SIDE, generator=source)).numpy().tobytes(), y


class Bench:
    """Opens engines on one folder, and closes what a rule left open."""

    def __init__(self, opener, folder):
        self.opener, self.folder = opener, folder
        self.opened = []

    def __enter__(self):
        return self

    def __exit__(self, *fault):
        for engine in self.opened:
            engine.close()

    def open(self, model="classes", place="one", **options):
        """An engine that is ready. Steps of 4 answers, a version every 2 steps, no guard, unless told otherwise."""
        settings = {"batch": 4, "every": 2, "wait": None, "guard": False} | options
        engine = self.opener(model, self.folder / place, Options(**settings))
        self.opened.append(engine)
        until(lambda: engine.status()["ready"])
        return engine

    def shut(self, engine):
        engine.close()
        self.opened.remove(engine)


def until(good):
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE
    while not good():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def ask(engine, number, id=None, x=None):
    """Ask for one row."""
    return engine.predict([Ask(id or f"r{number}", row(number)[0] if x is None else x)]).result(PATIENCE)[0]


def tell(engine, number, y=None, revision=0, id=None):
    """Tell the answer of one row."""
    stored = row(number)[1] if y is None else y
    return engine.feedback([Told(id or f"r{number}", stored, revision)]).result(PATIENCE)[0]


def go(engine, numbers, y=lambda number: row(number)[1]):
    """Ask and tell rows one by one, and wait until all full steps are learned."""
    for number in numbers:
        ask(engine, number)
        tell(engine, number, y(number))
    settle(engine)


def flood(engine, numbers, y=lambda number: row(number)[1]):
    """The same, many rows in a request."""
    numbers = list(numbers)
    for start in range(0, len(numbers), 20):
        part = numbers[start : start + 20]
        engine.predict([Ask(f"r{number}", row(number)[0]) for number in part]).result(PATIENCE)
        engine.feedback([Told(f"r{number}", y(number)) for number in part]).result(PATIENCE)
    settle(engine)


def settle(engine):
    """Wait until fewer than a step's answers wait: until learning stands still."""
    batch = engine.status()["options"]["batch"]

    def still():
        status = engine.status()
        assert status["learning"] in ("running", "paused", "recovering"), status["fault"]
        return status["lag"]["answers"] < batch and status["last_seq"] - status["applied_seq"] <= 2 * batch

    until(still)
    time.sleep(0.15)  # what was put off is decided by now
    until(still)


def refused(code, status, call, *given, **named):
    """Hold that a call, or the future that it gives, is refused with a code; gives the refusal."""
    with pytest.raises(ServeError) as caught:
        future = call(*given, **named)
        if hasattr(future, "result"):
            future.result(PATIENCE)
    assert (caught.value.code, caught.value.status) == (code, status), str(caught.value)
    return caught.value


def weights(engine):
    """sha256 of the newest version."""
    return engine.versions()[0]["sha256"]


def folded(model, numbers, batch=4, y=lambda number: row(number)[1]):
    """sha256 of the learner after the full steps of rows asked and told one by one: the fold, written anew."""
    learner, spec = MODELS[model].make(), MODELS[model].spec
    numbers = list(numbers)
    for start in range(0, len(numbers) - batch + 1, batch):
        group = numbers[start : start + batch]
        x = spec.tensor([row(number)[0] for number in group])
        ids = tuple(f"r{number}" for number in group)
        learner.update(Batch(x, id=ids))
        learner.update(Batch(x, spec.answers([y(number) for number in group]), id=ids))
    return digest(learner.state_dict())
