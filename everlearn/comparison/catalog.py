"""What every name in a call string stands for.

No registry and no import side effects: the modules of the family rooms are looked through for final classes, and the rooms'
own tables name data sets, scenarios, networks, optimisers, memory rules, refit policies and drift detectors. Learners from
elsewhere come as `package.module:Class` or by an entry point of the group `everlearn.learners`.
"""

import importlib
import inspect
import pkgutil
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from everlearn.core.agent import Agent
from everlearn.core.learner import Learner
from everlearn.core.spec import parse

GROUP = "everlearn.learners"


@cache
def learners() -> dict[str, type[Learner]]:
    """Every final learner by its call name: the house's own, then those of installed entry points."""
    found = _final("everlearn.learners", Learner)
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, point.load())
    return found


@cache
def agents() -> dict[str, type[Agent]]:
    """Every final agent by its call name."""
    return _final("everlearn.agents", Agent)


def _final(package: str, base: type) -> dict[str, Any]:
    found = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        for value in vars(importlib.import_module(f"{package}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, base) and not inspect.isabstract(value):
                found[value.name] = value
    return dict(sorted(found.items()))


@cache
def values() -> dict[str, Any]:
    """Optimisers, losses, memory rules, views, refit policies and detectors, which learners take, what scenarios take, and the
    explorers and oracles of agents whose names nothing else bears."""
    from everlearn.agents.explorers import EXPLORERS
    from everlearn.agents.oracle_names import ORACLES
    from everlearn.agents.query_names import RULES as QUERY_RULES
    from everlearn.data.gentle_views import GentleViews
    from everlearn.data.memory import RULES
    from everlearn.data.photometric import Photometric
    from everlearn.data.questions import QUESTIONS
    from everlearn.data.scenarios import VALUES
    from everlearn.data.views import Views
    from everlearn.learners.few_shot_tricks import Finetune
    from everlearn.learners.objective import Objective, OutputTerm, WeightTerm
    from everlearn.learners.presets import preset
    from everlearn.measure.drift import DETECTORS
    from everlearn.nn.bregman import POTENTIALS
    from everlearn.nn.criteria import LOSSES
    from everlearn.nn.series import SERIES
    from everlearn.optim.forgetting import FORGETTING
    from everlearn.optim.optimizers import OPTIMIZERS
    from everlearn.optim.refit import REFIT
    from everlearn.optim.schedules import SCHEDULES

    objectives = {cls.name: cls for cls in (Objective, OutputTerm, WeightTerm)} | {"preset": preset}
    plain = {
        **OPTIMIZERS,
        **LOSSES,
        **RULES,
        **REFIT,
        **SCHEDULES,
        **FORGETTING,
        **DETECTORS,
        **SERIES,
        **VALUES,
        Views.name: Views,
        GentleViews.name: GentleViews,
        Finetune.name: Finetune,
        Photometric.name: Photometric,
    }
    policies = {**EXPLORERS, **ORACLES}
    own = {name: cls for name, cls in policies.items() if cls.name == name and name not in learners()}
    return {**own, **plain, **POTENTIALS, **objectives, **QUERY_RULES, **QUESTIONS}


@cache
def policies() -> dict[str, Any]:
    """What agents take: explorers and oracles, by every name, also those that elsewhere name something else (`boosted`, `linear`)."""
    from everlearn.agents.explorers import EXPLORERS
    from everlearn.agents.oracle_names import ORACLES

    return {**values(), **EXPLORERS, **ORACLES}


@cache
def networks() -> dict[str, Any]:
    """Functions from a schema to a network."""
    from everlearn.nn.foreign import FOREIGN
    from everlearn.nn.networks import NETWORKS

    return {**NETWORKS, **FOREIGN}


@cache
def scenarios() -> dict[str, Any]:
    """Functions from a data set (or a stream) to a stream."""
    from everlearn.data.scenarios import SCENARIOS

    return dict(SCENARIOS)


@cache
def sources() -> dict[str, Any]:
    """Functions that give a data set; other names are looked for by `load`."""
    from everlearn.data.load import SOURCES

    return dict(SOURCES)


def normal(text: str) -> str:
    """A call string as it is printed everywhere: `replay( capacity = 5 )` becomes `replay(capacity=5)`."""
    call = parse(text)
    return str(replace(call, called=False) if not call.args and not call.kwargs else call)
