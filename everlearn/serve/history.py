"""Versions, branches and steps as the log has them, and how any state is made again from a snapshot and the steps after it.

    state(version) = its snapshot, or else fold(steps after the newest whole snapshot before it on its branch)

A version whose files are garbled is thereby made again, held against the sha256 of its row, and written anew.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from everlearn.core.errors import ServeError, StateError
from everlearn.core.state import digest
from everlearn.serve.database import Connection
from everlearn.serve.fold import Predictors, ServedFold
from everlearn.serve.log import Log
from everlearn.serve.ranges import Range
from everlearn.serve.records import Alarm, Branch, Moment, State, Version
from everlearn.serve.snapshots import Snapshots

COLUMNS = "version, parent, branch, number, applied_seq, sha256, state, created, score, service_score, row_count, bytes, reason, promoted"


class Unlearnable(StateError):
    """A step that cannot be folded, and why."""

    def __init__(self, moment: Moment, error: Exception):
        super().__init__(f"step {moment.number} cannot be learned from: {error}")
        self.moment = moment
        self.error = error


class History:
    """What the log knows of versions. `make` gives a fold at its beginning."""

    def __init__(self, log: Log, snapshots: Snapshots, predictors: Predictors, make: Any):
        self.log = log
        self.snapshots = snapshots
        self.predictors = predictors
        self.make = make

    # ---- what is there ---------------------------------------------------------------------------------------------------

    def versions(self) -> list[Version]:
        """Every version, the oldest first."""
        return [_version(row) for row in self.log.rows(f"SELECT {COLUMNS} FROM version ORDER BY version")]

    def version(self, number: int) -> Version | None:
        """One version."""
        found = self.log.rows(f"SELECT {COLUMNS} FROM version WHERE version = ?", (number,))
        return _version(found[0]) if found else None

    def active(self) -> Version | None:
        """The version in service."""
        found = self.log.rows(
            f"SELECT {COLUMNS} FROM version WHERE state = ? ORDER BY version DESC LIMIT 1", (State.ACTIVE,)
        )
        return _version(found[0]) if found else None

    def kept_at(self, branch: int) -> dict[int, tuple[Version, bool]]:
        """By step number, the versions of a branch and whether each was put into service."""
        rows = self.log.rows(f"SELECT {COLUMNS} FROM version WHERE branch = ? ORDER BY version", (branch,))
        return {row[3]: (_version(row), bool(row[13])) for row in rows}

    def branch(self, number: int | None = None) -> tuple[Branch, int]:
        """A branch (the newest by default), and the version that served when it began."""
        where, given = ("", ()) if number is None else (" WHERE branch = ?", (number,))
        row = self.log.rows(
            f"SELECT branch, version, applied_seq, holes, service FROM branch{where} ORDER BY branch DESC LIMIT 1", given
        )[0]
        holes, final = (tuple((low, high) for low, high in ranges) for ranges in json.loads(row[3]))
        return Branch(int(row[0]), int(row[1]), int(row[2]), holes, final), int(row[4])

    def moments(self, branch: Branch, after: int, until: int | None = None) -> Iterator[Moment]:
        """The steps of a branch with numbers above `after`, up to `until`, as they were folded."""
        rows = self.log.rows(
            "SELECT number, first, last, reason FROM step WHERE branch = ? AND number > ? ORDER BY number",
            (branch.branch, after),
        )
        for number, first, last, reason in rows:
            if until is not None and number > until:
                return
            holes = () if reason == "released" else branch.holes
            yield self.log.moment(branch.branch, int(number), int(first), int(last), holes)

    def lineage(self, version: int | None = None) -> Iterator[Moment]:
        """Every step behind a version, or behind the learner as it stands, from the first on."""
        yield from self._behind(*self._end(version))

    def _end(self, version: int | None) -> tuple[Branch, int | None]:
        if version is None:
            return self.branch()[0], None
        row = self.version(version)
        if row is None:
            raise StateError(f"there is no version {version}.")
        return self.branch(row.branch)[0], row.number

    def _behind(self, branch: Branch, until: int | None) -> Iterator[Moment]:
        start = self.version(branch.version)
        if branch.branch > 0 and start is not None:
            yield from self._behind(self.branch(start.branch)[0], start.number)
        yield from self.moments(branch, 0, until)

    def line(self) -> Iterator[tuple[Version, bool]]:
        """The versions on the way to the learner as it stands, the newest first, and whether each was put into service."""
        branch, until = self.branch()[0], None
        while True:
            kept = self.kept_at(branch.branch)
            yield from (kept[number] for number in sorted(kept, reverse=True) if until is None or number <= until)
            if branch.branch == 0:
                return
            start = self.version(branch.version)
            branch, until = self.branch(start.branch)[0], start.number

    def released(self, branch: Branch, after: int = 0, until: int | None = None) -> tuple[Range, ...]:
        """The ranges that steps of a branch folded although they were set aside; steps with numbers above `after`, up to `until`."""
        rows = self.log.rows(
            "SELECT first, last, number FROM step WHERE branch = ? AND number > ? AND reason = 'released'",
            (branch.branch, after),
        )
        return tuple((int(first), int(last)) for first, last, number in rows if until is None or number <= until)

    def released_since(self, version: Version, branch: Branch) -> tuple[Range, ...]:
        """The same, on the way from a version to the end of a branch; from version 0 on where the way does not lead over it."""
        found: list[Range] = []
        until = None
        while True:
            there = branch.branch == version.branch
            found += self.released(branch, after=version.number if there else 0, until=until)
            if there or branch.branch == 0:
                return tuple(found)
            start = self.version(branch.version)
            branch, until = self.branch(start.branch)[0], start.number

    # ---- states ----------------------------------------------------------------------------------------------------------

    def state(self, version: int) -> dict[str, Any]:
        """The whole state of a version, from its snapshot, or made again. Raises StateError where neither works."""
        row = self.version(version)
        if row is None:
            raise StateError(f"there is no version {version}.")
        found = self.snapshot(row)
        return self._again(row) if found is None else found

    def snapshot(self, version: Version) -> dict[str, Any] | None:
        """The state in the files of a version; None where they are garbled, or those of another step."""
        state = self.snapshots.load(version.version)
        try:
            if state is None or (state["branch"], state["number"]) != (version.branch, version.number):
                return None
            return state if digest(state["fold"]["learner"]) == version.sha256 else None
        except (KeyError, TypeError):
            return None

    def learner_state(self, version: int) -> dict[str, Any]:
        """The state of its learner alone."""
        return self.state(version)["fold"]["learner"]

    def _again(self, row: Version) -> dict[str, Any]:
        """The state that the log gives, once it is what it was; its files are written anew unless they were removed on purpose."""
        branch = self.branch(row.branch)[0]
        fold = self.make() if row.version == 0 else self.standing_at(branch, row.number, without=row.version)
        self._hold(fold, row)
        state = fold.state_dict()
        if row.state != State.PRUNED:
            with suppress(StateError):  # a full disk, say: then it is made again the next time
                self.snapshots.save(row.version, state)
        return state

    def _hold(self, fold: ServedFold, row: Version) -> None:
        if fold.sha256() != row.sha256:
            raise StateError(
                f"the snapshot of version {row.version} is garbled, and what the log gives in its place has another sha256. "
                "Rows may have been erased or removed since; roll back to another version."
            )

    def standing_at(
        self,
        branch: Branch,
        until: int | None,
        without: int | None = None,
        heard: Callable[[Moment, list[Alarm]], None] = lambda moment, alarms: None,
    ) -> ServedFold:
        """The fold of a branch after step `until` (after its last step where None), from the newest whole snapshot on it.

        without: a version whose files are not looked at; heard: told what alarms a step that is folded again brings. Raises
        Unlearnable, and StateError where a version that was kept on the way comes out otherwise.
        """
        kept = self.kept_at(branch.branch)
        fold = self.make()
        for number in sorted((n for n in kept if until is None or n <= until), reverse=True):
            version = kept[number][0]
            if version.version == without or version.state == State.PRUNED:
                continue
            state = self.snapshot(version)
            if state is not None:
                self._put_back(fold, state)
                self.settle(fold, *kept[number])
                break
        else:
            self.begin(fold, branch)
        for moment in self.moments(branch, fold.number, until):
            heard(moment, self.apply(fold, moment))
            if fold.number in kept and kept[fold.number][0].version != without:
                self._hold(fold, kept[fold.number][0])
                self.settle(fold, *kept[fold.number])
        return fold

    def apply(self, fold: ServedFold, moment: Moment) -> list[Alarm]:
        """Fold a moment. Raises Unlearnable where that is the fault of its rows or of the learner."""
        try:
            return fold.apply(moment)
        except (StateError, ServeError, MemoryError):
            raise
        except Exception as error:
            raise Unlearnable(moment, error) from error

    def begin(self, fold: ServedFold, branch: Branch) -> None:
        """Set a fold to where a branch begins: in the state of its version, with what served then in service."""
        service = self.branch(branch.branch)[1]
        fold.load_state_dict(self.state(branch.version))
        fold.begin_branch(branch.branch, branch.applied_seq)
        fold.put_into_service(service, self._if_there(service), parent=None, before=None)

    def _put_back(self, fold: ServedFold, state: dict[str, Any]) -> None:
        """Set a fold to a state, with the predictors that its guard compares."""
        fold.load_state_dict(state)
        fold.guard.service = self._if_there(fold.service)
        fold.guard.parent = None
        with suppress(StateError):  # without it, only the guard's way back to it is lost
            fold.guard.parent = None if fold.parent is None else self._if_there(fold.parent)

    def _if_there(self, version: int) -> Any:
        """A predictor of a version; None where it was removed by the rule of retention, as only those are that another followed."""
        row = self.version(version)
        return None if row is None or row.state == State.PRUNED else self.predictors.of(self.learner_state(version))

    def settle(self, fold: ServedFold, version: Version, promoted: bool) -> None:
        """Do again what was decided at a step: put the version that was kept there into service."""
        if promoted and fold.service != version.version:
            predictor = self.predictors.of(fold.learner.state_dict())
            fold.put_into_service(version.version, predictor, parent=fold.service, before=fold.guard.service)

    # ---- what is written -------------------------------------------------------------------------------------------------

    def next_version(self) -> int:
        """The number of the next version."""
        return int(self.log.rows("SELECT coalesce(max(version), -1) + 1 FROM version")[0][0])

    def add_version(self, connection: Connection, version: Version, promoted: bool) -> None:
        """Write the row of a version; if it was put into service, the one before it retires."""
        if promoted:
            connection.execute("UPDATE version SET state = ? WHERE state = ?", (State.RETIRED, State.ACTIVE))
        connection.execute(
            f"INSERT INTO version ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                version.version, version.parent, version.branch, version.number, version.applied_seq, version.sha256,
                str(version.state), version.created, version.score, version.service_score, version.rows, version.bytes, version.reason,
                int(promoted),
            ),
        )  # fmt: skip

    def add_branch(self, connection: Connection, branch: Branch, service: int) -> None:
        """Write the row of a branch."""
        connection.execute(
            "INSERT INTO branch (branch, version, applied_seq, holes, service, created) VALUES (?, ?, ?, ?, ?, ?)",
            (
                branch.branch,
                branch.version,
                branch.applied_seq,
                json.dumps([branch.holes, branch.final]),
                service,
                self.log.clock(),
            ),
        )


def _version(row: Any) -> Version:
    state = State(row[6])
    return Version(*row[:6], state, *row[7:13])
