"""The served learners, limits and faults on which alarms are tested."""

import random

import torch
from torch import nn

from everlearn import FineTune, Uniform
from everlearn.learners.frozen import Frozen
from everlearn.optim.optimizers import SGD
from everlearn.serve.alarms import Alarms
from everlearn.serve.input_spec import InputSpec

from .toy_server import BATCH, ToyServer, blobs

SMALL = Alarms(reference=300, window=100, warm=800)


FAULT = 1600  # the row at which faults begin


CLASSES = InputSpec("classes", (8,), "float32", classes=("a", "b", "c", "d"))


def network(seed=0, inputs=8, outputs=4):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))


def learner(seed=0, **sizes):
    return FineTune(network(seed, **sizes), optimizer=SGD(lr=0.05))


def server(rows=None, **arguments):
    return ToyServer(learner(), CLASSES, rows or blobs(), **arguments)


def shifted(number):
    x, y = blobs()(number)
    return (x + torch.eye(8)[3] * (number >= FAULT) * 2.0), y


def relabelled(number):
    x, y = blobs()(number)
    return x, (y + (number >= FAULT)) % 4


def one_answer(row, number):
    label = int(row[0] > 0) if number < FAULT else 2
    return {"answer": "abcd"[label], "probabilities": [0.1 + 0.6 * (place == label) for place in range(4)]}


def rare(row, number):
    explored = number % 50 == 0 and number >= FAULT
    return {"answer": number % 2, "propensity": 1e-5 if explored else 0.5}


def once(act):
    """A change made to the server in the first step after the fault."""

    def before_learning(toy, moment):
        if moment.inputs[0].id == f"row-{FAULT}":
            act(toy)

    return before_learning


def leap(toy):
    with torch.no_grad():
        for parameter in toy.learner.descent.model.parameters():
            parameter += 0.2 * torch.sign(parameter)


def kill_units(toy):
    with torch.no_grad():
        toy.learner.descent.model[0].bias.fill_(-1e6)


def break_weight(toy):
    with torch.no_grad():
        toy.learner.descent.model[0].weight[0, 0] = float("inf")
    toy.learn = lambda moment: {}  # a step of it would be refused


def policy():
    return ToyServer(
        Uniform(actions=2), InputSpec("actions", (8,), "float32"), lambda number: (blobs()(number)[0], 1.0), respond=rare
    )


# kind: (server, what is done to it at the fault, rows within which it must be told, the limits that switch it off)
FAULTS = {
    "input_drift": (lambda: server(shifted), None, 200, {"psi": None}),
    "output_drift": (lambda: server(respond=one_answer), None, 200, {"output": None, "entropy": None}),
    "performance": (lambda: server(relabelled), None, 200, {"performance": None}),
    "label_delay": (
        lambda: server(delay=lambda number: 0.5 if number < FAULT else 5.0), None, 750, {"delay": None, "delay_seconds": None},
    ),
    "missing_labels": (lambda: server(delay=lambda number: 0.5 if number < FAULT else None), None, 350, {"missing": None}),
    "update_norm": (server, once(leap), BATCH, {"update": None}),
    "plasticity": (server, once(kill_units), 3600, {"plasticity": None}),
    "propensity": (policy, None, 200, {"propensity": None, "effective": None}),
    "not_finite": (server, once(break_weight), BATCH, {"not_finite": None}),
}  # fmt: skip


def late_and_missing(number):
    source = random.Random(f"delay {number}")
    return None if source.random() < 0.3 else source.expovariate(1 / 3.0)


def quiet_values(seed):
    def rows(number):
        x, source = blobs(seed)(number)[0], random.Random(f"{seed} {number}")
        return x, [float(x.sum()) + source.gauss(0.0, 1.0) ** 3]

    toy = ToyServer(
        Frozen(nn.Linear(8, 1)), InputSpec("values", (8,), "float32", targets=("y",)), rows, delay=late_and_missing,
        respond=lambda row, number: {"answer": [float(row.sum())]},
    )  # fmt: skip
    toy.learn = lambda moment: {}
    return toy
