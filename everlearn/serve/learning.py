"""The thread that learns: it takes what came, folds it, keeps versions, and puts them into service or goes back.

    loop:  commands  ->  housekeeping  ->  next range of numbers -> its row in the log -> fold -> decide

Before a range is folded its row is durable, so a server that was killed folds the same ranges again. What cannot be learned from is
set aside: the learner goes on from its newest version without that range, an alarm says so, and nobody's prediction waits for it.
While the log cannot be written (a full disk, say) nothing is lost: learning stands where the log ends once it can.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any

from everlearn.core.errors import EverlearnError, ServeError, StateError
from everlearn.serve.database import Connection
from everlearn.serve.fold import Predictors, Served, ServedFold
from everlearn.serve.history import History, Unlearnable
from everlearn.serve.line import Line
from everlearn.serve.log import Log
from everlearn.serve.options import Options
from everlearn.serve.records import ANSWER, After, Alarm, Branch, Decision, Moment, State
from everlearn.serve.upkeep import MOST_EVENTS, Upkeep

IDLE_WAIT = 5.0  # seconds after which inputs without answers are folded, where `wait` is shorter
LOGGER = logging.getLogger(__name__)
NAP = 0.05  # seconds between looks for work
RETRY = 0.5  # seconds until learning looks again whether the log can be written
FAULTS = 3  # steps in a row that cannot be learned from before learning stops


class Learning:
    """Folds the log of one server. `swap(version, predictor)` is called when another version comes into service.

    between: called between two steps; where others may learn in this one's place it raises once they do. `ended`: this one gave way.
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
        between: Callable[[], None] = lambda: None,
    ):
        self.log = log
        self.history = history
        self.options = options
        self.upkeep = upkeep
        self.between = between
        self.line = Line(log, history, options, predictors, swap)
        self.state = "recovering"
        self.fault: str | None = None
        self.faults = 0  # in a row
        self.ended = False
        self.seen: int | None = None  # the newest number when the last look found nothing to fold yet
        self._broken: Exception | None = None  # what went wrong with the fold while a command was carried out
        self._commands: deque[tuple[str, dict[str, Any], Future]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._begin, name="learning", daemon=True)

    @property
    def fold(self) -> ServedFold | None:
        """The learner and all that goes with it; None before it has recovered."""
        return self.line.fold

    @property
    def branch(self) -> Branch | None:
        """The line of steps that is learned."""
        return self.line.branch

    def start(self) -> None:
        """Recover, then learn."""
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether nothing came since the last look, and that found nothing to fold yet."""
        return self.seen is not None and self.seen == self.log.last_row()

    @property
    def alive(self) -> bool:
        """Whether it goes on."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Say that there may be work."""
        self._wake.set()

    def close(self) -> None:
        """Finish the present step, keep a version of it, and stop."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def ask(self, command: str, body: dict[str, Any]) -> dict[str, Any]:
        """Run a command (rollback, release, pause, erase) between two steps, and give what it gave."""
        future: Future[dict[str, Any]] = Future()
        self._commands.append((command, body, future))
        self._wake.set()
        while True:
            if not self._thread.is_alive():
                self._obey()
            with suppress(TimeoutError):
                return future.result(timeout=1.0)

    # ---- the loop --------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        try:
            while not self._life() and not self._stopping:
                pass
        except Exception as error:
            if not self._gives_way(error):
                raise
        self._obey()

    def _life(self) -> bool:
        """From recovery on, until it stops (True) or has to recover again."""
        try:
            self.recover()
            while not self._stopping:
                self._obey()
                self.between()
                self._tend()
                seen = self.log.last_row()
                moment = self._due() if self.state == "running" else None
                self.seen = seen if moment is None and self.state == "running" else None
                if moment is not None:
                    self._learn(moment)
                elif not self._commands:
                    self._wake.wait(NAP)
                    self._wake.clear()
            if not self.line.kept:  # so that the next start has less to fold
                self.line.keep(State.CANDIDATE, "the server stopped")
            return True
        except Exception as error:
            if self._gives_way(error):
                return True
            if isinstance(error, self.log.database.faults) or getattr(error, "code", "") == "log_unavailable":
                self._wait_for_log(error)
                return False
            self._fail(error)
            return self._serve_commands_only()

    def _gives_way(self, error: Exception) -> bool:
        """Whether to end, so that whoever reaches the log learns from where it stands."""
        database = self.log.database
        lost = isinstance(error, ServeError) and error.code in ("log_unavailable", "not_ready")
        self.ended = database.shared and (lost or isinstance(error, database.faults))
        return self.ended

    def _wait_for_log(self, error: Exception) -> None:
        """Predictions and commands go on; the fold is made again from the log, since what it decided last was not written."""
        self.state, self.fault = "recovering", f"learning waits: {_told(error)}"
        LOGGER.warning("%s", self.fault)
        self._wake.clear()
        self._obey()
        self._wake.wait(RETRY)

    def _fail(self, error: Exception) -> None:
        LOGGER.error("learning stopped", exc_info=error)
        self.state, self.fault = "failed", f"learning stopped: {_told(error)}"
        with suppress(ServeError):
            self.upkeep.tell(Alarm("fault", 1.0, 0.0, self.fault, self.log.last_seq, self.log.clock()))

    def _serve_commands_only(self) -> bool:
        """After a fault that nothing here can mend, a rollback still can; gives False then."""
        while not self._stopping:
            self._wake.clear()
            with suppress(ServeError):
                self._obey()
            self.between()
            if self.state != "failed":
                self.faults = 0
                return False
            self._wake.wait(NAP)
        return True

    def _obey(self) -> None:
        while self._commands:
            command, body, future = self._commands.popleft()
            self.seen = None
            try:
                if self.ended:
                    raise ServeError("not_ready", "another process learns now; try again in a moment.", 503, retry_after=1.0)
                result = getattr(self, command)(**body)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)
        if self._broken is not None:
            error, self._broken = self._broken, None
            raise error

    def recover(self) -> None:
        """Stand where the log ends: the newest whole snapshot, and the logged steps after it."""
        self.state = "recovering"
        again: list[tuple[Moment, Alarm]] = []
        self.line.look()
        try:
            self.line.stand(lambda moment, alarms: again.extend((moment, alarm) for alarm in alarms))
        except Unlearnable as fault:
            self._set_aside(fault)
        self._look_for_losses()
        self.line.tidy()
        self.state, self.fault = "paused" if self.log.setting("paused") else "running", None
        for moment, alarm in again:
            self._alarm(replace(alarm, seq=moment.last))
        if self.fold.number:
            self._decide()

    def _look_for_losses(self) -> None:
        lost, last = self.line.lost_end(), self.log.last_row()
        if lost:
            told = (
                f"the log lost its end: a version had learned up to number {lost}, and the log ends at {last}. "
                "Clients may tell again what is missing."
            )
            self._alarm(Alarm("fault", float(lost), float(last), told, last, self.log.clock()))

    # ---- steps -----------------------------------------------------------------------------------------------------------

    def _due(self) -> Moment | None:
        """The next step of what is released, else of what came; its row is durable. None where it is not yet time for one."""
        for low, high in self.line.releasing():
            if self.fold.applied_seq >= high:
                return self.line.step(*self.line.piece(low, high), "released")
            passed = self._next()  # first the range, still a hole in the order of numbers, is passed
            return self.line.step(self.fold.applied_seq + 1, high, "full") if passed is None else passed
        return self._next()

    def _next(self) -> Moment | None:
        fold, branch, options = self.fold, self.branch, self.options
        rows = self.log.pending(fold.applied_seq, MOST_EVENTS)
        self.upkeep.measure_lag(rows, fold.applied_seq)
        if not rows:
            return None
        learned, oldest = 0, None
        for seq, kind, created in rows:
            if any(low <= seq <= high for low, high in branch.holes):
                continue
            if kind == ANSWER or not fold.needs_answers:
                learned += 1
                oldest = created if oldest is None else min(oldest, created)
                if learned == options.batch:
                    return self.line.step(rows[0][0], seq, "full")
        if len(rows) == MOST_EVENTS:
            return self.line.step(rows[0][0], rows[-1][0], "full")
        if options.wait is None:
            return None
        now = self.log.clock()
        if oldest is not None and now - oldest >= options.wait:
            return self.line.step(rows[0][0], rows[-1][0], "time")
        if now - rows[0][2] >= max(IDLE_WAIT, options.wait):
            return self.line.step(rows[0][0], rows[-1][0], "idle")
        return None

    def _learn(self, moment: Moment) -> None:
        try:
            alarms = self.history.apply(self.fold, moment)
        except Unlearnable as fault:
            self._set_aside(fault)
            return
        self.faults = 0
        for alarm in alarms:
            self._alarm(replace(alarm, seq=moment.last))
        self.upkeep.draw(self.fold, moment)
        self._decide()

    def _set_aside(self, fault: Unlearnable) -> None:
        """Go on from the newest version without a step that cannot be learned from."""
        self.faults += 1
        moment, told = fault.moment, _told(fault.error)
        if not isinstance(fault.error, EverlearnError):
            told = f"{type(fault.error).__name__}: {told}"
        reason = f"step {moment.number} cannot be learned from ({told}); numbers {moment.first}..{moment.last} are set aside"
        kept = self.history.kept_at(self.branch.branch)
        base = max((n for n in kept if n < moment.number and kept[n][0].state != State.PRUNED), default=None)
        start = self.history.version(self.branch.version) if base is None else kept[base][0]
        self._alarm(Alarm("fault", float(self.faults), 1.0, reason, moment.last, self.log.clock()))
        self.line.begin_branch(start, ("set_aside", reason, ""), aside=[(moment.first, moment.last)], keep_service=True)
        if self.faults >= FAULTS:
            raise StateError(f"{self.faults} steps in a row cannot be learned from; the last: {reason}.")

    def _decide(self) -> None:
        """After a step: go back where the version in service is worse than the one before; else keep a candidate where one is due."""
        fold = self.fold
        regret = fold.guard.regret()
        if regret is not None and fold.parent is not None:
            parent = self.history.version(fold.parent)
            if parent is not None and parent.state != State.PRUNED:
                self.rollback(parent.version, self.options.after, regret, "guard", action="automatic_rollback")
                return
        if fold.number % self.options.every == 0:
            if self.line.kept:  # by a process that was killed before it could remove what that version made superfluous
                self.line.prune()
            else:
                self.line.offer()

    def _alarm(self, alarm: Alarm) -> None:
        """Raise an alarm, and stop learning where it is one that does."""
        watch = None if self.fold is None else self.fold.watch
        freezing = watch is not None and alarm.kind in watch.alarms.freeze
        if self.upkeep.tell(alarm) and freezing and self.state == "running":
            self.pause(True, alarm.message, "alarms", action="freeze")

    def _tend(self) -> None:
        for alarm in self.upkeep.tend(self.fold, self.line.kept_seq):
            self._alarm(alarm)

    # ---- commands --------------------------------------------------------------------------------------------------------

    def rollback(
        self,
        version: int,
        after: str,
        reason: str,
        who: str,
        first: int | None = None,
        last: int | None = None,
        action: str = "rollback",
    ) -> dict[str, Any]:
        """Serve a version again and learn on from it. Refuses: unknown_version, version_pruned."""
        if self.branch is None:
            raise self._not_ready()
        found = self.history.version(version)
        if found is None:
            raise ServeError("unknown_version", f"there is no version {version}.", 404)
        if found.state == State.PRUNED:
            raise ServeError("version_pruned", f"version {version} was removed by the rule of retention.", 409)
        newest = self.log.newest()
        left_out = [(found.applied_seq + 1 if first is None else first, newest if last is None else last)]
        told = {After.REPLAY: "learned again", After.SKIP: "left out", After.QUARANTINE: "set aside"}[After(after)]
        decision = self.line.begin_branch(
            found,
            (action, f"{reason} (later feedback is {told})", who),
            aside=left_out if after == After.QUARANTINE else (),
            skipped=left_out if after == After.SKIP else (),
            again=after == After.REPLAY or first is not None or last is not None,
        )
        if self.state == "failed":
            self.state, self.fault = "recovering", None
        return decision.to_json(self.log.clock())

    def release(self, first: int, last: int, reason: str, who: str) -> dict[str, Any]:
        """Learn from numbers that were set aside, now or once learning is resumed. Refuses: nothing_set_aside, not_ready."""
        self._refuse_unless_standing()
        decision = self.line.release(first, last, reason, who)
        try:
            while self.state == "running" and self.line.releasing():
                self._learn(self._due())
        except Exception as error:
            self._broken = error
            raise
        return decision.to_json(self.log.clock())

    def pause(self, paused: bool, reason: str, who: str, action: str | None = None) -> dict[str, Any]:
        """Stop learning, or learn again; it stays so over a restart. Refuses: not_ready."""
        self._refuse_unless_standing()
        service = self.fold.service
        decision = Decision(action or ("pause" if paused else "resume"), reason, who, service, service, self.log.newest())

        def write(connection: Connection) -> None:
            self.log.set(connection, "paused", "yes" if paused else "")
            self.line.note(connection, decision)

        self.log.write(write, leading=True).result()
        self.state = "paused" if paused else "running"
        return decision.to_json(self.log.clock())

    def erase(self, id: str, relearn: bool, reason: str, who: str) -> dict[str, Any]:
        """Remove an id from the log; with relearn also from what was learned. Refuses: unknown_id, not_ready."""
        self._refuse_unless_standing()
        fold, line = self.fold, self.line
        used = self.log.rows("SELECT seq, kind FROM event WHERE id = ? ORDER BY seq", (id,))
        if not used and not self.log.rows("SELECT count(*) FROM early WHERE id = ?", (id,))[0][0]:
            raise ServeError("unknown_id", f"nothing is stored under the id {id!r}.", 404)
        first = int(used[0][0]) if used else 0
        relearn = relearn and 0 < first <= fold.applied_seq
        removed: list[int] = []

        def write(connection: Connection) -> None:
            line.note(connection, decision)
            removed.append(self.log.erase(connection, id)[0])
            if relearn:
                line.withdraw(connection, first)

        decision = Decision("erase", reason or "erased", who, fold.service, fold.service, first)
        if relearn:
            start = next(
                version
                for version, promoted in self.history.line()
                if promoted and version.applied_seq < first and version.state != State.PRUNED
            )
            told = f"learn again without an erased row ({reason or 'erased'})"
            line.begin_branch(start, ("rollback", told, who), also=write)
            line.tidy()
        else:
            if not line.kept:
                line.keep(State.CANDIDATE, "before an erasure")  # so that no restart needs the rows that go
            self.log.write(write, leading=True).result()
        return decision.to_json(self.log.clock()) | {"removed": removed[-1], "relearned": relearn}

    def _refuse_unless_standing(self) -> None:
        if self.state not in ("running", "paused"):
            raise self._not_ready()

    def _not_ready(self) -> ServeError:
        return ServeError(
            "not_ready", f"the server is {self.state}; {self.fault or 'try again in a moment'}.", 503, retry_after=1.0
        )


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
