"""Runs an app behind a port: one process, with lines of JSON as its log, and an end at which nothing is lost.

At SIGTERM or SIGINT it stops accepting, finishes what it has begun, and closes the engine, which writes what waits and keeps a last
version. Several processes would be several folds of one log, and are refused.
"""

import contextlib
import gc
import json
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from everlearn.core.errors import ArgumentError, check_count, check_range, optional
from everlearn.serve.auth import is_local, refuse_open_bind

KEEP_ALIVE = 75  # seconds for which an idle connection stays; clients give theirs up sooner
GRACE = 10.0  # seconds in which what was begun is finished
SWITCH = 0.0005  # seconds after which a thread that computes gives way; at Python's 0.005 an answer waits for one several times over
LOGGERS = ("everlearn.serve", "uvicorn")


class Server:
    """A port on which an app is answered. `run` returns after `stop`, or a signal.

    host, port: port 0 takes a free one; grace: seconds in which what was begun is finished; certificate, key: files of TLS.
    Listens from the beginning: what comes before `run` waits. Raises ArgumentError where the address cannot be had.
    """

    def __init__(
        self,
        app: FastAPI,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        grace: float = GRACE,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
    ):
        check_count("serve", "port", port, 0)
        check_range("serve", "grace", grace, 0.0)
        if (certificate is None) != (key is None):
            raise ArgumentError("serve: TLS needs both certificate and key, got one of them.")
        uvicorn = optional("uvicorn", "serve", "everlearn serve")
        for name in filter(None, (certificate, key)):
            if not Path(name).is_file():
                raise ArgumentError(f"serve: there is no file {name}.")
        self.app = app
        self.socket = listen(host, port)
        self.port: int = self.socket.getsockname()[1]
        shown = host or "0.0.0.0"
        shown = f"[{shown}]" if ":" in shown else shown
        self.address = f"{'https' if certificate else 'http'}://{shown}:{self.port}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, log_config=None, access_log=False, server_header=False, proxy_headers=False, ws="none",
                timeout_keep_alive=KEEP_ALIVE, timeout_graceful_shutdown=max(1, round(grace)),
                ssl_certfile=certificate, ssl_keyfile=key,
            )
        )  # fmt: skip

    def run(self) -> None:
        """Answer until told to stop, and then finish."""
        with _signals(self.stop), contextlib.closing(self.socket):
            self._server.run(sockets=[self.socket])

    def stop(self) -> None:
        """Accept nothing more, and let `run` finish; from any thread."""
        self._server.should_exit = True


def serve(
    app: FastAPI,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    workers: int = 1,
    log_json: bool = True,
    grace: float = GRACE,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Answer an app at an address until a signal, then close its engine.

    log_json: lines of JSON rather than of text on stderr; announce: is told one line with the address.
    Raises ArgumentError: for more than one worker, an open address without a token, or an address that cannot be had.
    """
    if workers != 1:
        raise ArgumentError(
            f"serve: workers must be 1, got {workers!r}. One process writes the log and learns from it; to answer from several, keep "
            "the log in Postgres (--database postgresql://...) and start each process by itself."
        )
    tokens = app.state.tokens
    refuse_open_bind(host, tokens)
    server = Server(app, host, port, grace=grace, certificate=certificate, key=key)
    needs = "tokens needed" if tokens is not None else "no token needed"
    engine = app.state.engine
    with logged(log_json), contextlib.closing(engine):
        plain = "" if certificate or is_local(host) else "; without TLS, tokens can be read on the way"
        gc.collect()
        gc.freeze()  # what was imported is not looked through again, which would hold up answers for a tenth of a second
        sys.setswitchinterval(SWITCH)
        announce(f"Serving at {server.address} ({needs}{plain}). Stop with Ctrl-C.")
        server.run()


@contextlib.contextmanager
def running(app: FastAPI, host: str = "127.0.0.1", port: int = 0, *, grace: float = GRACE) -> Iterator[str]:
    """Answer an app from a thread of this process while a block runs, and give its address. The engine is left open.

    For notebooks, examples and tests.
    """
    server = Server(app, host, port, grace=grace)
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    try:
        yield server.address
    finally:
        server.stop()
        thread.join()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ArgumentError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ArgumentError(
            f"serve: port {port} of {host or 'every address'} cannot be had: {reason.rstrip('.')}. "
            "Name another with --port; 0 takes a free one."
        ) from error


@contextlib.contextmanager
def logged(as_json: bool = True, stream: Any = None) -> Iterator[None]:
    """Write the server's log, a line for each request and what is worth knowing, to a stream (stderr)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines(as_json))
    kept = [(logging.getLogger(name), logging.getLogger(name).level, logging.getLogger(name).propagate) for name in LOGGERS]
    for logger, _, _ in kept:
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING if logger.name == "uvicorn" else logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, level, propagate in kept:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


class Lines(logging.Formatter):
    """Records as lines: of JSON {"time", "level", "message", ...}, or of text. Messages of exceptions are left out."""

    def __init__(self, as_json: bool = True):
        logging.Formatter.__init__(self)
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the record holds."""
        fields = getattr(record, "fields", {})
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fault = {"fault": record.exc_info[0].__name__} if record.exc_info and record.exc_info[0] else {}
        if self.as_json:
            head = {"time": when, "level": record.levelname.lower()}
            return json.dumps({**head, "message": record.getMessage(), **fault, **fields})
        told = " ".join(f"{name}={json.dumps(value)}" for name, value in {**fault, **fields}.items())
        return f"{when} {record.levelname.lower():7} {json.dumps(record.getMessage())[1:-1]} {told}".rstrip()


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Stop at SIGTERM and SIGINT, and let the block end by itself; outside the main thread nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
