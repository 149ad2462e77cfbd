"""Between a client's requests and httpx, the same for threads and asyncio: addresses, headers, and what failures mean."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from everlearn.core.errors import ArgumentError
from everlearn.serve.retry import Reply, Request

if TYPE_CHECKING:
    import httpx

LONGEST_ANSWER = 64 << 20  # bytes that are read of an answer


def checked_url(url: str) -> str:
    """A server's address without a slash at its end. Raises ArgumentError."""
    try:
        found = urlsplit(url)
        good = found.scheme in ("http", "https") and found.hostname and (found.port is None or found.port > 0)
        good = good and not (found.query or found.fragment or found.username or found.password) and url.isprintable()
    except (ValueError, AttributeError, TypeError):
        good = False
    if not good:
        shown = "one with a name in it" if isinstance(url, str) and "@" in url else repr(url)
        raise ArgumentError(
            f"client: url must be the address of a server, as http://127.0.0.1:8000, got {shown}. A token is an argument of its own."
        )
    return url.strip().rstrip("/")


def secured(url: str) -> bool:
    """Whether certificates are checked: always where there are any. Loading what they are checked against takes 20 ms."""
    return not url.lower().startswith("http:")


def headers(token: str | None) -> dict[str, str]:
    """What every request says of itself. Raises ArgumentError for a token that cannot be sent, without telling it."""
    plain = {"accept": "application/json", "content-type": "application/json", "user-agent": "everlearn"}
    if token is None:
        return plain
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token or " " in token:
        raise ArgumentError("client: token must be the text of a bearer token, without blanks or line breaks.")
    return plain | {"authorization": f"Bearer {token}"}


def arguments(request: Request) -> dict[str, Any]:
    """A request as httpx takes it."""
    return {
        "method": request.method,
        "url": request.path,
        "content": request.content,
        "params": request.query or None,
        "timeout": request.timeout,
    }


def failed(request: Request, error: "httpx.RequestError") -> Reply:
    """What is known of a request that got no whole answer."""
    import httpx

    before = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)
    late = isinstance(error, httpx.TimeoutException)
    fault = f"nothing came within {request.timeout:g} s" if late else str(error) or type(error).__name__
    return Reply(fault=fault, sent=not isinstance(error, before))


def broken(request: Request, size: int) -> Reply:
    """What is known of a request whose answer did not end."""
    if size > LONGEST_ANSWER:
        return Reply(fault=f"the answer is longer than {LONGEST_ANSWER >> 20} MiB")
    return Reply(fault=f"the answer was not whole within {request.timeout:g} s")
