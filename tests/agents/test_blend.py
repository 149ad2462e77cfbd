"""Older fits beside the newest: weights by hand, only what was fitted counts, and the state goes on."""

import numpy

from everlearn.agents.blend import Blend
from everlearn.agents.fitting import Calibration
from everlearn.agents.oracles import Ridge, Rows
from everlearn.core.state import capture, load, same

X = numpy.zeros((1, 1))


def constant(value):
    model = Ridge(1e-12).start(1, 0)
    model.fit(Rows(X, numpy.zeros(1, int), numpy.array([value]), numpy.ones(1)))
    return model


def pushed(values, mix=0.5, clipped=False):
    blend = Blend(Ridge(), 1, mix, clipped, 0)
    for value in values:
        blend.push(constant(value), Calibration())
    return blend


def test_weights_by_hand():
    numpy.testing.assert_allclose(pushed([1.0]).scores(X), 1.0)  # what was never fitted has no part
    numpy.testing.assert_allclose(pushed([1.0, 4.0]).scores(X), (4 + 0.5 * 1) / 1.5)
    numpy.testing.assert_allclose(pushed([1.0, 4.0], mix=0.0).scores(X), 4.0)
    numpy.testing.assert_allclose(pushed([1.0, 4.0], clipped=True).scores(X), 1.0)
    long = pushed(range(9))
    assert len(long.models) == 5
    numpy.testing.assert_allclose(
        long.scores(X), sum(0.5**age * (8 - age) for age in range(5)) / sum(0.5**age for age in range(5))
    )
    assert long.newest is long.models[0] and long.alone(constant(3.0), Calibration(), X) > 2.999


def test_a_snapshot_goes_on():
    first, second = pushed([1.0, 4.0]), pushed([7.0])
    load(second, capture(first))
    for blend in (first, second):
        blend.push(constant(2.0), Calibration())
    assert same(capture(first), capture(second)) and first.scores(X) == second.scores(X)
