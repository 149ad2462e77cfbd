"""The log: everything that was asked and told, in one order, and what was done about it.

    event     seq | kind (input, answer) | id | revision | hash | x | y | output | version | created | source
    early     answers whose prediction has not come       step     ranges of seq that were folded, by branch
    version, branch, decision, alarm, point (what is drawn over time), command (asked of the process that learns), setting

One thread writes. What waits is written as one transaction and answered after its commit, so that the price of a durable commit is
shared by all who wait; while one group is committed the next one gathers. Readers have connections of their own.
"""

import contextlib
import hashlib
import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from everlearn.core.errors import ServeError
from everlearn.serve.database import Connection, Database, unavailable
from everlearn.serve.records import ANSWER, INPUT, Answer, Answered, Ask, Input, Moment, Receipt, Told
from everlearn.serve.tables import FORMAT, tables

T = TypeVar("T")
GROUP = 64  # pieces of work in one transaction
CLOSE_ROWS = 1000  # open predictions that are closed in one transaction


class Log:
    """The log in a database. `write(work)` runs work(connection) inside a group's transaction and gives a future of what it returned.

    Work that raises ServeError must have changed nothing before; whatever else it raises undoes the group, whose other members
    are then written one by one.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time):
        self.database = database
        self.clock = clock
        self.duplicates = 0
        self.term = ""  # of this process as the one that learns
        self._counted = (0, 0, 0, "")  # newest number counted, inputs, answers, what had been removed then
        self._local = threading.local()
        self._work: queue.SimpleQueue = queue.SimpleQueue()
        self._writer = database.connect()
        self._make_tables()
        self.last_seq = self.last_row()
        self.inputs, self.answers = (self._count(kind) for kind in (INPUT, ANSWER))
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def _make_tables(self) -> None:
        try:
            self.database.begin(self._writer)
            for statement in tables(self.database):
                self._writer.execute(statement)
            self._writer.execute("INSERT INTO setting (name, value) VALUES ('format', ?) ON CONFLICT DO NOTHING", (FORMAT,))
            self._writer.execute("COMMIT")
        except self.database.faults as error:
            with contextlib.suppress(*self.database.faults):
                self._writer.execute("ROLLBACK")
            raise unavailable(error) from error

    # ---- writing ---------------------------------------------------------------------------------------------------------

    def write(self, work: Callable[[Connection], T], *, leading: bool = False) -> "Future[T]":
        """Run work in the next transaction; the future is done once it is durable.

        leading: only as the process that learns: refused (not_ready) where another took over, however late this one hears of it.
        """
        future: Future[T] = Future()
        self._work.put((self._led(work) if leading and self.database.shared else work, future))
        return future

    def _led(self, work: Callable[[Connection], T]) -> Callable[[Connection], T]:
        def led(connection: Connection) -> T:
            if self.setting("term", "", connection) != self.term:
                raise ServeError("not_ready", "another process learns now; try again in a moment.", 503, retry_after=1.0)
            return work(connection)

        return led

    def take_lead(self) -> None:
        """From here on this process learns, and what others write as the one that learns is refused."""
        self.term = uuid.uuid4().hex
        self.keep_setting("term", self.term)

    def close(self) -> None:
        """Write what waits, and stop."""
        self._work.put(None)
        self._thread.join()
        self._writer.close()

    def _run(self) -> None:
        while True:
            group = [self._work.get()]
            while len(group) < GROUP and group[-1] is not None:
                try:
                    group.append(self._work.get_nowait())
                except queue.Empty:
                    break
            wanted = [item for item in group if item is not None and item[1].set_running_or_notify_cancel()]
            if wanted and not self._transact(wanted):
                for item in wanted:
                    self._transact([item], alone=True)
            if group[-1] is None:
                return

    def _transact(self, group: list[tuple[Callable, Future]], alone: bool = False) -> bool:
        """Write a group; False where all of it was undone and nobody has been answered."""
        results: list[Any] = []
        before = (self.last_seq, self.inputs, self.answers, self.duplicates)
        try:
            self.database.begin(self._writer)
            for work, _ in group:
                try:
                    results.append(work(self._writer))
                except ServeError as refusal:
                    results.append(refusal)
            self.commit()
        except BaseException as error:
            with contextlib.suppress(*self.database.faults):
                self._writer.execute("ROLLBACK")
            self.last_seq, self.inputs, self.answers, self.duplicates = before
            if not alone and len(group) > 1:
                return False
            fault = unavailable(error) if isinstance(error, self.database.faults) else getattr(error, "refusal", error)
            for _, future in group:
                future.set_exception(fault)
            return True
        for (_, future), result in zip(group, results, strict=True):
            if isinstance(result, ServeError):
                future.set_exception(result)
            else:
                future.set_result(result)
        return True

    def commit(self) -> None:
        """Make the present group durable."""
        self._writer.execute("COMMIT")

    def add_inputs(self, connection: Connection, asked: Sequence[tuple[Ask, dict[str, Any], int]]) -> list[Answered]:
        """Store predictions (asked, output, version). Raises ServeError conflict, before anything is stored."""
        now = self.clock()
        answered: list[Answered] = []
        for ask, output, version in asked:
            digest = _hash(ask.x)
            row = connection.execute(
                "INSERT INTO event (kind, id, revision, hash, x, output, version, created) SELECT 'input', ?, 0, ?, ?, ?, ?, ?"
                " WHERE NOT EXISTS (SELECT 1 FROM event WHERE id = ? AND kind = 'input' AND revision = 0) RETURNING seq",
                (ask.id, digest, ask.x, json.dumps(output), version, now, ask.id),
            ).fetchone()
            if row is None:
                answered.append(self._first_answer(connection, ask.id, digest, bool(answered)))
                continue
            self._stored(int(row[0]), INPUT)
            answered.append(Answered(ask.id, output, version, int(row[0])))
            self._join_early(connection, ask.id, now)
        return answered

    def _first_answer(self, connection: Connection, id: str, digest: bytes, partly: bool) -> Answered:
        """What an id was answered when it was first asked. Where a part of the request is stored already, a conflict undoes it."""
        row = connection.execute(
            "SELECT hash, output, version, seq FROM event WHERE id = ? AND kind = 'input' AND revision = 0", (id,)
        ).fetchone()
        if bytes(row[0]) != digest:
            refusal = ServeError("conflict", f"the id {id!r} was asked before with another x; nothing was stored.", 422)
            raise _Undo(refusal) if partly else refusal
        self.duplicates += 1
        return Answered(id, json.loads(row[1]), int(row[2]), int(row[3]), duplicate=True)

    def _join_early(self, connection: Connection, id: str, now: float) -> None:
        """Answers that came before their prediction take their place in the order now."""
        waiting = connection.execute("SELECT revision, hash, y FROM early WHERE id = ? ORDER BY revision", (id,)).fetchall()
        for revision, digest, y in waiting:
            self._insert_answer(connection, id, revision, bytes(digest), y, now, "early")
        if waiting:
            connection.execute("DELETE FROM early WHERE id = ?", (id,))

    def add_answers(self, connection: Connection, items: Sequence[Told], horizon: float | None = None) -> list[Receipt]:
        """Store answers, all or none. Raises ServeError: conflict, horizon_passed."""
        now = self.clock()
        seen: dict[tuple[str, int], bytes] = {}
        plan: list[tuple[Told, bytes, str, Receipt | None]] = []
        for item in items:
            digest = _hash(json.dumps(item.y).encode())
            key = (item.id, item.revision)
            if seen.setdefault(key, digest) != digest:
                raise _told_otherwise(item)
            plan.append((item, digest, *self._standing(connection, item, digest, now, horizon)))
        receipts: list[Receipt] = []
        written: dict[tuple[str, int], Receipt] = {}
        for item, digest, place, standing in plan:
            key = (item.id, item.revision)
            if key in written:
                standing = Receipt(item.id, written[key].seq, duplicate=True)
            if standing is not None:
                self.duplicates += 1
                receipts.append(standing)
                continue
            y = json.dumps(item.y)
            if place == "early":
                connection.execute(
                    "INSERT INTO early (id, revision, hash, y, created) VALUES (?, ?, ?, ?, ?)", (*key, digest, y, now)
                )
                written[key] = Receipt(item.id, None)
            else:
                written[key] = Receipt(item.id, self._insert_answer(connection, *key, digest, y, now, ""))
            receipts.append(written[key])
        return receipts

    def _standing(
        self, connection: Connection, item: Told, digest: bytes, now: float, horizon: float | None
    ) -> tuple[str, Receipt | None]:
        """(where the answer belongs, what it was answered before if it is a duplicate)."""
        told = connection.execute(
            "SELECT hash, seq, source FROM event WHERE id = ? AND kind = 'answer' AND revision = ?", (item.id, item.revision)
        ).fetchone()
        if told is not None and told[2] == "default":
            raise _too_late(item, horizon)
        if told is not None:
            if bytes(told[0]) != digest:
                raise _told_otherwise(item)
            return "event", Receipt(item.id, int(told[1]), duplicate=True)
        asked = connection.execute(
            "SELECT created FROM event WHERE id = ? AND kind = 'input' AND revision = 0", (item.id,)
        ).fetchone()
        if asked is not None:
            if horizon is not None and now - asked[0] > horizon:
                raise _too_late(item, horizon)
            return "event", None
        waits = connection.execute(
            "SELECT hash FROM early WHERE id = ? AND revision = ?", (item.id, item.revision)
        ).fetchone()
        if waits is None:
            return "early", None
        if bytes(waits[0]) != digest:
            raise _told_otherwise(item)
        return "early", Receipt(item.id, None, duplicate=True)

    def _insert_answer(
        self, connection: Connection, id: str, revision: int, digest: bytes, y: str, now: float, source: str
    ) -> int:
        row = connection.execute(
            "INSERT INTO event (kind, id, revision, hash, y, created, source) VALUES ('answer', ?, ?, ?, ?, ?, ?) RETURNING seq",
            (id, revision, digest, y, now, source),
        ).fetchone()
        self._stored(int(row[0]), ANSWER)
        return int(row[0])

    def _stored(self, seq: int, kind: str) -> None:
        self.last_seq = max(self.last_seq, seq)
        if kind == INPUT:
            self.inputs += 1
        else:
            self.answers += 1

    def close_open(self, connection: Connection, horizon: float, default: float | int | None) -> int:
        """Put the default in the place of answers that are no longer waited for, or count that none came. Returns rows closed."""
        now = self.clock()
        done = int(self.setting("closed_seq", "0", connection))
        rows = connection.execute(
            "SELECT p.seq, p.id, a.seq FROM event p LEFT JOIN event a ON a.id = p.id AND a.kind = 'answer' AND a.revision = 0"
            " WHERE p.seq > ? AND p.kind = 'input' AND p.created < ? ORDER BY p.seq LIMIT ?",
            (done, now - horizon, CLOSE_ROWS),
        ).fetchall()
        missing = [row for row in rows if row[2] is None]
        for _, id, _ in missing:
            if default is not None:
                y = json.dumps(default)
                self._insert_answer(connection, id, 0, _hash(y.encode()), y, now, "default")
        if rows:
            self.set(connection, "closed_seq", str(rows[-1][0]))
            name = "unanswered" if default is None else "defaulted"
            self.set(connection, name, str(int(self.setting(name, "0", connection)) + len(missing)))
        return len(rows)

    def expire_early(self, connection: Connection, window: float) -> int:
        """Give up answers whose prediction did not come within the window, and count them."""
        gone = connection.execute("DELETE FROM early WHERE created < ?", (self.clock() - window,)).rowcount
        if gone:
            total = int(self.setting("early_expired", "0", connection)) + gone
            self.set(connection, "early_expired", str(total))
        return gone

    def erase(self, connection: Connection, id: str) -> tuple[int, int]:
        """Remove every row of an id. Returns (rows removed, the least of their numbers, 0 where none had one)."""
        rows = connection.execute("SELECT seq, kind FROM event WHERE id = ? ORDER BY seq", (id,)).fetchall()
        removed = connection.execute("DELETE FROM event WHERE id = ?", (id,)).rowcount
        removed += connection.execute("DELETE FROM early WHERE id = ?", (id,)).rowcount
        self._note_removal(connection)
        self.inputs -= sum(row[1] == INPUT for row in rows)
        self.answers -= sum(row[1] == ANSWER for row in rows)
        return removed, int(rows[0][0]) if rows else 0

    def forget_before(self, connection: Connection, moment: float, applied_seq: int) -> int:
        """Remove rows older than a moment that were folded, with their answers. Returns rows removed."""
        old = "SELECT id FROM event WHERE kind = 'input' AND created < ? AND seq <= ?"
        late = "SELECT id FROM event WHERE kind = 'answer' AND (created >= ? OR seq > ?)"
        removed = connection.execute(
            f"DELETE FROM event WHERE id IN ({old}) AND id NOT IN ({late})", (moment, applied_seq, moment, applied_seq)
        ).rowcount
        if removed:
            self._note_removal(connection)
        self.inputs, self.answers = (self._count(kind, connection) for kind in (INPUT, ANSWER))
        return removed

    def _note_removal(self, connection: Connection) -> None:
        """Say to others that rows went, so that they count anew."""
        if self.database.shared:
            self.set(connection, "removed", uuid.uuid4().hex)

    def set(self, connection: Connection, name: str, value: str) -> None:
        """Write a setting in the present transaction."""
        connection.execute(
            "INSERT INTO setting (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, value),
        )

    def keep_setting(self, name: str, value: str) -> None:
        """Store a setting, and wait until it is durable."""
        self.write(lambda connection: self.set(connection, name, value)).result()

    # ---- reading ---------------------------------------------------------------------------------------------------------

    def reader(self) -> Connection:
        """The reading connection of the present thread."""
        if getattr(self._local, "connection", None) is None:
            self._local.connection = self.database.connect()
        return self._local.connection

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """What a SELECT gives now."""
        try:
            return self.reader().execute(sql, parameters).fetchall()
        except self.database.faults as error:
            raise unavailable(error) from error

    def setting(self, name: str, default: str = "", connection: Connection | None = None) -> str:
        """A stored setting."""
        sql = "SELECT value FROM setting WHERE name = ?"
        rows = self.rows(sql, (name,)) if connection is None else connection.execute(sql, (name,)).fetchall()
        return rows[0][0] if rows else default

    def newest(self) -> int:
        """The number of the newest event that is durable."""
        if self.database.shared:
            self.last_seq = self.last_row()
        return self.last_seq

    def pending(self, after: int, limit: int) -> list[tuple[int, str, float]]:
        """(seq, kind, created) of the first events after a number."""
        return self.rows("SELECT seq, kind, created FROM event WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))

    def moment(self, branch: int, number: int, first: int, last: int, holes: Iterable[Sequence[int]] = ()) -> Moment:
        """The step that folds a range of numbers, but for the holes."""
        rows = self.rows(
            "SELECT e.seq, e.kind, e.id, e.revision, e.x, e.y, e.output, e.version, e.created, e.source,"
            " p.x, p.output, p.version, p.created"
            " FROM event e LEFT JOIN event p ON e.kind = 'answer' AND p.id = e.id AND p.kind = 'input' AND p.revision = 0"
            " WHERE e.seq BETWEEN ? AND ? ORDER BY e.seq",
            (first, last),
        )
        holes = list(holes)
        inputs, answers = [], []
        for (
            seq,
            kind,
            id,
            revision,
            x,
            y,
            output,
            version,
            created,
            source,
            asked_x,
            asked_output,
            asked_version,
            asked,
        ) in rows:
            if any(low <= seq <= high for low, high in holes):
                continue
            if kind == INPUT:
                inputs.append(Input(seq, id, bytes(x), json.loads(output), version, created))
            elif asked_x is not None:
                told, given = json.loads(y), json.loads(asked_output)
                answers.append(
                    Answer(
                        seq, id, bytes(asked_x), given, asked_version, told, revision, asked, created, source == "default"
                    )
                )
        return Moment(branch, number, first, last, tuple(inputs), tuple(answers))

    def oldest_early(self) -> float | None:
        """When the oldest answer came that still waits for its prediction."""
        return self.rows("SELECT min(created) FROM early")[0][0]

    def unanswered(self, before: float, limit: int) -> tuple[int, int]:
        """(the newest predictions made before a moment, at most `limit`; those of them without an answer)."""
        rows = self.rows(
            "SELECT a.seq FROM (SELECT id FROM event WHERE kind = 'input' AND created < ? ORDER BY seq DESC LIMIT ?) AS p"
            " LEFT JOIN event a ON a.id = p.id AND a.kind = 'answer' AND a.revision = 0",
            (before, limit),
        )
        return len(rows), sum(row[0] is None for row in rows)

    def counts(self) -> dict[str, int]:
        """How many rows of each sort there are or were."""
        waiting = int(self.rows("SELECT count(*) FROM early")[0][0])
        given_up = {name: int(self.setting(name, "0")) for name in ("early_expired", "unanswered", "defaulted")}
        inputs, answers = self.totals()
        return {
            "inputs": inputs, "answers": answers, "duplicates": self.duplicates, "early_waiting": waiting, **given_up,
        }  # fmt: skip

    def totals(self) -> tuple[int, int]:
        """How many inputs and answers there are. Where others write too, what came since the last look is added."""
        if not self.database.shared:
            return self.inputs, self.answers
        seq, inputs, answers, before = self._counted
        removed = self.setting("removed", "")
        if removed != before:
            seq, inputs, answers = 0, 0, 0
        for kind, count, newest in self.rows(
            "SELECT kind, count(*), max(seq) FROM event WHERE seq > ? GROUP BY kind", (seq,)
        ):
            seq = max(seq, int(newest))
            inputs += int(count) if kind == INPUT else 0
            answers += int(count) if kind == ANSWER else 0
        self._counted = (seq, inputs, answers, removed)
        return inputs, answers

    def last_row(self) -> int:
        """The number of the newest event that a reader sees now."""
        return int(self.rows("SELECT coalesce(max(seq), 0) FROM event")[0][0])

    def _count(self, kind: str, connection: Connection | None = None) -> int:
        sql = "SELECT count(*) FROM event WHERE kind = ?"
        return int((connection or self.reader()).execute(sql, (kind,)).fetchone()[0])


class _Undo(Exception):
    """A refusal after a part of the request was written: the group is undone, and the request refused when it is alone."""

    def __init__(self, refusal: ServeError):
        super().__init__(str(refusal))
        self.refusal = refusal


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _told_otherwise(item: Told) -> ServeError:
    return ServeError(
        "conflict",
        f"the id {item.id!r} was told another answer before; nothing was stored. Send a correction with a higher revision.",
        422,
    )


def _too_late(item: Told, horizon: float | None) -> ServeError:
    waited = "" if horizon is None else f" of {horizon:g} s"
    return ServeError(
        "horizon_passed", f"the id {item.id!r} was answered after its horizon{waited}; nothing was stored.", 410
    )
