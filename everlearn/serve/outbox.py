"""Feedback on disk that a server has not taken yet, in the order in which it was put.

    put -> waiting -> taken by the server -> removed        put -> waiting -> refused by the server -> refused, with the reason

Each arrow is one transaction of SQLite (write-ahead mode, synchronous=FULL), so a process may be killed between any two. What was
sent and not yet removed is sent again; the server tells by id and revision that it has it. Several processes may share a file: all
put, one at a time delivers.
"""

import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from everlearn.core.errors import ServeError, StateError, check_count
from everlearn.serve.database import refuse_network

FORMAT = 1
APPLICATION = 0x45764F62  # SQLite's application id, which tells an outbox from any other database
BUSY_MS = 10_000  # how long a statement waits for another process

TABLES = (
    """CREATE TABLE IF NOT EXISTS waiting(
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL,
        created REAL NOT NULL, UNIQUE(id, revision))""",
    """CREATE TABLE IF NOT EXISTS refused(
        number INTEGER PRIMARY KEY, id TEXT NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL, created REAL NOT NULL,
        code TEXT NOT NULL, status INTEGER NOT NULL, detail TEXT NOT NULL, time REAL NOT NULL)""",
)
INSERT = "INSERT INTO waiting(id, revision, body, created) VALUES (?, ?, ?, ?)"
HELD = "SELECT (SELECT count(*) FROM waiting) + (SELECT count(*) FROM refused)"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Feedback that waits. number: its place in the order; body: what is sent; created: seconds since 1970."""

    number: int
    id: str
    revision: int
    body: dict[str, Any]
    created: float


@dataclass(frozen=True, slots=True)
class Refused:
    """Feedback that the server will never take, with the code, status and sentence of its refusal. time: seconds since 1970."""

    number: int
    id: str
    revision: int
    body: dict[str, Any]
    created: float
    code: str
    status: int
    detail: str
    time: float


class Outbox:
    """Feedback that waits for a server, in one file; keep one outbox for one server.

    path: of the file, on a local disk; limit: pieces of feedback held at most, refused ones included. Safe to use from several
    threads and processes, and after a fork. Raises StateError for a file that is something else or cannot be opened.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Outbox(Path(folder, "outbox.sqlite")) as outbox:
    ...     numbers = outbox.put([{"id": "a", "y": "cat", "revision": 0}, {"id": "b", "y": "dog", "revision": 0}])
    ...     outbox.remove(numbers[:1])
    ...     len(outbox), outbox.oldest(10)[0].body
    (1, {'id': 'b', 'y': 'dog', 'revision': 0})
    """

    def __init__(self, path: str | Path, *, limit: int = 100_000):
        check_count("outbox", "limit", limit)
        self.path = Path(path)
        self.limit = limit
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._gate: sqlite3.Connection | None = None
        _LIVE.add(self)
        self._use(lambda connection: None)

    def put(self, items: Sequence[Mapping[str, Any]]) -> list[int]:
        """Keep feedback ({id, y or reward, revision}), all or none; on the disk when this returns. Gives the numbers.

        An id and revision that wait already keep their number. Raises ServeError: conflict (they wait with something else),
        outbox_full, outbox_unavailable.
        """

        now = time.time()

        def work(connection: sqlite3.Connection) -> list[int]:
            free = self.limit - connection.execute(HELD).fetchone()[0]
            numbers = []
            for item in items:
                number = _standing(connection, item)
                if number is None:
                    if free < 1:
                        raise self._full()
                    free -= 1
                    line = (item["id"], item["revision"], json.dumps(item, separators=(",", ":")), now)
                    number = connection.execute(INSERT, line).lastrowid
                numbers.append(number)
            return numbers

        return self._write(work)

    def oldest(self, count: int) -> list[Waiting]:
        """At most `count` pieces of feedback that wait, the oldest first."""
        question = "SELECT number, id, revision, body, created FROM waiting ORDER BY number LIMIT ?"
        found = self._use(lambda connection: connection.execute(question, (count,)).fetchall())
        return [Waiting(number, id, revision, json.loads(body), created) for number, id, revision, body, created in found]

    def remove(self, numbers: Sequence[int]) -> None:
        """Forget feedback that the server has taken."""
        chosen = [(number,) for number in numbers]
        self._write(lambda connection: connection.executemany("DELETE FROM waiting WHERE number = ?", chosen))

    def refuse(self, number: int, error: ServeError) -> None:
        """Set feedback aside that the server refuses for good."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR IGNORE INTO refused SELECT number, id, revision, body, created, ?, ?, ?, ? FROM waiting WHERE number = ?",
                (error.code, error.status, str(error), time.time(), number),
            )
            connection.execute("DELETE FROM waiting WHERE number = ?", (number,))

        self._write(work)

    def refused(self) -> list[Refused]:
        """What the server refused, the oldest first."""
        question = "SELECT number, id, revision, body, created, code, status, detail, time FROM refused ORDER BY number"
        found = self._use(lambda connection: connection.execute(question).fetchall())
        return [Refused(*line[:3], json.loads(line[3]), *line[4:]) for line in found]

    def forget(self, numbers: Sequence[int]) -> None:
        """Remove refused feedback that someone has looked at."""
        chosen = [(number,) for number in numbers]
        self._write(lambda connection: connection.executemany("DELETE FROM refused WHERE number = ?", chosen))

    def __len__(self) -> int:
        return self._use(lambda connection: connection.execute("SELECT count(*) FROM waiting").fetchone()[0])

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._use(lambda connection: connection.execute("SELECT EXISTS(SELECT 1 FROM waiting)").fetchone()[0])

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Whether it is this caller's turn to deliver. Nobody else has it meanwhile; it ends with the block, or with the process.

        Raises ServeError: outbox_unavailable.
        """
        gate = None
        try:
            gate = sqlite3.connect(f"{self.path}-turn", timeout=0.0, isolation_level=None, check_same_thread=False)
            gate.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if gate is not None:
                gate.close()
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise self._unavailable(error) from error
            yield False
            return
        try:
            self._gate = gate
            yield True
        finally:
            self._gate = None
            gate.close()

    def close(self) -> None:
        """Close the file; what waits stays in it. It is opened again when it is used again."""
        with self._lock:
            self._shut()

    def __enter__(self) -> "Outbox":
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Work in one transaction that is on the disk when it is done."""

        def whole(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            return result

        return self._use(whole)

    def _use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            if self._connection is None:
                self._connection = _opened(self.path)
            try:
                return work(self._connection)
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    def _shut(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _full(self) -> ServeError:
        return ServeError(
            "outbox_full",
            f"the outbox {self.path} takes no more than {self.limit} pieces of feedback and is full; nothing was kept now. "
            "Bring the server back, look at what it refused (`refused`, `forget`), or raise the limit.",
            0,
        )

    def _unavailable(self, error: sqlite3.Error) -> ServeError:
        return ServeError(
            "outbox_unavailable", f"the outbox {self.path} cannot be used ({' '.join(str(error).split())}).", 0
        )


def _standing(connection: sqlite3.Connection, item: Mapping[str, Any]) -> int | None:
    """The number under which the same feedback waits already, None if it does not. Raises ServeError if it says something else."""
    question = "SELECT number, body FROM waiting WHERE id = ? AND revision = ?"
    found = connection.execute(question, (item["id"], item["revision"])).fetchone()
    if found is not None and json.loads(found[1]) != item:
        raise ServeError(
            "conflict",
            f"feedback for {item['id']!r} with revision {item['revision']} waits to be sent and says something else. "
            f"Send a correction with revision {item['revision'] + 1}.",
            422,
        )
    return found and found[0]


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to an outbox, made if there is none. Raises StateError for a file that is something else."""
    refuse_network(path)
    connection = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        _prepare(connection, path)
        connection.execute("PRAGMA synchronous = FULL")
        return connection
    except (OSError, sqlite3.Error, StateError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, StateError):
            raise
        raise StateError(f"the outbox {path} cannot be opened: {' '.join(str(error).split())}.") from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables in a new file, in one transaction; leave any other file as it is.

    What the file is gets read inside a transaction: between two reads of their own another process may have made the tables.
    """
    run = connection.execute
    run("BEGIN")
    try:
        if _is_outbox(connection, path):
            return
    finally:
        run("COMMIT")
    run("PRAGMA journal_mode = WAL")
    run("BEGIN IMMEDIATE")
    try:
        if not _is_outbox(connection, path):
            for table in TABLES:
                run(table)
            run(f"PRAGMA application_id = {APPLICATION}")
            run(f"PRAGMA user_version = {FORMAT}")
    finally:
        run("COMMIT")


def _is_outbox(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether a file is an outbox, False where nothing is in it yet. Raises StateError for anything else."""
    run = connection.execute
    application, version = run("PRAGMA application_id").fetchone()[0], run("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION and version != FORMAT:
        raise StateError(f"{path} is an outbox of format {version}, and this version reads {FORMAT}. Choose another file.")
    if application == APPLICATION:
        return True
    if application or version or run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StateError(f"{path} is a database, but no outbox. Choose another file.")
    return False


# SQLite must not be carried into a forked process, which would believe in locks that it does not hold. So connections are closed
# before a fork and opened again when they are next used; a turn that the parent has is not the child's.
_LIVE: "weakref.WeakSet[Outbox]" = weakref.WeakSet()
_held: list[Outbox] = []


def _before_fork() -> None:
    for outbox in list(_LIVE):
        outbox._lock.acquire()
        outbox._shut()
        _held.append(outbox)


def _after_fork() -> None:
    while _held:
        _held.pop()._lock.release()


def _after_fork_in_child() -> None:
    for outbox in _held:
        if outbox._gate is not None:
            outbox._gate.close()
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
