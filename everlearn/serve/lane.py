"""Requests on their way to actors: gathered into calls, shared out to whoever is free, sent again where an actor was lost.

While the calls that an actor holds are under way, what comes meanwhile gathers and goes as one; so the price of a call is shared
by all who wait. `call(actor, groups)` gives a future of one `Outcome` for each request.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from everlearn.core.errors import ServeError
from everlearn.serve.actors import Outcome

DEPTH = 2  # calls that one actor holds at once: one that is computed, and the next
ROWS = 256  # rows in one call

Request = tuple[Sequence[Any], Future]


class Lane:
    """A line of requests before one or more actors.

    lost: errors that say an actor is gone for the moment; spare: an actor that takes requests while all others are down;
    back: gives a future that is done once a lost actor answers again.
    """

    def __init__(
        self,
        actors: Sequence[Any],
        call: Callable[[Any, list[Sequence[Any]]], Future],
        lost: tuple[type[Exception], ...],
        *,
        spare: Any = None,
        back: Callable[[Any], Future] | None = None,
    ):
        self.actors = [*actors, *([] if spare is None else [spare])]
        self.usual = len(actors)
        self._call, self._lost, self._back = call, lost, back
        self._calls = [0] * len(self.actors)
        self._sent = [0] * len(self.actors)
        self._down = [False] * len(self.actors)
        self._waiting: deque[Request] = deque()
        self._lock = threading.Lock()

    @property
    def down(self) -> list[bool]:
        """Which of the actors are lost for the moment."""
        return self._down[: self.usual]

    def put(self, rows: Sequence[Any], future: Future) -> None:
        """Send a request as soon as an actor is free; the future, which cannot be cancelled any more, gets what came of it."""
        future.set_running_or_notify_cancel()
        with self._lock:
            self._waiting.append((rows, future))
        self._go()

    def _go(self) -> None:
        while True:
            with self._lock:
                place = self._free() if self._waiting else None
                if place is None:
                    return
                group = self._take()
                self._calls[place] += 1
                self._sent[place] += 1
            self._send(place, group)

    def _free(self) -> int | None:
        """The actor that holds the fewest calls, of those the one that was sent the fewest; None where all are busy."""
        up = [place for place in range(self.usual) if not self._down[place]] or [*range(self.usual, len(self.actors))]
        if not up:
            up = list(range(self.usual))
        best = min(up, key=lambda place: (self._calls[place], self._sent[place]))
        return best if self._calls[best] < DEPTH else None

    def _take(self) -> list[Request]:
        group = [self._waiting.popleft()]
        rows = len(group[0][0])
        while self._waiting and rows + len(self._waiting[0][0]) <= ROWS:
            group.append(self._waiting.popleft())
            rows += len(group[-1][0])
        return group

    def _send(self, place: int, group: list[Request]) -> None:
        try:
            coming = self._call(self.actors[place], [rows for rows, _ in group])
        except Exception as error:
            coming = Future()
            coming.set_exception(error)
        coming.add_done_callback(partial(self._came, place, group))

    def _came(self, place: int, group: list[Request], done: Future) -> None:
        error = done.exception()
        again = isinstance(error, self._lost) and place < self.usual < len(self.actors)
        with self._lock:
            self._calls[place] -= 1
            newly = again and not self._down[place]
            if again:
                self._down[place] = True
                self._waiting.extendleft(reversed(group))
        if newly:
            self._back(self.actors[place]).add_done_callback(partial(self._returned, place))
        if not again:
            outcomes = done.result() if error is None else [self._failed(error)] * len(group)
            for (_, future), outcome in zip(group, outcomes, strict=True):
                outcome.settle(future)
        self._go()

    def _failed(self, error: Exception) -> Outcome:
        if not isinstance(error, self._lost):
            return Outcome.of(error)
        told = "the actor that serves this model has ended; what was asked may be stored, and can be asked again."
        return Outcome.of(ServeError("not_ready", told, 503, retry_after=1.0))

    def _returned(self, place: int, done: Future) -> None:
        """A lost actor answers again; one that never will stays down."""
        if done.exception() is None:
            with self._lock:
                self._down[place] = False
            self._go()
