"""Commands to the process that learns, from those that follow it: rows of the table `command`.

    result:  NULL  ->  begun  ->  {"value": ...} or {"error": ...}

Each is marked before it begins, so none is carried out twice; what was begun by a process that ended is answered as not known.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from everlearn.core.errors import EverlearnError, ServeError, StateError
from everlearn.serve.database import Connection
from everlearn.serve.log import Log

KINDS = ("rollback", "release", "pause", "erase")
LOOK = 0.02  # seconds between looks for the result
PATIENCE = 30.0  # seconds for which a command waits to be taken up
KEPT = 86_400.0  # seconds after which the commands of those who went are removed
BEGUN = json.dumps({"begun": True})


class Commands:
    """The commands in a log. patience: seconds until one that nobody takes up is taken back."""

    def __init__(self, log: Log, patience: float = PATIENCE):
        self.log = log
        self.patience = patience

    def send(self, kind: str, body: dict[str, Any], stopping: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Have a command carried out, and give what it gave. Raises what it raised, and not_ready where nobody took it up."""
        row = (kind, json.dumps(body), self.log.clock())
        sql = "INSERT INTO command (kind, body, created) VALUES (?, ?, ?) RETURNING number"
        number = self.log.write(lambda connection: connection.execute(sql, row).fetchone()[0]).result()
        result = self._wait(number, time.monotonic() + self.patience, stopping)
        self.log.write(lambda connection: connection.execute("DELETE FROM command WHERE number = ?", (number,))).result()
        if "error" in result:
            raise _error_of(result["error"])
        return result["value"]

    def _wait(self, number: int, end: float, stopping: Callable[[], bool]) -> dict[str, Any]:
        while True:
            told = self.log.rows("SELECT result FROM command WHERE number = ?", (number,))[0][0]
            if told is not None and told != BEGUN:
                return json.loads(told)
            if told is None and (time.monotonic() > end or stopping()):
                self.log.write(lambda connection: _mark(connection, number, _told(NOT_TAKEN))).result()
            else:
                time.sleep(LOOK)

    def carry_out(self, run: Callable[..., dict[str, Any]]) -> int:
        """As the process that learns, do what waits by run(kind, body). Returns how many."""
        rows = self.log.rows("SELECT number, kind, body FROM command WHERE result IS NULL ORDER BY number")
        for number, kind, body in rows:
            if self.log.write(lambda connection, number=number: _mark(connection, number, BEGUN), leading=True).result():
                self._finish(number, self._result(run, kind, body))
        return len(rows)

    def _result(self, run: Callable[..., dict[str, Any]], kind: str, body: str) -> str:
        try:
            if kind not in KINDS:
                raise StateError(f"there is no command {kind!r}; commands: {', '.join(KINDS)}.")
            return json.dumps({"value": run(kind, json.loads(body))})
        except Exception as error:
            return _told(error)

    def _finish(self, number: int, result: str) -> None:
        sql = "UPDATE command SET result = ? WHERE number = ?"
        self.log.write(lambda connection: connection.execute(sql, (result, number)), leading=True).result()

    def settle(self) -> None:
        """As the process that learns from now on, answer what the one before had begun; it is not begun again."""
        oldest = self.log.clock() - KEPT

        def write(connection: Connection) -> None:
            connection.execute("UPDATE command SET result = ? WHERE result = ?", (_told(NOT_KNOWN), BEGUN))
            connection.execute("DELETE FROM command WHERE created < ?", (oldest,))

        self.log.write(write, leading=True).result()


NOT_TAKEN = ServeError(
    "not_ready", "no process took this up, and nothing was done; try again in a moment.", 503, retry_after=1.0
)
NOT_KNOWN = ServeError(
    "not_ready", "the process that learned ended while it did this; look at the decisions before asking again.", 503
)


def _mark(connection: Connection, number: int, mark: str) -> bool:
    """Mark a command that nobody took up; False where somebody did."""
    sql = "UPDATE command SET result = ? WHERE number = ? AND result IS NULL"
    return connection.execute(sql, (mark, number)).rowcount == 1


def _told(error: Exception) -> str:
    """An error as JSON."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ServeError):
        told = {"code": error.code, "detail": said, "status": error.status, "retry_after": error.retry_after}
    else:
        told = {"code": None, "detail": said if isinstance(error, EverlearnError) else f"{type(error).__name__}: {said}"}
    return json.dumps({"error": told})


def _error_of(told: dict[str, Any]) -> EverlearnError:
    """The error that was told."""
    if told["code"] is None:
        return StateError(told["detail"])
    return ServeError(told["code"], told["detail"], told["status"], retry_after=told["retry_after"])
