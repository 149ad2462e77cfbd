"""What every request passes before a route answers it: an id, the host, the token, the rate and the length of its body; and what every
answer passes after it: headers, a count, a line for the log, and for whatever was raised a problem+json.

It is plain ASGI, because it stands before each request. Neither tokens nor inputs reach the log: of a fault nobody expected the log has
the kind and the places in the code, and not its message.
"""

import ipaddress
import logging
import re
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from everlearn.core.errors import ServeError
from everlearn.serve import problems
from everlearn.serve.auth import Token, Tokens
from everlearn.serve.bodies import Gone, bounded
from everlearn.serve.ids import new_id
from everlearn.serve.limits import Buckets, network, spent
from everlearn.serve.prometheus import Figures

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
log = logging.getLogger("everlearn.serve")
access = logging.getLogger("everlearn.serve.access")

OTHER = "other"  # the route of what no route takes
LEFT = 499  # the status, in logs only, of a request whose client left
GIVEN_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
POLICY = b"default-src 'none'; frame-ancestors 'none'"
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(slots=True)
class Trace:
    """What is known of a request while it is answered. seen: what the log tells of it beside its status (id, version, seq)."""

    id: str
    method: str
    route: str
    token: Token | None = None
    key: str = ""
    status: int = 0
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def who(self) -> str:
        """Who asks: the name of the token, or "local" where none is needed."""
        return self.token.name if self.token else "local"

    def draw(self, buckets: Buckets, rows: int) -> None:
        """Take the rows of a request beyond its first from its bucket."""
        if rows > 1 and self.key:
            buckets.draw(self.key, rows - 1, self.token.rate if self.token else None)


class Addresses:
    """Routes by method and path, and the scope that each needs (None: none). A template ends in one parameter at most."""

    def __init__(self, scopes: dict[tuple[str, str], str | None]):
        self.exact = {key: (key[1], scope) for key, scope in scopes.items() if "{" not in key[1]}
        self.begun = [
            (method, path.partition("{")[0], path, scope) for (method, path), scope in scopes.items() if "{" in path
        ]

    def find(self, method: str, path: str) -> tuple[str, str | None]:
        """(template, scope). What no route takes needs no scope: it is answered with 404 or 405."""
        found = self.exact.get((method, path))
        if found is not None:
            return found
        for wanted, begin, template, scope in self.begun:
            if method == wanted and path.startswith(begin):
                return template, scope
        return OTHER, None


class Gate:
    """The ASGI app before an app. hosts: names answered beside local ones where there are no tokens."""

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        *,
        addresses: Addresses,
        tokens: Tokens | None,
        buckets: Buckets,
        body_bytes: int,
        figures: Figures,
        hosts: Sequence[str] = (),
    ):
        self.app = app
        self.addresses = addresses
        self.tokens = tokens
        self.buckets = buckets
        self.body_bytes = body_bytes
        self.figures = figures
        self.hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}
        route, needs = self.addresses.find(scope["method"], scope["path"])
        found = {name: value for name, value in scope["headers"] if name in _READ}
        given = found.get(b"x-request-id", b"")
        trace = Trace(given.decode() if GIVEN_ID.fullmatch(given) else new_id(), method, route)
        scope["everlearn"] = trace

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                trace.status = message["status"]
                headers = message["headers"]
                names = {header[0] for header in headers}
                extra = [header for header in HEADERS if header[0] not in names]
                message["headers"] = [*headers, *extra, (b"x-request-id", trace.id.encode())]
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        try:
            self._admit(scope, found, needs, trace)
            await self.app(scope, bounded(receive, scope["headers"], self.body_bytes), answer)
        except Gone:
            trace.status = trace.status or LEFT
        except Exception as error:
            if not problems.is_expected(error):
                _tell(error, trace)
            if trace.status:
                raise _Broken from None
            await _refuse(problems.refusal(error), trace, answer)
        finally:
            self._count(trace, time.perf_counter() - begun)

    def _admit(self, scope: Scope, found: dict[bytes, bytes], needs: str | None, trace: Trace) -> None:
        """Let a request in, or raise ServeError: wrong_host, unauthorized, forbidden, rate_limited."""
        if self.tokens is None and not self._is_ours(found.get(b"host", b"").decode("latin-1")):
            raise ServeError(
                "wrong_host",
                "without tokens only local names and addresses are answered, so that no web page can reach this server by a name "
                "of its own. Set a token to serve under a domain.",
                421,
            )
        if needs is None:
            return
        rate = None
        if self.tokens is not None:
            trace.token = self.tokens.check(found.get(b"authorization", b"").decode("latin-1"), needs)
            trace.key, rate = f"token {trace.token.name}", trace.token.rate
        else:
            trace.key = network((scope.get("client") or ("local", 0))[0])
        wait = self.buckets.wait(trace.key, rate)
        if wait:
            raise spent(wait)

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header can come of an honest address: no one can own a name without a dot, or an address of ours."""
        name = host.lower().rpartition(":")[0] if re.search(r":\d*$", host) else host.lower()
        if "." not in name or name in self.hosts or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    def _count(self, trace: Trace, seconds: float) -> None:
        self.figures.answered(trace.route, trace.status or LEFT, seconds)
        if access.isEnabledFor(logging.INFO):
            told = {
                "request": trace.id,
                "method": trace.method,
                "route": trace.route,
                "status": trace.status or LEFT,
                "ms": round(seconds * 1e3, 2),
            }
            who = {"who": trace.token.name} if trace.token else {}
            access.info("request", extra={"fields": {**told, **who, **trace.seen}})


_READ = {b"host", b"authorization", b"x-request-id"}


class _Broken(Exception):
    """An answer that broke after it had begun; the server closes the connection."""


def _tell(error: Exception, trace: Trace) -> None:
    """Log a fault without its message, which might hold inputs."""
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    fields = {"request": trace.id, "route": trace.route, "fault": type(error).__name__, "places": places[-8:]}
    log.error("request %s failed: %s at %s", trace.id, type(error).__name__, places[-1], extra={"fields": fields})


async def _refuse(error: ServeError, trace: Trace, send: Send) -> None:
    content = problems.body(error, trace.id)
    headers = [*problems.headers(error), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
