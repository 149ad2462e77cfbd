"""What runs inside the workers of Ray: the owner of one log and fold, and replicas that predict for it.

    caller --rows--> replica --rows, outputs, version--> owner --durable--> replica --> caller
    caller --answers--> owner

An answer is given once its row is in the owner's log, under a version that serves: a replica that is behind is told so, fetches the
version, and answers again. A replica keeps nothing that matters. The owner is a `LocalEngine`; killed, it stands again by its own
log and snapshots. Nothing here imports Ray; refusals travel as plain values (`Outcome`).
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from everlearn.comparison.building import build_learner, build_stream
from everlearn.comparison.job import reach
from everlearn.core.errors import ContractError, EverlearnError, ServeError
from everlearn.core.state import load_snapshot, pack, unpack
from everlearn.serve.fold import Predictors, Served
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.predicting import outputs_by_request, refusal
from everlearn.serve.records import Ask, Told

OPENING = 30.0  # seconds for which a new owner looks for the version in service before it refuses
TRIES = 3  # versions that a replica fetches for one request before the owner answers itself
THREADS = 32  # commands that an owner runs at once


@dataclass(frozen=True)
class Recipe:
    """A learner by its call string, built where it is called: `Recipe("replay(capacity=200)", "split(digits)")()`.

    stream: what it was made for (its schema builds the network); path: folders in which own modules are found.
    """

    learner: str
    stream: str
    model: str = "auto"
    seed: int = 0
    path: tuple[str, ...] = ()

    def __call__(self) -> Served:
        reach(self.path)
        return build_learner(self.learner, build_stream(self.stream, self.seed), self.model, self.seed)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request: its value, or the fault in plain values, so that it can cross from one process to another."""

    value: Any = None
    fault: tuple[str, str] | None = None  # (name of the error, message)
    refused: tuple[str, int, float | None, list[dict]] | None = None  # (code, status, retry_after, errors)

    @classmethod
    def of(cls, error: BaseException) -> "Outcome":
        """The outcome of what was raised. A fault that is not of the house's own tree becomes a ContractError."""
        if isinstance(error, ServeError):
            return cls(fault=("ServeError", str(error)), refused=(error.code, error.status, error.retry_after, error.errors))
        if isinstance(error, EverlearnError):
            return cls(fault=(type(error).__name__, str(error)))
        return cls(fault=("ContractError", f"{type(error).__name__}: {' '.join(str(error).split())}"))

    @property
    def error(self) -> EverlearnError | None:
        """What to raise, or None."""
        if self.fault is None:
            return None
        name, message = self.fault
        if self.refused is not None:
            code, status, retry_after, errors = self.refused
            return ServeError(code, message, status, retry_after=retry_after, errors=errors)
        kinds = {kind.__name__: kind for kind in EverlearnError.__subclasses__()}
        return kinds.get(name, ContractError)(message)

    def get(self) -> Any:
        """The value. Raises what was raised there."""
        if self.fault is not None:
            raise self.error
        return self.value

    def settle(self, future: Future) -> None:
        """Give a waiting caller its value or error."""
        if self.fault is None:
            future.set_result(self.value)
        else:
            future.set_exception(self.error)


async def outcome_of(ask: Callable[[], Future]) -> Outcome:
    """The outcome of what gives a future, or refuses at once."""
    try:
        return Outcome(await asyncio.wrap_future(ask()))
    except Exception as error:
        return Outcome.of(error)


class Owner:
    """The one process that has the log and the fold of a key.

    grace: seconds for which rows are taken from replicas that still answer by the version before the one in service.
    """

    def __init__(
        self,
        make: Callable[[], Served],
        spec: InputSpec,
        folder: str | Path,
        options: Options,
        *,
        replicas: int,
        grace: float,
        watch: Any = None,
        raised: Callable | None = None,
        database: Callable | None = None,
    ):
        self.spec, self.folder, self.options = spec, str(folder), options
        self.replicas, self.grace = replicas, grace
        self.engine: LocalEngine | None = None
        self.fault: Outcome | None = None
        self._threads = ThreadPoolExecutor(THREADS)
        extra = {} if raised is None else {"raised": raised}
        try:
            place = None if database is None else database()
            self.engine = LocalEngine(make(), spec, folder, options, watch=watch, database=place, **extra)
            self._wait_for_service()
        except Exception as error:
            self.fault = Outcome.of(error)

    def _wait_for_service(self) -> None:
        end = time.monotonic() + OPENING
        while self.engine.predicting.version is None and self.engine.learning.state != "failed" and time.monotonic() < end:
            time.sleep(0.005)

    async def about(self) -> Outcome:
        """What is served here, and by which process. A fault of the start is told here."""
        return self.fault or Outcome(
            {
                "spec": self.spec, "folder": self.folder, "options": self.options, "replicas": self.replicas, "pid": os.getpid(),
            }
        )  # fmt: skip

    async def predict(self, groups: Sequence[Sequence[Ask]]) -> list[Outcome]:
        """Answer requests here, where no replica can."""
        return await self._all(lambda engine: engine.predict, groups)

    async def feedback(self, groups: Sequence[Sequence[Told]]) -> list[Outcome]:
        """Take requests of feedback."""
        return await self._all(lambda engine: engine.feedback, groups)

    async def _all(self, method_of: Callable[[LocalEngine], Callable], groups: Sequence[Any]) -> list[Outcome]:
        if self.engine is None:
            return [self.fault] * len(groups)
        method = method_of(self.engine)
        return await asyncio.gather(*(outcome_of(partial(method, group)) for group in groups))

    async def record(
        self, groups: Sequence[Sequence[tuple[Ask, dict[str, Any]]]], version: int
    ) -> tuple[int | None, list[Outcome] | None]:
        """Log what a replica answered by a version: (the version in service, outcomes; None where the replica is too far behind)."""
        if self.engine is None:
            return None, [self.fault] * len(groups)
        service = self.engine.predicting.version
        if service is None:
            return None, await self.predict([[ask for ask, _ in group] for group in groups])
        if version != service and not self._follows(service, version):
            return service, None
        rows = [[(ask, output, version) for ask, output in group] for group in groups]
        return service, await self._all(lambda engine: engine.predicting.record, rows)

    def _follows(self, service: int, version: int) -> bool:
        """Whether the version in service took another's place a moment ago, by the guard's word."""
        row = self.engine.history.version(service)
        return row.parent == version and self.engine.log.clock() - row.created < self.grace

    async def service(self) -> int | None:
        """The version in service."""
        return None if self.engine is None else self.engine.predicting.version

    async def learner_state(self, version: int) -> tuple[bytes, Any]:
        """The learner of a version, for replicas that cannot read the folder (safetensors bytes and JSON). Mends garbled files."""
        return await self._away(lambda: pack(self.engine.history.learner_state(version)))

    async def call(self, name: str, given: Sequence[Any], named: dict[str, Any]) -> Outcome:
        """Run a method of the engine that answers at once, or within a second."""
        if self.engine is None:
            return self.fault
        try:
            value = await self._away(lambda: getattr(self.engine, name)(*given, **named))
        except Exception as error:
            return Outcome.of(error)
        return Outcome(value)

    async def _away(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class Replica:
    """Predicts by the version in service; owner: the handle of the actor that logs its answers."""

    def __init__(self, owner: Any, make: Callable[[], Served], spec: InputSpec, folder: str, threads: int):
        torch.set_num_threads(threads)
        self.owner = owner
        self.spec = spec
        self.versions = Path(folder) / "versions"
        self.predictors = Predictors(make())
        self._service: tuple[int, Served] | None = None
        self._fetching = asyncio.Lock()
        self._later: set[asyncio.Task] = set()

    async def about(self) -> Outcome:
        """Which process this is, and the version that it answers by."""
        return Outcome({"pid": os.getpid(), "version": None if self._service is None else self._service[0]})

    async def predict(self, groups: Sequence[Sequence[Ask]]) -> list[Outcome]:
        """Answer requests in one forward pass, once the owner has logged them."""
        if self._service is None:
            service = await self.owner.service.remote()
            if service is None:
                return await self.owner.predict.remote(groups)
            await self._fetch(service)
        for _ in range(TRIES):
            version, predictor = self._service
            outputs = self._outputs(predictor, groups)
            good = [place for place, output in enumerate(outputs) if not isinstance(output, Outcome)]
            rows = [list(zip(groups[place], outputs[place], strict=True)) for place in good]
            service, outcomes = await self.owner.record.remote(rows, version)
            if outcomes is None:
                await self._fetch(service)
                continue
            if service is not None and service != version:
                self._fetch_later(service)
            for place, outcome in zip(good, outcomes, strict=True):
                outputs[place] = outcome
            return outputs
        return await self.owner.predict.remote(groups)

    def _outputs(self, predictor: Served, groups: Sequence[Sequence[Ask]]) -> list[Any]:
        """Outputs by request; an Outcome where the learner refuses its rows."""
        try:
            return outputs_by_request(predictor, self.spec, groups)
        except Exception as error:
            if len(groups) > 1:
                return [self._outputs(predictor, [group])[0] for group in groups]
            return [Outcome.of(refusal(error))]

    def _fetch_later(self, version: int) -> None:
        """Go on answering while the next version is read."""
        if not self._fetching.locked():
            task = asyncio.get_running_loop().create_task(self._fetch(version))
            self._later.add(task)
            task.add_done_callback(self._later.discard)

    async def _fetch(self, version: int) -> None:
        async with self._fetching:
            if self._service is not None and self._service[0] == version:
                return
            made = await asyncio.get_running_loop().run_in_executor(None, self._read, version)
            if made is None:
                made = self.predictors.of(unpack(*await self.owner.learner_state.remote(version)))
            self._service = (version, made)

    def _read(self, version: int) -> Served | None:
        """The version from the folder; None where its files are not there, or garbled."""
        try:
            state = load_snapshot(self.versions / f"{version:09d}.json")[1]
        except EverlearnError:
            return None
        return self.predictors.of(state["fold"]["learner"])
