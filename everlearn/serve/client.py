"""Clients of a server, for threads (`Client`) and for asyncio (`AsyncClient`): the same calls with the same meaning.

A client makes ids itself, so that a call whose answer was lost is repeated without harm: the server gives its first answer again.
With an outbox, feedback is safe once a call returned, whether the server is there or not. The classes here only send; what each
call does stands in `calls.py`, when it is repeated in `retry.py`.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from everlearn.core.errors import ArgumentError, optional
from everlearn.serve.calls import Acknowledgement, Calls, Delivery, Prediction
from everlearn.serve.courier import Courier
from everlearn.serve.outbox import Outbox
from everlearn.serve.retry import Plan, Reply, Request, Retries, Wait
from everlearn.serve.transfer import LONGEST_ANSWER, arguments, broken, checked_url, failed, headers, secured

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
GRACE = 0.1  # seconds by which httpx, which knows whether a request was sent, is given the first word on time


class Client:
    """Ask a server, and tell it how things turned out.

    url: of the server, as http://127.0.0.1:8000; token: its bearer token; timeout: seconds for each try; retries: tries after the
    first, where another can help (no connection, an answer lost, 429, 503, an id still in progress); deadline: seconds for a call
    in all; outbox: an `Outbox` or a path, where feedback waits while the server is away (it is then tried once, without retries);
    deliver: send it from a thread as soon as the server is back, and not only on the next feedback or `flush`;
    seed: of the pauses between tries; transport: httpx's own, for certificates and proxies.

    Every call raises ServeError: what the server refused, or "unreachable" with status 0. Safe to share between threads.

        with Client("http://127.0.0.1:8000", outbox="feedback.sqlite") as client:
            seen = client.predict([5.1, 3.5, 1.4, 0.2])
            client.feedback(seen.id, y="setosa")
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 5.0,
        retries: int = 6,
        deadline: float = 30.0,
        outbox: Outbox | str | Path | None = None,
        deliver: bool = False,
        seed: int | None = None,
        transport: "httpx.BaseTransport | None" = None,
    ):
        self.url = checked_url(url)
        self.outbox = _as_outbox(outbox, deliver)
        self._headers = headers(token)
        self._transport = transport
        self._http, self._process = self._connect(), os.getpid()
        self._inherited: list[Any] = []
        self._calls = Calls(Retries(timeout, retries, deadline, seed=seed), self.outbox)
        self._courier = None
        if deliver:
            sender = Client(
                url, token, timeout=timeout, retries=0, deadline=timeout, outbox=self.outbox, transport=transport
            )
            self._courier = Courier(sender)
            self._calls.queued = self._courier.wake

    def predict(self, x: Any, id: str | None = None) -> Prediction:
        """The answer to one row: nested lists, an array, a tensor, or a dict by columns. The same id again gives the same answer."""
        return self._run(self._calls.predict(x, id))

    def predict_many(self, rows: Any, ids: Sequence[str] | None = None) -> list[Prediction]:
        """The answers to many rows: a list, an array with the rows first, or a dict of columns. Sent in parts of at most 1,000;
        if one fails, the same rows with the same ids give the answers of the others again."""
        return self._run(self._calls.predict_many(rows, ids))

    def feedback(self, id: str, y: Any = None, *, reward: float | None = None, revision: int = 0) -> Acknowledgement:
        """Tell the right answer `y`, or the reward, of a prediction. A correction has a higher revision."""
        return self._run(self._calls.feedback(id, y, reward, revision))

    def feedback_many(self, items: Sequence[Mapping[str, Any]]) -> list[Acknowledgement]:
        """Tell many answers, each a dict {id, y or reward, revision}. Sent in parts of at most 1,000, each taken whole or not at
        all; telling the same again does no harm."""
        return self._run(self._calls.feedback_many(items))

    def flush(self) -> Delivery:
        """Send what waits in the outbox now. Raises ServeError if the server is away; nothing is lost then."""
        return self._run(self._calls.flush())

    def status(self) -> dict[str, Any]:
        """The state of the server."""
        return self._run(self._calls.read("/v1/status", dict))

    def versions(self) -> list[dict[str, Any]]:
        """Every version, the newest first."""
        return self._run(self._calls.read("/v1/versions", list))

    def decisions(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The newest decisions, the newest first."""
        return self._run(self._calls.read("/v1/decisions", list, limit))

    def alarms(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The newest alarms, the newest first."""
        return self._run(self._calls.read("/v1/alarms", list, limit))

    def series(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Points along the log of what is drawn over time, the oldest first."""
        return self._run(self._calls.read("/v1/series", list, limit))

    def schema(self) -> dict[str, Any]:
        """What a row may hold, and what may answer it."""
        return self._run(self._calls.schema())

    def rollback(
        self,
        version: int,
        reason: str,
        after: str = "quarantine",
        *,
        first: int | None = None,
        last: int | None = None,
    ) -> dict[str, Any]:
        """Serve a version again and learn on from it; later feedback, or that numbered first..last, is replayed ("replay"), left
        out ("skip") or set aside ("quarantine"). Gives the decision. Not repeated where an answer was lost, as with every order."""
        return self._run(self._calls.rollback(version, reason, after, first, last))

    def release(self, first: int, last: int, reason: str) -> dict[str, Any]:
        """Learn now from feedback that was set aside."""
        return self._run(self._calls.release(first, last, reason))

    def pause(self, reason: str) -> dict[str, Any]:
        """Stop learning; predictions and feedback go on."""
        return self._run(self._calls.pause(reason))

    def resume(self, reason: str) -> dict[str, Any]:
        """Learn again."""
        return self._run(self._calls.resume(reason))

    def erase(self, id: str, relearn: bool = False, reason: str = "") -> dict[str, Any]:
        """Remove what is stored under an id. relearn: also undo what was learned from it."""
        return self._run(self._calls.erase(id, relearn, reason))

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return once the server is ready. Raises ServeError (not_ready, unreachable) after `timeout` seconds."""
        self._run(self._calls.wait_ready(timeout))

    @property
    def quiet(self) -> float:
        """Seconds for which the outbox is left alone because the server was away."""
        return self._calls.quiet

    def close(self) -> None:
        """Close connections and the outbox's file; what waits in it stays there."""
        if self._courier is not None:
            self._courier.close()
        self._http.close()
        if self.outbox is not None:
            self.outbox.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def _connect(self) -> "httpx.Client":
        httpx = optional("httpx", "serve", "Client")
        return httpx.Client(base_url=self.url, headers=self._headers, verify=secured(self.url), transport=self._transport)

    def _run(self, plan: Plan[T]) -> T:
        """Carry out a plan."""
        try:
            step = next(plan)
            while True:
                try:
                    result = self._step(step)
                except BaseException as fault:
                    step = plan.throw(fault)
                else:
                    step = plan.send(result)
        except StopIteration as end:
            return end.value

    def _step(self, step: Any) -> Any:
        if isinstance(step, Request):
            return self._send(step)
        return time.sleep(step.seconds) if isinstance(step, Wait) else step.work()

    def _send(self, request: Request) -> Reply:
        import httpx

        if self._process != os.getpid():
            self._inherited.append(self._http)  # its sockets are the parent's, who goes on using them
            self._http, self._process = self._connect(), os.getpid()
        end = time.monotonic() + request.timeout
        content = bytearray()
        try:
            with self._http.stream(**arguments(request)) as answer:
                for piece in answer.iter_bytes():
                    content += piece
                    if len(content) > LONGEST_ANSWER or time.monotonic() > end:
                        return broken(request, len(content))
                return Reply(answer.status_code, dict(answer.headers), bytes(content))
        except httpx.RequestError as error:
            return failed(request, error)


class AsyncClient:
    """`Client` for asyncio: the same arguments and calls, awaited; used with `async with`. Its outbox works in threads.

    async with AsyncClient("http://127.0.0.1:8000") as client:
        seen = await client.predict([5.1, 3.5, 1.4, 0.2])
        await client.feedback(seen.id, y="setosa")
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 5.0,
        retries: int = 6,
        deadline: float = 30.0,
        outbox: Outbox | str | Path | None = None,
        deliver: bool = False,
        seed: int | None = None,
        transport: "httpx.AsyncBaseTransport | None" = None,
    ):
        httpx = optional("httpx", "serve", "AsyncClient")
        self.url = checked_url(url)
        self.outbox = _as_outbox(outbox, deliver)
        self._http = httpx.AsyncClient(
            base_url=self.url, headers=headers(token), verify=secured(self.url), transport=transport
        )
        self._calls = Calls(Retries(timeout, retries, deadline, seed=seed), self.outbox)
        self._courier = None
        if deliver:
            self._courier = Courier(Client(url, token, timeout=timeout, retries=0, deadline=timeout, outbox=self.outbox))
            self._calls.queued = self._courier.wake

    async def predict(self, x: Any, id: str | None = None) -> Prediction:
        """See `Client.predict`."""
        return await self._run(self._calls.predict(x, id))

    async def predict_many(self, rows: Any, ids: Sequence[str] | None = None) -> list[Prediction]:
        """See `Client.predict_many`."""
        return await self._run(self._calls.predict_many(rows, ids))

    async def feedback(self, id: str, y: Any = None, *, reward: float | None = None, revision: int = 0) -> Acknowledgement:
        """See `Client.feedback`."""
        return await self._run(self._calls.feedback(id, y, reward, revision))

    async def feedback_many(self, items: Sequence[Mapping[str, Any]]) -> list[Acknowledgement]:
        """See `Client.feedback_many`."""
        return await self._run(self._calls.feedback_many(items))

    async def flush(self) -> Delivery:
        """See `Client.flush`."""
        return await self._run(self._calls.flush())

    async def status(self) -> dict[str, Any]:
        """See `Client.status`."""
        return await self._run(self._calls.read("/v1/status", dict))

    async def versions(self) -> list[dict[str, Any]]:
        """See `Client.versions`."""
        return await self._run(self._calls.read("/v1/versions", list))

    async def decisions(self, limit: int | None = None) -> list[dict[str, Any]]:
        """See `Client.decisions`."""
        return await self._run(self._calls.read("/v1/decisions", list, limit))

    async def alarms(self, limit: int | None = None) -> list[dict[str, Any]]:
        """See `Client.alarms`."""
        return await self._run(self._calls.read("/v1/alarms", list, limit))

    async def series(self, limit: int | None = None) -> list[dict[str, Any]]:
        """See `Client.series`."""
        return await self._run(self._calls.read("/v1/series", list, limit))

    async def schema(self) -> dict[str, Any]:
        """See `Client.schema`."""
        return await self._run(self._calls.schema())

    async def rollback(
        self,
        version: int,
        reason: str,
        after: str = "quarantine",
        *,
        first: int | None = None,
        last: int | None = None,
    ) -> dict[str, Any]:
        """See `Client.rollback`."""
        return await self._run(self._calls.rollback(version, reason, after, first, last))

    async def release(self, first: int, last: int, reason: str) -> dict[str, Any]:
        """See `Client.release`."""
        return await self._run(self._calls.release(first, last, reason))

    async def pause(self, reason: str) -> dict[str, Any]:
        """See `Client.pause`."""
        return await self._run(self._calls.pause(reason))

    async def resume(self, reason: str) -> dict[str, Any]:
        """See `Client.resume`."""
        return await self._run(self._calls.resume(reason))

    async def erase(self, id: str, relearn: bool = False, reason: str = "") -> dict[str, Any]:
        """See `Client.erase`."""
        return await self._run(self._calls.erase(id, relearn, reason))

    async def wait_ready(self, timeout: float = 60.0) -> None:
        """See `Client.wait_ready`."""
        await self._run(self._calls.wait_ready(timeout))

    async def close(self) -> None:
        """See `Client.close`."""
        if self._courier is not None:
            await asyncio.to_thread(self._courier.close)
        await self._http.aclose()
        if self.outbox is not None:
            await asyncio.to_thread(self.outbox.close)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *fault: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def _run(self, plan: Plan[T]) -> T:
        """Carry out a plan."""
        try:
            step = next(plan)
            while True:
                try:
                    result = await self._step(step)
                except BaseException as fault:
                    step = plan.throw(fault)
                else:
                    step = plan.send(result)
        except StopIteration as end:
            return end.value

    def _step(self, step: Any) -> Awaitable[Any]:
        if isinstance(step, Request):
            return self._send(step)
        return asyncio.sleep(step.seconds) if isinstance(step, Wait) else asyncio.to_thread(step.work)

    async def _send(self, request: Request) -> Reply:
        import httpx

        content = bytearray()
        try:
            async with asyncio.timeout(request.timeout + GRACE), self._http.stream(**arguments(request)) as answer:
                async for piece in answer.aiter_bytes():
                    content += piece
                    if len(content) > LONGEST_ANSWER:
                        return broken(request, len(content))
                return Reply(answer.status_code, dict(answer.headers), bytes(content))
        except TimeoutError:
            return broken(request, len(content))
        except httpx.RequestError as error:
            return failed(request, error)


def _as_outbox(outbox: Outbox | str | Path | None, deliver: bool) -> Outbox | None:
    """An outbox, or one at a path. Raises ArgumentError where there is nothing to deliver from, StateError for a foreign file."""
    if deliver and outbox is None:
        raise ArgumentError("client: deliver=True needs an outbox; name a file for it, as outbox='feedback.sqlite'.")
    return Outbox(outbox) if isinstance(outbox, (str, Path)) else outbox
