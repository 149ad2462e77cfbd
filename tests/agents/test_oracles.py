"""Ridge: rank-one updates are the normal equations, widths are their inverse, and a copy goes on by itself."""

import copy

import numpy
import pytest

from everlearn.agents.oracles import Ridge, RidgeModel, Rows
from everlearn.core.errors import ArgumentError
from everlearn.core.state import capture, load, same


def rows(count=60, columns=4, actions=3, seed=1, weights=True):
    random = numpy.random.default_rng(seed)
    weight = random.random(count) + 0.5 if weights else numpy.ones(count)
    return Rows(random.normal(size=(count, columns)), random.integers(actions, size=count), random.random(count), weight)


def taught(given, strength=0.7):
    model = Ridge(strength).start(3, 0)
    for place in range(len(given.x)):
        model.learn(given.x[place], int(given.action[place]), float(given.reward[place]), float(given.weight[place]))
    return model


def test_a_row_at_a_time_is_the_fit_at_once_and_the_normal_equations():
    given = rows()
    online, batch = taught(given), Ridge(0.7).start(3, 0)
    batch.fit(given)
    asked = numpy.random.default_rng(2).normal(size=(9, 4))
    ones = numpy.hstack([asked, numpy.ones((9, 1))])
    for action in range(3):
        took = given.action == action
        x = numpy.hstack([given.x[took], numpy.ones((took.sum(), 1))])
        gram = (x.T * given.weight[took]) @ x + 0.7 * numpy.eye(5)
        theta = numpy.linalg.solve(gram, (x.T * given.weight[took]) @ given.reward[took])
        width = numpy.sqrt(numpy.einsum("ni,ij,nj->n", ones, numpy.linalg.inv(gram), ones))
        for model in (online, batch):
            numpy.testing.assert_allclose(model.scores(asked)[action], ones @ theta, atol=1e-10)
            numpy.testing.assert_allclose(model.widths(asked)[action], width, atol=1e-10)


def test_before_the_first_row_all_is_alike():
    model, x = Ridge(4.0).start(2, 0), numpy.array([[3.0, 0.0]])
    assert model.scores(x).tolist() == [[0.0], [0.0]]
    assert model.widths(x).ravel().tolist() == pytest.approx([10**0.5 / 2] * 2)
    model.fit(rows(0))
    assert model.scores(rows(2).x).tolist() == [[0.0, 0.0]] * 2


def test_copies_and_snapshots_share_nothing():
    model = taught(rows())
    before = capture(model)
    copied, loaded = copy.deepcopy(model), RidgeModel(3, 0.7)
    load(loaded, before)
    for other in (copied, loaded):
        other.learn(numpy.ones(4), 1, 0.5, 1.0)
    assert same(capture(model), before) and same(capture(copied), capture(loaded)) and not same(before, capture(copied))


def test_the_penalty_is_above_nothing():
    with pytest.raises(ArgumentError, match="ridge: strength must be a number >="):
        Ridge(0.0)
