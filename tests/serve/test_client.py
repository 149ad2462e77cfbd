"""Both clients against a server that misbehaves: what arrives, what is repeated, what is given up, and how it is said."""

import asyncio
import inspect
import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import httpx
import numpy
import pytest
import torch

from everlearn import AsyncClient, Client
from everlearn.core.errors import ArgumentError, ServeError
from everlearn.serve import client as clients
from everlearn.serve.calls import Acknowledgement, Prediction

from . import lives, rude

CALLS = [name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")]


class Waited:
    """An AsyncClient whose calls are waited for one by one."""

    def __init__(self, *arguments, **settings):
        self.runner = asyncio.Runner()
        self.client = AsyncClient(*arguments, **settings)

    def __getattr__(self, name):
        call = getattr(self.client, name)
        if name == "_calls":
            return call
        return (lambda *given, **named: self.runner.run(call(*given, **named))) if callable(call) else call

    def close(self):
        self.runner.run(self.client.close())
        self.runner.close()

    def __repr__(self):
        return repr(self.client)


@pytest.fixture
def server():
    with rude.serving() as server:
        yield server


@pytest.fixture(params=[Client, Waited], ids=["threads", "asyncio"])
def make(request):
    made = []

    def build(url, *arguments, **settings):
        made.append(request.param(url, *arguments, **{"seed": 0, **settings}))
        made[-1]._calls.retries.first = 0.01  # seconds; the span of pauses is held in test_retry.py
        return made[-1]

    yield build
    for client in made:
        client.close()


@pytest.fixture
def client(make, server):
    return make(server.url)


# ---- what is sent and what comes back --------------------------------------------------------------------------------------


def test_both_clients_have_the_same_calls_with_the_same_arguments():
    assert [name for name, _ in inspect.getmembers(AsyncClient, inspect.isfunction) if not name.startswith("_")] == CALLS
    for name in [*CALLS, "__init__"]:
        ours, theirs = inspect.signature(getattr(Client, name)), inspect.signature(getattr(AsyncClient, name))
        if name != "__init__":
            assert ours == theirs, name
            assert inspect.iscoroutinefunction(getattr(AsyncClient, name)), name
        assert list(ours.parameters) == list(theirs.parameters)
        assert [item.default for item in ours.parameters.values()] == [item.default for item in theirs.parameters.values()]


def test_a_prediction_carries_an_id_of_the_clients_own_and_what_the_server_answered(client, server):
    seen = client.predict([1.0, 2.0])
    (sent,) = server.bodies("/v1/predict")
    assert seen == Prediction(sent["id"], {"answer": "cat", "x": [1.0, 2.0]}, 1)
    assert uuid.UUID(seen.id).version == 7
    assert seen.answer == "cat"
    assert client.predict([3], id="mine").id == "mine"


@pytest.mark.parametrize("x", [numpy.array([1, 2]), torch.tensor([1, 2]), (1, 2)], ids=["numpy", "torch", "tuple"])
def test_rows_of_every_kind_arrive_as_lists(client, server, x):
    assert client.predict(x).output["x"] == [1, 2]
    assert [seen.output["x"] for seen in client.predict_many([x, x])] == [[1, 2]] * 2


def test_rows_by_columns_arrive_by_name(client):
    assert client.predict({"age": 41, "colour": "red"}).output["x"] == {"age": 41, "colour": "red"}
    many = client.predict_many({"age": numpy.array([41, 30]), "colour": ["red", "blue"]})
    assert [seen.output["x"] for seen in many] == [{"age": 41, "colour": "red"}, {"age": 30, "colour": "blue"}]


def test_many_rows_are_sent_in_parts_and_come_back_in_order(client, server):
    seen = client.predict_many([[number] for number in range(2300)])
    assert [item.output["x"] for item in seen] == [[number] for number in range(2300)]
    assert [len(body) for body in server.bodies("/v1/predict")] == [1000, 1000, 300]
    assert client.predict_many([]) == []


def test_ids_of_many_rows_are_kept_and_must_be_as_many(client):
    assert [seen.id for seen in client.predict_many([[1], [2]], ids=["a", "b"])] == ["a", "b"]
    with pytest.raises(ServeError, match="2 rows need as many ids, got 1"):
        client.predict_many([[1], [2]], ids=["c"])


def test_large_arrays_travel_as_bytes_once_the_schema_is_known(client, server):
    server.schema = {"shape": [20, 20], "dtype": "uint8"}
    picture = numpy.arange(400).reshape(20, 20) % 256
    assert isinstance(client.predict(picture.astype("uint8")).output["x"], str)
    assert isinstance(client.predict(torch.from_numpy(picture)).output["x"], str)
    assert client.predict(picture.reshape(2, 200)).output["x"] == picture.reshape(2, 200).tolist()
    assert len(server.bodies("/v1/schema")) == 1


def test_a_client_that_may_not_read_the_schema_sends_lists(client, server):
    server.faults.append((403, "forbidden"))
    picture = numpy.zeros((20, 20))
    for _ in range(2):
        assert client.predict(picture).output["x"] == picture.tolist()
    assert len(server.bodies("/v1/schema")) == 1


def test_a_schema_is_asked_for_again_once_the_server_refused_by_it(client, server):
    server.schema = {"shape": [20, 20], "dtype": "uint8"}
    picture = numpy.zeros((20, 20))
    client.predict(picture)
    server.schema = {"shape": [20, 20], "dtype": "float32"}
    server.faults.append((422, "invalid_request"))
    with pytest.raises(ServeError):
        client.predict(picture)
    assert len(client.predict(picture).output["x"]) > 4 * 400  # four bytes each


def test_feedback_is_acknowledged(client, server):
    assert client.feedback("a", y="cat") == Acknowledgement("a", 0, 1, True)
    assert client.feedback("a", "cat").duplicate
    assert client.feedback("b", reward=-0.5, revision=0).seq == 2
    assert client.feedback("b", reward=numpy.float32(0.5), revision=1).revision == 1
    assert server.told[("b", 1)] == {"id": "b", "reward": 0.5, "revision": 1}


def test_much_feedback_is_sent_in_parts(client, server):
    taken = client.feedback_many([{"id": f"i{number}", "y": number} for number in range(1001)])
    assert [item.seq for item in taken] == list(range(1, 1002))
    first, second = server.bodies("/v1/feedback")
    assert len(first) == 1000
    assert second["id"] == "i1000"


def test_bad_input_is_refused_without_asking_the_server(client, server):
    for call in (
        lambda: client.predict([float("nan")]),
        lambda: client.predict([1], id=""),
        lambda: client.feedback("a"),
        lambda: client.feedback("a", y=1, reward=1.0),
        lambda: client.feedback("a", reward=float("inf")),
        lambda: client.predict_many(5),
        lambda: client.erase("a\n"),
    ):
        with pytest.raises(ServeError) as caught:
            call()
        assert caught.value.status == 422
    assert server.seen == []


def test_orders_and_what_is_read(client, server):
    assert client.status() == {"version": 1}
    for name in ("versions", "decisions", "alarms", "series"):
        assert getattr(client, name)() == [{"path": f"/v1/{name}"}]
    client.alarms(limit=5)
    assert server.seen[-1][2] == "limit=5"
    assert client.rollback(3, "worse", "replay") == {
        "action": "rollback",
        "body": {"version": 3, "reason": "worse", "after": "replay"},
    }
    assert client.rollback(3, "worse", first=5, last=9)["body"] == {
        "version": 3,
        "reason": "worse",
        "after": "quarantine",
        "first": 5,
        "last": 9,
    }
    assert client.release(1, 2, "looked at")["body"] == {"first": 1, "last": 2, "reason": "looked at"}
    assert client.pause("maintenance")["body"] == {"reason": "maintenance"}
    assert client.resume("done")["action"] == "resume"
    assert client.schema() == server.schema


@pytest.mark.parametrize("id", ["a", "...", "a.b", "a/b", "a?b#c", "100%", "é", "a b"])
def test_any_id_can_be_erased(client, server, id):
    client.erase(id, relearn=True, reason="asked for")
    method, path, query, _ = server.seen[-1]
    assert (method, path, query) == ("DELETE", f"/v1/predictions/{id}", "relearn=true&reason=asked+for")


def test_a_path_before_the_api_is_kept(make, server):
    make(f"{server.url}/models/one/").pause("x")
    assert server.seen[-1][1] == "/models/one/v1/pause"


# ---- what is repeated ------------------------------------------------------------------------------------------------------

TROUBLE = ["drop_before", "drop_after", "garbage", "partial", (503, "not_ready"), (429, "overloaded"), (409, "in_progress")]


@pytest.mark.parametrize("fault", TROUBLE, ids=str)
def test_a_prediction_is_repeated_with_the_same_id_and_made_once(client, server, fault):
    server.faults += [fault, fault]
    seen = client.predict([1])
    sent = server.bodies("/v1/predict")
    assert len(sent) == 3
    assert {body["id"] for body in sent} == {seen.id} == set(server.predictions)


@pytest.mark.parametrize("fault", TROUBLE, ids=str)
def test_feedback_is_repeated_and_taken_once(client, server, fault):
    server.faults += [fault]
    heeded = fault in ("drop_after", "garbage", "partial")
    assert client.feedback("a", y="cat") == Acknowledgement("a", 0, 1, True, duplicate=heeded)
    assert server.order == ["a"]


def test_a_slow_answer_is_given_up_and_asked_for_again(make, server):
    client = make(server.url, timeout=0.1)
    server.faults.append(("slow", 0.4))
    start = time.monotonic()
    client.predict([1])
    assert 0.1 <= time.monotonic() - start < 0.4
    assert len(server.predictions) == 1


def test_an_answer_that_trickles_is_given_up(make, server):
    client = make(server.url, timeout=0.2, retries=0)
    server.faults.append("drip")
    start = time.monotonic()
    with pytest.raises(ServeError, match=r"not whole within 0\.2 s") as caught:
        client.predict([1])
    assert caught.value.code == "unreachable"
    assert time.monotonic() - start < 1.0


def test_an_answer_without_end_is_not_read(make, server, monkeypatch):
    monkeypatch.setattr(clients, "LONGEST_ANSWER", 100)
    monkeypatch.setattr("everlearn.serve.transfer.LONGEST_ANSWER", 100)
    with pytest.raises(ServeError, match="longer than"):
        make(server.url, retries=0).predict(["long"] * 100)


def test_retry_after_is_honoured(client, server):
    server.faults.append((429, "rate_limited", {"retry-after": "0.15"}))
    start = time.monotonic()
    client.predict([1])
    assert 0.15 <= time.monotonic() - start < 0.4


@pytest.mark.parametrize("fault", [(422, "conflict"), (409, "version_pruned"), (401, "unauthorized"), (404, "unknown_id")])
def test_a_refusal_is_raised_at_once_with_its_code(client, server, fault):
    server.faults.append(fault)
    with pytest.raises(ServeError, match=f"no: {fault[1]}") as caught:
        client.predict([1])
    assert (caught.value.status, caught.value.code, caught.value.errors) == (*fault, [{"at": "x"}])
    assert len(server.seen) == 1


def test_another_row_under_the_same_id_is_a_conflict(client):
    client.predict([1], id="a")
    with pytest.raises(ServeError) as caught:
        client.predict([2], id="a")
    assert caught.value.code == "conflict"


def test_a_server_that_is_away_is_unreachable(make):
    client = make(f"http://127.0.0.1:{rude.free_port()}", retries=2)
    with pytest.raises(ServeError, match=r"POST /v1/predict: .*(refused|failed)") as caught:
        client.predict([1])
    assert (caught.value.code, caught.value.status) == ("unreachable", 0)


def test_a_call_ends_at_its_deadline(make):
    client = make(f"http://127.0.0.1:{rude.free_port()}", retries=1000, deadline=0.2)
    start = time.monotonic()
    with pytest.raises(ServeError):
        client.status()
    assert time.monotonic() - start < 0.6


def test_a_server_that_comes_back_within_the_deadline_is_asked_again(make):
    port = rude.free_port()
    client = make(f"http://127.0.0.1:{port}", retries=30)
    served = threading.Event()

    def late():
        time.sleep(0.1)
        with rude.serving(("127.0.0.1", port)):
            served.wait(10)

    thread = threading.Thread(target=late)
    thread.start()
    assert client.predict([1]).answer == "cat"
    served.set()
    thread.join()


@pytest.mark.parametrize("fault", ["drop_after", "garbage", "partial"])
def test_an_order_whose_answer_was_lost_is_not_repeated(client, server, fault):
    for call in (lambda: client.rollback(1, "worse"), lambda: client.release(1, 2, "fine"), lambda: client.erase("a")):
        server.faults.append(fault)
        with pytest.raises(ServeError):
            call()
        assert not server.faults
    assert len(server.seen) == 3
    server.faults.append(fault)
    client.pause("may be repeated")
    assert len(server.seen) == 5


def test_an_order_that_was_turned_away_is_repeated(client, server):
    server.faults.append((503, "not_ready"))
    assert client.rollback(1, "worse")["action"] == "rollback"


def test_waiting_until_the_server_is_ready(client, server):
    server.ready = False
    start = time.monotonic()
    with pytest.raises(ServeError, match=r"not ready after 0\.1 s") as caught:
        client.wait_ready(0.1)
    assert caught.value.code == "not_ready"
    assert time.monotonic() - start < 0.6
    threading.Timer(0.05, lambda: setattr(server, "ready", True)).start()
    client.wait_ready(10)
    assert server.ready
    server.faults += ["drop_before", "garbage"]
    client.wait_ready(10)
    server.faults.append((404, "not_found"))
    with pytest.raises(ServeError, match="not_found"):
        client.wait_ready(10)


# ---- secrets and arguments -------------------------------------------------------------------------------------------------


def test_the_token_is_sent_and_never_shown(make, server, caplog):
    caplog.set_level(logging.DEBUG)
    client = make(server.url, "s3cret-token", retries=0)
    client.status()
    assert server.seen[0][3]["authorization"] == "Bearer s3cret-token"
    texts = [repr(client)]
    for fault in (*TROUBLE, (401, "unauthorized")):
        server.faults.append(fault)
        with pytest.raises(ServeError) as caught:
            client.predict([12345.678])
        texts.append(repr(caught.value))
    assert "s3cret" not in " ".join([*texts, caplog.text])
    assert "12345.678" not in caplog.text


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ключ", 5, b"bytes"])
def test_a_token_that_cannot_be_sent_is_refused_without_showing_it(make, token):
    with pytest.raises(ArgumentError) as caught:
        make("http://127.0.0.1:1", token)
    assert "bearer token" in str(caught.value)
    assert "words" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "ftp://a", "http://", "http://a:99999", "http://a?b=c", "http://u:secret@a", None, "http://a\n"],
)
def test_an_address_that_is_none_is_refused(make, url):
    with pytest.raises(ArgumentError, match="address of a server") as caught:
        make(url)
    assert "secret" not in str(caught.value)


def test_delivery_needs_an_outbox(make):
    with pytest.raises(ArgumentError, match="deliver=True needs an outbox"):
        make("http://127.0.0.1:1", deliver=True)


# ---- threads, processes, cancelled calls -----------------------------------------------------------------------------------


def test_one_client_serves_many_threads(server):
    with Client(server.url) as client:
        threads = [threading.Thread(target=lambda: [client.predict([1]) for _ in range(25)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.predictions) == 200


def test_many_calls_at_once_in_one_loop(server):
    async def main():
        async with AsyncClient(server.url) as client:
            return await asyncio.gather(*[client.predict([number]) for number in range(100)])

    assert [seen.output["x"] for seen in asyncio.run(main())] == [[number] for number in range(100)]


def test_a_forked_process_does_not_use_its_parents_connections(server):
    with Client(server.url, retries=0) as client:
        client.predict([0])
        children = []
        for number in range(3):

            def ask(number=number):
                assert all(client.predict([number, step]).output["x"] == [number, step] for step in range(30))

            children.append(lives.forked(ask))
        assert all(client.predict([9, step]).output["x"] == [9, step] for step in range(30))
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        client.predict([10])


def test_a_cancelled_call_leaves_the_client_whole(server):
    async def main():
        async with AsyncClient(server.url) as client:
            server.faults.append(("slow", 0.3))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.predict([1]), 0.05)
            server.faults.append((429, "overloaded", {"retry-after": "5"}))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.predict([1]), 0.05)
            return await client.predict([2])

    assert asyncio.run(main()).answer == "cat"


def test_the_jitter_is_seeded(server):
    def pauses(seed):
        waits = []
        client = Client(server.url, seed=seed, retries=3, transport=httpx.MockTransport(lambda request: httpx.Response(503)))
        step = client._step
        client._step = lambda given: waits.append(given.seconds) if isinstance(given, clients.Wait) else step(given)
        with pytest.raises(ServeError):
            client.status()
        return waits

    assert pauses(1) == pauses(1) != pauses(2)
    assert len(pauses(1)) == 3


def test_a_client_is_imported_without_torch():
    code = (
        "import sys; from everlearn import AsyncClient, Client; Client('http://127.0.0.1:1'); print('torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert found.stdout.strip() == "False"


def test_a_missing_library_is_named():
    code = "import sys; sys.modules['httpx'] = None; from everlearn import {0}; {0}('http://127.0.0.1:1')"
    for name in ("Client", "AsyncClient"):
        command = [sys.executable, "-c", code.format(name)]
        found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
        assert "pip install 'everlearn[serve]'" in found.stderr
