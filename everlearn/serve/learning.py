"""The thread that learns: it takes what came, folds it, keeps versions, and puts them into service or goes back.

    loop:  commands  ->  housekeeping  ->  next range of numbers -> its row in the log -> fold -> decide

Before a range is folded its row is durable, so a server that was killed folds the same ranges again. What cannot be learned from is
set aside: the learner goes on from its newest version without that range, an alarm says so, and nobody's prediction waits for it.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from everlearn.core.errors import EverlearnError, ServeError, StateError
from everlearn.serve.database import Connection
from everlearn.serve.fold import Predictors, Served, ServedFold
from everlearn.serve.history import History
from everlearn.serve.log import Log
from everlearn.serve.options import Options
from everlearn.serve.records import ANSWER, After, Alarm, Branch, Decision, Moment, State, Version
from everlearn.serve.upkeep import MOST_EVENTS, Upkeep

IDLE_WAIT = 5.0  # seconds after which inputs without answers are folded, where `wait` is shorter
LOGGER = logging.getLogger(__name__)
NAP = 0.05  # seconds between looks for work
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
        self.predictors = predictors
        self.swap = swap
        self.upkeep = upkeep
        self.between = between
        self.state = "recovering"
        self.fault: str | None = None
        self.fold: ServedFold | None = None
        self.branch: Branch | None = None
        self.faults = 0  # in a row
        self.ended = False
        self.seen: int | None = None  # the newest number when the last look found nothing to fold yet
        self._commands: deque[tuple[str, dict[str, Any], Future]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._begin, name="learning", daemon=True)

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
        if not self._thread.is_alive():
            self._obey()
        return future.result()

    # ---- the loop --------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        try:
            self._run()
        except Exception as error:
            if not self._gives_way(error):
                raise
        self._obey()

    def _run(self) -> None:
        try:
            self.recover()
            while not self._stopping:
                self._obey()
                self.between()
                self._tend()
                seen = self.log.last_row()
                moment = self._next() if self.state == "running" else None
                self.seen = seen if moment is None else None
                if moment is not None:
                    self._learn(moment)
                elif not self._commands:
                    self._wake.wait(NAP)
                    self._wake.clear()
            self._keep_last()
        except Exception as error:
            if not self._gives_way(error):
                self._fail(error)
                self._serve_commands_only()

    def _gives_way(self, error: Exception) -> bool:
        """Whether to end, so that whoever reaches the log learns from where it stands."""
        database = self.log.database
        lost = isinstance(error, ServeError) and error.code in ("log_unavailable", "not_ready")
        self.ended = database.shared and (lost or isinstance(error, database.faults))
        return self.ended

    def _fail(self, error: Exception) -> None:
        LOGGER.error("learning stopped", exc_info=error)
        self.state, self.fault = "failed", f"learning stopped: {' '.join(str(error).split()) or type(error).__name__}"
        self.upkeep.tell(Alarm("fault", 1.0, 0.0, self.fault, self.log.last_seq, self.log.clock()))

    def _serve_commands_only(self) -> None:
        """After a fault that nothing here can mend, a rollback still can."""
        while not self._stopping:
            self._obey()
            self.between()
            self._wake.wait(NAP)
            self._wake.clear()
            if self.state == "running":
                self.fault, self.faults = None, 0
                return self._run()
        return None

    def _obey(self) -> None:
        while self._commands:
            command, body, future = self._commands.popleft()
            try:
                if self.ended:
                    raise ServeError("not_ready", "another process learns now; try again in a moment.", 503, retry_after=1.0)
                future.set_result(getattr(self, command)(**body))
            except Exception as error:
                future.set_exception(error)

    def recover(self) -> None:
        """Stand where the log ends: the newest whole snapshot, and the logged steps after it."""
        self.state = "recovering"
        self.branch, _ = self.history.branch()
        self._show_active()
        fold = self.history.standing_at(self.branch, None)
        self._stand(fold)
        self.state = "paused" if self.log.setting("paused") else "running"
        if fold.number:
            self._decide()

    def _show_active(self) -> None:
        """Answer predictions again before the steps are folded, where the version in service can be read."""
        active = self.history.active()
        if active is None:
            raise StateError("the log names no version in service.")
        self.swap(active.version, self.predictors.of(self.history.learner_state(active.version)))

    def _stand(self, fold: ServedFold) -> None:
        self.fold = fold
        active = self.history.active()
        if active is not None and active.version != fold.service:  # the row was written, and the fold had not heard of it
            predictor = self.predictors.of(self.history.learner_state(active.version))
            fold.put_into_service(active.version, predictor, parent=None, before=None)
        self.swap(fold.service, fold.guard.service)

    # ---- steps -----------------------------------------------------------------------------------------------------------

    def _next(self) -> Moment | None:
        """The next step, its row durable; None where it is not yet time for one."""
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
                    return self._step(rows[0][0], seq, "full")
        if len(rows) == MOST_EVENTS:
            return self._step(rows[0][0], rows[-1][0], "full")
        if options.wait is None:
            return None
        now = self.log.clock()
        if oldest is not None and now - oldest >= options.wait:
            return self._step(rows[0][0], rows[-1][0], "time")
        if now - rows[0][2] >= max(IDLE_WAIT, options.wait):
            return self._step(rows[0][0], rows[-1][0], "idle")
        return None

    def _step(self, first: int, last: int, reason: str) -> Moment:
        number = self.fold.number + 1
        branch = self.branch

        def write(connection: Connection) -> None:
            connection.execute(
                "INSERT INTO step (branch, number, first, last, reason, created) VALUES (?, ?, ?, ?, ?, ?)",
                (branch.branch, number, first, last, reason, self.log.clock()),
            )

        self.log.write(write, leading=True).result()
        return self.log.moment(branch.branch, number, first, last, () if reason == "released" else branch.holes)

    def _learn(self, moment: Moment) -> None:
        try:
            alarms = self.fold.apply(moment)
        except Exception as error:
            if isinstance(error, (StateError, ServeError, MemoryError)):
                raise
            self._set_aside(moment, error)
            return
        self.faults = 0
        for alarm in alarms:
            self._alarm(replace(alarm, seq=moment.last))
        self.upkeep.draw(self.fold, moment)
        self._decide()

    def _set_aside(self, moment: Moment, error: Exception) -> None:
        """Go on from the newest version without a step that cannot be learned from."""
        self.faults += 1
        told = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, EverlearnError):
            told = f"{type(error).__name__}: {told}"
        reason = f"step {moment.number} cannot be learned from ({told}); numbers {moment.first}..{moment.last} are set aside"
        kept = self.history.kept_at(self.branch.branch)
        base = max((n for n in kept if n < moment.number and kept[n][0].state != State.PRUNED), default=None)
        start = self.history.version(self.branch.version) if base is None else kept[base][0]
        self._alarm(Alarm("fault", float(self.faults), 1.0, reason, moment.last, self.log.clock()))
        self._begin_branch(start, ((moment.first, moment.last),), "set_aside", reason, "", keep_service=True)
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
        if fold.number % self.options.every == 0 and fold.number not in self.history.kept_at(fold.branch):
            self._offer()

    def _offer(self) -> None:
        """Keep the learner as it stands as a version, and let the guard say whether it may serve."""
        fold = self.fold
        verdict = fold.guard.verdict()
        state = State.ACTIVE if verdict.promote else State.REFUSED
        version = self._keep(state, verdict.reason, verdict)
        if verdict.promote:
            self.history.settle(fold, version, True)
            self.swap(fold.service, fold.guard.service)
        self._prune()

    def _keep(self, state: State, reason: str, verdict: Any = None) -> Version:
        fold, log = self.fold, self.log
        number = self.history.next_version()
        size = self.history.snapshots.save(number, fold.state_dict())
        scores = (None, None, 0) if verdict is None else (verdict.score, verdict.service_score, verdict.rows)
        stand = (fold.service, fold.branch, fold.number, fold.applied_seq, fold.sha256())
        version = Version(number, *stand, state, log.clock(), *scores, size, reason)
        promoted = state == State.ACTIVE

        def write(connection: Connection) -> None:
            self.history.add_version(connection, version, promoted)
            if verdict is not None:
                action = "promote" if promoted else "refuse"
                self._note(connection, Decision(action, reason, "guard", fold.service, number, fold.applied_seq))

        log.write(write, leading=True).result()
        return version

    def _keep_last(self) -> None:
        """At the end keep what was learned since the last version, so that the next start has less to fold."""
        fold = self.fold
        if self.state in ("running", "paused") and fold.number and fold.number not in self.history.kept_at(fold.branch):
            self._keep(State.CANDIDATE, "the server stopped")

    def _prune(self) -> None:
        """Remove the snapshots of old versions that nothing needs."""
        versions = self.history.versions()
        needed = {0, self.fold.service, self.fold.parent, self.branch.version, *(v.version for v in versions[-2:])}
        standing = [v for v in versions if v.state != State.PRUNED and v.version not in needed]
        for version in standing[: max(0, len(standing) - self.options.keep)]:
            self._mark_pruned(version.version)
            self.history.snapshots.remove(version.version)

    def _mark_pruned(self, version: int) -> None:
        sql = "UPDATE version SET state = ? WHERE version = ?"
        self.log.write(lambda connection: connection.execute(sql, (State.PRUNED, version)), leading=True).result()

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
        found = self.history.version(version)
        if found is None:
            raise ServeError("unknown_version", f"there is no version {version}.", 404)
        if found.state == State.PRUNED:
            raise ServeError("version_pruned", f"version {version} was removed by the rule of retention.", 409)
        newest = self.log.newest()
        low, high = found.applied_seq + 1 if first is None else first, newest if last is None else last
        holes = () if After(after) == After.REPLAY or high < low else ((low, high),)
        told = {After.REPLAY: "learned again", After.SKIP: "left out", After.QUARANTINE: "set aside"}[After(after)]
        reason = f"{reason} (later feedback is {told})"
        return self._begin_branch(found, holes, action, reason, who)

    def _alarm(self, alarm: Alarm) -> None:
        """Raise an alarm, and stop learning where it is one that does."""
        watch = None if self.fold is None else self.fold.watch
        freezing = watch is not None and alarm.kind in watch.alarms.freeze
        if self.upkeep.tell(alarm) and freezing and self.state == "running":
            self.pause(True, alarm.message, "alarms", action="freeze")

    def _tend(self) -> None:
        for alarm in self.upkeep.tend(self.fold):
            self._alarm(alarm)

    def _begin_branch(
        self,
        start: Version,
        holes: tuple[tuple[int, int], ...],
        action: str,
        reason: str,
        who: str,
        keep_service: bool = False,
    ) -> dict[str, Any]:
        old = self.branch
        standing = tuple(hole for hole in old.holes if hole[1] > start.applied_seq)
        branch = Branch(old.branch + 1, start.version, start.applied_seq, standing + holes)
        before = self.fold.service if self.fold is not None else start.version
        service = before if keep_service else start.version
        decision = Decision(action, reason, who, before, service, self.log.newest())

        def write(connection: Connection) -> None:
            self.history.add_branch(connection, branch, service)
            if not keep_service:
                connection.execute(
                    "UPDATE version SET state = ? WHERE version > ? AND state <> ?",
                    (State.WITHDRAWN, start.version, State.PRUNED),
                )
                connection.execute("UPDATE version SET state = ? WHERE state = ?", (State.RETIRED, State.ACTIVE))
                connection.execute("UPDATE version SET state = ? WHERE version = ?", (State.ACTIVE, start.version))
            self._note(connection, decision)

        fold = self.history.make()
        state = self.history.state(start.version)  # before anything is written: what cannot be read stays out of service
        self.log.write(write, leading=True).result()
        self.branch = branch
        fold.load_state_dict(state)
        fold.begin_branch(branch.branch, branch.applied_seq)
        learner_state = state["fold"]["learner"] if service == start.version else self.history.learner_state(service)
        predictor = self.predictors.of(learner_state)
        fold.put_into_service(service, predictor, parent=None, before=None)
        self.fold = fold
        self.swap(service, predictor)
        if self.state == "failed":
            self.state = "running"
        return decision.to_json(self.log.clock())

    def release(self, first: int, last: int, reason: str, who: str) -> dict[str, Any]:
        """Learn now from numbers that were set aside."""
        holes = [(max(low, first), min(high, last)) for low, high in self.branch.holes if low <= last and high >= first]
        holes = [hole for hole in holes if not self._released(*hole)]
        if not holes:
            raise ServeError("nothing_set_aside", f"nothing between {first} and {last} is set aside.", 409)
        low, high = holes[0][0], max(hole[1] for hole in holes)
        while self.fold.applied_seq < high:  # so that the range, still a hole in the order of numbers, is passed before
            rows = self.log.pending(self.fold.applied_seq, MOST_EVENTS)
            self._learn(self._step(rows[0][0], rows[-1][0], "full"))
        decision = Decision("release", f"{reason} ({low}..{high})", who, self.fold.service, self.fold.service, high)
        self.log.write(lambda connection: self._note(connection, decision), leading=True).result()
        branch = self.branch
        for start, stop in (piece for hole in holes for piece in self._pieces(*hole)):
            if self.branch is branch:  # the guard may have gone back meanwhile
                self._learn(self._step(start, stop, "released"))
        return decision.to_json(self.log.clock())

    def _released(self, low: int, high: int) -> bool:
        rows = self.log.rows(
            "SELECT count(*) FROM step WHERE branch = ? AND reason = 'released' AND first <= ? AND last >= ?",
            (self.branch.branch, high, low),
        )
        return bool(rows[0][0])

    def _pieces(self, low: int, high: int) -> list[tuple[int, int]]:
        """Ranges of the usual number of answers."""
        pieces, start, learned = [], low, 0
        for seq, kind, _ in self.log.rows(
            "SELECT seq, kind, created FROM event WHERE seq BETWEEN ? AND ? ORDER BY seq", (low, high)
        ):
            learned += kind == ANSWER or not self.fold.needs_answers
            if learned == self.options.batch:
                pieces.append((start, int(seq)))
                start, learned = int(seq) + 1, 0
        return pieces + ([(start, high)] if start <= high else [])

    def pause(self, paused: bool, reason: str, who: str, action: str | None = None) -> dict[str, Any]:
        """Stop learning, or learn again; it stays so over a restart."""
        if self.state not in ("running", "paused"):
            raise ServeError(
                "not_ready", f"the server is {self.state}; {self.fault or 'try again in a moment'}.", 503, retry_after=1.0
            )
        decision = Decision(
            action or ("pause" if paused else "resume"), reason, who, self.fold.service, self.fold.service, self.log.newest()
        )

        def write(connection: Connection) -> None:
            self.log.set(connection, "paused", "yes" if paused else "")
            self._note(connection, decision)

        self.log.write(write, leading=True).result()
        self.state = "paused" if paused else "running"
        return decision.to_json(self.log.clock())

    def erase(self, id: str, relearn: bool, reason: str, who: str) -> dict[str, Any]:
        """Remove an id from the log; with relearn also from what was learned."""
        used = self.log.rows("SELECT seq, kind FROM event WHERE id = ? ORDER BY seq", (id,))
        early = self.log.rows("SELECT count(*) FROM early WHERE id = ?", (id,))[0][0]
        if not used and not early:
            raise ServeError("unknown_id", f"nothing is stored under the id {id!r}.", 404)
        fold = self.fold
        standing = self.state in ("running", "paused") and fold.number > 0
        if standing and fold.number not in self.history.kept_at(fold.branch):
            self._keep(State.CANDIDATE, "before an erasure")  # so that no restart needs the rows that go
        decision = Decision("erase", reason or "erased", who, fold.service, fold.service, int(used[0][0]) if used else 0)

        def write(connection: Connection) -> int:
            self._note(connection, decision)
            return self.log.erase(connection, id)[0]

        removed = self.log.write(write, leading=True).result()
        record = decision.to_json(self.log.clock()) | {"removed": removed, "relearned": False}
        first = int(used[0][0]) if used else 0
        if relearn and first and first <= fold.applied_seq:
            old = [v for v in self.history.versions() if v.applied_seq < first and v.state != State.PRUNED]
            later = [v for v in self.history.versions() if v.applied_seq >= first]
            self._begin_branch(old[-1], (), "rollback", f"learn again without an erased row ({reason or 'erased'})", who)
            for version in later:
                self.history.snapshots.remove(version.version)
                self._mark_pruned(version.version)
            record["relearned"] = True
        return record

    def _note(self, connection: Connection, decision: Decision) -> None:
        connection.execute(
            "INSERT INTO decision (time, seq, action, from_version, to_version, reason, who) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                self.log.clock(),
                decision.seq,
                decision.action,
                decision.before,
                decision.after,
                decision.reason,
                decision.who,
            ),
        )
