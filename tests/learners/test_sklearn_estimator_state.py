"""The wrapped estimator's state, budgets, refusals and texts."""

import numpy
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.run import run
from everlearn.core.state import load_snapshot, same, save_snapshot
from everlearn.core.store import stores
from everlearn.core.stream import Schema, Stream
from everlearn.learners.sklearn_estimator import SklearnEstimator, estimator_named, sklearn_names
from everlearn.optim.refit import Every, Grown, Never

from .sklearn_made import MADE, learned, whole

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# ---- state -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@pytest.mark.parametrize("cut", [1, 7, 11])
def test_folded_anew_it_goes_on_to_the_same_bits(make, cut, batches, tmp_path):
    events = batches(14, classes=4)
    uninterrupted = learned(make(0), events)
    state = learned(make(0), events[:cut]).state_dict()
    _, stored = load_snapshot(save_snapshot(tmp_path, 1, state))
    resumed = make(0)
    resumed.load_state_dict(stored)
    learned(resumed, events[cut:])
    assert same(uninterrupted.state_dict(), resumed.state_dict())
    assert torch.equal(uninterrupted.predict(events[0].x), resumed.predict(events[0].x))


def test_the_state_is_rows_and_numbers(batches):
    state = learned(SklearnEstimator(classes=3), batches(3)).state_dict()
    x, y = whole(batches(3))
    assert torch.equal(state["log"]["x"], x)
    assert torch.equal(state["log"]["y"], y)
    assert state["marks"].tolist() == [4, 5, 11]  # the ends of batches of 4, 1 and 6 rows


def test_a_boundary_and_rows_without_answers_change_nothing(batches):
    learner = learned(SklearnEstimator(classes=3), batches(4))
    before = learner.state_dict()
    learner.boundary(Boundary(1, (0, 1)))
    assert learner.update(Batch(torch.rand(3, 5))) == {}
    assert same(before, learner.state_dict())


def test_only_what_is_needed_is_kept(batches):
    learner = learned(SklearnEstimator(LogisticRegression(), refit=Every(300), capacity=20, classes=3), batches(300))
    held = learner.state_dict()
    assert len(held["log"]["y"]) == len(held["basis"]["y"]) == 20
    assert learner.window.seen == 1100


# ---- budgets -----------------------------------------------------------------------------------------------------------------


def test_a_budget_limits_the_rows_of_a_refit(batches):
    events = batches(12)
    learner = SklearnEstimator(LogisticRegression(), refit=Every(8), classes=3)
    Budget(replay=10).limit(learner)
    learned(learner, events)
    x, y = whole(events)
    fitted = int(learner.marks[-1])
    own = LogisticRegression().fit(x[fitted - 10 : fitted].numpy(), y[fitted - 10 : fitted].numpy())
    assert numpy.allclose(learner.predict(x).exp().numpy(), own.predict_proba(x.numpy()), atol=1e-9)
    assert [memory.stored for memory in stores(learner)] == [10]
    assert repr(learner) == "sklearn(LogisticRegression(), refit=every(8))"


def test_a_budget_of_nothing_leaves_nothing_to_fit(batches):
    learner = SklearnEstimator(LogisticRegression(), refit=Every(8), classes=3)
    Budget(replay=0).limit(learner)
    learned(learner, batches(12))
    assert torch.allclose(learner.predict(torch.rand(1, 5)).exp(), torch.full((1, 3), 1 / 3, dtype=torch.float64))


def test_partial_fit_replays_nothing_and_has_nothing_to_limit():
    assert stores(SklearnEstimator(classes=3)) == []


# ---- refusals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SklearnEstimator(3), "scikit-learn classifier is expected, got int"),
        (lambda: SklearnEstimator("LinearRegression()"), "scikit-learn classifier is expected, got LinearRegression"),
        (lambda: SklearnEstimator(classes=0), "classes must be an int >= 1"),
        (lambda: SklearnEstimator(capacity=5), "capacity is for re-fits"),
        (lambda: SklearnEstimator(warm=True), "warm is for re-fits"),
        (lambda: SklearnEstimator(GaussianNB(), refit=Every(5), warm=True), "GaussianNB has no warm_start"),
        (lambda: SklearnEstimator(GaussianNB(), refit=Never()), "would never fit GaussianNB"),
        (lambda: SklearnEstimator(GaussianNB(), refit=500), r"refit must be every\(n\).*got 500"),
        (lambda: SklearnEstimator(GaussianNB(), refit=Every(5), capacity=0), "capacity must be an int >= 1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make, match):
    with pytest.raises(ArgumentError, match=match):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: SklearnEstimator(MultinomialNB(), classes=3),
        lambda: SklearnEstimator(make_pipeline(MinMaxScaler((-2, -1)), MultinomialNB()), classes=3),
        lambda: SklearnEstimator(MultinomialNB(), refit=Every(1), classes=3),
        lambda: SklearnEstimator(MultinomialNB(), refit=Every(1), capacity=6, classes=3),
    ],
)
def test_rows_that_the_estimator_refuses_leave_no_trace(make):
    """Negative counts are refused by MultinomialNB; in the pipeline only after the scaler has learned from them."""
    good = Batch(torch.rand(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]))
    bad = Batch(-torch.rand(6, 3) - 1.0, torch.tensor([0, 1, 2, 0, 1, 2]))
    tried, clean = make(), make()
    for learner in (tried, clean):
        if "pipeline" not in type(learner._template).__name__.lower():
            learner.update(good)
    before = tried.state_dict()
    with pytest.raises(InputError, match="could not be fitted on these rows"):
        tried.update(bad)
    assert same(before, tried.state_dict())
    assert torch.equal(tried.predict(good.x), clean.predict(good.x))


def test_a_fit_that_needs_more_rows_says_what_to_do():
    learner = SklearnEstimator("CalibratedClassifierCV(cv=5)", classes=2)
    with pytest.raises(InputError, match=r"refit=every\(500\)"):
        learner.update(Batch(torch.rand(4, 2), torch.tensor([0, 1, 0, 1])))
    neighbours = SklearnEstimator(KNeighborsClassifier(5), classes=2)
    neighbours.update(Batch(torch.rand(3, 2), torch.tensor([0, 1, 0])))
    with pytest.raises(InputError, match=r"could not answer for.*refit=every\(500\)"):
        neighbours.predict(torch.rand(1, 2))


def test_a_dict_of_tensors_is_refused(batches):
    learner = SklearnEstimator(classes=3)
    with pytest.raises(InputError, match="one tensor"):
        learner.update(Batch({"a": torch.rand(2, 3)}, torch.tensor([0, 1])))
    with pytest.raises(InputError, match="one tensor"):
        learner.update(Batch({"a": torch.rand(2, 3)}))
    learned(learner, batches(2))


# ---- texts and streams -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("learner", "text"),
    [
        (SklearnEstimator(classes=3, seed=5), "sklearn()"),
        (SklearnEstimator(GaussianNB()), "sklearn(GaussianNB())"),
        (
            SklearnEstimator(RandomForestClassifier(n_estimators=50), refit=Every(500)),
            "sklearn(RandomForestClassifier(n_estimators=50), refit=every(500))",
        ),
        (
            SklearnEstimator("SGDClassifier(alpha=0.1)", refit=Grown(2.0), warm=True, capacity=9),
            "sklearn(SGDClassifier(alpha=0.1), refit=grown(2.0), warm=True, capacity=9)",
        ),
    ],
)
def test_its_text_is_its_call(learner, text):
    assert repr(learner) == text


def test_names_are_scikit_learns():
    assert sklearn_names("GaussianNB") is GaussianNB
    assert estimator_named("naive_bayes.GaussianNB") is GaussianNB


class Listed(Stream):
    name = "listed"

    def __init__(self, events):
        self.schema = Schema((5,), torch.float32, ("a", "b", "c"))
        self.events = events

    def __len__(self):
        return len(self.events)

    def __getitem__(self, index):
        return self.events[index]


@pytest.mark.parametrize("make", [MADE["default"], MADE["forest, window"]], ids=["default", "forest, window"])
def test_a_run_that_is_killed_and_resumed_ends_the_same(make, batches, tmp_path):
    stream = Listed(batches(20))

    class Killed(Exception):
        pass

    def kill(done, total):
        if done == 13:
            raise Killed

    whole_run = run(make(0), stream, snapshot_every=5)
    with pytest.raises(Killed):
        run(make(0), stream, folder=tmp_path / "run", snapshot_every=5, progress=kill)
    resumed = run(make(0), stream, folder=tmp_path / "run", snapshot_every=5)
    assert resumed.sha256 == whole_run.sha256
    assert torch.equal(resumed.learner.predict(stream[0].x), whole_run.learner.predict(stream[0].x))


def test_the_default_scales_columns_of_different_sizes():
    """Of the chemistry of wines some columns are in the thousands, some below one: unscaled gradient descent stays near chance."""
    from sklearn.datasets import load_wine

    values, labels = load_wine(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(values, dtype=torch.float32)[order], torch.tensor(labels)[order]
    accuracy = []
    for learner in (SklearnEstimator(classes=3), SklearnEstimator(SGDClassifier(loss="log_loss"), classes=3)):
        right = 0
        for rows, answers in zip(x.split(8), y.split(8), strict=True):
            right += int((learner.predict(rows).argmax(1) == answers).sum())
            learner.update(Batch(rows, answers))
        accuracy.append(right / len(y))
    assert accuracy[0] > accuracy[1] + 0.2
