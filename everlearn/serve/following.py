"""One of several server processes that share a log: it answers by the version in service, and learns where nobody else does.

    lead?  no   ->  look which version serves, load it from the shared folder, swap
           yes  ->  a `Learning` of its own, until the lead is lost

A process that learns and dies lets the lead go; another takes it, and stands where the log ends. What an operator asks goes through
the log to the process that learns (see commands.py).
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from everlearn.core.errors import EverlearnError, ServeError, StateError
from everlearn.serve.commands import Commands
from everlearn.serve.fold import Predictors, Served, ServedFold
from everlearn.serve.history import History
from everlearn.serve.learning import Learning
from everlearn.serve.log import Log
from everlearn.serve.options import Options
from everlearn.serve.records import Branch
from everlearn.serve.upkeep import MOST_EVENTS, Upkeep

POLL = 0.1  # seconds between looks at who leads and what serves
TOLD = 0.25  # seconds between two notes of what is learned, for those who follow
UNKNOWN_GUARD = {"rows": 0, "candidate": None, "service": None, "parent": None}
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """What a process that follows knows of the fold: as much as a status tells."""

    branch: int
    number: int
    applied_seq: int
    service: int
    learning: str
    fault: str | None
    seen: int | None
    score_now: dict[str, Any]
    guard_now: dict[str, Any]

    def score(self) -> dict[str, Any]:
        """The mean over the newest answers, as they were given, and how many they are."""
        return self.score_now

    def figures(self) -> dict[str, Any]:
        """What the guard knows."""
        return self.guard_now


class Following:
    """Has the face of `Learning`. `swap(version, predictor)` is called when another version comes into service.

    state: "following" while another process learns, else that of its own `Learning`; "recovering" while the log cannot be reached.
    """

    def __init__(
        self,
        log: Log,
        history: History,
        options: Options,
        predictors: Predictors,
        swap: Callable[[int, Served], None],
        *,
        upkeep: Upkeep,
    ):
        self.log = log
        self.history = history
        self.options = options
        self.predictors = predictors
        self.swap = swap
        self.upkeep = upkeep
        self.commands = Commands(log)
        self._learning: Learning | None = None  # while this process leads
        self._state = "recovering"
        self._fault: str | None = None
        self._standing: Standing | None = None
        self._shown: int | None = None  # the version that was swapped in as a follower
        self._told = ""
        self._told_at = self._looked_at = self._held_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)

    # ---- the face of Learning --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Follow, or lead."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there may be work."""
        learning = self._own()
        if learning is not None:
            learning.wake()

    def close(self) -> None:
        """Finish the present step, keep a version of it where this process leads, and stop."""
        self._stopping.set()
        self._thread.join()

    def ask(self, command: str, body: dict[str, Any]) -> dict[str, Any]:
        """Run a command (rollback, release, pause, erase) where the log is learned, and give what it gave."""
        if self._stopping.is_set():
            raise ServeError("not_ready", "the server is stopping; try again in a moment.", 503, retry_after=1.0)
        learning = self._own()
        return self.commands.send(command, body, self._stopping.is_set) if learning is None else learning.ask(command, body)

    @property
    def leads(self) -> bool:
        """Whether this process learns."""
        return self._own() is not None

    def _own(self) -> Learning | None:
        """What learns in this process, until it gave way."""
        learning = self._learning
        return None if learning is None or learning.ended else learning

    @property
    def state(self) -> str:
        """What this process does."""
        learning = self._own()
        return self._state if learning is None else learning.state

    @property
    def fault(self) -> str | None:
        """Why learning, or following, does not go on."""
        learning = self._own()
        return self._fault if learning is None else learning.fault

    @property
    def fold(self) -> ServedFold | Standing | None:
        """The fold where this process leads, else what is known of it."""
        learning = self._own()
        return self._standing if learning is None else learning.fold

    @property
    def branch(self) -> Branch | None:
        """The line of steps that is learned."""
        learning = self._own()
        return self.history.branch()[0] if learning is None else learning.branch

    @property
    def idle(self) -> bool:
        """Whether nothing came since the last look of the process that learns, and that found nothing to fold yet."""
        learning, standing = self._own(), self._standing
        if learning is not None:
            return learning.idle
        return standing is not None and standing.seen is not None and standing.seen == self.log.last_row()

    # ---- following -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self.log.database.lead():
                    self._lead()
                else:
                    self._follow()
            except Exception as error:
                self._wait_for_better(error)
            self._stopping.wait(POLL)

    def _follow(self) -> None:
        """Serve what is in service, and learn how learning stands."""
        active = self.history.active()
        if active is None:
            return
        if active.version != self._shown:
            state = self.history.snapshot(active)
            if state is None:
                raise StateError(
                    f"version {active.version}, which is in service, cannot be read in {self.history.snapshots.folder}. "
                    "Processes that share a log must share that folder."
                )
            self.swap(active.version, self.predictors.of(state["fold"]["learner"]))
            self._shown = active.version
        now = time.monotonic()
        if now - self._looked_at >= TOLD:
            self._looked_at = now
            self._look()
        self._state, self._fault = "following", self._standing.fault if self._standing is not None else None

    def _look(self) -> None:
        told = self.log.setting("figures")
        if told:
            self._standing = Standing(**json.loads(told))
        applied_seq = 0 if self._standing is None else self._standing.applied_seq
        self.upkeep.measure_lag(self.log.pending(applied_seq, MOST_EVENTS), applied_seq)

    def _wait_for_better(self, error: Exception) -> None:
        """What cannot be done now is tried again; meanwhile the version that was served goes on."""
        fault = " ".join(str(error).split()) or type(error).__name__
        if fault != self._fault:
            LOGGER.warning("cannot follow: %s", fault, exc_info=None if isinstance(error, EverlearnError) else error)
        readable = isinstance(error, StateError) and self._shown is not None
        self._state, self._fault = "following" if readable else "recovering", fault

    # ---- leading ---------------------------------------------------------------------------------------------------------

    def _lead(self) -> None:
        """Learn, until the lead is lost or this process stops."""
        self.log.take_lead()
        self.history.snapshots.tidy()
        self.commands.settle()
        learning = Learning(
            self.log,
            self.history,
            self.options,
            self.predictors,
            self.swap,
            upkeep=self.upkeep,
            between=lambda: self._between(learning),
        )
        self._told, self._shown = "", None
        self._state, self._fault = "recovering", None
        self._learning = learning
        learning.start()
        while learning.alive and not self._stopping.wait(POLL):
            pass
        if self._stopping.is_set():
            learning.close()
            return
        LOGGER.warning("the lead is lost; another process may learn now")
        self._learning = None

    def _between(self, learning: Learning) -> None:
        """Between two steps: make sure of the lead, carry out what others ask, and tell them how learning stands."""
        now = time.monotonic()
        if now - self._held_at >= POLL:
            if not self.log.database.holds():
                raise ServeError("not_ready", "another process learns now; try again in a moment.", 503, retry_after=1.0)
            self._held_at = now
        self.commands.carry_out(lambda kind, body: getattr(learning, kind)(**body))
        if now - self._told_at >= TOLD:
            self._told_at = now
            self._tell(learning)

    def _tell(self, learning: Learning) -> None:
        fold = learning.fold
        standing = Standing(
            branch=0 if fold is None else fold.branch,
            number=0 if fold is None else fold.number,
            applied_seq=0 if fold is None else fold.applied_seq,
            service=0 if fold is None else fold.service,
            learning=learning.state,
            fault=learning.fault,
            seen=learning.seen,
            score_now={"rows": 0, "value": None} if fold is None else fold.score(),
            guard_now=UNKNOWN_GUARD if fold is None else fold.figures(),
        )
        told = json.dumps(vars(standing))
        if told != self._told:
            self.log.write(lambda connection: self.log.set(connection, "figures", told), leading=True).result()
            self._told = told
