"""The engine of one process: threads that predict, write the log and learn, over a folder that one server has for itself.

requests -> Predicting -> Log -> Learning (a fold over the log) -> versions -> Predicting
"""

import copy
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from everlearn.core.errors import ArgumentError, ServeError, StateError
from everlearn.serve.database import Connection, Database, SQLite
from everlearn.serve.engine import Engine
from everlearn.serve.fold import Predictors, Served, ServedFold
from everlearn.serve.following import Following
from everlearn.serve.history import History
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.learning import Learning
from everlearn.serve.log import Log
from everlearn.serve.options import Options
from everlearn.serve.predicting import Predicting
from everlearn.serve.records import After, Alarm, Answered, Ask, Branch, Receipt, State, Told, Version
from everlearn.serve.snapshots import Snapshots
from everlearn.serve.upkeep import Upkeep

MEASURES = {"classes": "accuracy", "values": "error", "actions": "reward"}


class LocalEngine(Engine):
    """One process: a thread that predicts, one that writes the log, one that learns.

    served: the learner or agent as it starts (version 0); folder: where log and versions are kept; watch: what raises alarms;
    raised: called with each alarm; database: another place for the log (several processes may share Postgres and the folder).

    Raises StateError where the folder belongs to something else, or another process serves it.
    """

    def __init__(
        self,
        served: Served,
        spec: InputSpec,
        folder: str | Path,
        options: Options | None = None,
        *,
        watch: Any = None,
        raised: Callable[[Alarm], None] = lambda alarm: None,
        database: Database | None = None,
        clock: Callable[[], float] = time.time,
    ):
        self.spec = spec
        self.options = options or Options()
        self.folder = Path(folder)
        self.model = repr(served)
        self.started = clock()
        default = default_answer(spec, self.options)
        torch.set_num_threads(self.options.threads)
        self.database = database or SQLite(self.folder / "log.sqlite", self.options.durability)
        try:
            with ExitStack() as undo:
                self._start(served, default, watch, raised, clock, undo)
                undo.pop_all()
        except ServeError as error:
            raise StateError(f"cannot serve from {self.folder}: {error}") from error

    def _start(
        self,
        served: Served,
        default: Any,
        watch: Any,
        raised: Callable[[Alarm], None],
        clock: Callable[[], float],
        undo: ExitStack,
    ) -> None:
        """Open the log and begin to learn. undo: closes again what was opened, where that fails."""
        spec = self.spec
        undo.callback(self.database.close)
        leads = self.database.lead()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = Log(self.database, clock=clock)
        undo.callback(self.log.close)
        predictors = Predictors(served)
        self.history = History(
            self.log,
            Snapshots(self.folder / "versions"),
            predictors,
            lambda: ServedFold(predictors.blank(), spec, self.options, copy.deepcopy(watch)),
        )
        if leads:
            self.history.snapshots.tidy()
        self._fsync_ms = fsync_ms(self.folder)
        self._open()
        self.predicting = Predicting(self.log, spec, self.options)
        self.upkeep = Upkeep(self.log, self.options, raised, lambda: self.predicting.waiting, default)
        learning = Following if self.database.shared else Learning
        self.learning = learning(self.log, self.history, self.options, predictors, self.predicting.swap, upkeep=self.upkeep)
        self.learning.start()

    def _open(self) -> None:
        """Make the log of a new server, or check that the one that stands is of the same model and rows."""
        given = {"model": self.model, "spec": self.spec.to_json()}
        standing = self.log.setting("served")
        while not standing:
            leads = self.database.lead()
            standing = self.log.setting("served")
            if leads:
                break
            time.sleep(0.01)  # another process makes it now
        if standing and json.loads(standing) != json.loads(json.dumps(given)):
            was = json.loads(standing)
            differ = ", ".join(
                f"{key}: {was.get(key)!r} there, {given[key]!r} now" for key in given if was.get(key) != given[key]
            )
            raise StateError(f"{self.folder} holds the log of another model ({differ}). Choose another folder.")
        if not standing:
            self._begin(given)

    def _begin(self, given: dict[str, Any]) -> None:
        self.log.take_lead()
        fold = self.history.make()
        size = self.history.snapshots.save(0, fold.state_dict())
        now = self.log.clock()
        first = Version(0, None, 0, 0, 0, fold.sha256(), State.ACTIVE, now, bytes=size, reason="as it was given")

        def write(connection: Connection) -> None:
            self.history.add_version(connection, first, True)
            self.history.add_branch(connection, Branch(0, 0, 0), 0)
            self.log.set(connection, "served", json.dumps(given))

        self.log.write(write, leading=True).result()

    def predict(self, asks: Sequence[Ask]) -> "Future[list[Answered]]":
        return self.predicting.ask(asks)

    def feedback(self, items: Sequence[Told]) -> "Future[list[Receipt]]":
        self.predicting.admit()
        future = self.log.tell(items, self.options.horizon)
        future.add_done_callback(self.predicting.leave)
        return future

    def status(self) -> dict[str, Any]:
        learning, log = self.learning, self.log
        fold = learning.fold
        newest = self.alarms(1)
        recent = log.rows("SELECT count(*) FROM alarm WHERE time > ?", (log.clock() - 3600.0,))[0][0]
        steps = log.rows("SELECT count(*) FROM step")[0][0]
        versions, alarms = (log.rows(f"SELECT count(*) FROM {name}")[0][0] for name in ("version", "alarm"))
        counts = log.counts() | {"steps": steps, "versions": versions, "alarms": alarms}
        return {
            "model": self.model,
            "kind": self.spec.kind,
            "engine": "local",
            "measure": MEASURES[self.spec.kind],
            "version": self.predicting.version,
            "branch": 0 if fold is None else fold.branch,
            "applied_seq": 0 if fold is None else fold.applied_seq,
            "last_seq": log.newest(),
            "lag": self.upkeep.lag,
            "queue": {"waiting": self.predicting.waiting, "limit": self.options.queue},
            "learning": learning.state,
            "fault": learning.fault,
            "ready": self.ready,
            "counts": counts,
            "score": {"rows": 0, "value": None} if fold is None else fold.score(),
            "unanswered_share": 1.0 - min(1.0, counts["answers"] / counts["inputs"]) if counts["inputs"] else 0.0,
            "delay": log.delay(self.options.window),
            "propensity": self.predicting.propensity(),
            "guard": {"rows": 0, "candidate": None, "service": None, "parent": None} if fold is None else fold.figures(),
            "alarms": {"recent": int(recent), "latest": newest[0] if newest else None},
            "durability": self.options.durability,
            "fsync_ms": self._fsync_ms,
            "started": self.started,
            "time": log.clock(),
            "options": self.options.to_json(),
        }

    @property
    def ready(self) -> bool:
        """Whether predictions are answered and learning has recovered."""
        return self.predicting.version is not None and self.learning.state not in ("recovering", "failed")

    def versions(self) -> list[dict[str, Any]]:
        return [asdict(version) for version in reversed(self.history.versions())]

    def decisions(self, limit: int = 100) -> list[dict[str, Any]]:
        names = ("time", "seq", "action", "before", "after", "reason", "who")
        rows = self.log.rows(
            "SELECT time, seq, action, from_version, to_version, reason, who FROM decision ORDER BY number DESC LIMIT ?",
            (limit,),
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def alarms(self, limit: int = 100) -> list[dict[str, Any]]:
        names = ("time", "seq", "kind", "value", "limit", "message")
        rows = self.log.rows(
            "SELECT time, seq, kind, value, limit_value, message FROM alarm ORDER BY number DESC LIMIT ?", (limit,)
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def series(self, limit: int = 500) -> list[dict[str, Any]]:
        names = ("seq", "time", "score", "version", "lag", "inputs", "answers")
        total = int(self.log.rows("SELECT count(*) FROM point")[0][0])
        stride = max(1, -(-total // limit))
        rows = self.log.rows(
            "SELECT seq, time, score, version, lag, inputs, answers FROM (SELECT *, row_number() OVER (ORDER BY seq DESC) AS place"
            " FROM point) AS placed WHERE (place - 1) % ? = 0 ORDER BY seq",
            (stride,),
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def rollback(
        self,
        version: int,
        reason: str,
        after: str = "quarantine",
        *,
        first: int | None = None,
        last: int | None = None,
        who: str = "",
    ) -> dict[str, Any]:
        if after not in tuple(After):
            raise ServeError("invalid_request", f"after must be one of {', '.join(After)}, got {after!r}.", 422)
        body = {"version": version, "after": after, "reason": reason, "who": who, "first": first, "last": last}
        return self.learning.ask("rollback", body)

    def release(self, first: int, last: int, reason: str, who: str = "") -> dict[str, Any]:
        return self.learning.ask("release", {"first": first, "last": last, "reason": reason, "who": who})

    def pause(self, reason: str, who: str = "") -> dict[str, Any]:
        return self.learning.ask("pause", {"paused": True, "reason": reason, "who": who})

    def resume(self, reason: str, who: str = "") -> dict[str, Any]:
        return self.learning.ask("pause", {"paused": False, "reason": reason, "who": who})

    def erase(self, id: str, *, relearn: bool = False, reason: str = "", who: str = "") -> dict[str, Any]:
        return self.learning.ask("erase", {"id": id, "relearn": relearn, "reason": reason, "who": who})

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until predictions are answered and the log has been folded. Raises StateError where that fails, or takes too long."""
        end = time.monotonic() + timeout
        while not self.ready:
            if self.learning.state == "failed":
                raise StateError(self.learning.fault)
            if time.monotonic() > end:
                raise StateError(f"the server is still {self.learning.state} after {timeout:g} s.")
            time.sleep(0.005)

    def learned(self, timeout: float = 30.0) -> bool:
        """Wait until everything that can be learned from has been (a full batch, or what `wait` has let through)."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.learning.state == "failed":
                return False
            if self.learning.state in ("running", "following") and self.learning.idle:
                return True
            time.sleep(0.005)
        return False

    def close(self) -> None:
        self.predicting.close()
        self.learning.close()
        self.log.close()
        self.database.close()


def default_answer(spec: InputSpec, options: Options) -> Any:
    """The default of the options as it is stored. Raises ArgumentError where it is no answer of this model."""
    given = list(options.default) if isinstance(options.default, tuple) else options.default
    if given is None:
        return None
    try:
        return spec.answer(given)
    except ServeError as error:
        raise ArgumentError(f"options: default={options.default!r}: {error}") from error


def fsync_ms(folder: Path, rounds: int = 5) -> float:
    """The median time of a small write that reaches the disk, in milliseconds: what a durable commit costs here."""
    path = folder / f".fsync.{os.getpid()}.{time.monotonic_ns()}"
    times = []
    try:
        with open(path, "wb") as file:
            for _ in range(rounds):
                file.write(b"0" * 512)
                file.flush()
                began = time.perf_counter()
                os.fsync(file.fileno())
                times.append(time.perf_counter() - began)
    except OSError as error:
        raise StateError(
            f"cannot write in {folder}: {error.strerror}. Free space there, or choose another folder."
        ) from error
    finally:
        path.unlink(missing_ok=True)
    return round(1000 * statistics.median(times), 3)
