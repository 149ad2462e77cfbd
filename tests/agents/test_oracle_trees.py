"""Trees and estimators of scikit-learn: the action is a category, weights count, and a loaded model is grown again to the same bits."""

import numpy
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from everlearn.agents.oracle_trees import Boosted, Estimator
from everlearn.agents.oracles import Rows
from everlearn.core.errors import ArgumentError
from everlearn.core.state import capture, load


def made(count=400, seed=1):
    random = numpy.random.default_rng(seed)
    x, action = random.random((count, 2)), random.integers(3, size=count)
    reward = ((action == 1) == (x[:, 0] > 0.5)).astype(
        float
    )  # the second action is good where x is large, the others where small
    return Rows(x, action, reward, numpy.ones(count))


def test_trees_find_what_hangs_on_row_and_action():
    model = Boosted(rounds=20, least=5).start(3, 1)
    assert model.scores(made().x).tolist() == numpy.full((3, 400), 0.5).tolist()
    model.fit(made())
    scores = model.scores(numpy.array([[0.1, 0.5], [0.9, 0.5]]))
    assert ((scores > 0.5) == [[True, False], [False, True], [True, False]]).all()
    loaded = Boosted(rounds=20, least=5).start(3, 9)
    load(loaded, capture(model))
    assert (loaded.scores(made().x) == model.scores(made().x)).all()


def test_rewards_that_are_no_classes_are_fitted_by_squares_and_one_class_is_a_constant():
    rows = made()
    model = Boosted(rounds=20, least=5).start(3, 1)
    model.fit(Rows(rows.x, rows.action, 0.25 + 0.5 * rows.reward, rows.weight))
    assert set(model.scores(rows.x).round(1).ravel()) <= {0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8}
    model.fit(Rows(rows.x, rows.action, numpy.zeros(400), rows.weight))
    assert (model.scores(rows.x) == 0.0).all()


def test_estimators_of_ones_own_see_a_column_for_each_action():
    rows = made()
    rows = Rows(rows.x, rows.action, (rows.action == 2).astype(float), 1.0 + rows.x[:, 0])
    model = Estimator(LogisticRegression).start(3, 0)
    model.fit(rows)
    assert (model.scores(rows.x).argmax(axis=0) == 2).all()
    told = LogisticRegression().fit(
        numpy.hstack([rows.x, numpy.eye(3)[rows.action]]), rows.reward, sample_weight=rows.weight
    )
    numpy.testing.assert_allclose(
        model.scores(rows.x)[1], told.predict_proba(numpy.hstack([rows.x, numpy.eye(3)[[1] * 400]]))[:, 1]
    )
    line = Estimator(LinearRegression).start(3, 0)
    line.fit(Rows(rows.x, rows.action, rows.x[:, 1], rows.weight))
    numpy.testing.assert_allclose(line.scores(rows.x)[0], rows.x[:, 1], atol=1e-9)
    model.fit(Rows(rows.x, rows.action, rows.x[:, 1], rows.weight))
    with pytest.raises(ArgumentError, match="a classifier takes rewards 0 and 1"):
        model.scores(rows.x)


def test_arguments():
    with pytest.raises(ArgumentError, match="boosted: rounds must be an int >= 1"):
        Boosted(rounds=0)
    with pytest.raises(ArgumentError, match="boosted: trees take at most 255 actions, got 300"):
        Boosted().start(300, 0)
    with pytest.raises(ArgumentError, match="estimator: make must be a function"):
        Estimator(3)
