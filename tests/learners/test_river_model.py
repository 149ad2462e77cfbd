"""River classifiers as learners: River's own loop, folded anew from the log, and refused cleanly."""

import copy

import pytest
import torch

river = pytest.importorskip("river", reason="River is not installed: pip install 'everlearn[river]'")

from river import (  # noqa: E402
    base,
    compose,
    ensemble,
    forest,
    linear_model,
    multiclass,
    naive_bayes,
    neighbors,
    preprocessing,
    tree,
)

from everlearn.core.check import check_learner  # noqa: E402
from everlearn.core.errors import ArgumentError, InputError  # noqa: E402
from everlearn.core.events import Batch, Boundary  # noqa: E402
from everlearn.core.run import run  # noqa: E402
from everlearn.core.state import load_snapshot, same, save_snapshot  # noqa: E402
from everlearn.core.store import stores  # noqa: E402
from everlearn.core.stream import Schema, Stream  # noqa: E402
from everlearn.learners.river_model import RiverModel, estimator_named, river_names  # noqa: E402
from everlearn.measure.prequential import Prequential  # noqa: E402


def learned(learner, events):
    for batch in events:
        learner.update(batch)
    return learner


def clouds(rows=240, classes=3, features=4, size=8, seed=0):
    """Batches around one mean per class."""
    random = torch.Generator().manual_seed(seed)
    means = 2.0 * torch.randn(classes, features, generator=random)
    y = torch.randint(classes, (rows,), generator=random)
    x = means[y] + torch.randn(rows, features, generator=random)
    return [Batch(*pair) for pair in zip(x.split(size), y.split(size), strict=True)]


def dicts(x):
    return [{f"x{column}": value for column, value in enumerate(row)} for row in x.tolist()]


MODELS = {
    "default": lambda: None,
    "naive bayes": naive_bayes.GaussianNB,
    "tree": lambda: tree.HoeffdingTreeClassifier(grace_period=20),
    "adaptive tree": lambda: tree.HoeffdingAdaptiveTreeClassifier(grace_period=20),
    "forest": lambda: forest.ARFClassifier(n_models=3),
    "mondrian": lambda: forest.AMFClassifier(n_estimators=3),
    "neighbours": neighbors.KNNClassifier,
    "bagging": lambda: ensemble.BaggingClassifier(tree.HoeffdingTreeClassifier(), n_models=3),
    "voting": lambda: ensemble.VotingClassifier([tree.HoeffdingTreeClassifier(), naive_bayes.GaussianNB()]),
    "softmax": lambda: compose.Pipeline(preprocessing.StandardScaler(), linear_model.SoftmaxRegression()),
}
models = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


@models
def test_it_keeps_the_contract(make):
    assert len(check_learner(lambda seed: RiverModel(make(), classes=4, seed=seed))) == 12


# ---- the same as River -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        preprocessing.StandardScaler() | multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
        tree.HoeffdingTreeClassifier(grace_period=20),
        naive_bayes.GaussianNB(),
        forest.ARFClassifier(n_models=3, seed=5),
    ],
    ids=["logistic", "tree", "naive bayes", "forest"],
)
def test_it_learns_as_rivers_own_loop(model):
    """Test, then learn: the same probabilities before every batch."""
    events, own = clouds(), model.clone()
    learner = RiverModel(model, classes=3)
    learner.update(events[0])
    for row, label in zip(dicts(events[0].x), events[0].y.tolist(), strict=True):
        own.learn_one(row, label)
    for batch in events[1:]:
        scores = learner.predict(batch.x).exp()
        for row, found in zip(dicts(batch.x), scores.tolist(), strict=True):
            expected = own.predict_proba_one(row)
            total = sum(expected.values())
            assert found == pytest.approx([max(1e-12, expected.get(label, 0.0) / total) for label in range(3)], abs=1e-12)
        learner.update(batch)
        for row, label in zip(dicts(batch.x), batch.y.tolist(), strict=True):
            own.learn_one(row, label)


def test_the_size_of_batches_is_of_no_account():
    """Rows are learned one by one, so how they are cut into batches changes nothing."""
    answers = [learned(RiverModel(classes=3), clouds(size=size)).predict(clouds(seed=1)[0].x) for size in (1, 8, 240)]
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[1], answers[2])


def test_two_classes_are_told_to_river_as_bool():
    own = linear_model.LogisticRegression()
    events = clouds(classes=2)
    learner = learned(RiverModel(own, classes=2), events)
    for batch in events:
        for row, label in zip(dicts(batch.x), batch.y.tolist(), strict=True):
            own.learn_one(row, bool(label))
    found = learner.predict(events[0].x).exp()[:, 1].tolist()
    assert found == pytest.approx([own.predict_proba_one(row)[True] for row in dicts(events[0].x)], abs=1e-12)


def test_columns_have_names():
    """A model that takes two columns by name, and nothing else."""

    def answers(features, kept):
        model = compose.Pipeline(compose.Select(*kept), naive_bayes.GaussianNB())
        return learned(RiverModel(model, features=features, classes=3), clouds()).predict(clouds(seed=1)[0].x)

    named = answers(["height", "width", "depth", "weight"], ["height", "depth"])
    assert torch.equal(named, answers(None, ["x0", "x2"]))
    assert not torch.equal(named, answers(["height", "width", "depth", "weight"], ["height", "width"]))


def test_images_are_flattened_and_scaled():
    random = torch.Generator().manual_seed(0)
    x = torch.randint(256, (30, 1, 2, 2), dtype=torch.uint8, generator=random)
    y = (x[:, 0, 0, 0] > 127).long()
    learner = RiverModel(naive_bayes.GaussianNB(), classes=2)
    learner.update(Batch(x, y))
    own = naive_bayes.GaussianNB()
    for row, label in zip(dicts(x.flatten(1).float() / 255.0), y.tolist(), strict=True):
        own.learn_one(row, label)
    expected = [own.predict_proba_one(row).get(1, 0.0) for row in dicts(x.flatten(1).float() / 255.0)]
    assert learner.predict(x).exp()[:, 1].tolist() == pytest.approx(expected, abs=1e-12)
    assert learner.log.x.dtype == torch.uint8


class Last(base.Classifier):
    """Says the label it heard last; it has no probabilities."""

    def __init__(self):
        self.label = None

    def learn_one(self, x, y):
        self.label = y

    def predict_one(self, x, **kwargs):
        return self.label

    @property
    def _multiclass(self):
        return True


def test_a_model_without_probabilities_is_certain():
    learner = RiverModel(Last(), classes=3)
    learner.update(Batch(torch.rand(2, 1), torch.tensor([0, 2])))
    assert torch.allclose(learner.predict(torch.rand(1, 1)).exp(), torch.tensor([[0.0, 0.0, 1.0]]).double())


# ---- scores and classes ----------------------------------------------------------------------------------------------------


@models
def test_scores_are_uniform_before_the_first_row(make):
    learner = RiverModel(make(), classes=4)
    assert torch.allclose(learner.predict(torch.rand(3, 5)).exp(), torch.full((3, 4), 0.25, dtype=torch.float64))


def test_columns_are_class_numbers_also_of_classes_not_seen():
    learner = RiverModel("naive_bayes.GaussianNB()", classes=6)
    learner.update(Batch(torch.tensor([[0.0], [0.1], [5.0], [5.1]]), torch.tensor([1, 1, 4, 4])))
    found = learner.predict(torch.tensor([[0.05], [5.05]]))
    assert found.shape == (2, 6)
    assert found.argmax(1).tolist() == [1, 4]
    assert bool(torch.isfinite(found).all())


def test_unknown_classes_grow_the_scores():
    learner = RiverModel("naive_bayes.GaussianNB()")
    for label in (0, 5):
        learner.update(Batch(torch.tensor([[label + 0.0], [label + 0.1]]), torch.full((2,), label)))
    found = learner.predict(torch.tensor([[0.05], [5.05]]))
    assert found.shape == (2, 6)
    assert found.argmax(1).tolist() == [0, 5]
    known = learned(RiverModel("naive_bayes.GaussianNB()", classes=3), clouds())
    assert torch.equal(
        known.predict(torch.ones(1, 4)), learned(RiverModel("naive_bayes.GaussianNB()"), clouds()).predict(torch.ones(1, 4))
    )


# ---- purity, seeds, state --------------------------------------------------------------------------------------------------


@models
def test_predictions_change_nothing_of_what_is_learned(make):
    """Also of what the state does not show: the model itself must answer the same afterwards."""
    events = clouds()
    quiet, asked = RiverModel(make(), classes=3), RiverModel(make(), classes=3)
    for batch in events:
        asked.predict(batch.x)
        first = asked.predict(events[0].x)
        assert torch.equal(first, asked.predict(events[0].x))
        asked.update(batch)
        quiet.update(batch)
    assert torch.equal(quiet.predict(events[0].x), asked.predict(events[0].x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: forest.ARFClassifier(n_models=3),
        lambda: compose.Pipeline(preprocessing.StandardScaler(), forest.ARFClassifier(n_models=3)),
        lambda: multiclass.OneVsRestClassifier(
            ensemble.BaggingClassifier(tree.HoeffdingTreeClassifier(grace_period=10), n_models=2)
        ),
    ],
    ids=["alone", "in a pipeline", "in a wrapper"],
)
def test_the_seed_reaches_every_part(make):
    events = clouds(rows=400)
    answers = [learned(RiverModel(make(), classes=3, seed=seed), events).predict(events[0].x) for seed in (0, 0, 1)]
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


def test_the_seed_reaches_models_in_a_list():
    """Seen in the seeds themselves: a vote of few models may end the same way for all of them."""
    given = ensemble.VotingClassifier([forest.AMFClassifier(n_estimators=2), forest.AMFClassifier(n_estimators=2)])
    first, again, other = ([part.seed for part in RiverModel(given, seed=seed)._model] for seed in (0, 0, 1))
    assert first == again
    assert len({*first, *other}) == 4
    assert [part.seed for part in given] == [None, None]


def test_a_seed_of_ones_own_stays():
    events = clouds(rows=400)
    answers = [
        learned(RiverModel(forest.ARFClassifier(n_models=3, seed=9), classes=3, seed=seed), events).predict(events[0].x)
        for seed in (0, 1)
    ]
    assert torch.equal(*answers)


def test_what_is_given_is_cloned():
    given = naive_bayes.GaussianNB()
    given.learn_one({"x0": 1.0}, 0)
    before = copy.deepcopy(given.class_counts)
    learner = RiverModel(given, classes=2)
    assert torch.allclose(learner.predict(torch.rand(1, 1)).exp(), torch.full((1, 2), 0.5, dtype=torch.float64))
    learner.update(Batch(torch.rand(4, 1), torch.tensor([0, 1, 0, 1])))
    assert given.class_counts == before


@models
@pytest.mark.parametrize("cut", [1, 17])
def test_folded_anew_it_goes_on_to_the_same_bits(make, cut, tmp_path):
    events = clouds()
    uninterrupted = learned(RiverModel(make(), classes=3), events)
    state = learned(RiverModel(make(), classes=3), events[:cut]).state_dict()
    _, stored = load_snapshot(save_snapshot(tmp_path, 1, state))
    resumed = learned(RiverModel(make(), classes=3), events[:3])
    resumed.load_state_dict(stored)
    learned(resumed, events[cut:])
    assert same(uninterrupted.state_dict(), resumed.state_dict())
    assert torch.equal(uninterrupted.predict(events[0].x), resumed.predict(events[0].x))


def test_a_boundary_and_rows_without_answers_change_nothing():
    learner = learned(RiverModel(classes=3), clouds())
    before, answer = learner.state_dict(), learner.predict(torch.ones(1, 4))
    learner.boundary(Boundary(1, (0, 1)))
    assert learner.update(Batch(torch.rand(3, 4))) == {}
    assert same(before, learner.state_dict())
    assert torch.equal(answer, learner.predict(torch.ones(1, 4)))


def test_it_replays_nothing_and_has_nothing_to_limit():
    assert stores(RiverModel(classes=3)) == []


# ---- refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: RiverModel(3), "River classifier is expected, got int"),
        (lambda: RiverModel("linear_model.LinearRegression()"), "River classifier is expected, got LinearRegression"),
        (lambda: RiverModel(preprocessing.StandardScaler()), "River classifier is expected"),
        (lambda: RiverModel(classes=0), "classes must be an int >= 1"),
        (
            lambda: RiverModel(linear_model.LogisticRegression(l2=0.1), classes=3),
            r"tells 2 classes apart, and there are 3. Use multiclass.OneVsRestClassifier\(linear_model.LogisticRegression\(l2=0.1\)\)",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make, match):
    with pytest.raises(ArgumentError, match=match):
        make()


def test_two_class_models_refuse_a_third_label():
    with pytest.raises(InputError, match=r"label 2 is out of range; allowed: 0\.\.1"):
        RiverModel(linear_model.LogisticRegression()).update(Batch(torch.rand(1, 2), torch.tensor([2])))


def test_features_must_name_each_column():
    learner = RiverModel(features=["a", "b"], classes=2)
    before = learner.state_dict()
    with pytest.raises(InputError, match="features names 2 columns, and rows of x have 3"):
        learner.update(Batch(torch.rand(2, 3), torch.tensor([0, 1])))
    assert same(before, learner.state_dict())


class Choosy(Last):
    """Refuses rows above 0.5, after having learned from those before."""

    def learn_one(self, x, y):
        if x["x0"] > 0.5:
            raise ValueError("too large")
        self.label = y


def test_rows_that_the_model_refuses_leave_no_trace():
    learner = RiverModel(Choosy(), classes=3)
    learner.update(Batch(torch.tensor([[0.1]]), torch.tensor([1])))
    before = learner.state_dict()
    with pytest.raises(InputError, match="Choosy could not learn these rows: too large"):
        learner.update(Batch(torch.tensor([[0.2], [0.9]]), torch.tensor([2, 0])))
    assert same(before, learner.state_dict())
    assert learner.predict(torch.zeros(1, 1)).argmax(1).tolist() == [1]


def test_a_dict_of_tensors_is_refused():
    learner = RiverModel(classes=3)
    for y in (torch.tensor([0, 1]), None):
        with pytest.raises(InputError, match="one tensor"):
            learner.update(Batch({"a": torch.rand(2, 3)}, y))
    learned(learner, clouds())


# ---- texts and streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("learner", "text"),
    [
        (RiverModel(classes=3, seed=5), "river()"),
        (RiverModel(tree.HoeffdingTreeClassifier()), "river(tree.HoeffdingTreeClassifier())"),
        (RiverModel("GaussianNB()", features=("a", "b")), "river(naive_bayes.GaussianNB(), features=('a', 'b'))"),
    ],
)
def test_its_text_is_its_call(learner, text):
    assert repr(learner) == text


def test_names_are_rivers():
    assert river_names("tree.HoeffdingTreeClassifier") is tree.HoeffdingTreeClassifier
    assert estimator_named("GaussianNB") is naive_bayes.GaussianNB


class Listed(Stream):
    name = "listed"

    def __init__(self, events):
        self.schema = Schema((4,), torch.float32, ("a", "b", "c"))
        self.events = events

    def __len__(self):
        return len(self.events)

    def __getitem__(self, index):
        return self.events[index]


@pytest.mark.parametrize("make", [MODELS["default"], MODELS["forest"]], ids=["default", "forest"])
def test_a_run_that_is_killed_and_resumed_ends_the_same(make, tmp_path):
    stream = Listed(clouds())

    class Killed(Exception):
        pass

    def kill(done, total):
        if done == 13:
            raise Killed

    def fold(**options):
        return run(RiverModel(make(), classes=3), stream, monitors=[Prequential()], snapshot_every=5, **options)

    whole = fold()
    with pytest.raises(Killed):
        fold(folder=tmp_path / "run", progress=kill)
    resumed = fold(folder=tmp_path / "run")
    assert resumed.sha256 == whole.sha256
    assert resumed.figures == whole.figures
    assert torch.equal(resumed.learner.predict(stream[0].x), whole.learner.predict(stream[0].x))
