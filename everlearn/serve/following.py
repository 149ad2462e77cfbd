"""One of several server processes that share a log: it answers by the version in service, and learns where nobody else does.

    lead?  no   ->  look which version serves, load it from the shared folder, swap
           yes  ->  a `Learning` of its own, until the lead is lost

A process that learns and dies lets the lead go; another takes it, and stands where the log ends. Commands go through the table
`command` to the process that learns, which marks each before it begins, so none is carried out twice.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from everlearn.core.errors import EverlearnError, ServeError, StateError
from everlearn.serve.database import Connection
from everlearn.serve.fold import Predictors, Served, ServedFold
from everlearn.serve.history import History
from everlearn.serve.learning import Learning
from everlearn.serve.log import Log
from everlearn.serve.options import Options
from everlearn.serve.records import Branch
from everlearn.serve.upkeep import MOST_EVENTS, Upkeep

COMMANDS = ("rollback", "release", "pause", "erase")
POLL = 0.1  # seconds between looks at who leads and what serves
TOLD = 0.25  # seconds between two notes of what is learned, for those who follow
PATIENCE = 30.0  # seconds for which a command waits to be taken up
KEPT = 86_400.0  # seconds after which the commands of those who went are removed
BEGUN = json.dumps({"begun": True})
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
        if self._learning is not None:
            self._learning.wake()

    def close(self) -> None:
        """Finish the present step, keep a version of it where this process leads, and stop."""
        self._stopping.set()
        self._thread.join()

    def ask(self, command: str, body: dict[str, Any]) -> dict[str, Any]:
        """Run a command (rollback, release, pause, erase) where the log is learned, and give what it gave."""
        learning = self._learning
        return self._send(command, body) if learning is None else learning.ask(command, body)

    @property
    def leads(self) -> bool:
        """Whether this process learns."""
        return self._learning is not None

    @property
    def state(self) -> str:
        """What this process does."""
        learning = self._learning
        return self._state if learning is None else learning.state

    @property
    def fault(self) -> str | None:
        """Why learning, or following, does not go on."""
        learning = self._learning
        return self._fault if learning is None else learning.fault

    @property
    def fold(self) -> ServedFold | Standing | None:
        """The fold where this process leads, else what is known of it."""
        learning = self._learning
        return self._standing if learning is None else learning.fold

    @property
    def branch(self) -> Branch | None:
        """The line of steps that is learned."""
        learning = self._learning
        return self.history.branch()[0] if learning is None else learning.branch

    @property
    def idle(self) -> bool:
        """Whether nothing came since the last look of the process that learns, and that found nothing to fold yet."""
        learning, standing = self._learning, self._standing
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
        self.log.write(self._settle_commands, leading=True).result()
        learning = Learning(
            self.log,
            self.history,
            self.options,
            self.predictors,
            self.swap,
            upkeep=self.upkeep,
            between=lambda: self._between(learning),
        )
        self._told, self._shown, self._fault = "", None, None
        self._learning = learning
        learning.start()
        while learning.alive and not self._stopping.wait(POLL):
            pass
        if self._stopping.is_set():
            learning.close()
            return
        LOGGER.warning("the lead is lost; another process may learn now")
        self._state = "recovering"
        self._learning = None

    def _between(self, learning: Learning) -> None:
        """Between two steps: make sure of the lead, carry out what others ask, and tell them how learning stands."""
        now = time.monotonic()
        if now - self._held_at >= POLL:
            if not self.log.database.holds():
                raise ServeError("not_ready", "another process learns now; try again in a moment.", 503, retry_after=1.0)
            self._held_at = now
        for number, command, body in self.log.rows(
            "SELECT number, kind, body FROM command WHERE result IS NULL ORDER BY number"
        ):
            self._carry_out(learning, int(number), command, body)
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

    # ---- commands --------------------------------------------------------------------------------------------------------

    def _carry_out(self, learning: Learning, number: int, command: str, body: str) -> None:
        if not self.log.write(lambda connection: _begin(connection, number), leading=True).result():
            return
        try:
            if command not in COMMANDS:
                raise StateError(f"there is no command {command!r}; commands: {', '.join(COMMANDS)}.")
            result = {"value": getattr(learning, command)(**json.loads(body))}
        except Exception as error:
            result = {"error": _told_of(error)}
        told = json.dumps(result)
        self.log.write(lambda connection: _end(connection, number, told), leading=True).result()

    def _settle_commands(self, connection: Connection) -> None:
        """What the process that led before had begun is not begun again."""
        fault = ServeError(
            "not_ready",
            "the process that learned ended while it carried this out. Look at the decisions before you ask again.",
            503,
        )
        connection.execute("UPDATE command SET result = ? WHERE result = ?", (json.dumps({"error": _told_of(fault)}), BEGUN))
        connection.execute("DELETE FROM command WHERE created < ?", (self.log.clock() - KEPT,))

    def _send(self, command: str, body: dict[str, Any]) -> dict[str, Any]:
        """Have the process that learns carry out a command."""
        if self._stopping.is_set():
            raise ServeError("not_ready", "the server is stopping; try again in a moment.", 503, retry_after=1.0)
        row = (command, json.dumps(body), self.log.clock())
        number = self.log.write(
            lambda connection: connection.execute(
                "INSERT INTO command (kind, body, created) VALUES (?, ?, ?) RETURNING number", row
            ).fetchone()[0]
        ).result()
        end = time.monotonic() + PATIENCE
        while True:
            told = self.log.rows("SELECT result FROM command WHERE number = ?", (number,))[0][0]
            if told is not None and told != BEGUN:
                break
            if told is None and (time.monotonic() > end or self._stopping.is_set()):
                fault = ServeError(
                    "not_ready",
                    "no process took this up, and nothing was done; try again in a moment.",
                    503,
                    retry_after=1.0,
                )
                taken_back = json.dumps({"error": _told_of(fault)})
                self.log.write(lambda connection, mark=taken_back: _begin(connection, number, mark)).result()
                continue
            time.sleep(POLL / 5)
        self.log.write(lambda connection: connection.execute("DELETE FROM command WHERE number = ?", (number,))).result()
        result = json.loads(told)
        if "error" in result:
            raise _error_of(result["error"])
        return result["value"]


def _begin(connection: Connection, number: int, mark: str = BEGUN) -> bool:
    """Mark a command that nobody took up; False where somebody did."""
    return (
        connection.execute("UPDATE command SET result = ? WHERE number = ? AND result IS NULL", (mark, number)).rowcount == 1
    )


def _end(connection: Connection, number: int, told: str) -> None:
    connection.execute("UPDATE command SET result = ? WHERE number = ?", (told, number))


def _told_of(error: Exception) -> dict[str, Any]:
    """An error as JSON."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ServeError):
        return {"code": error.code, "detail": said, "status": error.status, "retry_after": error.retry_after}
    return {"code": None, "detail": said if isinstance(error, EverlearnError) else f"{type(error).__name__}: {said}"}


def _error_of(told: dict[str, Any]) -> EverlearnError:
    """The error that was told."""
    if told["code"] is None:
        return StateError(told["detail"])
    return ServeError(told["code"], told["detail"], told["status"], retry_after=told["retry_after"])
