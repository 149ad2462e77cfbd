"""The thread behind `deliver=True`: it sends what waits in an outbox, and waits itself while there is nothing or nobody."""

import logging
import threading
from typing import Any, Protocol

from everlearn.core.errors import EverlearnError
from everlearn.serve.outbox import Outbox

RETRY = 0.5  # seconds at least before the outbox is tried again after a fault
IDLE = 2.0  # seconds after which the outbox is looked at even if nothing was put there by this client
log = logging.getLogger("everlearn.serve.client")


class Sender(Protocol):
    """What a courier needs of a client: its outbox, how to send it, and for how long the server is to be left alone."""

    outbox: Outbox | None

    @property
    def quiet(self) -> float: ...
    def flush(self) -> Any: ...
    def close(self) -> None: ...


class Courier:
    """A thread that sends what waits in a client's outbox as soon as the server is there. Close it before the outbox."""

    def __init__(self, client: Sender):
        self._client = client
        self._woken = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self.wake()

    def wake(self) -> None:
        """There is something to send. Starts the thread where none runs, as after a fork."""
        if not self._closed.is_set() and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._work, name="everlearn-outbox", daemon=True)
            self._thread.start()
        self._woken.set()

    def close(self) -> None:
        """Stop after what is being sent now."""
        self._closed.set()
        self._woken.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._client.close()

    def _work(self) -> None:
        reported = ""
        while not self._closed.is_set():
            try:
                if not self._client.outbox.empty:
                    self._client.flush()
                reported = ""
            except EverlearnError as error:
                quiet = self._client.quiet  # of a server that is away, which was logged when it began
                if not quiet and str(error) != reported:
                    log.warning("the outbox is not delivered: %s", error)
                reported = str(error)
                self._closed.wait(max(RETRY, quiet))
            else:
                self._woken.wait(IDLE)
                self._woken.clear()
