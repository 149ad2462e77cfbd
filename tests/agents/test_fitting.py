"""What a fit is made of: weights, rows of exploration, calibration, and the gate."""

import numpy
import pytest
from sklearn.linear_model import LogisticRegression

from everlearn.agents.fitting import (
    Calibration,
    draws_of,
    explored,
    is_better,
    logit,
    platt,
    rows_of,
    weights_of,
)
from everlearn.agents.window import Window


def window_of(propensity, action, reward, x=None, actions=2):
    window = Window(actions)
    for place in range(len(action)):
        row = numpy.zeros(1) if x is None else x[place]
        window.append(
            str(place), row, numpy.ones(actions, bool), int(action[place]), float(reward[place]), float(propensity[place]), 0
        )
    return window


def test_weights_by_hand():
    propensity = numpy.array([0.5, 0.25, 0.1])
    assert weights_of("none", propensity, 1.0).tolist() == [1.0, 1.0, 1.0]
    numpy.testing.assert_allclose(weights_of("ips", propensity, 1.0), numpy.array([2, 4, 10]) * 3 / 16)
    numpy.testing.assert_allclose(weights_of("clipped", propensity, 5.0), numpy.array([2, 4, 5]) * 3 / 11)
    window = window_of(propensity, [0, 1, 0], [1, 0, 1])
    rows = rows_of(window, numpy.array([True, False, True]), "ips", 1.0)
    assert rows.action.tolist() == [0, 0] and rows.weight.tolist() == pytest.approx([2 * 2 / 12, 10 * 2 / 12])


def test_rows_of_exploration_are_even_over_actions_whatever_the_policy():
    """A policy with p = (.9, .1), of which .2 is uniform: kept rows are .2 of all and split evenly; a wrong share is found out."""
    random = numpy.random.default_rng(0)
    action = (random.random(20_000) < 0.1).astype(int)
    window = window_of(numpy.where(action == 1, 0.1, 0.9), action, action)
    kept = explored(window, 0.2, seed=3)
    assert abs(kept.mean() - 0.2) < 5 * (0.16 / 20_000) ** 0.5
    assert abs(action[kept].mean() - 0.5) < 5 * (0.25 / kept.sum()) ** 0.5
    assert kept[action == 1].all()  # all of them were drawn so: .1 is half of .2
    again = explored(window, 0.2, seed=3)
    assert (kept == again).all() and draws_of(3, "explored", ["7"]) == draws_of(3, "explored", window.ids)[7]


def test_platts_map_is_a_logistic_regression_on_the_log_odds():
    random = numpy.random.default_rng(1)
    scores = random.random(3000)
    reward = (random.random(3000) < 1 / (1 + numpy.exp(-(0.5 * logit(scores) - 1.0)))).astype(float)
    slope, offset = platt(scores, reward, numpy.ones(3000))
    told = LogisticRegression(C=numpy.inf, tol=1e-9).fit(logit(scores)[:, None], reward)
    assert (slope, offset) == (pytest.approx(told.coef_[0, 0], abs=1e-4), pytest.approx(told.intercept_[0], abs=1e-4))
    assert (slope, offset) == (pytest.approx(0.5, abs=0.1), pytest.approx(-1.0, abs=0.1))


def test_calibration_mends_scores_that_are_too_sure():
    random = numpy.random.default_rng(2)
    true = random.random(4000)
    reward = (random.random(4000) < true).astype(float)
    sure = 1 / (1 + numpy.exp(-4 * logit(true)))
    for kind in ("platt", "isotonic"):
        calibration = Calibration()
        assert (calibration(sure) == sure).all()
        calibration.fit(kind, sure, reward, numpy.ones(4000))
        assert numpy.abs(calibration(sure) - true).mean() < 0.05 < 0.15 < numpy.abs(sure - true).mean()
        assert (numpy.diff(calibration(numpy.sort(sure))) >= -1e-12).all()


def test_the_gate_lets_through_what_is_better_for_certain():
    random = numpy.random.default_rng(3)
    action = random.integers(2, size=600)
    reward = (random.random(600) < numpy.where(action == 1, 0.8, 0.3)).astype(float)
    window, held = window_of(numpy.full(600, 0.5), action, reward), numpy.arange(600) % 3 == 0

    def always(choice):
        return lambda x, offered: numpy.repeat(numpy.eye(2)[choice][:, None], len(x), axis=1)

    assert is_better(always(1), always(0), window, held)
    assert not is_better(always(0), always(1), window, held)
    assert not is_better(always(1), always(1), window, held)  # no better than what stands
    assert not is_better(always(1), always(0), window, numpy.arange(600) < 1)
