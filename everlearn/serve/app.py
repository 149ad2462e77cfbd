"""The HTTP face of an engine, as a FastAPI app.

    POST   /v1/predict  /v1/feedback                                            what clients call: one item, or up to 1,000
    GET    /v1/status  /v1/versions  /v1/decisions  /v1/alarms  /v1/series  /v1/schema  /metrics  /openapi.json
    POST   /v1/rollback  /v1/release  /v1/pause  /v1/resume                     what operators call
    DELETE /v1/predictions/{id}
    GET    /healthz  /readyz  /                                                 open to all

Engines answer the first two by futures; whatever else they do may read the log, and is done by threads beside the event loop.
"""

import asyncio
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Path, Query
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from everlearn.core.errors import ServeError
from everlearn.serve import bodies, forms, problems
from everlearn.serve.auth import Tokens
from everlearn.serve.crossing import Crossing
from everlearn.serve.engine import Engine
from everlearn.serve.gate import Addresses, Gate, Trace
from everlearn.serve.ids import LONGEST_ID
from everlearn.serve.limits import Buckets
from everlearn.serve.openapi import describe, made
from everlearn.serve.prometheus import MEDIA_TYPE, Figures

T = TypeVar("T")
Id = Annotated[str, Path(min_length=1, max_length=LONGEST_ID, json_schema_extra={"pattern": forms.VISIBLE})]
THREADS = 4  # for what may read the log


def create_app(
    engine: Engine,
    *,
    tokens: Tokens | str | pathlib.Path | None = None,
    rate: float | Buckets | None = None,
    body_bytes: int = 1 << 20,
    page: Sequence[BaseRoute] | None = None,
    hosts: Sequence[str] = (),
) -> FastAPI:
    """An app that serves an engine.

    tokens: who may do what, or the file of them; None lets everybody do everything, under local names only (and `hosts`);
    rate: rows a second for each token or address; body_bytes: of a request; page: routes that need no token.
    The app does not close the engine. Raises StateError, ArgumentError, MissingExtraError.
    """
    tokens = Tokens(tokens) if isinstance(tokens, (str, pathlib.Path)) else tokens
    buckets = rate if isinstance(rate, Buckets) else Buckets(rate)
    figures = Figures()
    face = Face(engine, figures, buckets)
    app = FastAPI(title="Everlearn", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    for route in made(face, engine.spec):
        if route.plain:  # answered by Starlette alone, in half the time, and described by FastAPI
            app.router.routes.append(Route(route.path, route.answer, methods=[route.method], include_in_schema=False))
        app.add_api_route(route.path, route.answer, methods=[route.method], **route.shown)
    scopes: dict[tuple[str, str], str | None] = {
        (route.method, route.path): route.scope for route in made(face, engine.spec)
    }
    for route in page or ():
        app.router.routes.append(route)
        scopes["GET", getattr(route, "path", "/")] = None
    app.openapi = partial(describe, app, secured=tokens is not None)  # type: ignore[method-assign]
    face.app = app
    app.state.engine = engine
    app.state.tokens = tokens
    app.add_exception_handler(HTTPException, _no_route)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _wrong_query)  # type: ignore[arg-type]
    app.add_middleware(
        Gate,
        addresses=Addresses(scopes),
        tokens=tokens,
        buckets=buckets,
        body_bytes=body_bytes,
        figures=figures,
        hosts=hosts,
    )
    return app


class Face:
    """What is done for each route."""

    app: FastAPI

    def __init__(self, engine: Engine, figures: Figures, buckets: Buckets):
        self.engine = engine
        self.spec = engine.spec
        self.figures = figures
        self.buckets = buckets
        self.crossing = Crossing()
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="http")

    # ---- what clients call -----------------------------------------------------------------------------------------------

    async def predict(self, request: Request) -> Response:
        """Answer rows. The rows, what was answered and the version that answered are in the log before the answer is sent.

        An id joins feedback to its row. Asked again with the same `x`, an id gets its first answer.
        """
        value, trace = await bodies.read(request.receive, request.headers.get("content-type")), _trace(request)
        asks = bodies.asks(value, self.spec)
        trace.draw(self.buckets, len(asks))
        answered = await self.crossing.over(self.engine.predict(asks))
        trace.seen = {"id": answered[0].id, "version": answered[0].version, "seq": answered[0].seq}
        rows = [{"id": item.id, "output": item.output, "version": item.version} for item in answered]
        if type(value) is dict:
            return _json(rows[0])
        trace.seen["rows"] = len(rows)
        return _json(rows)

    async def feedback(self, request: Request) -> Response:
        """Take answers or rewards, in any order, late, or before their prediction. Each changes the model once.

        The same answer again is a duplicate; another one needs a higher `revision`. Of an array all are taken, or none.
        """
        value, trace = await bodies.read(request.receive, request.headers.get("content-type")), _trace(request)
        items = bodies.told(value, self.spec)
        trace.draw(self.buckets, len(items))
        receipts = await self.crossing.over(self.engine.feedback(items))
        trace.seen = {"id": receipts[0].id, "seq": receipts[0].seq}
        rows = [{"accepted": True, "duplicate": item.duplicate, "joined": item.joined, "seq": item.seq} for item in receipts]
        if type(value) is dict:
            return _json(rows[0])
        trace.seen["rows"] = len(rows)
        return _json(rows)

    # ---- what is looked at -----------------------------------------------------------------------------------------------

    async def status(self, request: Request) -> Response:
        """The state of the server: version in service, lag, queue, counts, score, alarms."""
        return _json(forms.dated(await self._away(self.engine.status), "started", "time"))

    async def versions(self, request: Request) -> Response:
        """Every version, the newest first."""
        return _json([forms.dated(row, "created") for row in await self._away(self.engine.versions)])

    async def decisions(self, request: Request, query: Annotated[forms.Newest, Query()]) -> Response:
        """What was done about versions and learning, by whom and why, the newest first."""
        return _json([forms.dated(row, "time") for row in await self._away(self.engine.decisions, query.limit)])

    async def alarms(self, request: Request, query: Annotated[forms.Newest, Query()]) -> Response:
        """The newest alarms, the newest first."""
        return _json([forms.dated(row, "time") for row in await self._away(self.engine.alarms, query.limit)])

    async def series(self, request: Request, query: Annotated[forms.Points, Query()]) -> Response:
        """Score, lag and counts along the log, the oldest first."""
        return _json(await self._away(self.engine.series, query.limit))

    async def schema(self, request: Request) -> Response:
        """What a row and its answer look like."""
        return _json(forms.described(self.spec))

    async def healthz(self, request: Request) -> Response:
        """Whether the process answers at all."""
        return _json({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Whether predictions are answered: recovered, and within the limit of lag."""
        try:
            ready = (await self._away(self.engine.status))["ready"]
        except ServeError:
            ready = False
        if not ready:
            raise ServeError("not_ready", "the server is not ready.", 503, retry_after=1.0)
        return _json({"ready": True})

    async def metrics(self, request: Request) -> Response:
        """All figures, in Prometheus's text format."""
        try:
            status = await self._away(self.engine.status)
        except ServeError:
            status = None
        return Response(await self._away(self.figures.text, status), media_type=MEDIA_TYPE)

    async def openapi(self, request: Request) -> Response:
        """This description."""
        return _json(self.app.openapi())

    # ---- what operators call ---------------------------------------------------------------------------------------------

    async def rollback(self, request: Request) -> Response:
        """Serve a version again and learn on from it. Feedback since then is learned from again, left out or set aside."""
        form = await _form(request, forms.Rollback)
        if form.first is not None and form.last is not None:
            _ordered(form.first, form.last)
        who = _trace(request).who
        decision = await self._away(
            self.engine.rollback, form.version, form.reason, form.after, first=form.first, last=form.last, who=who
        )
        return _json(forms.dated(decision, "time"))

    async def release(self, request: Request) -> Response:
        """Learn now from feedback that was set aside."""
        form = await _form(request, forms.Release)
        _ordered(form.first, form.last)
        decision = await self._away(self.engine.release, form.first, form.last, form.reason, who=_trace(request).who)
        return _json(forms.dated(decision, "time"))

    async def pause(self, request: Request) -> Response:
        """Stop learning. Predictions and feedback go on, and nothing is lost."""
        form = await _form(request, forms.Switch)
        return _json(forms.dated(await self._away(self.engine.pause, form.reason, who=_trace(request).who), "time"))

    async def resume(self, request: Request) -> Response:
        """Learn again."""
        form = await _form(request, forms.Switch)
        return _json(forms.dated(await self._away(self.engine.resume, form.reason, who=_trace(request).who), "time"))

    async def erase(self, request: Request, id: Id, query: Annotated[forms.Erasure, Query()]) -> Response:
        """Remove what is stored under an id; with `relearn` also what was learned from it."""
        bodies.check_id(id)
        decision = await self._away(
            self.engine.erase, id, relearn=query.relearn, reason=query.reason, who=_trace(request).who
        )
        return _json(forms.dated(decision, "time"))

    async def _away(self, work: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """What work returns, done by a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, partial(work, *arguments, **named))


async def _form(request: Request, model: type[bodies.Form]) -> bodies.Form:
    return bodies.form(await bodies.read(request.receive, request.headers.get("content-type")), model)


def _ordered(first: int, last: int) -> None:
    if first > last:
        raise ServeError("invalid_request", f"first ({first}) must not be above last ({last}).", 422)


def _trace(request: Request) -> Trace:
    return request.scope["everlearn"]


def _json(value: Any) -> Response:
    return Response(to_json(value, inf_nan_mode="null"), media_type="application/json")


async def _no_route(request: Request, error: HTTPException) -> Response:
    refusal = problems.unanswerable(error.status_code, request.method, request.url.path)
    return _refusal(request, refusal, dict(error.headers or {}))


async def _wrong_query(request: Request, error: RequestValidationError) -> Response:
    return _refusal(request, bodies.of_pydantic(error.errors()), {})


def _refusal(request: Request, error: ServeError, headers: dict[str, str]) -> Response:
    found = {name.decode(): value.decode() for name, value in problems.headers(error)}
    return Response(problems.body(error, _trace(request).id), error.status, {**found, **headers})
