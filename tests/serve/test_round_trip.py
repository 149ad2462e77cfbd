"""Clients before a real server: engine, log, uvicorn and all, with tokens, roll-backs, restarts and SIGKILL."""

import asyncio
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
import pytest
import torch

from everlearn import AsyncClient, Client
from everlearn.core.errors import ServeError
from everlearn.serve.app import create_app
from everlearn.serve.auth import Tokens, add_token
from everlearn.serve.http import running
from everlearn.serve.outbox import Outbox

from .round_trip_server import engine
from .rude import free_port

ROWS = numpy.random.default_rng(0).normal(size=(64, 300)).astype("float32")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(engine, address) of one server."""
    with engine(tmp_path_factory.mktemp("served")) as made, running(create_app(made)) as address:
        yield made, address


@pytest.fixture
def client(served):
    with Client(served[1]) as client:
        yield client


def learned(client, answers, version=0, seconds=30.0):
    """The state of the server once it has learned from so many answers, and a version is in service."""
    end = time.monotonic() + seconds
    while (state := client.status())["counts"]["answers"] < answers or state["lag"]["answers"] or state["version"] < version:
        assert time.monotonic() < end, state
        time.sleep(0.02)
    return state


def test_every_form_of_a_row_gives_the_same_answer(client):
    client.wait_ready(10)
    row = ROWS[0]
    forms = [row, row.tolist(), torch.from_numpy(row), row.astype("float64"), row[None][0]]
    seen = [client.predict(form) for form in forms]
    assert len({str(item.output) for item in seen}) == 1
    assert client.predict(row, id=seen[0].id) == seen[0]
    assert client.predict(row.tolist(), id=seen[0].id) == seen[0]  # bytes and lists are the same row to the server
    with pytest.raises(ServeError) as caught:
        client.predict(ROWS[1], id=seen[0].id)
    assert (caught.value.code, caught.value.status) == ("conflict", 422)
    assert client.schema()["shape"] == [300]


def test_faults_of_a_request_are_told_with_their_places(client):
    for call, code in [
        (lambda: client.predict([1.0] * 299), "invalid_request"),
        (lambda: client.predict(numpy.full(300, numpy.nan)), "not_finite"),
        (lambda: client.predict(numpy.zeros((2, 150))), "invalid_request"),
        (lambda: client.feedback("a", y="elephant"), "invalid_request"),
        (lambda: client.feedback("a", reward=1.0), "invalid_request"),
        (lambda: client.rollback(99_999, "none"), "unknown_version"),
        (lambda: client.release(1, 2, "none"), "nothing_set_aside"),
        (lambda: client.erase("nobody/knows it"), "unknown_id"),
    ]:
        with pytest.raises(ServeError) as caught:
            call()
        assert caught.value.code == code
        assert str(caught.value)


def test_feedback_is_learned_from_and_versions_can_be_gone_back_to(client):
    before = client.status()["counts"]["answers"]
    seen = client.predict_many(ROWS)
    taken = client.feedback_many([{"id": item.id, "y": "cat"} for item in seen])
    assert all(item.joined and not item.duplicate and item.seq for item in taken)
    assert client.feedback(seen[0].id, y="cat").duplicate
    assert not client.feedback(seen[0].id, y="dog", revision=1).duplicate
    state = learned(client, before + 65, version=1)
    assert state["counts"]["duplicates"] >= 1
    versions = client.versions()
    assert versions[0]["version"] > 0
    assert client.pause("a look")["action"] == "pause"
    assert client.resume("looked")["action"] == "resume"
    assert client.rollback(versions[-1]["version"], "to the first", "skip")["action"] == "rollback"
    assert client.status()["version"] == versions[-1]["version"]
    assert client.decisions(limit=1)[0]["reason"].startswith("to the first")
    assert client.erase(seen[0].id, reason="asked for")["action"] == "erase"
    assert isinstance(client.alarms(), list)
    assert isinstance(client.series(limit=5), list)


def test_asyncio_asks_the_same_server(served):
    async def main():
        async with AsyncClient(served[1]) as client:
            await client.wait_ready(10)
            seen = await asyncio.gather(*[client.predict(row) for row in ROWS])
            return await asyncio.gather(*[client.feedback(item.id, y="dog") for item in seen])

    assert all(item.joined for item in asyncio.run(main()))


def test_one_id_asked_by_many_at_once_is_one_prediction(served):
    with Client(served[1]) as client:
        seen = []
        threads = [threading.Thread(target=lambda: seen.append(client.predict(ROWS[0], id="together"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(seen) == 8
    assert len({str(item) for item in seen}) == 1


def test_tokens_open_what_their_scopes_say(served, tmp_path):
    path = tmp_path / "tokens.json"
    asking, telling = add_token(path, "asking", ["predict"]), add_token(path, "telling", ["feedback"])
    with running(create_app(served[0], tokens=Tokens(path))) as address:
        with Client(address) as client, pytest.raises(ServeError) as caught:
            client.predict(ROWS[0])
        assert (caught.value.code, caught.value.status) == ("unauthorized", 401)
        with Client(address, asking) as client:
            seen = client.predict(ROWS[0])  # without the scope to read the schema, as lists
            with pytest.raises(ServeError) as caught:
                client.feedback(seen.id, y="cat")
            assert (caught.value.code, caught.value.status) == ("forbidden", 403)
            client.wait_ready(10)
        with Client(address, telling, outbox=tmp_path / "outbox.sqlite") as client:
            assert client.feedback(seen.id, y="cat").joined


def test_feedback_outlives_a_server_that_is_stopped_and_started_again(tmp_path):
    port = free_port()
    with Client(f"http://127.0.0.1:{port}", outbox=tmp_path / "outbox.sqlite", retries=2) as client:
        with engine(tmp_path / "served") as made, running(create_app(made), port=port):
            seen = client.predict_many(ROWS)
            client.feedback_many([{"id": item.id, "y": "cat"} for item in seen[:20]])
        kept = [client.feedback(item.id, y="cat") for item in seen[20:]]
        assert all(item.queued for item in kept)
        with engine(tmp_path / "served") as made, running(create_app(made), port=port):
            client.wait_ready(10)
            assert client.flush().delivered == 44
            client.feedback_many([{"id": item.id, "y": "cat"} for item in seen])
            state = learned(client, 64)
            assert state["counts"]["answers"] == 64
            assert state["counts"]["duplicates"] >= 64


@pytest.mark.slow
def test_no_feedback_is_lost_or_counted_twice_while_the_server_is_killed_again_and_again(tmp_path):
    """Three clients tell a server that is killed at random; each feedback is an answer in the log once, and learned from."""
    draw, port, place = random.Random(2), free_port(), tmp_path / "outbox.sqlite"
    url = f"http://127.0.0.1:{port}"

    def start():
        script = Path(__file__).with_name("round_trip_server.py")
        return subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "served"), str(port)], stderr=subprocess.DEVNULL
        )

    server = start()
    told, queued, faults, done = [], [], [], threading.Event()

    def tell(seed):
        rows = numpy.random.default_rng(seed)
        with Client(url, outbox=Outbox(place), deliver=True, seed=seed, timeout=2.0, deadline=60.0, retries=1000) as client:
            while not done.is_set():
                try:
                    seen = client.predict(rows.normal(size=300))
                    receipt = client.feedback(seen.id, y="cat")
                except ServeError as error:
                    faults.append(error)
                else:
                    told.append(seen.id)
                    queued.extend([seen.id] * receipt.queued)

    threads = [threading.Thread(target=tell, args=(seed,)) for seed in range(3)]
    try:
        with Client(url) as client:
            client.wait_ready(60)
            for thread in threads:
                thread.start()
            for _ in range(4):
                time.sleep(draw.uniform(0.5, 1.5))
                server.kill()
                server.wait()
                server = start()
                client.wait_ready(60)
            time.sleep(0.5)
            done.set()
            for thread in threads:
                thread.join()
            with Client(url, outbox=place) as last:
                last.flush()
                assert last.outbox.refused() == []
            assert faults == []
            assert queued  # some came while the server was away
            assert len(told) > 100
            state = learned(client, len(told), seconds=60.0)
            assert state["counts"]["answers"] == state["counts"]["inputs"] == len(told)
    finally:
        done.set()
        server.kill()
        server.wait()
