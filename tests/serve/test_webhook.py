"""The webhook against receivers on this machine: good, away, busy, broken, slow, and ones that send it elsewhere."""

import hmac
import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from everlearn.core.errors import ArgumentError
from everlearn.serve import webhook as room
from everlearn.serve.records import Alarm
from everlearn.serve.webhook import HEADER, Webhook, signature

ALARM = Alarm("lag", 812.5, 600.0, "Learning lags.", seq=41, time=1.79e9)


class Receiver:
    """Answers with the given statuses in turn, then with 204. A status may be (status, headers) or a function of the handler."""

    def __init__(self, *statuses):
        self.statuses = list(statuses)
        self.posts, self.times = [], []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.posts.append((self.path, dict(self.headers), body))
                receiver.times.append(time.monotonic())
                answer = receiver.statuses.pop(0) if receiver.statuses else 204
                if callable(answer):
                    answer(self)
                    return
                status, headers = answer if isinstance(answer, tuple) else (answer, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/alarms?key=hidden"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def hook():
    """Makes webhooks that are closed at the end."""
    made = []

    def make(url, secret=None, **arguments):
        made.append(Webhook(url, secret, **{"wait": 0.01, **arguments}))
        return made[-1]

    yield make
    for one in made:
        one.close(0.2)


def test_an_alarm_arrives_as_signed_json(hook):
    with Receiver() as receiver:
        sender = hook(receiver.url, "a secret", source="pumps")
        assert sender.send(ALARM)
        until(lambda: sender.counts == {"delivered": 1, "lost": 0, "waiting": 0})
    path, headers, body = receiver.posts[0]
    assert path == "/alarms?key=hidden"
    assert json.loads(body) == {
        "kind": "lag", "value": 812.5, "limit": 600.0, "message": "Learning lags.", "seq": 41, "time": 1.79e9, "source": "pumps",
    }  # fmt: skip
    assert headers["Content-Type"] == "application/json"
    assert hmac.compare_digest(headers[HEADER], signature("a secret", body))
    assert headers[HEADER] != signature("another", body)
    assert headers[HEADER] != signature("a secret", body + b" ")


def test_the_signature_is_that_of_rfc_2104():
    """The second case of RFC 4231, which fixes HMAC-SHA256."""
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert signature("Jefe", b"what do ya want for nothing?") == f"sha256={expected}"


def test_without_a_secret_nothing_is_signed(hook):
    with Receiver() as receiver:
        sender = hook(receiver.url)
        sender.send(ALARM)
        until(lambda: sender.counts["delivered"] == 1)
    assert HEADER not in receiver.posts[0][1]


def test_a_number_that_json_cannot_hold_is_sent_as_null(hook):
    with Receiver() as receiver:
        sender = hook(receiver.url)
        sender.send(Alarm("not_finite", float("nan"), float("inf"), "x"))
        until(lambda: sender.counts["delivered"] == 1)
    record = json.loads(receiver.posts[0][2])
    assert record["value"] is None
    assert record["limit"] is None


def drop(handler):
    handler.connection.close()


def garbage(handler):
    handler.wfile.write(b"this is no HTTP\r\n\r\n")
    handler.close_connection = True


@pytest.mark.parametrize("trouble", [500, 503, 429, drop, garbage], ids=lambda value: getattr(value, "__name__", str(value)))
def test_trouble_that_may_pass_is_tried_again_and_waits_twice_as_long(hook, trouble):
    with Receiver(trouble, trouble, trouble) as receiver:
        sender = hook(receiver.url, wait=0.04)
        sender.send(ALARM)
        until(lambda: sender.counts["delivered"] == 1)
    assert len(receiver.posts) == 4
    assert len({body for _, _, body in receiver.posts}) == 1
    pauses = [later - earlier for earlier, later in zip(receiver.times, receiver.times[1:], strict=False)]
    assert all(pause >= least for pause, least in zip(pauses, (0.04, 0.08, 0.16), strict=True))


def test_a_receiver_that_says_when_is_believed(hook):
    with Receiver((429, {"Retry-After": "1"})) as receiver:
        sender = hook(receiver.url)
        sender.send(ALARM)
        until(lambda: sender.counts["delivered"] == 1)
    assert receiver.times[1] - receiver.times[0] >= 1.0


@pytest.mark.parametrize(("asked", "least", "most"), [("999999", 0.2, 3.0), ("soon", 0.0, 0.2), ("-5", 0.0, 0.2)])
def test_a_receiver_that_asks_for_nonsense_is_not(hook, monkeypatch, asked, least, most):
    monkeypatch.setattr(room, "LONGEST", 0.2)
    with Receiver((503, {"Retry-After": asked})) as receiver:
        sender = hook(receiver.url, wait=0.001)
        sender.send(ALARM)
        until(lambda: sender.counts["delivered"] == 1)
    assert least <= receiver.times[1] - receiver.times[0] < most


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
def test_a_refusal_is_final_counted_and_said_without_the_path(hook, status, caplog):
    with Receiver(status) as receiver, caplog.at_level(logging.DEBUG):
        sender = hook(receiver.url, "a secret")
        sender.send(ALARM)
        until(lambda: sender.counts["lost"] == 1)
        sender.send(ALARM)
        until(lambda: sender.counts == {"delivered": 1, "lost": 1, "waiting": 0})
    assert len(receiver.posts) == 2
    assert f"the alarm lag was not delivered: status {status}; 1 lost so far." in caplog.text
    assert "hidden" not in caplog.text
    assert "a secret" not in caplog.text


def test_redirects_are_not_followed(hook):
    with (
        Receiver() as other,
        Receiver((307, {"Location": other.url}), (302, {"Location": "file:///etc/hostname"})) as receiver,
    ):
        sender = hook(receiver.url)
        sender.send(ALARM)
        sender.send(ALARM)
        until(lambda: sender.counts["lost"] == 2)
        assert other.posts == []


def test_a_receiver_that_is_away_costs_the_sender_nothing(hook, caplog):
    with Receiver() as receiver:
        url = receiver.url
    sender = hook(url, attempts=3)
    started = time.perf_counter()
    for _ in range(20):
        sender.send(ALARM)
    assert time.perf_counter() - started < 0.1
    until(lambda: sender.counts["lost"] == 20)
    assert "ConnectionRefusedError in each of 3 attempts" in caplog.text
    assert sender.counts["waiting"] == 0


def test_a_receiver_that_never_answers_is_given_up_in_time(hook):
    release = threading.Event()
    with Receiver(*[lambda handler: release.wait(5.0)] * 2) as receiver:
        sender = hook(receiver.url, timeout=0.1, attempts=2)
        started = time.monotonic()
        sender.send(ALARM)
        until(lambda: sender.counts["lost"] == 1)
        assert time.monotonic() - started < 2.0
        release.set()


def test_what_does_not_fit_into_the_queue_is_counted_and_said(hook, caplog):
    release, entered = threading.Event(), threading.Event()

    def hold(handler):
        entered.set()
        release.wait(5.0)
        handler.send_response(204)
        handler.end_headers()

    with Receiver(hold) as receiver:
        sender = hook(receiver.url, limit=2)
        assert sender.send(ALARM)
        assert entered.wait(5.0)
        assert [sender.send(ALARM) for _ in range(4)] == [True, True, False, False]
        assert sender.counts == {"delivered": 0, "lost": 2, "waiting": 3}
        assert "2 alarms wait already; 2 lost so far." in caplog.text
        release.set()
        until(lambda: sender.counts == {"delivered": 3, "lost": 2, "waiting": 0})
    assert len(receiver.posts) == 3


def test_close_delivers_what_waits_and_then_refuses(caplog):
    with Receiver() as receiver:
        sender = Webhook(receiver.url)
        for _ in range(5):
            sender.send(ALARM)
        sender.close(5.0)
        assert sender.counts == {"delivered": 5, "lost": 0, "waiting": 0}
        assert not sender.send(ALARM)
    assert sender.counts["lost"] == 1
    assert "the webhook is closed" in caplog.text
    assert not sender._thread.is_alive()


def test_close_does_not_wait_longer_than_it_may_and_counts_the_rest(caplog):
    with Receiver(*[500] * 50) as receiver:
        sender = Webhook(receiver.url, wait=30.0)
        for _ in range(3):
            sender.send(ALARM)
        started = time.monotonic()
        sender.close(0.1)
        assert time.monotonic() - started < 2.0
    assert sender.counts == {"delivered": 0, "lost": 3, "waiting": 0}
    assert caplog.text.count("the server stopped") == 3
    assert not sender._thread.is_alive()


@pytest.mark.parametrize(
    "url",
    ["ftp://example.org/a", "file:///etc/passwd", "example.org", "http://", "http://[", "http://a:99999/", 7, None, ""],
)
def test_only_http_and_https_are_taken(url):
    with pytest.raises(ArgumentError, match="url must begin with http:// or https://"):
        Webhook(url)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"limit": 0}, "limit must be an int >= 1, got 0"),
        ({"attempts": 0}, "attempts must be an int >= 1"),
        ({"timeout": 0.0}, "timeout must be a number >= 0.001"),
        ({"wait": -1.0}, "wait must be a number >= 0"),
        ({"secret": ""}, "secret must be text"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        Webhook("http://127.0.0.1/", **arguments)
