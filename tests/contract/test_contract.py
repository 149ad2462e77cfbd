"""Every final learner and agent is found, by looking, and keeps the contract with its defaults."""

import importlib
import inspect
import pkgutil

import pytest
import torch
from torch import nn

from everlearn import Agent, Budget, FineTune, Learner, Sparse, check_agent, check_learner
from everlearn.core.contract.problem import gaussian_problem
from everlearn.core.contract.trial import fold
from everlearn.core.learner import ask_latest
from everlearn.core.random import isolated
from everlearn.core.state import same
from everlearn.core.store import stores
from everlearn.measure.drift import PageHinkley
from everlearn.optim.refit import Every

CLASSES = 4

# learners whose limit without a memory is another one than fine-tuning, with what it is (their own tests hold them to it)
OTHER_LIMITS: dict[str, str] = {
    "FrequencyReplay": "fine_tune(): to the bit, and with a memory too until a class has come three times",
    "ICaRL": "fine-tuning by one sigmoid per class, in which old answers are distilled; the network itself answers",
    "ERACE": "fine_tune(loss=masked(scope='batch'))",
    "FewShot": "fine-tuning by the scaled cosine, after whose end the classifier's own vectors stand for the classes",
    "GDumb": "nothing is learned: it trains on its memory alone",
    "SCR": "nothing is learned: there is nothing to contrast a batch with, and no class mean to answer with",
}


def final(package, base):
    """The final subclasses of a contract in the modules of a room."""
    found = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        for value in vars(importlib.import_module(f"{package}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, base) and not inspect.isabstract(value):
                found[value.__name__] = value
    return found


ALL = final("everlearn.learners", Learner)
LEARNERS = {name: cls for name, cls in ALL.items() if "classes" in cls.gives}
# learners of values, each with settings under which it is fitted on the contract's 96 rows
FORECASTERS = {
    "Persistence": lambda seed: ALL["Persistence"](seed=seed),
    "Forecaster": lambda seed: ALL["Forecaster"](window=6, first=40, epochs=2, refit=Every(16), refit_epochs=2, seed=seed),
    "Boosted": lambda seed: ALL["Boosted"](first=40, rounds=3, refit=Every(30), seed=seed),
    "Hybrid": lambda seed: ALL["Hybrid"](
        FORECASTERS["Persistence"](seed), FORECASTERS["Forecaster"](seed), detector=PageHinkley(), seed=seed
    ),
}
AGENTS = final("everlearn.agents", Agent)


def network(seed, norm=False):
    normed = [nn.BatchNorm1d(16)] if norm else []
    with isolated(seed, "network"):
        return nn.Sequential(nn.Linear(8, 16), *normed, nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, CLASSES))


def build(cls, seed=0, **arguments):
    """A learner with its defaults, on the network or estimator that it takes."""
    if getattr(cls, "takes", "network") == "estimator":
        return cls(None, classes=CLASSES, seed=seed, **arguments)
    return cls(network(seed, getattr(cls, "needs_batch_norm", False)), seed=seed, **arguments)


def test_the_house_is_not_empty():
    assert {"FineTune", "Frozen", "Retrain", "Replay", "DERpp", "OnlineEWC", "NearestClassMean", "StreamingLDA"} <= set(
        LEARNERS
    )
    assert {"SklearnEstimator", "RiverModel"} <= set(LEARNERS)
    assert "Uniform" in AGENTS


@pytest.mark.parametrize("name", LEARNERS)
def test_learners_keep_the_contract(name):
    short = {"epochs": 2} if name == "GDumb" else {}  # of 16, which take five seconds and no other way
    assert len(check_learner(lambda seed: build(LEARNERS[name], seed, **short), classes=CLASSES)) == 12


def test_every_learner_of_values_is_held_to_the_contract():
    assert set(FORECASTERS) == {name for name, cls in ALL.items() if "values" in cls.gives}


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("name", FORECASTERS)
def test_learners_of_values_keep_the_contract(name, targets):
    assert len(check_learner(FORECASTERS[name], targets=targets)) == 12


@pytest.mark.parametrize("name", AGENTS)
def test_agents_keep_the_contract(name):
    cls = AGENTS[name]
    takes_model = "model" in inspect.signature(cls).parameters
    make = (lambda seed: cls(network(seed), seed=seed)) if takes_model else (lambda seed: cls(seed=seed))
    assert len(check_agent(make, actions=getattr(make(0), "actions", None))) == 9


@pytest.mark.parametrize("name", ALL)
def test_names_are_words_of_call_strings_and_agree_with_their_modules(name):
    cls = ALL[name]
    assert cls.name.isidentifier() and cls.name == cls.name.lower()
    assert cls.__module__.rsplit(".", 1)[1].startswith(cls.name)


def end(learner, announced=False):
    """Predictions and metrics of a fold, and the weights that it ends in."""
    trace = fold(learner, gaussian_problem(CLASSES, announced).events, gaussian_problem(CLASSES, announced).probe)
    return trace[:-1], trace[-1]["descent"]


def has_gradient_steps(cls):
    return "descent" in cls.parts and not cls.reference


def with_strength():
    return [
        name for name, cls in LEARNERS.items() if "strength" in inspect.signature(cls).parameters and has_gradient_steps(cls)
    ]


@pytest.mark.parametrize("name", with_strength())
def test_without_strength_a_penalty_is_fine_tuning_to_the_bit(name):
    cls = LEARNERS[name]
    plain = end(FineTune(network(0)), announced=True)
    assert same(list(plain), list(end(build(cls, strength=0.0), announced=True)))
    assert not same(list(plain), list(end(build(cls), announced=True)))


def with_memory():
    able = [name for name, cls in LEARNERS.items() if has_gradient_steps(cls) and stores(build(cls))]
    return [name for name in able if name not in OTHER_LIMITS]


@pytest.mark.parametrize("name", with_memory())
def test_without_a_memory_replay_is_fine_tuning_to_the_bit(name):
    """A budget of no rows and a budget of no bytes leave nothing but the gradient steps on what comes."""
    plain = end(FineTune(network(0)), announced=True)
    for budget in (Budget(replay=0), Budget(replay_bytes=0)):
        learner = build(LEARNERS[name])
        budget.limit(learner)
        assert same(list(plain), list(end(learner, announced=True)))
        assert sum(store.stored for store in stores(learner)) == 0
    assert not same(list(plain), list(end(build(LEARNERS[name]), announced=True)))


def test_the_identities_are_about_something():
    assert with_strength() and {"Replay", "DERpp"} <= set(with_memory())
    assert set(OTHER_LIMITS) <= set(LEARNERS)


@pytest.mark.parametrize("name", [name for name, cls in LEARNERS.items() if "descent" in cls.parts])
def test_one_seed_seeds_all(name):
    """The same seed ends in the same bits, another one in others: the network's weights, dropout and draws come from it."""
    cls = LEARNERS[name]
    first, again, other = (fold(build(cls, seed), gaussian_problem(CLASSES, True).events)[-1] for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


def test_one_class_and_more_classes_than_rows_are_learned():
    """Limits of data that no learner may trip over."""
    for cls in LEARNERS.values():
        for classes in (1, 30):
            problem = gaussian_problem(classes, announced=True)
            if getattr(cls, "takes", "network") == "estimator":
                learner = cls(None, classes=classes)
            else:
                inner = (
                    [nn.Linear(8, 8)] if cls is Sparse else []
                )  # whose last layer is the head: it masks what comes before
                if getattr(cls, "needs_batch_norm", False):
                    inner = [nn.Linear(8, 8), nn.BatchNorm1d(8)]
                with isolated(0):
                    learner = cls(nn.Sequential(*inner, nn.Linear(8, classes)))
            if classes == 1 and getattr(cls, "takes", "network") == "estimator":
                continue  # many estimators refuse a single class; their wrappers have tests of their own
            fold(learner, problem.events)
            scores = ask_latest(learner, problem.probe)
            assert scores.shape == (6, classes) and torch.isfinite(scores).all()
