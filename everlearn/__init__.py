"""Everlearn: models that keep learning after deployment.

The public names are loaded when they are first used, so that `import everlearn` costs little more than torch itself.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "AGEM": "learners.agem",
    "Adapter": "core.learner",
    "Agent": "core.agent",
    "Ascent": "optim.ascent",
    "AsyncClient": "serve.client",
    "BNStats": "learners.bn_stats",
    "Batch": "core.events",
    "Boosted": "learners.boosted",
    "Boundary": "core.events",
    "Budget": "core.budget",
    "Client": "serve.client",
    "ContextualBandit": "agents.bandit",
    "CoTTA": "learners.cotta",
    "CollapseWatch": "measure.collapse",
    "Comparison": "comparison.grid",
    "DER": "learners.der",
    "DERpp": "learners.derpp",
    "Data": "data.dataset",
    "Decision": "core.agent",
    "DriftRate": "learners.drift_lr",
    "EATA": "learners.eata",
    "ERACE": "learners.er_ace",
    "EcoTTA": "learners.ecotta",
    "EarlyStopping": "learners.early_stopping",
    "EverlearnError": "core.errors",
    "Feedback": "core.events",
    "FewShot": "learners.few_shot",
    "FineTune": "learners.fine_tune",
    "FisherDiagonal": "nn.fisher",
    "Forecaster": "learners.forecaster",
    "Forgetful": "learners.forgetting",
    "FrequencyReplay": "learners.frequency_replay",
    "Frozen": "learners.frozen",
    "GDumb": "learners.gdumb",
    "GentleViews": "data.gentle_views",
    "HPCR": "learners.hpcr",
    "HeldOut": "core.stream",
    "Homeostatic": "learners.homeostatic",
    "Hybrid": "learners.hybrid",
    "HypergradientRate": "learners.hypergradient",
    "ICaRL": "learners.icarl",
    "KnowledgeAccumulation": "measure.accumulation",
    "Learned": "agents.learned_query",
    "Learner": "core.learner",
    "LwF": "learners.lwf",
    "MIR": "learners.mir",
    "Memory": "data.memory",
    "Monitor": "core.monitor",
    "NOTE": "learners.note",
    "NearestClassMean": "learners.nearest_class_mean",
    "Objective": "learners.objective",
    "OnlineEWC": "learners.online_ewc",
    "PCR": "learners.pcr",
    "Persistence": "learners.persistence",
    "PrototypeClassifier": "nn.prototypes",
    "Query": "agents.query",
    "QueryProblem": "data.query_problem",
    "RandomRate": "learners.random_lr",
    "Recurrence": "data.occurrence",
    "Refresh": "learners.refresh",
    "Replay": "learners.replay",
    "Result": "core.run",
    "Retrain": "learners.retrain",
    "RiverModel": "learners.river_model",
    "Rollback": "learners.rollback",
    "SAR": "learners.sar",
    "SCR": "learners.scr",
    "SI": "learners.si",
    "Schema": "core.stream",
    "SklearnEstimator": "learners.sklearn_estimator",
    "Sparse": "learners.sparse",
    "Step": "core.monitor",
    "Store": "core.store",
    "Stream": "core.stream",
    "StreamLabeler": "agents.stream_labeler",
    "StreamingLDA": "learners.streaming_lda",
    "TaskLearner": "core.learner",
    "Tent": "learners.tent",
    "Unified": "learners.unified",
    "Uniform": "agents.uniform",
    "check_agent": "core.check",
    "check_learner": "core.check",
    "compare": "comparison.grid",
    "load": "data.load",
    "preset": "learners.presets",
    "rho_star": "measure.difficulty",
    "run": "core.run",
    "train_query_policy": "agents.query_training",
    "worst_case": "measure.worst_case",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'everlearn' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"everlearn.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
