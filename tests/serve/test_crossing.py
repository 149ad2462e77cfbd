"""Futures of other threads reach the event loop: what they give, what they raise, and how often the loop is woken."""

import asyncio
import threading
from concurrent.futures import Future

import pytest

from everlearn.core.errors import ServeError
from everlearn.serve.crossing import Crossing


def later(*futures, value="given", error=None):
    """Finish futures from another thread, all at once."""

    def finish():
        for future in futures:
            future.set_exception(error) if error else future.set_result(value)

    threading.Timer(0.02, finish).start()


def test_what_a_future_gives_crosses():
    async def main():
        future = Future()
        later(future)
        return await Crossing().over(future)

    assert asyncio.run(main()) == "given"


def test_what_a_future_raises_crosses():
    async def main():
        future = Future()
        later(future, error=ServeError("conflict", "no", 422))
        await Crossing().over(future)

    with pytest.raises(ServeError, match="no"):
        asyncio.run(main())


def test_a_future_that_is_done_needs_no_crossing():
    async def main():
        future = Future()
        future.set_result(1)
        return await Crossing().over(future)

    assert asyncio.run(main()) == 1


def test_futures_that_are_done_together_wake_the_loop_once():
    woken = []

    async def main():
        loop, crossing, futures = asyncio.get_running_loop(), Crossing(), [Future() for _ in range(50)]
        call = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *given: woken.append(1) or call(*given)
        gathered = asyncio.gather(*(crossing.over(future) for future in futures))
        await asyncio.sleep(0)
        for future in futures:  # from this thread the loop cannot run in between
            future.set_result(2)
        return await gathered

    assert asyncio.run(main()) == [2] * 50
    assert len(woken) == 1


def test_none_is_left_behind_when_thousands_come_from_several_threads():
    async def main():
        crossing, futures = Crossing(), [Future() for _ in range(4000)]
        gathered = asyncio.gather(*(crossing.over(future) for future in futures))
        await asyncio.sleep(0)
        threads = [
            threading.Thread(target=lambda part=futures[start::4]: [future.set_result(1) for future in part])
            for start in range(4)
        ]
        for thread in threads:
            thread.start()
        return await asyncio.wait_for(gathered, 20)

    assert asyncio.run(main()) == [1] * 4000


def test_who_gives_up_cancels_what_has_not_begun():
    async def main():
        future = Future()
        waits = asyncio.ensure_future(Crossing().over(future))
        await asyncio.sleep(0)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        return future.cancelled()

    assert asyncio.run(main())
