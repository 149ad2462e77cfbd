"""What a call string builds, what is handed in, and how a wrong one is refused."""

import warnings

import pytest
import torch
from torch import nn

from everlearn.comparison import building, catalog
from everlearn.core.errors import ArgumentError, InputError, SpecError
from everlearn.core.events import Batch
from everlearn.core.learner import TaskLearner
from everlearn.core.random import isolated
from everlearn.core.run import run
from everlearn.core.stream import Schema, Stream
from everlearn.measure.matrix import AccuracyMatrix


@pytest.fixture(scope="module")
def digits():
    return building.build_stream("split(digits, experiences=5)", 0)


def test_a_budget_that_cannot_be_read_is_answered_with_one_that_can():
    with pytest.raises(SpecError, match=r"cannot read '300': .* such as budget\(labels=1000\)"):
        building.build_budget("300")


def test_an_unknown_learner_is_answered_with_the_closest(digits):
    with pytest.raises(SpecError, match="did you mean 'replay'"):
        building.build_learner("repaly(capacity=5)", digits, "auto", 0)


def test_an_unknown_argument_is_answered_with_the_closest(digits):
    with pytest.raises(SpecError, match="did you mean 'capacity'"):
        building.build_learner("replay(capactiy=5)", digits, "auto", 0)


def test_a_learner_of_classes_is_refused_where_values_are_asked_for():
    class Loads(Stream):
        name = "loads"
        schema = Schema((6, 1), torch.float32, (), targets=("load",))

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return Batch(torch.zeros(2, 6, 1), torch.zeros(2, 1))

    with pytest.raises(ArgumentError, match=r"^fine_tune gives classes, and loads asks for values\. Learners of values: "):
        building.build_learner("fine_tune", Loads(), "mlp", 0)


def test_a_data_set_alone_is_not_a_stream():
    with pytest.raises(SpecError, match="not a stream"):
        building.build_stream("digits", 0)


def test_the_seed_reaches_scenario_network_and_learner():
    one, again, other = (building.build_stream("split(digits, experiences=5)", seed) for seed in (0, 0, 1))
    assert torch.equal(one[1].x, again[1].x)
    assert not torch.equal(one[1].x, other[1].x)
    first, second, third = (building.build_model("mlp(hidden=(8,))", one, seed) for seed in (0, 0, 1))
    pairs = [list(zip(first.parameters(), model.parameters(), strict=True)) for model in (second, third)]
    assert all(torch.equal(left, right) for left, right in pairs[0])
    assert not all(torch.equal(left, right) for left, right in pairs[1])
    assert building.build_learner("replay(capacity=5)", one, "auto", 7).seed == 7


def test_a_seed_that_is_written_wins():
    one, other = (building.build_stream("split(digits, experiences=5, seed=3)", seed) for seed in (0, 1))
    assert torch.equal(one[1].x, other[1].x)


def build(schema):
    return nn.Linear(schema.shape[0], schema.outputs)


def plain():
    return nn.Linear(64, 10)


def wrong_size():
    return nn.Linear(64, 7)


@pytest.mark.parametrize("name", ["build", "plain"])
def test_the_users_network_is_taken_with_or_without_a_schema(digits, name, monkeypatch):
    model = building.build_model(f"{_here(monkeypatch)}:{name}", digits, 0)
    assert model(torch.zeros(2, 64)).shape == (2, 10)


def test_a_network_of_the_wrong_size_is_refused_with_both_shapes(digits, monkeypatch):
    with pytest.raises(InputError, match=r"\(2, 7\).*\(2, 10\)"):
        building.build_model(f"{_here(monkeypatch)}:wrong_size", digits, 0)


def test_an_estimator_of_the_user_stands_in_the_place_of_the_network(digits):
    learner = building.build_learner("sklearn(RandomForestClassifier(n_estimators=3), refit=every(100))", digits, "auto", 0)
    assert "RandomForestClassifier" in repr(learner)
    assert learner.predict(digits[1].x).shape == (len(digits[1]), 10)


def test_frozen_is_told_when_the_model_counts_as_deployed():
    stream = building.build_stream("prequential(digits, batch=10, deployed=0.1)", 0)
    learner = building.build_learner("frozen", stream, "auto", 0)
    assert learner.updates == stream.deployed


def test_budgets_are_call_strings():
    assert building.build_budget("budget(replay=5, labels=7)").labels == 7
    with pytest.raises(SpecError, match="did you mean 'labels'"):
        building.build_budget("budget(label=7)")


def _here(monkeypatch):
    """This test file as an importable module."""
    import sys

    monkeypatch.setitem(sys.modules, "own_networks", sys.modules[__name__])
    return "own_networks"


def test_a_masked_loss_is_warned_of_where_classes_never_meet():
    apart = building.build_stream("recurring(digits, tasks=20, structure='partition')", 0)
    together = building.build_stream("recurring(digits, tasks=200)", 0)
    masked, seen, plain = (
        building.build_learner(text, apart, "auto", 0)
        for text in ("fine_tune(loss=masked())", "fine_tune(loss=masked(scope='seen'))", "fine_tune")
    )
    with pytest.warns(UserWarning, match="5 groups that never share a task"):
        building.warn_of_mask(masked, apart)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        building.warn_of_mask(masked, together)
        building.warn_of_mask(seen, apart)
        building.warn_of_mask(plain, apart)


FASTER = ("homeostatic", "random_lr")  # begin at a rate that is too low for so short a stream


@pytest.mark.filterwarnings("ignore:.*second view")
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, cls in catalog.learners().items()
        if getattr(cls, "takes", "") != "estimator" and "classes" in getattr(cls, "gives", ())
    ],
)
def test_every_learner_learns_where_classes_come_back(name):
    """As it stands, on a stream of small tasks: better than chance on classes that came, or as bad as it was if it never learns.

    One that must be told the task refuses such a stream, whose held-out rows are of all tasks.
    """
    stream = building.build_stream("recurring(digits, tasks=40, evaluate_every=40, batch=32)", 0)
    if getattr(catalog.learners()[name], "needs_batch_norm", False):
        with isolated(0, "network"):
            network = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
        learner = catalog.learners()[name](network, seed=0)
    else:
        text = f"{name}(optimizer=sgd(lr=0.1))" if name in FASTER else name
        learner = building.build_learner(text, stream, "mlp(hidden=(32,))", 0)
    monitor = AccuracyMatrix()
    if isinstance(learner, TaskLearner) and not learner.infers_task:
        with pytest.raises(InputError, match="must be told the task"):
            run(learner, stream, monitors=[monitor])
        return
    run(learner, stream, monitors=[monitor])
    assert monitor.figures()["average_accuracy"] > (0.05 if name == "frozen" else 0.2)
