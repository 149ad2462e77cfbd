"""From the threads of an engine to the event loop of its face.

Futures that are done together cross together: the loop is woken once for all that have gathered, not once for each.
"""

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class Crossing:
    """Awaits futures of other threads, in one event loop."""

    def __init__(self) -> None:
        self._done: deque[tuple[asyncio.Future, Future]] = deque()
        self._called = False  # whether the loop has been woken for what is there

    async def over(self, future: "Future[T]") -> T:
        """What a future gives, or raises. Given up by whoever waits, the future is cancelled where it has not begun."""
        if future.done():
            return future.result()
        loop = asyncio.get_running_loop()
        waits = loop.create_future()
        future.add_done_callback(lambda done: self._arrive(loop, waits, done))
        try:
            return await waits
        except asyncio.CancelledError:
            future.cancel()
            raise

    def _arrive(self, loop: asyncio.AbstractEventLoop, waits: asyncio.Future, done: Future) -> None:
        self._done.append((waits, done))
        if not self._called:
            self._called = True
            try:
                loop.call_soon_threadsafe(self._land)
            except RuntimeError:  # the loop is closed, and nobody waits any more
                self._done.clear()

    def _land(self) -> None:
        self._called = False  # before anything is taken, so that what comes meanwhile wakes the loop again
        while self._done:
            waits, done = self._done.popleft()
            if waits.done():
                continue
            error = None if done.cancelled() else done.exception()
            if done.cancelled():
                waits.cancel()
            elif error is not None:
                waits.set_exception(error)
            else:
                waits.set_result(done.result())
