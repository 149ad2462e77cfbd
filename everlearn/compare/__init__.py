"""Comparisons of learners. The room has the name of its one verb, so it can be called: `everlearn.compare(...)` is
`everlearn.compare.grid.compare(...)`, whether the function or a module of this room was imported first."""

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """A module that is called as the function of its name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from everlearn.compare.grid import compare

        return compare(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
