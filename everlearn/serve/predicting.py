"""The thread that predicts: whatever waits is answered in one forward pass, and handed to the log.

A version is swapped by assigning one attribute; a group that is being answered keeps the version that it began with. A group is
answered to its callers when its rows are durable, while the next group is being computed.
"""

import queue
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from everlearn.core.agent import Agent
from everlearn.core.errors import EverlearnError, ServeError
from everlearn.core.random import derive
from everlearn.serve.fold import Served
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
        self._asked: queue.SimpleQueue = queue.SimpleQueue()
        self._open_ids: set[str] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="predicting", daemon=True)

    @property
    def version(self) -> int | None:
        """The version in service; None before there is one."""
        return None if self._service is None else self._service[0]

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def swap(self, version: int, predictor: Served) -> None:
        """From now on answer by this version."""
        self._service = (version, predictor)

    def close(self) -> None:
        """Answer what waits, and stop."""
        with self._lock:
            self._closed = True
        self._asked.put(None)
        self._thread.join()

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
        self._asked.put((asks, future))
        return future

    def _forget(self, ids: Sequence[str]) -> None:
        with self._lock:
            self.waiting -= 1
            self._open_ids.difference_update(ids)

    def _run(self) -> None:
        while True:
            group = [self._asked.get()]
            rows = 0 if group[0] is None else len(group[0][0])
            while rows < GROUP_ROWS and group[-1] is not None:
                try:
                    group.append(self._asked.get_nowait())
                except queue.Empty:
                    break
                rows += 0 if group[-1] is None else len(group[-1][0])
            wanted = [item for item in group if item is not None and item[1].set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)
            if group[-1] is None:
                return

    def _answer(self, group: list[tuple[Sequence[Ask], Future]]) -> None:
        version, predictor = self._service
        try:
            outputs = outputs_of(predictor, self.spec, [ask for asks, _ in group for ask in asks])
        except Exception as error:
            if len(group) > 1:
                for item in group:
                    self._answer([item])
                return
            group[0][1].set_exception(refusal(error))
            return
        place = 0
        for asks, future in group:
            asked = [(ask, output, version) for ask, output in zip(asks, outputs[place : place + len(asks)], strict=True)]
            place += len(asks)
            self._write(asked, future)

    def _write(
        self, asked: Sequence[tuple[Ask, dict[str, Any], int]], future: "Future[list[Answered]] | None" = None
    ) -> "Future[list[Answered]]":
        shares = (output.get("propensity") for _, output, _ in asked)
        self.propensities.extend(share for share in shares if share is not None)
        return self.log.ask(asked, future)

    def record(self, asked: Sequence[tuple[Ask, dict[str, Any], int]]) -> "Future[list[Answered]]":
        """Log rows that were answered elsewhere (asked, output, version), once more where an id is known. Raises as `admit` does."""
        self.admit()
        future = self._write(asked)
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


def outputs_of(predictor: Served, spec: InputSpec, asks: Sequence[Ask]) -> list[dict[str, Any]]:
    """What a learner or agent answers to rows: one forward pass, or a decision whose randomness is the id's."""
    if not isinstance(predictor, Agent):
        return spec.outputs(predictor.predict(spec.tensor([ask.x for ask in asks])))
    return [spec.decided(predictor.act(spec.tensor([ask.x]), derive(0, ask.id))) for ask in asks]


def refusal(error: Exception) -> Exception:
    """A row that the learner refuses is the caller's fault; anything else is the server's."""
    return ServeError("invalid_request", str(error), 422) if isinstance(error, EverlearnError) else error
