"""Where the log is kept. `SQLite` is the default: one file, one server process; Postgres stands behind the same few methods.

SQLite runs in write-ahead mode. With synchronous=FULL a commit is on the disk when it returns, with NORMAL it survives a crash of
the process. Reference: sqlite.org, pragma synchronous and write-ahead logging.
"""

import fcntl
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from everlearn.core.errors import ServeError, StateError

BUSY_MS = 10_000  # how long a statement waits for another's lock
NETWORK = (
    "nfs",
    "nfs4",
    "cifs",
    "smb2",
    "smb3",
    "smbfs",
    "fuse.sshfs",
    "afs",
    "ceph",
    "lustre",
    "glusterfs",
    "fuse.glusterfs",
)


class Rows(Protocol):
    """What a statement gave."""

    rowcount: int

    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class Connection(Protocol):
    """One connection, used by one thread at a time. Parameters are written as `?`."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Rows: ...
    def close(self) -> None: ...


class Database(ABC):
    """Opens connections, begins transactions that write, and says which process learns.

    shared: whether several server processes may use it; faults: what its statements raise; key, blob, real: its types.
    """

    name: ClassVar[str]
    shared: ClassVar[bool]
    faults: ClassVar[tuple[type[Exception], ...]]
    key: ClassVar[str]
    blob: ClassVar[str]
    real: ClassVar[str]

    @abstractmethod
    def connect(self) -> Connection:
        """A connection in which every statement is its own transaction until one is begun."""

    @abstractmethod
    def begin(self, connection: Connection) -> None:
        """Begin a transaction in which numbers are given in the order of commits, whoever else writes."""

    @abstractmethod
    def lead(self) -> bool:
        """Whether this process is the one that learns, or becomes it now; it stays so until `close`, its end, or a lost connection."""

    @abstractmethod
    def holds(self) -> bool:
        """Whether this process still is the one that learns."""

    @abstractmethod
    def backup(self, target: Path) -> None:
        """A consistent copy of the log while it is in use."""

    @abstractmethod
    def close(self) -> None:
        """Let another process learn."""


class SQLite(Database):
    """One file on a local disk. Raises StateError for a network file system, and where another process serves the same file."""

    name = "sqlite"
    shared = False
    faults = (sqlite3.Error,)
    key = "INTEGER PRIMARY KEY AUTOINCREMENT"
    blob = "BLOB"
    real = "REAL"

    def __init__(self, path: str | Path, durability: str = "full"):
        self.path = Path(path)
        self.durability = durability
        self._lock: int | None = None

    def connect(self) -> sqlite3.Connection:
        refuse_network(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=256)
            connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")  # before the mode is changed, which itself takes a lock
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self.durability.upper()}")
            connection.execute("PRAGMA temp_store = MEMORY")
        except (OSError, sqlite3.Error) as error:
            raise StateError(f"the log {self.path} cannot be opened: {error}.") from error
        return connection

    def begin(self, connection: Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")

    def lead(self) -> bool:
        if self._lock is not None:
            return True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StateError(f"cannot make {self.path.with_suffix('.lock')}: {error.strerror}.") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            raise StateError(
                f"another process serves {self.path}. One process writes a SQLite log; stop it, or keep the log in Postgres "
                "(--database postgresql://...) to run several."
            ) from error
        self._lock = file
        return True

    def holds(self) -> bool:
        return self._lock is not None

    def backup(self, target: Path) -> None:
        source, copy = self.connect(), sqlite3.connect(target)
        try:
            source.backup(copy, pages=1024)
        finally:
            copy.close()
            source.close()

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def refuse_network(path: Path, mounts: Path = Path("/proc/mounts")) -> None:
    """Raise StateError where a path lies on a network file system, whose locks SQLite cannot trust."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return
    place = path.resolve()
    holding = [line for line in lines if len(line) > 2 and place.is_relative_to(line[1])]
    kind = max(holding, key=lambda line: len(line[1]))[2] if holding else ""
    if kind in NETWORK:
        raise StateError(
            f"{path} lies on a network file system ({kind}), where SQLite can lose data. Use a local disk, or --database postgresql://..."
        )


def unavailable(error: Exception) -> ServeError:
    """The refusal behind a fault of the database: nothing of the request was stored."""
    reason = " ".join(str(error).split())
    return ServeError("log_unavailable", f"the log cannot be written ({reason}); nothing was stored.", 503, retry_after=1.0)
