"""What answers: the version in service, and what waits for it.

The thread of the log asks for the outputs of a group of requests in one forward pass, just before it writes them: one thread does
both, because every further thread that a request passes costs as much as its rows. A version is swapped by assigning one attribute;
a group that is being answered keeps the version that it began with.
"""

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from everlearn.core.agent import Agent
from everlearn.core.errors import EverlearnError, ServeError
from everlearn.core.learner import Adapter
from everlearn.core.random import derive
from everlearn.serve.fold import Served
from everlearn.serve.ingest import Asked
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.log import Log
from everlearn.serve.options import Options
from everlearn.serve.records import Answered, Ask

GROUP_ROWS = 256  # rows in one forward pass
RECENT = 500  # propensities kept for the status


class Predicting:
    """Answers rows by the version in service. `admit` and `leave` count what waits, feedback included."""

    def __init__(self, log: Log, spec: InputSpec, options: Options):
        self.log = log
        self.spec = spec
        self.options = options
        self.waiting = 0
        self.propensities: deque[float] = deque(maxlen=RECENT)
        self._service: tuple[int, Served] | None = None
        self._open_ids: set[str] = set()
        self._lock = threading.Lock()
        self._closed = False
        log.answering = self.outputs

    @property
    def version(self) -> int | None:
        """The version in service; None before there is one."""
        return None if self._service is None else self._service[0]

    def swap(self, version: int, predictor: Served) -> None:
        """From now on answer by this version."""
        self._service = (version, predictor)

    def close(self) -> None:
        """Take no more; what waits is answered by the log."""
        with self._lock:
            self._closed = True

    def admit(self) -> None:
        """Count one more request. Raises ServeError where too many wait, or the server stops."""
        with self._lock:
            self._admit()

    def _admit(self) -> None:
        if self._closed:
            raise ServeError("not_ready", "the server is stopping; try again in a moment.", 503, retry_after=1.0)
        if self.waiting >= self.options.queue:
            raise ServeError(
                "overloaded", f"{self.waiting} requests wait already; nothing was stored.", 429, retry_after=1.0
            )
        self.waiting += 1

    def leave(self, future: Future) -> None:
        """A request has been answered."""
        with self._lock:
            self.waiting -= 1

    def ask(self, asks: Sequence[Ask]) -> "Future[list[Answered]]":
        """Queue rows. Raises ServeError, see `Engine.predict`."""
        if self._service is None:
            raise ServeError("not_ready", "the server has not recovered yet; try again in a moment.", 503, retry_after=1.0)
        ids = [ask.id for ask in asks]
        future: Future[list[Answered]] = Future()
        with self._lock:
            for id in ids:
                if id in self._open_ids:
                    raise ServeError(
                        "in_progress", f"the id {id!r} is being answered; ask again in a moment.", 409, retry_after=0.1
                    )
            self._admit()
            self._open_ids.update(ids)
        future.add_done_callback(lambda done: self._forget(ids))
        return self.log.ask(asks, future)

    def _forget(self, ids: Sequence[str]) -> None:
        with self._lock:
            self.waiting -= 1
            self._open_ids.difference_update(ids)

    def outputs(self, requests: Sequence[Sequence[Ask]]) -> list[Asked | Exception]:
        """By request, its rows with their outputs and the version that gives them, or why it cannot be answered."""
        version, predictor = self._service
        try:
            given = outputs_by_request(predictor, self.spec, requests)
        except Exception as error:
            return [refusal(error)] if len(requests) == 1 else [self.outputs([asks])[0] for asks in requests]
        answered = []
        for asks, outputs in zip(requests, given, strict=True):
            answered.append([(ask, output, version) for ask, output in zip(asks, outputs, strict=True)])
            self._note(outputs)
        return answered

    def _note(self, outputs: Sequence[dict[str, Any]]) -> None:
        if self.spec.kind == "actions":
            self.propensities.extend(output["propensity"] for output in outputs if output["propensity"] is not None)

    def record(self, asked: Sequence[tuple[Ask, dict[str, Any], int]]) -> "Future[list[Answered]]":
        """Log rows that were answered elsewhere (asked, output, version), once more where an id is known. Raises as `admit` does."""
        self.admit()
        self._note([output for _, output, _ in asked])
        future = self.log.keep(asked)
        future.add_done_callback(self.leave)
        return future

    def propensity(self) -> dict[str, float] | None:
        """The least propensity of recent decisions, and the effective share of rows under weights 1 / propensity."""
        recent = list(self.propensities)
        if not recent:
            return None
        weights = [1.0 / value for value in recent]
        effective = sum(weights) ** 2 / sum(weight * weight for weight in weights) / len(weights)
        return {"least": min(recent), "effective": effective}


def outputs_by_request(predictor: Served, spec: InputSpec, requests: Sequence[Sequence[Ask]]) -> list[list[dict[str, Any]]]:
    """What a learner or agent answers to the rows of several requests: in one forward pass, but an adapter to each request apart, since
    its answers hang on the rows beside them, which must not be those of another client."""
    if isinstance(predictor, Adapter):
        return [outputs_of(predictor, spec, asks) for asks in requests]
    flat = iter(outputs_of(predictor, spec, [ask for asks in requests for ask in asks]))
    return [[next(flat) for _ in asks] for asks in requests]


def outputs_of(predictor: Served, spec: InputSpec, asks: Sequence[Ask]) -> list[dict[str, Any]]:
    """What a learner or agent answers to rows: one forward pass, or a decision whose randomness is the id's."""
    if not isinstance(predictor, Agent):
        parts = (asks[start : start + GROUP_ROWS] for start in range(0, len(asks), GROUP_ROWS))
        return [row for part in parts for row in spec.outputs(predictor.predict(spec.tensor([ask.x for ask in part])))]
    return [spec.decided(predictor.act(spec.tensor([ask.x]), derive(0, ask.id))) for ask in asks]


def refusal(error: Exception) -> Exception:
    """A row that the learner refuses is the caller's fault; anything else is the server's."""
    return ServeError("invalid_request", str(error), 422) if isinstance(error, EverlearnError) else error
