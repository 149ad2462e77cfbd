"""Where learning stands: the fold, the branch that it is on, and every durable mark that it leaves on its way.

    branch n:  version  ->  step 1  ->  step 2 (kept as a version)  ->  ...          holes: numbers that this branch leaves out

A rollback begins a branch at a version. Its holes are what was left out on the way to that version, what is set aside or skipped
now, and what was set aside before and nobody released. So a number is folded once on every line from version 0 on, or in a hole.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

from everlearn.core.errors import ServeError, StateError
from everlearn.serve.database import Connection
from everlearn.serve.fold import Predictors, Served, ServedFold
from everlearn.serve.guard import Verdict
from everlearn.serve.history import History
from everlearn.serve.log import Log
from everlearn.serve.options import Options
from everlearn.serve.ranges import Range, common, joined, within, without
from everlearn.serve.records import ANSWER, Alarm, Branch, Decision, Moment, State, Version


class Line:
    """The line of steps of one server. `swap(version, predictor)` is called when another version comes into service."""

    def __init__(
        self, log: Log, history: History, options: Options, predictors: Predictors, swap: Callable[[int, Served], None]
    ):
        self.log = log
        self.history = history
        self.options = options
        self.predictors = predictors
        self.swap = swap
        self.fold: ServedFold | None = None
        self.branch: Branch | None = None
        self.quiet = 0  # nothing is put into service before this number is passed
        self._releasing: tuple[Range, ...] = ()

    # ---- where it stands -------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Find the newest branch, and answer by the version in service."""
        self.branch, _ = self.history.branch()
        active = self._active()
        self.swap(active, self.predictors.of(self.history.learner_state(active)))
        told = json.loads(self.log.setting("releasing", "{}"))
        mine = told.get("branch") == self.branch.branch
        self._releasing = joined((low, high) for low, high in told["ranges"]) if mine else ()
        sql = "SELECT coalesce(max(seq), 0) FROM decision WHERE action = 'automatic_rollback'"
        self.quiet = int(self.log.rows(sql)[0][0])

    def stand(self, heard: Callable[[Moment, list[Alarm]], None]) -> None:
        """Stand where the log ends: the newest whole snapshot, and the logged steps after it. heard: told of their alarms.

        Raises Unlearnable where a step cannot be folded.
        """
        fold = self.history.standing_at(self.branch, None, heard=heard)
        active = self._active()
        if active != fold.service:  # the row was written, and the fold had not heard of it
            fold.put_into_service(active, self.predictors.of(self.history.learner_state(active)), parent=None, before=None)
        self.fold = fold
        self.swap(fold.service, fold.guard.service)

    def _active(self) -> int:
        active = self.history.active()
        if active is None:
            raise StateError("the log names no version in service.")
        return active.version

    def kept_seq(self) -> int:
        """The number up to which this line can be folded again without the rows before it, though the newest snapshot be garbled."""
        kept = [version.applied_seq for version, _ in self.history.kept_at(self.branch.branch).values()]
        marks = sorted({self.branch.applied_seq, *kept})
        return marks[-2] if len(marks) > 1 else marks[0]

    def step(self, first: int, last: int, reason: str) -> Moment:
        """The next step, once its row is durable."""
        number, branch = self.fold.number + 1, self.branch

        def write(connection: Connection) -> None:
            connection.execute(
                "INSERT INTO step (branch, number, first, last, reason, created) VALUES (?, ?, ?, ?, ?, ?)",
                (branch.branch, number, first, last, reason, self.log.clock()),
            )

        self.log.write(write, leading=True).result()
        return self.log.moment(branch.branch, number, first, last, () if reason == "released" else branch.holes)

    def note(self, connection: Connection, decision: Decision) -> None:
        """Write a decision."""
        given = decision.seq, decision.action, decision.before, decision.after, decision.reason, decision.who
        connection.execute(
            "INSERT INTO decision (time, seq, action, from_version, to_version, reason, who) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self.log.clock(), *given),
        )

    # ---- versions --------------------------------------------------------------------------------------------------------

    @property
    def kept(self) -> bool:
        """Whether the learner as it stands is a version."""
        return self.fold.number == 0 or self.fold.number in self.history.kept_at(self.fold.branch)

    def offer(self) -> None:
        """Keep the learner as it stands as a version, and let the guard say whether it may serve."""
        fold = self.fold
        verdict = fold.guard.verdict()
        if verdict.promote and fold.applied_seq <= self.quiet:
            told = f"the guard went back at number {self.quiet}, which has to be passed first"
            verdict = Verdict(False, told, verdict.score, verdict.service_score, verdict.rows)
        version = self.keep(State.ACTIVE if verdict.promote else State.REFUSED, verdict.reason, verdict)
        if verdict.promote:
            self.history.settle(fold, version, True)
            self.swap(fold.service, fold.guard.service)
        self.prune()

    def keep(self, state: State, reason: str, verdict: Verdict | None = None) -> Version:
        """Keep the learner as it stands as a version."""
        fold, log = self.fold, self.log
        number = self.history.next_version()
        try:
            size = self.history.snapshots.save(number, fold.state_dict())
        except StateError as error:
            raise ServeError("log_unavailable", f"a version cannot be kept: {error}", 503, retry_after=1.0) from error
        scores = (None, None, 0) if verdict is None else (verdict.score, verdict.service_score, verdict.rows)
        stand = (fold.service, fold.branch, fold.number, fold.applied_seq, fold.sha256())
        version = Version(number, *stand, state, log.clock(), *scores, size, reason)
        promoted = state == State.ACTIVE

        def write(connection: Connection) -> None:
            self.history.add_version(connection, version, promoted)
            if verdict is not None:
                action = "promote" if promoted else "refuse"
                self.note(connection, Decision(action, reason, "guard", fold.service, number, fold.applied_seq))

        log.write(write, leading=True).result()
        return version

    def prune(self) -> None:
        """Remove the snapshots of old versions that nothing needs."""
        versions = self.history.versions()
        needed = {0, self.fold.service, self.fold.parent, self.branch.version, *(v.version for v in versions[-2:])}
        standing = [v for v in versions if v.state != State.PRUNED and v.version not in needed]
        sql = "UPDATE version SET state = ? WHERE version = ?"
        for version in standing[: max(0, len(standing) - self.options.keep)]:
            given = (State.PRUNED, version.version)
            self.log.write(lambda connection, given=given: connection.execute(sql, given), leading=True).result()
            self.history.snapshots.remove(version.version)

    def withdraw(self, connection: Connection, first: int) -> None:
        """Give up every version that has folded a number; `tidy` removes the files."""
        connection.execute("UPDATE version SET state = ? WHERE applied_seq >= ?", (State.PRUNED, first))

    def lost_end(self) -> int:
        """The number up to which a version had folded that the log does not know; 0 where the log is not behind.

        Rows are durable before they are folded, so then the log lost its end: a power cut with durability="normal", a disk that
        does not keep what it confirmed, or an older copy of the log.
        """
        known = {version.version for version in self.history.versions()}
        found = [self.history.snapshots.load(number) for number in self.history.snapshots.numbers() if number not in known]
        ahead = max((int(state["applied_seq"]) for state in found if state is not None), default=0)
        return ahead if ahead > self.log.last_row() else 0

    def tidy(self) -> None:
        """Remove files that no version needs: of those that were given up, or that were written and never entered in the log."""
        standing = {version.version for version in self.history.versions() if version.state != State.PRUNED}
        for number in self.history.snapshots.numbers():
            if number not in standing:
                self.history.snapshots.remove(number)

    # ---- branches --------------------------------------------------------------------------------------------------------

    def begin_branch(
        self,
        start: Version,
        decision: tuple[str, str, str],
        *,
        aside: Iterable[Range] = (),
        skipped: Iterable[Range] = (),
        again: bool = True,
        keep_service: bool = False,
        also: Callable[[Connection], Any] = lambda connection: None,
    ) -> Decision:
        """Learn on from a version. decision: (action, reason, who); also: written in the same transaction, before the rest.

        aside, skipped: ranges left out from now on; again: whether what had been released since is released again where it is
        left out once more; keep_service: whether the version in service stays there.
        """
        branch, releasing = self._branch_at(start, tuple(aside), tuple(skipped), again)
        active = self.history.active()
        before = self.fold.service if self.fold is not None else None if active is None else active.version
        service = before if keep_service and before is not None else start.version
        noted = Decision(*decision, before, service, self.log.newest())
        state = self.history.state(start.version)  # before anything is written: what cannot be read stays out of service
        learner_state = state["fold"]["learner"] if service == start.version else self.history.learner_state(service)
        predictor = self.predictors.of(learner_state)
        fold = self.history.make()
        fold.load_state_dict(state)
        fold.begin_branch(branch.branch, branch.applied_seq)
        fold.put_into_service(service, predictor, parent=None, before=None)

        def write(connection: Connection) -> None:
            also(connection)
            self.history.add_branch(connection, branch, service)
            self.log.set(connection, "releasing", json.dumps({"branch": branch.branch, "ranges": releasing}))
            if not keep_service:
                connection.execute(
                    "UPDATE version SET state = ? WHERE version > ? AND state <> ?",
                    (State.WITHDRAWN, start.version, State.PRUNED),
                )
                connection.execute("UPDATE version SET state = ? WHERE state = ?", (State.RETIRED, State.ACTIVE))
                connection.execute("UPDATE version SET state = ? WHERE version = ?", (State.ACTIVE, start.version))
            self.note(connection, noted)

        self.log.write(write, leading=True).result()
        self.branch, self.fold, self._releasing = branch, fold, releasing
        if noted.action == "automatic_rollback":
            self.quiet = noted.seq
        self.swap(service, predictor)
        return noted

    def _branch_at(
        self, start: Version, aside: tuple[Range, ...], skipped: tuple[Range, ...], again: bool
    ) -> tuple[Branch, tuple[Range, ...]]:
        """The next branch, and what of its holes is released at once."""
        old, history = self.branch, self.history
        cut, newest = start.applied_seq, self.log.last_row()  # what is not durable yet may never be
        now, never = within(aside, cut + 1, newest), within(skipped, cut + 1, newest)
        path = history.branch(start.branch)[0]
        left_out = without(path.holes, history.released(path, until=start.number))
        before = [(0, cut)]
        holes = (*common(left_out, before), *without((*self.set_aside(), *old.final), before), *now, *never)
        final = (*common(path.final, before), *without(old.final, before), *never)
        branch = Branch(old.branch + 1, start.version, cut, joined(holes), joined(final))
        if not again:
            return branch, ()
        since = joined((*history.released_since(start, old), *self.releasing()))
        return branch, without(common(since, branch.holes), (*branch.final, *aside, *skipped))

    # ---- what is set aside -----------------------------------------------------------------------------------------------

    def set_aside(self) -> tuple[Range, ...]:
        """What this branch leaves out and can be released."""
        return without(self.branch.holes, (*self.branch.final, *self.history.released(self.branch)))

    def releasing(self) -> tuple[Range, ...]:
        """What is being released, and not yet folded."""
        if self._releasing:
            self._releasing = without(self._releasing, self.history.released(self.branch))
        return self._releasing

    def release(self, first: int, last: int, reason: str, who: str) -> Decision:
        """Let numbers that were set aside be folded, from now on and over restarts. Refuses: nothing_set_aside."""
        wanted = without(within(self.set_aside(), first, last), self.releasing())
        if not wanted:
            raise ServeError("nothing_set_aside", f"nothing between {first} and {last} is set aside.", 409)
        releasing = joined((*self.releasing(), *wanted))
        low, high = wanted[0][0], wanted[-1][1]
        decision = Decision("release", f"{reason} ({low}..{high})", who, self.fold.service, self.fold.service, high)

        def write(connection: Connection) -> None:
            self.log.set(connection, "releasing", json.dumps({"branch": self.branch.branch, "ranges": releasing}))
            self.note(connection, decision)

        self.log.write(write, leading=True).result()
        self._releasing = releasing
        return decision

    def piece(self, low: int, high: int) -> Range:
        """The first numbers of a range that hold a step's answers."""
        learned = 0
        for seq, kind, _ in self.log.rows(
            "SELECT seq, kind, created FROM event WHERE seq BETWEEN ? AND ? ORDER BY seq", (low, high)
        ):
            learned += kind == ANSWER or not self.fold.needs_answers
            if learned == self.options.batch:
                return low, int(seq)
        return low, high
