"""scikit-learn classifiers as learners: against scikit-learn itself, folded anew from the log, and refused cleanly."""

import copy

import numpy
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from everlearn.core.check import check_learner
from everlearn.core.events import Batch
from everlearn.learners.sklearn_estimator import SklearnEstimator
from everlearn.measure.drift import ADWIN
from everlearn.optim.refit import Every, OnDrift

from .sklearn_made import MADE, learned, whole

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_it_keeps_the_contract(make):
    assert len(check_learner(make)) == 12


# ---- the same as scikit-learn ------------------------------------------------------------------------------------------------


def test_partial_fit_is_scikit_learns_own(batches):
    events = batches(12)
    learner = learned(SklearnEstimator(SGDClassifier(loss="log_loss", random_state=3), classes=3), events)
    own = SGDClassifier(loss="log_loss", random_state=3)
    for batch in events:
        own.partial_fit(batch.x.numpy(), batch.y.numpy(), classes=[0, 1, 2])
    x = events[0].x
    assert numpy.allclose(learner.predict(x).exp().numpy(), own.predict_proba(x.numpy()), atol=1e-9)


def test_an_incremental_pipeline_learns_step_by_step(batches):
    events = batches(12)
    learner = learned(SklearnEstimator(make_pipeline(StandardScaler(), GaussianNB()), classes=3), events)
    scale, own = StandardScaler(), GaussianNB()
    for batch in events:
        x = scale.partial_fit(batch.x.numpy()).transform(batch.x.numpy())
        own.partial_fit(x, batch.y.numpy(), classes=[0, 1, 2])
    x = events[0].x
    expected = own.predict_proba(scale.transform(x.numpy()))
    assert numpy.allclose(learner.predict(x).exp().numpy(), expected, atol=1e-9)
    assert learner.window is None


def test_a_refit_is_a_fit_on_all_rows_so_far(batches):
    events = batches(14)
    learner = learned(SklearnEstimator(LogisticRegression(), refit=Every(8), classes=3), events)
    x, y = whole(events)
    fitted = int(learner.marks[-1])
    assert 0 < fitted < len(y)  # the last rows came after the last fit
    own = LogisticRegression().fit(x[:fitted].numpy(), y[:fitted].numpy())
    assert numpy.allclose(learner.predict(x).exp().numpy(), own.predict_proba(x.numpy()), atol=1e-9)


def test_a_capacity_leaves_the_newest_rows(batches):
    events = batches(12)
    learner = learned(SklearnEstimator(LogisticRegression(), refit=Every(8), capacity=15, classes=3), events)
    x, y = whole(events)
    fitted = int(learner.marks[-1])
    own = LogisticRegression().fit(x[fitted - 15 : fitted].numpy(), y[fitted - 15 : fitted].numpy())
    assert numpy.allclose(learner.predict(x).exp().numpy(), own.predict_proba(x.numpy()), atol=1e-9)
    assert learner.window.stored == 15


def test_the_schedule_says_when(batches):
    events = batches(12, sizes=(4,))
    learner = SklearnEstimator(GaussianNB(), refit=Every(12), classes=3)
    assert [learner.update(batch)["rows_fitted"] for batch in events[:7]] == [0, 0, 12, 0, 0, 24, 0]
    assert learner.window.replayed == 36


def test_without_partial_fit_it_refits_as_rows_grow(batches):
    learner = SklearnEstimator(DecisionTreeClassifier(), classes=3)
    assert [learner.update(batch)["rows_fitted"] for batch in batches(8, sizes=(4,))] == [4, 8, 12, 0, 20, 0, 0, 32]


def test_on_drift_it_refits_when_the_detector_hears_errors():
    random = torch.Generator().manual_seed(0)
    events = []
    for step in range(120):
        x = torch.randn(10, 2, generator=random)
        label = (x[:, 0] > 0).long()
        events.append(Batch(x, label if step < 60 else 1 - label))  # the world turns round
    tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    learner = SklearnEstimator(tree, refit=OnDrift(ADWIN(clock=1), first=100), capacity=60, classes=2)
    fits = [step for step, batch in enumerate(events) if learner.update(batch)["rows_fitted"]]
    x, y = whole(events)
    expected, own, detector = [], None, ADWIN(clock=1)
    for step, batch in enumerate(events):
        seen = 10 * (step + 1)
        due = seen >= 100 if own is None else detector.update((own.predict(batch.x.numpy()) != batch.y.numpy()).mean())
        if due:
            expected.append(step)
            own = DecisionTreeClassifier(max_depth=2, random_state=0).fit(
                x[max(0, seen - 60) : seen], y[max(0, seen - 60) : seen]
            )
    assert fits == expected
    assert fits[0] == 9
    assert 60 < fits[1] < 90
    assert numpy.allclose(learner.predict(x).exp().numpy(), own.predict_proba(x.numpy()), atol=1e-9)


def test_warm_goes_on_and_cold_starts_anew(batches):
    events = batches(12)
    made = {"max_iter": 1, "tol": None, "loss": "log_loss", "random_state": 0}
    answers = {
        warm: learned(SklearnEstimator(SGDClassifier(**made), refit=Every(20), warm=warm, classes=3), events).predict(
            events[0].x
        )
        for warm in (False, True)
    }
    x, y = (part.numpy() for part in whole(events))
    own = SGDClassifier(**made, warm_start=True)
    for stop in (22, 44):
        own.fit(x[:stop], y[:stop])
    assert numpy.allclose(answers[True].exp().numpy(), own.predict_proba(x[:4]), atol=1e-9)
    own = SGDClassifier(**made).fit(x, y)
    assert numpy.allclose(answers[False].exp().numpy(), own.predict_proba(x[:4]), atol=1e-9)
    assert not torch.equal(answers[False], answers[True])


def test_a_warm_forest_grows_by_as_many_trees_again(batches):
    events = batches(6, sizes=(10,))
    learner = learned(SklearnEstimator(RandomForestClassifier(3), refit=Every(20), warm=True, classes=3), events)
    assert len(learner._fitted.estimators_) == 9
    assert len({id(tree) for tree in learner._fitted.estimators_}) == 9
    boosted = learned(
        SklearnEstimator(HistGradientBoostingClassifier(max_iter=2), refit=Every(20), warm=True, classes=3), events
    )
    assert boosted._fitted.n_iter_ == 6


def test_a_warm_refit_with_a_new_class_starts_cold():
    x = torch.arange(8.0)[:, None]
    learner = SklearnEstimator(RandomForestClassifier(3), refit=Every(8), warm=True, classes=3)
    for labels in ([0, 1] * 4, [0, 1] * 4, [0, 1, 2, 2] * 2):
        learner.update(Batch(x, torch.tensor(labels)))
    assert len(learner._fitted.estimators_) == 3
    assert learner._fitted.classes_.tolist() == [0, 1, 2]


# ---- scores ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, RandomForestClassifier()])
def test_scores_are_uniform_before_the_first_fit(given):
    learner = SklearnEstimator(given, classes=4)
    assert torch.allclose(learner.predict(torch.rand(3, 5)).exp(), torch.full((3, 4), 0.25, dtype=torch.float64))


def test_columns_are_class_numbers_also_of_classes_not_seen():
    x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    learner = SklearnEstimator(GaussianNB(), refit=Every(1), classes=6)
    learner.update(Batch(x, torch.tensor([1, 1, 4, 4])))
    found = learner.predict(x)
    assert found.shape == (4, 6)
    assert found.argmax(1).tolist() == [1, 1, 4, 4]
    assert bool(torch.isfinite(found).all())
    assert float(found[:, [0, 2, 3, 5]].exp().sum()) < 1e-9
    assert torch.allclose(found.exp().sum(1), torch.ones(4, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize(
    "given", [SVC(), RidgeClassifier(), LinearSVC(), KNeighborsClassifier(1), SGDClassifier(loss="hinge")]
)
@pytest.mark.parametrize("classes", [2, 3])
def test_answers_are_those_of_the_estimator(given, classes):
    random = torch.Generator().manual_seed(classes)
    y = torch.randint(classes, (60,), generator=random)
    x = 2.0 * torch.nn.functional.one_hot(y, 3).float() + torch.randn(60, 3, generator=random)
    learner = SklearnEstimator(given, refit=Every(1), classes=classes)
    learner.update(Batch(x, y))
    assert learner.predict(x).argmax(1).tolist() == learner._fitted.predict(x.numpy()).tolist()


class Threshold(ClassifierMixin, BaseEstimator):
    """A user's own estimator with nothing but predict."""

    def __init__(self, level=0.0):
        self.level = level

    def fit(self, x, y):
        self.classes_ = numpy.unique(y)
        return self

    def predict(self, x):
        return self.classes_[(x[:, 0] > self.level).astype(int)]


def test_an_estimator_with_predict_alone_is_certain():
    learner = SklearnEstimator(Threshold(1.0), refit=Every(1), classes=3)
    learner.update(Batch(torch.tensor([[0.0], [2.0]]), torch.tensor([0, 2])))
    assert torch.allclose(
        learner.predict(torch.tensor([[0.5], [1.5]])).exp(), torch.tensor([[1.0, 0, 0], [0, 0, 1]]).double()
    )
    assert repr(learner) == f"sklearn({Threshold.__module__}:Threshold(level=1.0), refit=every(1))"


def test_one_class_alone_is_the_answer(batches):
    learner = SklearnEstimator(LogisticRegression(), refit=Every(4), classes=3)
    learner.update(Batch(torch.rand(4, 5), torch.full((4,), 2)))
    assert isinstance(learner._fitted, DummyClassifier)
    assert learner.predict(torch.rand(2, 5)).argmax(1).tolist() == [2, 2]
    learned(learner, batches(6))
    assert isinstance(learner._fitted, LogisticRegression)


def test_images_are_flattened_and_scaled():
    random = torch.Generator().manual_seed(0)
    x = torch.randint(256, (40, 1, 4, 4), dtype=torch.uint8, generator=random)
    y = (x[:, 0, 0, 0] > 127).long()
    learner = SklearnEstimator(LogisticRegression(), refit=Every(1), classes=2)
    learner.update(Batch(x, y))
    own = LogisticRegression().fit((x.flatten(1).float() / 255.0).numpy(), y.numpy())
    assert numpy.allclose(
        learner.predict(x).exp().numpy(), own.predict_proba((x.flatten(1).float() / 255.0).numpy()), atol=1e-9
    )
    assert learner.log.x.dtype == torch.uint8


# ---- classes that are not known beforehand -----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [GaussianNB(), SGDClassifier(random_state=1)])
def test_a_class_that_comes_late_counts_as_if_it_had_been_known(given):
    random = torch.Generator().manual_seed(3)
    y = torch.cat([torch.arange(30) % 2, torch.arange(30) % 4])
    x = torch.randn(60, 3, generator=random) + y[:, None]
    events = [Batch(*pair) for pair in zip(x.split(6), y.split(6), strict=True)]
    grown, known = learned(SklearnEstimator(given), events), learned(SklearnEstimator(given, classes=4), events)
    assert grown.predict(x).shape == (60, 4)
    assert torch.equal(grown.predict(x), known.predict(x))


def test_unknown_classes_grow_the_scores():
    learner = SklearnEstimator(DecisionTreeClassifier(), refit=Every(1))
    for label in (0, 1, 5):
        learner.update(Batch(torch.full((2, 1), float(label)), torch.full((2,), label)))
    assert learner.predict(torch.tensor([[5.0]])).shape == (1, 6)
    assert learner.predict(torch.tensor([[0.0], [1.0], [5.0]])).argmax(1).tolist() == [0, 1, 5]


# ---- seeds -------------------------------------------------------------------------------------------------------------------


def test_the_seed_reaches_every_random_state():
    inside = make_pipeline(StandardScaler(), SGDClassifier())
    first, again, other = (SklearnEstimator(inside, classes=2, seed=seed)._template[-1].random_state for seed in (1, 1, 2))
    assert first == again != other
    assert isinstance(first, int)
    assert inside[-1].random_state is None  # what was given is left alone


def test_seeds_change_the_forest_and_a_state_of_ones_own_stays(batches):
    events = batches(12)
    answers = [
        learned(SklearnEstimator(RandomForestClassifier(3), refit=Every(10), classes=3, seed=seed), events).predict(
            events[0].x
        )
        for seed in (0, 0, 1)
    ]
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])
    assert SklearnEstimator(RandomForestClassifier(3, random_state=7), classes=3, seed=1)._template.random_state == 7


def test_what_is_given_is_cloned(batches):
    given = GaussianNB().fit(numpy.zeros((2, 5)), [0, 1])
    before = copy.deepcopy(vars(given))
    learner = SklearnEstimator(given, classes=3)
    assert torch.allclose(learner.predict(torch.rand(1, 5)).exp(), torch.full((1, 3), 1 / 3, dtype=torch.float64))
    learned(learner, batches(4))
    assert {key: str(value) for key, value in vars(given).items()} == {key: str(value) for key, value in before.items()}
