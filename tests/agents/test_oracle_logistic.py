"""Logistic regression beside scikit-learn's on the features written out, its weights, unseen actions, and widths by Laplace."""

import numpy
import pytest
from sklearn.linear_model import LogisticRegression

from everlearn.agents.oracle_logistic import Logistic
from everlearn.agents.oracles import Rows
from everlearn.core.state import capture, load


def made(count=800, columns=5, actions=3, seed=1):
    random = numpy.random.default_rng(seed)
    x, action = random.normal(size=(count, columns)), random.integers(actions, size=count)
    true = random.normal(size=(actions, columns))
    reward = (random.random(count) < 1 / (1 + numpy.exp(-(x * true[action]).sum(1)))).astype(float)
    return Rows(x, action, reward, random.random(count) + 0.5)


def written_out(x, action, actions):
    one = numpy.eye(actions)[action]
    return numpy.hstack([x, one, (one[:, :, None] * x[:, None]).reshape(len(x), -1)])


def test_it_is_the_regression_on_the_features_written_out():
    """Both minimise one convex loss; ours pulls the shared constant by a thousandth of the penalty, which moves it by less than 1e-4."""
    rows = made()
    ours = Logistic(C=0.3).start(3, 0)
    ours.fit(rows)
    theirs = LogisticRegression(C=0.3, tol=1e-10, max_iter=5000)
    theirs.fit(written_out(rows.x, rows.action, 3), rows.reward, sample_weight=rows.weight)
    for action in range(3):
        told = theirs.predict_proba(written_out(rows.x, numpy.full(len(rows.x), action), 3))[:, 1]
        numpy.testing.assert_allclose(ours.scores(rows.x)[action], told, atol=1e-4)


def test_an_action_never_taken_is_expected_to_do_as_the_others_do():
    rows = made()
    rows = rows.take(rows.action != 2)
    model = Logistic().start(3, 0)
    model.fit(rows)
    assert numpy.abs(model.own[2].numpy()).max() < 1e-12
    logits = model.widths(rows.x) / (model.scores(rows.x) * (1.0 - model.scores(rows.x)))
    assert (logits[2] >= numpy.sqrt(0.3 * (1.0 + (rows.x**2).sum(axis=1)))).all()  # not known better than before it is taken
    assert (logits[2] > logits[:2].max(axis=0)).all()
    before = Logistic().start(3, 0)
    assert before.scores(rows.x).min() == before.scores(rows.x).max() == 0.5


def test_widths_are_those_of_the_whole_hessian():
    rows = made(100, 3)
    model = Logistic(C=0.5).start(3, 0)
    model.fit(rows)
    one = numpy.eye(3)
    ones = numpy.hstack([rows.x, numpy.ones((100, 1))])
    whole = numpy.hstack([ones, *(ones * one[rows.action][:, [a]] for a in range(3))])
    chance = model.scores(rows.x)[rows.action, numpy.arange(100)]
    penalty = numpy.full(16, 2.0)
    penalty[3] *= 1e-3
    inverse = numpy.linalg.inv((whole.T * (rows.weight * chance * (1 - chance))) @ whole + numpy.diag(penalty))
    for action in range(3):
        asked = numpy.hstack([ones, *(ones * float(a == action) for a in range(3))])
        p = model.scores(rows.x)[action]
        slow = p * (1 - p) * numpy.sqrt(numpy.einsum("ni,ij,nj->n", asked, inverse, asked))
        numpy.testing.assert_allclose(model.widths(rows.x)[action], slow, rtol=1e-4)  # blocks of the last step but one


def test_rewards_that_are_all_the_same_end_in_a_sure_but_finite_model():
    rows = made(50)
    model = Logistic().start(3, 0)
    model.fit(Rows(rows.x, rows.action, numpy.ones(50), rows.weight))
    scores = model.scores(rows.x)
    assert numpy.isfinite(scores).all() and scores.min() > 0.9


def test_a_warm_start_ends_where_a_cold_one_does_in_fewer_steps():
    rows = made()
    cold = Logistic(steps=50).start(3, 0)
    cold.fit(rows)
    warm, short = Logistic(steps=2, warm_start=True).start(3, 0), Logistic(steps=2).start(3, 0)
    load(warm, capture(cold))
    for model in (warm, short):
        model.fit(rows)
    assert numpy.abs(warm.scores(rows.x) - cold.scores(rows.x)).max() < 1e-9
    assert numpy.abs(short.scores(rows.x) - cold.scores(rows.x)).max() > 1e-4
    assert cold.scores(rows.x[:1])[:, 0] == pytest.approx(warm.scores(rows.x)[:, 0])
