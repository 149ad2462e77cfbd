"""What a learner asks of scikit-learn's classifiers, asked of them directly."""

import numpy
import pytest
import torch
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from everlearn.learners.sklearn_models import (
    default_model,
    grown,
    has_partial_fit,
    is_a_classifier,
    parameters,
    partial_fit,
    probabilities_of,
    seeded,
    unfitted,
)


def rows(count=60, classes=3, seed=0):
    random = numpy.random.default_rng(seed)
    y = random.integers(classes, size=count)
    return random.normal(size=(count, 3)) + 2.0 * numpy.eye(3)[y], y


class Plain:
    """A classifier that knows nothing of scikit-learn."""

    def __init__(self, level):
        self.level = level

    def fit(self, x, y):
        return self

    def predict(self, x):
        return (x[:, 0] > self.level).astype(int)


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (GaussianNB(), True),
        (default_model(), True),
        (GridSearchCV(SVC(), {"C": [1.0]}), True),
        (Plain(1.0), True),
        (LinearRegression(), False),
        (StandardScaler(), False),
        (3, False),
    ],
)
def test_what_is_a_classifier(value, good):
    assert is_a_classifier(value) is good


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (SGDClassifier(), True),
        (default_model(), True),
        (make_pipeline(None, "passthrough", GaussianNB()), True),
        (make_pipeline(PolynomialFeatures(), GaussianNB()), False),
        (make_pipeline(StandardScaler(), SVC()), False),
        (RandomForestClassifier(), False),
    ],
)
def test_what_learns_batch_by_batch(value, good):
    assert has_partial_fit(value) is good


def test_every_state_of_chance_that_is_open_is_set():
    given = StackingClassifier(
        [("forest", RandomForestClassifier()), ("tree", BaggingClassifier(DecisionTreeClassifier(random_state=4)))],
        SGDClassifier(),
    )
    states = {
        key: value for key, value in parameters(seeded(given, 1, False), deep=True).items() if key.endswith("random_state")
    }
    opened = {key: value for key, value in states.items() if key != "tree__estimator__random_state"}
    assert states["tree__estimator__random_state"] == 4
    assert len(opened) == 3
    assert all(isinstance(value, int) for value in opened.values())
    assert len(set(opened.values())) == 3
    other = parameters(seeded(given, 2, False), deep=True)
    assert all(other[key] != value for key, value in opened.items())
    assert parameters(given, deep=True)["forest__random_state"] is None


def test_warm_start_is_set_where_wanted():
    assert seeded(SGDClassifier(), 0, True).warm_start
    assert not seeded(SGDClassifier(), 0, False).warm_start


def test_a_clone_has_learned_nothing():
    x, y = rows()
    given = GaussianNB(var_smoothing=0.1).fit(x, y)
    assert not hasattr(unfitted(given), "classes_")
    assert unfitted(given).var_smoothing == 0.1
    plain = Plain(2.0)
    assert unfitted(plain) is not plain
    assert unfitted(plain).level == 2.0
    assert parameters(plain) == {}


def test_the_last_step_sees_what_the_others_make_of_the_batch():
    x, y = rows()
    pipeline = make_pipeline("passthrough", StandardScaler(), GaussianNB())
    scale, last = StandardScaler(), GaussianNB()
    for part in (slice(0, 20), slice(20, 60)):
        partial_fit(pipeline, x[part], y[part], numpy.arange(3))
        scale.partial_fit(x[part])
        last.partial_fit(scale.transform(x[part]), y[part], classes=numpy.arange(3))
    assert numpy.array_equal(pipeline.predict_proba(x), last.predict_proba(scale.transform(x)))


def test_an_ensemble_that_goes_on_gets_as_many_members_again():
    x, y = rows()
    forest = RandomForestClassifier(4, warm_start=True, random_state=0)
    template = unfitted(forest)
    for members in (4, 8, 12):
        assert len(forest.fit(x, y).estimators_) == members
        forest = grown(forest, template)
    boosting = HistGradientBoostingClassifier(max_iter=3, warm_start=True)
    assert grown(boosting, unfitted(boosting)).max_iter == 6
    line = LogisticRegression(max_iter=50, warm_start=True)
    assert grown(line, unfitted(line)).max_iter == 50  # iterations of a solver, not members


def test_probabilities_are_the_estimators_own_where_it_has_them():
    x, y = rows()
    model = LogisticRegression().fit(x, y)
    assert numpy.array_equal(probabilities_of(model, x, model.classes_), model.predict_proba(x))


def test_margins_become_a_softmax():
    x, y = rows(classes=2)
    model = SGDClassifier(random_state=0).fit(x, y)
    expected = 1.0 / (1.0 + numpy.exp(-model.decision_function(x)))
    assert numpy.allclose(probabilities_of(model, x, model.classes_)[:, 1], expected, atol=1e-12)


class Voting:
    """Margins whose largest is not the answer in the second row."""

    def decision_function(self, x):
        return numpy.log([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])

    def predict(self, x):
        return numpy.array([2, 9])


def test_the_answer_is_the_likeliest():
    found = probabilities_of(Voting(), numpy.zeros((2, 1)), numpy.array([2, 5, 9]))
    assert numpy.allclose(found, [[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])


def test_an_answer_alone_is_certain():
    found = probabilities_of(Plain(0.0), numpy.array([[1.0], [-1.0]]), numpy.array([0, 1]))
    assert found.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_support_vectors_vote_and_the_scores_follow():
    """SVC decides by a vote among pairs of classes; the largest margin is not always its answer."""
    x, y = rows(count=200, seed=2)
    model = SVC().fit(x, y)
    grid = torch.cartesian_prod(*[torch.linspace(-3.0, 5.0, 12, dtype=torch.float64)] * 3).numpy()
    assert (model.decision_function(grid).argmax(1) != model.predict(grid)).any()
    assert numpy.array_equal(probabilities_of(model, grid, model.classes_).argmax(1), model.predict(grid))
