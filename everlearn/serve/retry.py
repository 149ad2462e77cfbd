"""Whether to ask again, and when: answers of a server judged, and back-off with full jitter within a deadline.

A plan is a generator of steps (send this, wait so long, do this work); it knows nothing of sockets or event loops, so that one
plan serves both clients. Pause before try n: uniform(0, min(longest, first * 2^n)), after what the server asked for, if it did.
Reference: "Exponential Backoff and Jitter", AWS Architecture Blog (2015), full jitter.
"""

import json
import math
import os
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from everlearn.core.errors import ServeError, check_count, check_range

T = TypeVar("T")
PASSING = (408, 502, 504)  # the request came too slowly, or a proxy found no server behind it
QUOTED = 200  # characters of a foreign answer that are quoted


@dataclass(frozen=True, slots=True)
class Request:
    """A request to send. repeatable: whether asking twice does no more than asking once; timeout: seconds for this try."""

    method: str
    path: str
    content: bytes | None = None
    query: tuple[tuple[str, str], ...] = ()
    repeatable: bool = True
    timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a request. fault: why no whole answer came, else ""; sent: whether the server may have seen the request."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    fault: str = ""
    sent: bool = True


@dataclass(frozen=True, slots=True)
class Wait:
    """Seconds in which to do nothing."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Do:
    """Work on this machine that may take a while."""

    work: Callable[[], Any]


Plan = Generator[Request | Wait | Do, Any, T]


class Retries:
    """How often, how long and how patiently to ask.

    timeout: seconds for each try; retries: tries after the first; deadline: seconds for a call in all, pauses included;
    seed: of the jitter, by default from the system. Raises ArgumentError.
    """

    def __init__(
        self,
        timeout: float = 5.0,
        retries: int = 6,
        deadline: float = 30.0,
        *,
        seed: int | None = None,
        first: float = 0.1,
        longest: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        check_range("client", "timeout", timeout, 0.001)
        check_count("client", "retries", retries, 0)
        check_range("client", "deadline", deadline, 0.001)
        self.timeout = timeout
        self.retries = retries
        self.deadline = deadline
        self.first = first
        self.longest = longest
        self.clock = clock
        self.random = random.Random(int.from_bytes(os.urandom(16)) if seed is None else seed)

    def ask(self, request: Request, read: Callable[[Any], T | None], retries: int | None = None) -> Plan[T]:
        """Send until there is an answer or no hope. read: makes the result of the answer's JSON; None or a fault: it is none.

        Raises ServeError: the server's refusal, or "unreachable" with status 0 where none came.
        """
        end = self.clock() + self.deadline
        tries = (self.retries if retries is None else retries) + 1
        for number in range(tries):
            limit = max(0.001, min(self.timeout, end - self.clock()))
            reply = yield replace(request, timeout=limit)
            outcome = judged(request, reply, read)
            if not isinstance(outcome, ServeError):
                return outcome
            pause = self.pause(number, outcome.retry_after)
            if number + 1 == tries or not worth_repeating(request, reply, outcome) or self.clock() + pause >= end:
                raise outcome
            yield Wait(pause)
        return None

    def pause(self, number: int, asked: float | None = None) -> float:
        """Seconds to wait after try `number`, counted from 0. asked: what the server asked for."""
        return (asked or 0.0) + self.random.uniform(0.0, min(self.longest, self.first * 2.0 ** min(number, 60)))


def judged(request: Request, reply: Reply, read: Callable[[Any], T | None]) -> T | ServeError:
    """The result of a reply, or the error it stands for."""
    if reply.fault:
        lost = " It may have been done all the same; look at the decisions before you repeat it." if reply.sent else ""
        detail = f"no answer to {request.method} {request.path}: {reply.fault}.{'' if request.repeatable else lost}"
        return ServeError("unreachable", detail, 0)
    if 200 <= reply.status < 300:
        try:
            found = read(json.loads(reply.content))
        except (ValueError, TypeError, LookupError, RecursionError):
            found = None
        return _foreign(request, reply) if found is None else found
    return problem(reply) or _foreign(request, reply)


def problem(reply: Reply) -> ServeError | None:
    """The error that a server described as problem+json, None where it did not."""
    try:
        found = json.loads(reply.content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("code"), str):
        return None
    detail = found.get("detail") or found.get("title") or found["code"]
    errors = [item for item in found.get("errors") or () if isinstance(item, dict)]
    return ServeError(found["code"], str(detail), reply.status, retry_after=retry_after(reply.headers), errors=errors)


def worth_repeating(request: Request, reply: Reply, error: ServeError) -> bool:
    """Whether the same request can have another outcome, and does no harm if the first try was heard after all."""
    if reply.fault:
        return request.repeatable or not reply.sent
    described = error.code != "unexpected_answer"
    if reply.status in (429, 503):
        return request.repeatable or described
    if reply.status == 409:
        return error.code == "in_progress"
    return request.repeatable and (reply.status in PASSING or 200 <= reply.status < 300)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, given in seconds or as a date (held against the server's own clock where it tells it)."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        moment, now = _date(text), _date(headers.get("date", ""))
        if moment is None:
            return None
        seconds = moment - (time.time() if now is None else now)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _date(text: str) -> float | None:
    try:
        moment: datetime = parsedate_to_datetime(text)
        return moment.timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _foreign(request: Request, reply: Reply) -> ServeError:
    """An answer that no server of ours gives."""
    quoted = " ".join(reply.content[: 4 * QUOTED].decode(errors="replace").split())[:QUOTED]
    detail = (
        f"{request.method} {request.path} was answered with {reply.status} and {quoted!r}, which is no answer of this API."
    )
    return ServeError("unexpected_answer", detail, reply.status, retry_after=retry_after(reply.headers))
