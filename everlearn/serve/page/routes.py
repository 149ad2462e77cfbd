"""The page and its files as routes: HTML with the present state, a style sheet and scripts of our own, and the charts' script.

Files have the hash of all of them in their address and may be kept for ever. Nothing is asked of any other host, no script or
style stands in the HTML, and nothing is evaluated: the content policy forbids all of it.
"""

import asyncio
import gzip
import hashlib
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from everlearn.core.errors import ServeError
from everlearn.serve.engine import Engine
from everlearn.serve.page.view import blank, view

HERE = Path(__file__).parent
SCRIPTS = tuple(sorted(path.name for path in HERE.glob("*.js")))
TYPES = {"css": "text/css", "js": "text/javascript", "json": "application/json"}
MADE = {"vega.js": "script", "charts.json": "charts"}  # files that a process of its own makes
FIRST = {"alarms": 5, "decisions": 6, "versions": 20}  # rows that are shown at first
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}
KEPT = {
    "cache-control": "public, max-age=31536000, immutable",
    "x-content-type-options": "nosniff",
    "vary": "accept-encoding",
}


def page_routes(engine: Engine, tokens: Any = None, files: "Files | None" = None) -> list[Route]:
    """The routes "/" and "/static/HASH/NAME", which need no token. files: those of another app, to make the charts once.

    With tokens the HTML holds no data: the page asks for a token, keeps it for the tab, and reads everything through the API.
    """
    files = files or Files()

    def page(request: Request) -> Response:
        state = None if tokens is not None else state_of(engine)
        return HTMLResponse(render(state, files.digest, guarded=tokens is not None), headers=HEADERS)

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if request.path_params["digest"] != files.digest or name not in files.names:
            return PlainTextResponse("not found", 404, {"cache-control": "no-store"})
        try:
            plain, small = await files.read(name)
        except ServeError as error:
            return PlainTextResponse(str(error), error.status, {"cache-control": "no-store"})
        kind = TYPES[name.rsplit(".", 1)[1]]
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(small, headers={**KEPT, "content-encoding": "gzip"}, media_type=kind)
        return Response(plain, headers=KEPT, media_type=kind)

    return [
        Route("/", page, methods=["GET"], include_in_schema=False),
        Route("/static/{digest}/{name}", static, methods=["GET"], include_in_schema=False),
    ]


class Files:
    """The files of the page, each as it is and compressed. What takes long to make is made once, when it is first asked for."""

    def __init__(self) -> None:
        self.names = {"style.css", *SCRIPTS, *MADE}
        self.digest = _digest()
        self._read: dict[str, tuple[bytes, bytes]] = {}
        self._making = {name: asyncio.Lock() for name in self.names}

    async def read(self, name: str) -> tuple[bytes, bytes]:
        """A file's bytes, plain and compressed. Raises ServeError (503) where it cannot be made."""
        if name in self._read:
            return self._read[name]
        async with self._making[name]:
            if name not in self._read:
                plain = await _made(MADE[name]) if name in MADE else (HERE / name).read_bytes()
                self._read[name] = plain, gzip.compress(plain, 6, mtime=0)
            return self._read[name]


def state_of(engine: Engine) -> dict[str, Any] | None:
    """What the page shows, or None while the engine cannot tell."""
    try:
        return {
            "status": engine.status(),
            "versions": engine.versions(),
            "alarms": engine.alarms(),
            "decisions": engine.decisions(),
        }
    except ServeError:
        return None


def render(state: dict[str, Any] | None, digest: str, *, guarded: bool = False) -> str:
    """The page as HTML: with a state, or as a shell that has none. guarded: whether the API asks for a token."""
    shown = view(state) if state is not None else blank()
    return _template().render(
        shown=shown, told=state is not None, guarded=guarded, digest=digest, first=FIRST, scripts=SCRIPTS
    )


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["stamp"] = _stamp
    return environment.get_template("template.html")


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


@cache
def _digest() -> str:
    mark = hashlib.sha256()
    for path in sorted(HERE.iterdir()):
        if path.suffix in (".css", ".js", ".html", ".py"):
            mark.update(path.name.encode() + path.read_bytes())
    mark.update(f"altair {version('altair')} vl-convert {version('vl-convert-python')}".encode())
    return mark.hexdigest()[:16]


async def _made(part: str) -> bytes:
    """What chart.py prints when it is run as a program."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(HERE / "chart.py"), part,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, fault = await process.communicate()
    if process.returncode:
        reason = fault.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise ServeError("not_ready", f"the charts could not be made: {reason[0]}", 503)
    return told
