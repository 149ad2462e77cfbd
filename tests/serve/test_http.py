"""A real port: how it begins, what it logs, and how it ends."""

import http.client
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from everlearn.core.errors import ArgumentError
from everlearn.serve import http as runner
from everlearn.serve.app import create_app
from everlearn.serve.auth import Tokens, add_token
from everlearn.serve.http import Lines, Server, logged, running, serve

from .fake_engine import FakeEngine

X = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def place():
    """(engine, address) of one server for tests that leave it as it was."""
    engine = FakeEngine()
    with running(create_app(engine)) as address:
        yield engine, address


def port_of(address):
    return int(address.rsplit(":", 1)[1])


# ---- answering ---------------------------------------------------------------------------------------------------------------


def test_a_free_port_is_taken_and_told(place):
    engine, address = place
    assert address.startswith("http://127.0.0.1:")
    assert port_of(address) > 0
    answer = httpx.post(f"{address}/v1/predict", json={"id": "real", "x": X})
    assert (answer.status_code, answer.json()["id"]) == (200, "real")
    assert "real" in engine.asked
    assert "server" not in answer.headers


def test_a_connection_is_kept(place):
    connection = http.client.HTTPConnection("127.0.0.1", port_of(place[1]))
    for _ in range(3):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b'{"status":"ok"}'
        used = connection.sock
    connection.request("HEAD", "/healthz")
    answer = connection.getresponse()
    assert (answer.status, answer.read(), connection.sock) == (200, b"", used)


@pytest.mark.parametrize("announced", [True, False])
def test_ten_megabytes_are_refused_and_the_client_hears_of_it(place, announced):
    body = b"[" + b"0," * 5_000_000 + b"0]"
    content = body if announced else iter([body[i : i + 65536] for i in range(0, len(body), 65536)])
    answer = httpx.post(f"{place[1]}/v1/predict", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_an_id_in_an_address_is_decoded_once(place):
    engine, address = place
    for id in ("a%2Fb", "../up", "%252e"):
        httpx.post(f"{address}/v1/predict", json={"id": id, "x": X})
        quoted = "".join(f"%{byte:02X}" for byte in id.encode())
        assert httpx.delete(f"{address}/v1/predictions/{quoted}").json()["action"] == "erase"
        assert id not in engine.asked


@pytest.mark.parametrize("raw", [b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nbad\x00: 1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"])
def test_what_is_no_http_leaves_the_server_answering(place, raw):
    with socket.create_connection(("127.0.0.1", port_of(place[1])), timeout=5) as plug:
        plug.sendall(raw)
        plug.shutdown(socket.SHUT_WR)
        plug.recv(1000)
    assert httpx.get(f"{place[1]}/healthz").status_code == 200


def test_a_client_that_leaves_in_the_middle_is_forgotten(place):
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port_of(place[1]))) as plug:
            plug.sendall(
                b"POST /v1/predict HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
            )
    deadline = time.monotonic() + 5
    while 'route="/v1/predict",status="499"} 5.0' not in httpx.get(f"{place[1]}/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_many_clients_are_answered_at_once(place):
    def work(number):
        with httpx.Client(base_url=place[1]) as client:
            return [client.post("/v1/predict", json={"id": f"c{number}-{i}", "x": X}).status_code for i in range(10)]

    with ThreadPoolExecutor(8) as pool:
        assert [status for found in pool.map(work, range(8)) for status in found] == [200] * 80


# ---- beginning ---------------------------------------------------------------------------------------------------------------


def test_several_workers_are_refused_with_the_way_out():
    with pytest.raises(ArgumentError, match=r"workers must be 1, got 4.*Postgres"):
        serve(create_app(FakeEngine()), workers=4)


def test_an_open_address_needs_a_token(tmp_path):
    with pytest.raises(ArgumentError, match="no token is set"):
        serve(create_app(FakeEngine()), "0.0.0.0", 0)


def test_a_port_in_use_and_a_wrong_address_are_told(place):
    app = create_app(FakeEngine())
    with pytest.raises(ArgumentError, match=r"port \d+ of 127.0.0.1 cannot be had: Address already in use"):
        Server(app, "127.0.0.1", port_of(place[1]))
    with pytest.raises(
        ArgumentError, match=r"port 70000 of 127.0.0.1 cannot be had: .*Name another with --port; 0 takes a free one\.$"
    ):
        Server(app, "127.0.0.1", 70000)
    with pytest.raises(ArgumentError, match="port must be an int >= 0, got -1"):
        Server(app, "127.0.0.1", -1)
    with pytest.raises(ArgumentError, match=r"port 0 of no.such.host.invalid cannot be had"):
        Server(app, "no.such.host.invalid", 0)


def test_tls_needs_both_files(tmp_path):
    app = create_app(FakeEngine())
    with pytest.raises(ArgumentError, match="both certificate and key"):
        Server(app, certificate=tmp_path / "c.pem")
    with pytest.raises(ArgumentError, match=r"there is no file .*c.pem"):
        Server(app, certificate=tmp_path / "c.pem", key=tmp_path / "k.pem")


def test_what_needs_what_is_announced(tmp_path, monkeypatch):
    monkeypatch.setattr(Server, "run", lambda self: self.socket.close())
    told = []
    engine = FakeEngine()
    serve(create_app(engine), port=0, announce=told.append)
    assert engine.closed
    add_token(tmp_path / "t", "a", "read")
    serve(create_app(FakeEngine(), tokens=Tokens(tmp_path / "t")), "0.0.0.0", 0, announce=told.append)
    assert told[0].startswith("Serving at http://127.0.0.1:")
    assert "(no token needed)" in told[0]
    assert told[1].startswith("Serving at http://0.0.0.0:")
    assert "(tokens needed; without TLS, tokens can be read on the way)" in told[1]


def test_requests_before_the_server_runs_are_answered_when_it_does():
    server = Server(create_app(FakeEngine()), port=0)
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(httpx.get, f"{server.address}/healthz", timeout=10)
        time.sleep(0.1)
        assert not early.done()
        pool_of_server = ThreadPoolExecutor(1)
        done = pool_of_server.submit(server.run)
        assert early.result().status_code == 200
    server.stop()
    done.result(10)
    pool_of_server.shutdown()


# ---- logging -----------------------------------------------------------------------------------------------------------------


def record(message="request", level=logging.INFO, **given):
    found = logging.LogRecord("everlearn.serve", level, "here.py", 1, message, (), None)
    found.created = 1790000000.5
    found.__dict__.update(given)
    return found


def test_a_record_is_one_line_of_json():
    line = Lines().format(record(fields={"id": "a\nb\u2028", "status": 200}))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-09-21T14:13:20.500Z", "level": "info", "message": "request", "id": "a\nb\u2028", "status": 200,
    }  # fmt: skip


def test_a_record_is_one_line_of_text():
    line = Lines(as_json=False).format(record("a\nb", fields={"id": "c\nd", "status": 200}))
    assert line == '2026-09-21T14:13:20.500Z info    a\\nb id="c\\nd" status=200'


def test_the_message_of_an_exception_stays_out_of_the_log():
    try:
        raise ValueError("row [0.123]")
    except ValueError:
        found = record("broke", logging.ERROR, exc_info=sys.exc_info())
    line = Lines().format(found)
    assert json.loads(line)["fault"] == "ValueError"
    assert "0.123" not in line


def test_logging_is_left_as_it_was():
    stream = io.StringIO()
    logger = logging.getLogger("everlearn.serve")
    before = (logger.level, logger.propagate, list(logger.handlers))
    with logged(stream=stream):
        logging.getLogger("everlearn.serve.access").info("request", extra={"fields": {"status": 200}})
    logging.getLogger("everlearn.serve.access").info("request")
    assert len(stream.getvalue().splitlines()) == 1
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


# ---- ending ------------------------------------------------------------------------------------------------------------------

CHILD = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
from fake_engine import FakeEngine
from everlearn.serve.app import create_app
from everlearn.serve.http import serve
engine = FakeEngine()
engine.held = True                      # predictions wait for a second
def let_go():
    while not engine.waiting:
        time.sleep(0.01)
    print("waits", flush=True)
    time.sleep(1.0)
    engine.let_go()
threading.Thread(target=let_go, daemon=True).start()
serve(create_app(engine), port=0, announce=lambda line: print(line, flush=True))
print("closed" if engine.closed else "open", len(engine.asked), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_it_after_what_was_begun(number):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(Path(__file__).parent)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=Path(runner.__file__).parents[2],
    )  # fmt: skip
    try:
        address = child.stdout.readline().split()[2]
        with ThreadPoolExecutor(1) as pool:
            begun = pool.submit(httpx.post, f"{address}/v1/predict", json={"id": "a", "x": X}, timeout=20)
            assert child.stdout.readline() == "waits\n"
            child.send_signal(number)
            time.sleep(0.3)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{address}/healthz")
            assert begun.result().json()["id"] == "a"
        out, err = child.communicate(timeout=20)
    finally:
        child.kill()
    assert out == "closed 1\n"
    assert child.returncode == 0
    (line,) = (json.loads(line) for line in err.splitlines())
    assert (line["route"], line["status"], line["id"], line["version"], line["seq"]) == ("/v1/predict", 200, "a", 0, 1)
