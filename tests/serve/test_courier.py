"""The thread that delivers: by itself, without a busy loop, across forks, and with an end."""

import asyncio
import logging
import os
import threading
import time

import pytest

from everlearn import AsyncClient, Client
from everlearn.serve import courier
from everlearn.serve.outbox import Outbox

from . import lives, rude

AWAY = (503, "log_unavailable")


@pytest.fixture
def server():
    with rude.serving() as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.sqlite"


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(courier, "RETRY", 0.02)
    monkeypatch.setattr(courier, "IDLE", 0.1)


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_was_queued_is_delivered_as_soon_as_the_server_is_there(server, path):
    server.faults += [AWAY, "drop_after"]
    with Client(server.url, outbox=path, deliver=True) as client:
        assert client.feedback("a", y="cat").queued
        until(lambda: client.outbox.empty)
    assert server.order == ["a"]


def test_without_deliver_it_waits(server, path):
    server.faults.append(AWAY)
    with Client(server.url, outbox=path) as client:
        client.feedback("a", y="cat")
        time.sleep(0.3)
        assert not client.outbox.empty


def test_what_an_earlier_process_left_is_delivered(server, path):
    with Outbox(path) as outbox:
        outbox.put([{"id": "a", "y": 1, "revision": 0}])
        with Client(server.url, outbox=path, deliver=True):
            until(lambda: outbox.empty)
            outbox.put([{"id": "b", "y": 1, "revision": 0}])  # as another process does
            until(lambda: outbox.empty)
    assert server.order == ["a", "b"]


def test_asyncio_has_a_courier_too(server, path):
    async def main():
        server.faults.append(AWAY)
        async with AsyncClient(server.url, outbox=path, deliver=True) as client:
            assert (await client.feedback("a", y="cat")).queued
            while not client.outbox.empty:
                await asyncio.sleep(0.01)

    asyncio.run(main())
    assert server.order == ["a"]


def test_a_server_that_is_away_is_asked_ever_less_often_and_said_to_be_once(path, caplog):
    caplog.set_level(logging.WARNING)
    with rude.serving() as server:
        server.always = AWAY
        with Client(server.url, outbox=path, deliver=True) as client:
            client.feedback("a", y="cat")
            time.sleep(1.2)
            assert 2 <= len(server.seen) <= 6
        assert [record.getMessage() for record in caplog.records].count(f"feedback waits in {path}: log_unavailable") <= 2
        assert len(caplog.records) <= 2  # the client's own word, and the courier's


def test_a_broken_outbox_is_said_and_tried_again(server, path, caplog, monkeypatch):
    caplog.set_level(logging.WARNING)
    with Client(server.url, outbox=path, deliver=True) as client:
        with client.outbox._lock:
            client.outbox._shut()
            client.outbox.path.rename(path.with_suffix(".away"))
            path.mkdir()
        until(lambda: "cannot be opened" in caplog.text)
        time.sleep(0.2)
        assert caplog.text.count("is not delivered") == 1
        path.rmdir()
        path.with_suffix(".away").rename(path)
        client.outbox.put([{"id": "a", "y": 1, "revision": 0}])
        until(lambda: client.outbox.empty)


def test_closing_ends_the_thread_and_keeps_what_waits(server, path):
    before = threading.active_count()
    server.always = AWAY
    client = Client(server.url, outbox=path, deliver=True)
    client.feedback("a", y="cat")
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < 1.0
    until(lambda: threading.active_count() <= before + 2)  # the server's own threads for open connections
    assert not any(thread.name == "everlearn-outbox" for thread in threading.enumerate())
    with Outbox(path) as outbox:
        assert len(outbox) == 1


def test_a_forked_process_has_a_courier_of_its_own(server, path):
    with Client(server.url, outbox=path, deliver=True) as client:
        server.faults.append(AWAY)

        def tell():
            client.feedback("child", y="cat")
            until(lambda: client.outbox.empty)

        child = lives.forked(tell)
        assert os.waitpid(child, 0)[1] == 0
    assert server.order == ["child"]
