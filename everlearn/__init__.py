"""Everlearn: models that keep learning after deployment.

The public names are loaded when they are first used, so that `import everlearn` costs little more than torch itself.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Adapter": "core.learner",
    "Agent": "core.agent",
    "Batch": "core.events",
    "Boundary": "core.events",
    "Budget": "core.budget",
    "Decision": "core.agent",
    "EverlearnError": "core.errors",
    "Feedback": "core.events",
    "FineTune": "learners.fine_tune",
    "HeldOut": "core.stream",
    "Learner": "core.learner",
    "Monitor": "core.monitor",
    "Result": "core.run",
    "Schema": "core.stream",
    "Stream": "core.stream",
    "check_agent": "core.check",
    "check_learner": "core.check",
    "run": "core.run",
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
