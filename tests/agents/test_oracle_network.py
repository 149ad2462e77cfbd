"""The network as oracle: it learns what no line can, its weights are its state, and a warm start goes on."""

import numpy
import pytest
import torch
from torch import nn

from everlearn.agents.oracle_network import Network
from everlearn.agents.oracles import Rows
from everlearn.core.errors import ArgumentError
from everlearn.core.state import capture, load, same


def made(count=600):
    random = numpy.random.default_rng(1)
    x, action = random.choice([-1.0, 1.0], size=(count, 2)), random.integers(2, size=count)
    reward = ((x[:, 0] * x[:, 1] > 0) == (action == 0)).astype(float)  # exclusive or
    return Rows(x, action, reward, numpy.ones(count))


def test_it_learns_an_exclusive_or_and_goes_on_elsewhere_to_the_same_bits():
    settings = Network(hidden=(16,), epochs=30, lr=0.01)
    model, shared = settings.start(2, 1), torch.get_rng_state()
    assert (model.scores(made().x) == 0.5).all()
    model.fit(made())
    scores = model.scores(numpy.array([[1.0, 1.0], [1.0, -1.0]]))
    assert ((scores > 0.9) == [[True, False], [False, True]]).all() and (
        (scores < 0.1) == [[False, True], [True, False]]
    ).all()
    assert torch.equal(shared, torch.get_rng_state())
    loaded, again = settings.start(2, 5), settings.start(2, 1)
    load(loaded, capture(model))
    again.fit(made())
    assert (loaded.scores(made().x) == model.scores(made().x)).all() and same(capture(model), capture(again))


def test_a_warm_start_goes_on_from_the_weights():
    def error(warm):
        settings = Network(hidden=(16,), epochs=2, lr=0.01, warm_start=warm)
        model = settings.start(2, 1)
        for _ in range(6):
            model.fit(made())
        rows = made()
        return float(((model.scores(rows.x)[rows.action, numpy.arange(600)] - rows.reward) ** 2).mean())

    assert error(True) < 0.5 * error(False)


def linear(columns, actions):
    return nn.Linear(columns, actions, bias=False)


def test_a_module_of_ones_own_stands_in():
    model = Network(make=linear, epochs=1).start(3, 0)
    model.fit(Rows(*(getattr(made(), key) for key in ("x", "action", "reward", "weight"))))
    assert set(model.weights) == {"weight"} and model.weights["weight"].shape == (3, 2)
    numpy.testing.assert_allclose(model.scores(numpy.zeros((1, 2))), 0.5)
    with pytest.raises(ArgumentError, match="network: epochs must be an int >= 1"):
        Network(epochs=0)
    with pytest.raises(ArgumentError, match="network: make must be a function"):
        Network(make="mlp")
