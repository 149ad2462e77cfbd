"""A server on Ray, where one process is too small: an actor owns the log and the fold of each key, replicas predict for it.

    RayEngine(make, spec, folder, key="fraud", replicas=2)   ==  LocalEngine, asked from any process of the cluster

The owner is named `everlearn:<key>` and outlives who made it. A worker that dies is started again by Ray; the owner then stands by
its own log and snapshots, replicas fetch the version in service, and what was under way is asked again: the log knows every id.
Ray is imported here and nowhere else in this room.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from everlearn.core.errors import ArgumentError, ServeError, StateError, check_count, check_range, optional
from everlearn.serve.actors import Outcome, Owner, Replica
from everlearn.serve.database import Database
from everlearn.serve.engine import Engine
from everlearn.serve.fold import Served
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.lane import Lane
from everlearn.serve.options import Options
from everlearn.serve.records import Alarm, Answered, Ask, Receipt, Told

NAMESPACE = "everlearn"
CONCURRENCY = 4000  # calls that an actor has under way at once; far more than any queue lets through
ONCE = ("rollback", "release", "pause", "resume", "erase")  # never sent again by itself
POISON = 5  # times that a prediction is sent again to an owner that dies while it answers
ENDING = 60.0  # seconds for which a close waits for answers
ANSWERING = 5.0  # seconds for which a cluster may take to answer
FREEING = 10.0  # seconds for which a shutdown waits until its names are free


class RayEngine(Engine):
    """A served learner or agent on a Ray cluster.

    make: a picklable function that builds it inside the workers, or a `Recipe`; spec, folder, options: as for `LocalEngine`. The folder
    lies on the machine where the first engine of the key is made, and the owner stays there. Without make, spec and folder the key
    must stand already.
    key: which model; replicas: processes that predict, 0 where the owner does so itself; address: of the cluster ("auto" for the one
    on this machine), None for one of its own that ends with this process and listens on 127.0.0.1 alone; cpus: processors that each
    actor reserves; grace: seconds for which replicas may answer by the version before the one in service while they fetch it, for models
    that take long to read; watch, raised, database: as for `LocalEngine`, picklable, the last as a function that gives it.

    `close` lets go of the actors, `shutdown` ends them. Raises StateError where the key stands with another spec, folder or options.
    """

    def __init__(
        self,
        make: Callable[[], Served] | None = None,
        spec: InputSpec | None = None,
        folder: str | Path | None = None,
        options: Options | None = None,
        *,
        key: str = "default",
        replicas: int = 2,
        address: str | None = None,
        cpus: float = 0.0,
        grace: float = 0.0,
        watch: Any = None,
        raised: Callable[[Alarm], None] | None = None,
        database: Callable[[], Database] | None = None,
    ):
        check_count("ray engine", "replicas", replicas, 0)
        check_range("ray engine", "cpus", cpus, 0.0)
        check_range("ray engine", "grace", grace, 0.0)
        self.key = key
        self.waiting = 0
        self._open_ids: set[str] = set()
        self._closed = False
        self._quiet = threading.Condition()
        self._ray, self._began_here = join(address)
        extra = {"watch": watch, "raised": raised, "database": database}
        self._owner = self._find_owner(
            make, spec, folder, options or Options(), replicas=replicas, grace=grace, cpus=cpus, **extra
        )
        about = self._about(folder, spec, options)
        self.spec: InputSpec = about["spec"]
        self.options: Options = about["options"]
        self.replicas = self._find_replicas(make, about, cpus)
        lost = (self._ray.exceptions.RayActorError, self._ray.exceptions.WorkerCrashedError)
        once = partial(self._remote, "predict", retries=0)
        again = partial(self._remote, "predict", retries=POISON)
        self._predictions = Lane(
            self.replicas or [self._owner],
            lambda actor, groups: (again if actor is self._owner else once)(actor, groups),
            lost,
            spare=self._owner if self.replicas else None,
            back=lambda actor: self._remote("about", actor),
        )
        self._answers = Lane([self._owner], partial(self._remote, "feedback"), lost)

    # ---- actors ----------------------------------------------------------------------------------------------------------

    def _find_owner(self, make: Any, spec: Any, folder: Any, options: Options, *, cpus: float, **settings: Any) -> Any:
        """The actor of the key, made where there is none yet."""
        if make is None or spec is None or folder is None:
            try:
                return self._ray.get_actor(self._name(), namespace=NAMESPACE)
            except ValueError as error:
                raise StateError(
                    f"no server of the key {self.key!r} stands on this cluster; give make, spec and folder to begin one."
                ) from error
        here = self._ray.get_runtime_context().get_node_id()
        place = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        kind = self._ray.remote(Owner).options(**self._always(self._name(), cpus), scheduling_strategy=place)
        return kind.remote(make, spec, str(Path(folder).resolve()), options, **settings)

    def _find_replicas(self, make: Any, about: dict[str, Any], cpus: float) -> list[Any]:
        names = [self._name(number) for number in range(about["replicas"])]
        if make is None:
            return [self._ray.get_actor(name, namespace=NAMESPACE) for name in names]
        given = (self._owner, make, self.spec, about["folder"], self.options.threads)
        kind = self._ray.remote(Replica)
        return [kind.options(**self._always(name, cpus), scheduling_strategy="SPREAD").remote(*given) for name in names]

    def _name(self, number: int | None = None) -> str:
        return f"everlearn:{self.key}" + ("" if number is None else f":{number}")

    def _always(self, name: str, cpus: float) -> dict[str, Any]:
        """Options of an actor that is there once, and again whenever it dies."""
        return {
            "name": name, "namespace": NAMESPACE, "get_if_exists": True, "lifetime": "detached", "num_cpus": cpus,
            "max_restarts": -1, "max_task_retries": -1, "max_concurrency": CONCURRENCY,
        }  # fmt: skip

    def _about(self, folder: Any, spec: InputSpec | None, options: Options | None) -> dict[str, Any]:
        """What stands under the key, once it is known to be what was asked for."""
        found = self._ray.get(self._owner.about.remote())
        if found.error is not None:
            self._ray.kill(self._owner)
            found.get()
        about = found.get()
        place = None if folder is None else str(Path(folder).resolve())
        for name, given in (("folder", place), ("spec", spec), ("options", options)):
            if given is not None and given != about[name]:
                raise StateError(
                    f"the key {self.key!r} stands with other {name}: {about[name]!r} there, {given!r} here. "
                    "Choose another key, or shut that server down."
                )
        return about

    def _remote(self, method: str, actor: Any, *given: Any, retries: int = -1) -> Future:
        """A future of what a method of an actor gives. Raises ServeError once the cluster has ended."""
        if not self._ray.is_initialized():  # a call would begin another one
            raise ServeError("not_ready", "the Ray cluster of this server has ended.", 503)
        return getattr(actor, method).options(max_task_retries=retries).remote(*given).future()

    # ---- requests --------------------------------------------------------------------------------------------------------

    def predict(self, asks: Sequence[Ask]) -> "Future[list[Answered]]":
        ids = [ask.id for ask in asks]
        future: Future[list[Answered]] = Future()
        self._admit(ids)
        future.add_done_callback(lambda done: self._leave(ids))
        self._predictions.put(asks, future)
        return future

    def feedback(self, items: Sequence[Told]) -> "Future[list[Receipt]]":
        future: Future[list[Receipt]] = Future()
        self._admit(())
        future.add_done_callback(lambda done: self._leave(()))
        self._answers.put(items, future)
        return future

    def _admit(self, ids: Sequence[str]) -> None:
        with self._quiet:
            if self._closed:
                raise ServeError("not_ready", "the server is stopping; try again in a moment.", 503, retry_after=1.0)
            for id in ids:
                if id in self._open_ids:
                    raise ServeError(
                        "in_progress", f"the id {id!r} is being answered; ask again in a moment.", 409, retry_after=0.1
                    )
            if self.waiting >= self.options.queue:
                raise ServeError(
                    "overloaded", f"{self.waiting} requests wait already; nothing was stored.", 429, retry_after=1.0
                )
            self.waiting += 1
            self._open_ids.update(ids)

    def _leave(self, ids: Sequence[str]) -> None:
        with self._quiet:
            self.waiting -= 1
            self._open_ids.difference_update(ids)
            self._quiet.notify_all()

    # ---- the rest --------------------------------------------------------------------------------------------------------

    def _ask(self, name: str, *given: Any, **named: Any) -> Any:
        """What a method of the owner's engine gives."""
        errors = self._ray.exceptions
        try:
            outcome: Outcome = self._remote(
                "call", self._owner, name, given, named, retries=0 if name in ONCE else -1
            ).result()
        except errors.RayActorError as error:
            told = f"the actor of {self.key!r} was lost during {name}; look at the decisions before you ask again."
            raise ServeError("not_ready", told, 503, retry_after=1.0) from error
        return outcome.get()

    def status(self) -> dict[str, Any]:
        """As `LocalEngine.status`; `queue` counts what was asked through this engine."""
        return self._ask("status") | {
            "engine": "ray",
            "queue": {"waiting": self.waiting, "limit": self.options.queue},
        }

    def workers(self) -> list[dict[str, Any]]:
        """The owner and the replicas: {"pid"}, for replicas also the `version` that they answer by."""
        owner = self._ray.get(self._owner.about.remote()).get()
        return [{"pid": owner["pid"]}, *(self._ray.get(replica.about.remote()).get() for replica in self.replicas)]

    def versions(self) -> list[dict[str, Any]]:
        return self._ask("versions")

    def decisions(self, limit: int = 100) -> list[dict[str, Any]]:
        return self._ask("decisions", limit)

    def alarms(self, limit: int = 100) -> list[dict[str, Any]]:
        return self._ask("alarms", limit)

    def series(self, limit: int = 500) -> list[dict[str, Any]]:
        return self._ask("series", limit)

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
        return self._ask("rollback", version, reason, after, first=first, last=last, who=who)

    def release(self, first: int, last: int, reason: str, who: str = "") -> dict[str, Any]:
        return self._ask("release", first, last, reason, who)

    def pause(self, reason: str, who: str = "") -> dict[str, Any]:
        return self._ask("pause", reason, who)

    def resume(self, reason: str, who: str = "") -> dict[str, Any]:
        return self._ask("resume", reason, who)

    def erase(self, id: str, *, relearn: bool = False, reason: str = "", who: str = "") -> dict[str, Any]:
        return self._ask("erase", id, relearn=relearn, reason=reason, who=who)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until predictions are answered and the log has been folded. Raises StateError where that fails, or takes too long."""
        self._ask("wait_ready", timeout)

    def learned(self, timeout: float = 30.0) -> bool:
        """Wait until everything that can be learned from has been."""
        return self._ask("learned", timeout)

    def close(self) -> None:
        """Wait for what was asked through this engine, and let go of the actors; they go on."""
        self._finish()

    def _finish(self) -> None:
        end = time.monotonic() + ENDING
        with self._quiet:
            self._closed = True
            while self.waiting and time.monotonic() < end:
                self._quiet.wait(0.1)

    def shutdown(self) -> None:
        """Finish what waits, keep a last version, and end the actors; a cluster that was begun here ends when no key is left."""
        self._finish()
        if not self._ray.is_initialized():
            return
        with suppress(self._ray.exceptions.RayActorError):
            self._remote("call", self._owner, "close", (), {}, retries=0).result()
        for actor in (*self.replicas, self._owner):
            self._ray.kill(actor)
        names = {self._name(), *(self._name(number) for number in range(len(self.replicas)))}
        end = time.monotonic() + FREEING
        while names & self._standing() and time.monotonic() < end:
            time.sleep(0.02)
        if self._began_here and not self._standing():
            self._ray.shutdown()

    def _standing(self) -> set[str]:
        """The names of all owners and replicas on the cluster."""
        actors = self._ray.util.list_named_actors(all_namespaces=True)
        return {actor["name"] for actor in actors if actor["namespace"] == NAMESPACE}


def join(address: str | None) -> tuple[Any, bool]:
    """(Ray, whether a cluster was begun for it). Raises MissingExtraError, ArgumentError, StateError.

    Nothing is reported to anyone, and there is no dashboard. A cluster of this process's own listens on 127.0.0.1 alone, unless Ray was
    imported before.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if "ray" not in sys.modules and (address is None or address.startswith("127.0.0.1:")):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # the switch by which Ray stays on the loopback interface
    ray = optional("ray", "ray", "a server on Ray")
    _reach(address)
    if ray.is_initialized():
        return ray, False
    given = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(address or "local", namespace=NAMESPACE, log_to_driver=False, configure_logging=False, **given)
    except ConnectionError as error:
        raise StateError(f"no Ray cluster answers at {address!r}: {' '.join(str(error).split())}") from error
    return ray, address is None


def _reach(address: str | None) -> None:
    """Raise where nothing answers at an address, for which Ray itself would wait for minutes."""
    if address in (None, "auto"):
        return
    host, colon, port = address.rpartition(":")
    if not colon or "/" in host or not port.isdigit():
        raise ArgumentError(f"ray engine: address must be None, 'auto' or HOST:PORT, got {address!r}.")
    try:
        socket.create_connection((host, int(port)), ANSWERING).close()
    except OSError as error:
        raise StateError(f"no Ray cluster answers at {address}: {error.strerror or error}.") from error
