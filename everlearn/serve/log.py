"""The log: everything that was asked and told, in one order, and what was done about it.

    event     seq | kind (input, answer) | id | revision | hash | x | y | output | version | created | source
    early     answers whose prediction has not come       step     ranges of seq that were folded, by branch
    version, branch, decision, alarm, point (what is drawn over time), command (asked of the process that learns), setting

One thread writes. What waits is written as one transaction and answered after its commit, so that the price of a durable commit is
shared by all who wait; while one group is committed the next one gathers, and where several came together, a moment longer.
Readers have connections of their own.
"""

import contextlib
import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from everlearn.core.errors import ServeError, StateError
from everlearn.serve.database import Connection, Database, unavailable
from everlearn.serve.ingest import Asked, add_answers, add_inputs, hashed, insert_answers
from everlearn.serve.records import ANSWER, INPUT, Answer, Answered, Ask, Input, Moment, Receipt, Told
from everlearn.serve.tables import FORMAT, tables

T = TypeVar("T")
ASKED = "asked"  # work whose outputs are not known yet
GROUP = 64  # pieces of work in one transaction
GATHER = (
    0.0002  # seconds; larger groups take a third of the processor's time off each request, longer ones keep clients waiting
)
CLOSE_ROWS = 1000  # open predictions that are closed in one transaction


def _unanswered(requests: Sequence[Sequence[Ask]]) -> list[Asked | Exception]:
    raise StateError("nothing predicts for this log.")


class Log:
    """The log in a database. `write(work)` runs work(connection) inside a group's transaction and gives a future of what it returned.

    Work that raises ServeError must have changed nothing before; whatever else it raises undoes the group, whose other members
    are then written one by one.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time):
        self.database = database
        self.clock = clock
        self.duplicates = 0
        self.answering: Callable[[Sequence[Sequence[Ask]]], list[Asked | Exception]] = _unanswered  # set by what predicts
        self.term = ""  # of this process as the one that learns
        self._counted = (0, 0, 0, "")  # newest number counted, inputs, answers, what had been removed then
        self._local = threading.local()
        self._work: queue.SimpleQueue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._writer = database.connect()
        try:
            self._make_tables()
            self.last_seq = self.last_row()
            self.inputs, self.answers = (self._count(kind) for kind in (INPUT, ANSWER))
        except BaseException:
            self._writer.close()
            raise
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
        found = self.setting("format", connection=self._writer)
        if found != FORMAT:
            raise StateError(f"the log is of format {found!r}, and this version of Everlearn reads format {FORMAT!r}.")

    # ---- writing ---------------------------------------------------------------------------------------------------------

    def write(self, work: Callable[[Connection], T], *, leading: bool = False) -> "Future[T]":
        """Run work in the next transaction; the future is done once it is durable.

        leading: only as the process that learns: refused (not_ready) where another took over, however late this one hears of it.
        """
        return self._put(self._led(work) if leading and self.database.shared else work, Future(), "")

    def _put(self, work: Any, future: "Future[T]", kind: str) -> "Future[T]":
        with self._lock:
            if not self._closed:
                self._work.put((work, future, kind))
                return future
        future.set_exception(ServeError("not_ready", "the log is closed; nothing was stored.", 503, retry_after=1.0))
        return future

    def ask(self, asks: Sequence[Ask], future: "Future[list[Answered]] | None" = None) -> "Future[list[Answered]]":
        """Answer the rows of one request through `answering` and store them, all or none; the future fails with conflict."""
        return self._put(asks, future or Future(), ASKED)

    def keep(self, asked: Asked) -> "Future[list[Answered]]":
        """Store the rows of one request that were answered elsewhere (asked, output, version), as `ask` does."""
        return self._put(asked, Future(), INPUT)

    def tell(self, items: Sequence[Told], horizon: float | None = None) -> "Future[list[Receipt]]":
        """Store the answers of one request, all or none; the future fails with conflict or horizon_passed."""
        return self._put((items, horizon), Future(), ANSWER)

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
        """Write what waits, and stop. What is asked of it later is refused (not_ready)."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._work.put(None)
        self._thread.join()
        self._writer.close()

    def _run(self) -> None:
        crowded = False  # whether the group before held several
        while True:
            group = [self._work.get()]
            if crowded:
                time.sleep(GATHER)
            while len(group) < GROUP and group[-1] is not None:
                try:
                    group.append(self._work.get_nowait())
                except queue.Empty:
                    break
            crowded = len(group) > 1
            wanted = self._answered([item for item in group if item is not None and item[1].set_running_or_notify_cancel()])
            if wanted and not self._transact(wanted):
                for item in wanted:
                    self._transact([item], alone=True)
            if group[-1] is None:
                return

    def _answered(self, group: list[tuple[Any, Future, str]]) -> list[tuple[Any, Future, str]]:
        """The group with outputs for what was asked; what cannot be answered is told so, and left out."""
        asked = [item for item in group if item[2] == ASKED]
        if not asked:
            return group
        try:
            given = self.answering([item[0] for item in asked])
        except Exception as error:  # the thread that writes goes on
            given = [error] * len(asked)
        outputs = dict(zip(map(id, asked), given, strict=True))
        ready = []
        for item in group:
            output = outputs.get(id(item))
            if isinstance(output, Exception):
                item[1].set_exception(output)
            else:
                ready.append(item if output is None else (output, item[1], INPUT))
        return ready

    def _transact(self, group: list[tuple[Any, Future, str]], alone: bool = False) -> bool:
        """Write a group; False where all of it was undone and nobody has been answered."""
        before = (self.last_seq, self.inputs, self.answers, self.duplicates)
        begun = False
        try:
            self.database.begin(self._writer)
            begun = True
            results = self._written(self._writer, group)
            self.commit()
        except BaseException as error:
            with contextlib.suppress(*self.database.faults):
                self._writer.execute("ROLLBACK")
            self.last_seq, self.inputs, self.answers, self.duplicates = before
            if begun and not alone and len(group) > 1:
                return False
            fault = unavailable(error) if isinstance(error, self.database.faults) else error
            for _, future, _ in group:
                future.set_exception(fault)
            return True
        for (_, future, _), result in zip(group, results, strict=True):
            if isinstance(result, ServeError):
                future.set_exception(result)
            else:
                future.set_result(result)
        return True

    def _written(self, connection: Connection, group: list[tuple[Any, Future, str]]) -> list[Any]:
        """What each piece of a group gave: predictions first, then answers, then all else."""
        now = self.clock()
        results: dict[int, Any] = {}
        by_kind = {kind: [item for item in group if item[2] == kind] for kind in (INPUT, ANSWER)}
        if by_kind[INPUT]:
            given, joined = add_inputs(connection, [item[0] for item in by_kind[INPUT]], now)
            self._count_inputs(given, joined)
            results |= {id(item): result for item, result in zip(by_kind[INPUT], given, strict=True)}
        if by_kind[ANSWER]:
            given = add_answers(connection, [item[0] for item in by_kind[ANSWER]], now)
            self._count_answers(given)
            results |= {id(item): result for item, result in zip(by_kind[ANSWER], given, strict=True)}
        for item in group:
            if not item[2]:
                try:
                    results[id(item)] = item[0](connection)
                except ServeError as refusal:
                    results[id(item)] = refusal
        return [results[id(item)] for item in group]

    def _count_inputs(self, given: list[list[Answered] | ServeError], joined: int) -> None:
        rows = [row for result in given if not isinstance(result, ServeError) for row in result]
        fresh = [row.seq for row in rows if not row.duplicate]
        self.duplicates += len(rows) - len(fresh)
        self.inputs += len(fresh)
        self.answers += joined
        self.last_seq = max([self.last_seq, *fresh]) + joined

    def _count_answers(self, given: list[list[Receipt] | ServeError]) -> None:
        rows = [row for result in given if not isinstance(result, ServeError) for row in result]
        fresh = [row.seq for row in rows if not row.duplicate and row.seq is not None]
        self.duplicates += sum(row.duplicate for row in rows)
        self.answers += len(fresh)
        self.last_seq = max([self.last_seq, *fresh])

    def commit(self) -> None:
        """Make the present group durable."""
        self._writer.execute("COMMIT")

    def close_open(self, connection: Connection, horizon: float, default: float | int | None) -> int:
        """Put the default in the place of answers that are no longer waited for, or count that none came. Returns rows closed."""
        now = self.clock()
        done = int(self.setting("closed_seq", "0", connection))
        rows = connection.execute(
            "SELECT p.seq, p.id, a.seq FROM event p LEFT JOIN event a ON a.id = p.id AND a.kind = 'answer' AND a.revision = 0"
            " WHERE p.seq > ? AND p.kind = 'input' AND p.created < ?"
            " AND p.seq < coalesce((SELECT min(seq) FROM event WHERE seq > ? AND kind = 'input' AND created >= ?), p.seq + 1)"
            " ORDER BY p.seq LIMIT ?",  # in order, also where the clock was set back
            (done, now - horizon, done, now - horizon, CLOSE_ROWS),
        ).fetchall()
        missing = [row for row in rows if row[2] is None]
        if missing and default is not None:
            y = json.dumps(default)
            numbers = insert_answers(connection, [(row[1], 0, hashed(y.encode()), y, now, "default") for row in missing])
            self.answers += len(numbers)
            self.last_seq = max(self.last_seq, *numbers.values())
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

    def thin_points(self, connection: Connection, most: int) -> int:
        """Where there are more points than `most`, remove every second one of the older half. Returns points removed."""
        total = int(connection.execute("SELECT count(*) FROM point").fetchone()[0])
        if total <= most:
            return 0
        places = "SELECT seq, row_number() OVER (ORDER BY seq) AS place FROM point"
        sql = f"DELETE FROM point WHERE seq IN (SELECT seq FROM ({places}) AS placed WHERE place % 2 = 0 AND place < ?)"
        return connection.execute(sql, (total // 2,)).rowcount

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

    def delay(self, limit: int) -> dict[str, float] | None:
        """How late the newest answers came, in seconds: median and the delay that one in ten exceeds; None before there are any."""
        rows = self.rows(
            "SELECT a.created - p.created FROM (SELECT id, created FROM event WHERE kind = 'answer' AND source <> 'default'"
            " ORDER BY seq DESC LIMIT ?) AS a JOIN event p ON p.id = a.id AND p.kind = 'input' AND p.revision = 0",
            (limit,),
        )
        delays = sorted(max(0.0, row[0]) for row in rows)
        if not delays:
            return None
        return {"median": round(delays[len(delays) // 2], 3), "p90": round(delays[len(delays) * 9 // 10], 3)}

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
