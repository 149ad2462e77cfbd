"""The network that learners train where none is named: one that suits the rows, with batch norm where one of the learners lives by it."""

from collections.abc import Iterable
from typing import Any

from everlearn.comparison.catalog import learners
from everlearn.core.spec import Call, parse

AUTO = "auto"
WITH_BATCH_NORM = "auto(norm='batch')"


def usual_network(model: str, sources: Iterable[Any]) -> str:
    """The call string of the network for all of some learners: `model`, or where that is "auto" and one of them needs it, batch norm.

    sources: call strings; functions that build a learner, as `compare` takes them, are passed over.

    >>> usual_network("auto", ["replay(capacity=50)"]), usual_network("auto", ["frozen", "rollback(bn_stats)"])
    ('auto', "auto(norm='batch')")
    """
    calls = [parse(source) for source in sources if isinstance(source, str)]
    return WITH_BATCH_NORM if model == AUTO and any(map(_needs_batch_norm, calls)) else model


def _needs_batch_norm(value: Any) -> bool:
    if not isinstance(value, Call):
        return False
    inside = (*value.args, *(item for _, item in value.kwargs))
    return getattr(learners().get(value.name), "needs_batch_norm", False) or any(map(_needs_batch_norm, inside))
