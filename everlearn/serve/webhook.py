"""Alarms to whoever is on call: each is posted as JSON to a URL, from a thread of its own.

    POST url      {"kind", "value", "limit", "message", "seq", "time", "source"}
    X-Everlearn-Signature: sha256=HEX        HMAC-SHA256 of the body under a shared secret; the receiver checks it with `signature`

Handing an alarm over never waits and never fails: what cannot be delivered is counted and said in the log. A receiver that is away,
busy (429) or in trouble (5xx) is tried again, twice as long after each time; another refusal, or a redirect, is final.
A post may arrive twice where its answer was lost: (kind, seq, time) tells.
"""

import hashlib
import hmac
import http.client
import json
import logging
import math
import queue
import random
import threading
import time
import urllib.error
import urllib.request
from dataclasses import asdict
from urllib.parse import urlsplit

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.serve.records import Alarm

HEADER = "X-Everlearn-Signature"
LONGEST = 60.0  # seconds between two attempts at most, whatever a receiver asks for
LOG = logging.getLogger("everlearn.serve.webhook")


def signature(secret: str, body: bytes) -> str:
    """What the header must say for a body. Compare it with `hmac.compare_digest`.

    >>> signature("key", b"{}")[:19]
    'sha256=a777724d943e'
    """
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: an alarm goes where it was told to go."""

    def redirect_request(self, *_: object) -> None:
        return None


class Webhook:
    """Posts alarms to a URL.

    secret: signs each post; source: a name for this server, sent along; limit: alarms that may wait, more are given up; timeout:
    seconds for one attempt; attempts: per alarm; wait: seconds before the second one, doubled each time, with up to half as much again
    by chance. Raises ArgumentError for a URL that is not http or https.
    """

    def __init__(
        self,
        url: str,
        secret: str | None = None,
        *,
        source: str = "",
        limit: int = 1000,
        timeout: float = 5.0,
        attempts: int = 6,
        wait: float = 0.5,
    ):
        self._place = _place(url)
        check_count("webhook", "limit", limit)
        check_count("webhook", "attempts", attempts)
        check_range("webhook", "timeout", timeout, 0.001)
        check_range("webhook", "wait", wait, 0.0)
        if secret is not None and not (isinstance(secret, str) and secret):
            raise ArgumentError("webhook: secret must be text of at least one character, or None to send posts unsigned.")
        self._url = url
        self._secret = secret
        self._source = source
        self._timeout = timeout
        self._attempts = attempts
        self._wait = wait
        self._chance = random.Random()
        self._opener = urllib.request.build_opener(_Stay())
        self._queue: queue.Queue[Alarm | None] = queue.Queue(limit)
        self._lock = threading.Lock()
        self._delivered = self._lost = self._busy = 0
        self._closing = threading.Event()
        self._hurry = threading.Event()  # set where there is no more time to wait between attempts
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
        self._thread.start()

    def send(self, alarm: Alarm) -> bool:
        """Hand an alarm over; True where it will be tried. Returns at once, whatever the receiver does."""
        if self._closing.is_set():
            self._lose(alarm, "the webhook is closed")
            return False
        with self._lock:
            self._busy += 1
        try:
            self._queue.put_nowait(alarm)
        except queue.Full:
            with self._lock:
                self._busy -= 1
            self._lose(alarm, f"{self._queue.maxsize} alarms wait already")
            return False
        return True

    @property
    def counts(self) -> dict[str, int]:
        """Alarms delivered, lost (given up), and waiting (the one on its way among them)."""
        with self._lock:
            return {"delivered": self._delivered, "lost": self._lost, "waiting": self._busy}

    def close(self, timeout: float = 5.0) -> None:
        """Deliver what waits for at most so many seconds, give up the rest, and stop."""
        self._closing.set()
        deadline = time.monotonic() + timeout
        while self.counts["waiting"] and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        self._hurry.set()
        self._drop_waiting()
        self._queue.put(None)
        self._thread.join(self._timeout + 1.0)

    def _drop_waiting(self) -> None:
        while True:
            try:
                alarm = self._queue.get_nowait()
            except queue.Empty:
                return
            if alarm is not None:
                self._done(alarm, "the server stopped")

    def _run(self) -> None:
        while (alarm := self._queue.get()) is not None:
            try:
                fault = self._deliver(alarm)
            except Exception as error:  # the thread outlives whatever one alarm does to it; the alarm counts as lost
                fault = f"{type(error).__name__} in the webhook"
            self._done(alarm, fault)

    def _deliver(self, alarm: Alarm) -> str | None:
        """Try until it is delivered (None), or why it was not."""
        body = _body(alarm, self._source)
        headers = {"Content-Type": "application/json", "User-Agent": "everlearn"}
        if self._secret is not None:
            headers[HEADER] = signature(self._secret, body)
        fault = ""
        for attempt in range(self._attempts):
            status, fault, asked = self._post(urllib.request.Request(self._url, body, headers, method="POST"))
            if 200 <= status < 300:
                return None
            if status and status != 429 and status < 500:
                return fault
            pause = self._wait * 2.0**attempt * (1.0 + self._chance.random() / 2.0)
            last = attempt + 1 == self._attempts
            if self._hurry.is_set() or (not last and self._hurry.wait(min(LONGEST, max(pause, asked)))):
                return f"{fault}, and the server stopped"
        return f"{fault} in each of {self._attempts} attempts"

    def _post(self, request: urllib.request.Request) -> tuple[int, str, float]:
        """(status, what was wrong, seconds that the receiver asks to wait); status 0 where no answer came. Its body is not read."""
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return answer.status, f"status {answer.status}", 0.0
        except urllib.error.HTTPError as error:
            with error:
                return error.code, f"status {error.code}", _seconds(error.headers.get("Retry-After"))
        except urllib.error.URLError as error:
            return 0, type(error.reason).__name__ if isinstance(error.reason, OSError) else "no answer", 0.0
        except (OSError, http.client.HTTPException) as error:
            return 0, type(error).__name__, 0.0

    def _done(self, alarm: Alarm, fault: str | None) -> None:
        if fault is not None:
            self._lose(alarm, fault)
        with self._lock:
            self._busy -= 1
            self._delivered += fault is None

    def _lose(self, alarm: Alarm, why: str) -> None:
        with self._lock:
            self._lost += 1
            lost = self._lost
        LOG.warning("webhook %s: the alarm %s was not delivered: %s; %d lost so far.", self._place, alarm.kind, why, lost)


def _body(alarm: Alarm, source: str) -> bytes:
    record = {**asdict(alarm), "source": source}
    for key in ("value", "limit"):
        if not math.isfinite(record[key]):
            record[key] = None
    return json.dumps(record).encode()


def _place(url: str) -> str:
    """Scheme and host of a URL, which is all of it that is logged: paths and queries may hold secrets."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except (ValueError, AttributeError, TypeError):
        good = False
    if not good:
        raise ArgumentError(
            "webhook: url must begin with http:// or https:// and name a host, such as https://example.org/alarms."
        )
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _seconds(text: str | None) -> float:
    """Seconds of a Retry-After header; 0 where it is missing or a date."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else 0.0
