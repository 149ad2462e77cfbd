"""What stands before every route: ids, hosts, tokens, rates, lengths; and headers, logs and refusals after it."""

import asyncio
import json
import logging

import pytest

from everlearn.core.errors import ServeError, StateError
from everlearn.serve.auth import Tokens, add_token
from everlearn.serve.gate import Addresses, Gate
from everlearn.serve.limits import Buckets
from everlearn.serve.prometheus import Figures

SCOPES = {("GET", "/open"): None, ("POST", "/predict"): "predict", ("DELETE", "/rows/{id}"): "admin"}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def make(answer=None, tokens=None, rate=None, body_bytes=100, hosts=(), clock=None):
    async def fine(scope, receive, send):
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"got " + body})

    return Gate(
        answer or fine, addresses=Addresses(SCOPES), tokens=tokens, buckets=Buckets(rate, burst=1, clock=clock or Clock()),
        body_bytes=body_bytes, figures=Figures(), hosts=hosts,
    )  # fmt: skip


def ask(gate, method="GET", path="/open", headers=(), body=b"", client=("127.0.0.1", 1)):
    """(status, headers, body) of one request."""
    sent = []
    scope = {
        "type": "http", "method": method, "path": path, "headers": [(a.encode(), b.encode()) for a, b in headers],
        "client": client,
    }  # fmt: skip

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        sent.append(message)

    asyncio.run(gate(scope, receive, send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message["body"] for message in sent[1:])


def code(answer):
    return answer[0], json.loads(answer[2])["code"]


# ---- ids and headers -----------------------------------------------------------------------------------------------------------


def test_every_answer_has_an_id_and_may_not_be_kept_framed_or_guessed_at():
    status, headers, body = ask(make())
    assert (status, body) == (200, b"got ")
    assert len(headers.pop("x-request-id")) == 36
    assert headers == {
        "content-type": "text/plain",
        "cache-control": "no-store",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }


def test_headers_of_a_route_stay_as_they_are():
    async def own(scope, receive, send):
        headers = [(b"cache-control", b"public"), (b"content-security-policy", b"script-src 'self'")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    headers = ask(make(own))[1]
    assert (headers["cache-control"], headers["content-security-policy"]) == ("public", "script-src 'self'")
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1.2:3_", True), ("a b", False), ("a" * 65, False), ('"', False), ("", False)]
)
def test_a_given_id_is_kept_where_it_is_plain(given, kept):
    assert (ask(make(), headers=[("x-request-id", given)])[1]["x-request-id"] == given) is kept


def test_head_is_answered_like_get_without_a_body():
    status, headers, body = ask(make(), "HEAD")
    assert (status, body) == (200, b"")
    assert headers["content-type"] == "text/plain"


# ---- hosts ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost:8000", "127.0.0.1", "192.168.1.2:80", "[::1]:8000", "box", "a.localhost", "App.Example:1"]
)
def test_without_tokens_local_names_and_addresses_are_answered(host):
    assert ask(make(hosts=["app.example"]), headers=[("host", host)])[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.", "a.b"])
def test_without_tokens_no_web_page_reaches_the_server_by_a_name_of_its_own(host):
    assert code(ask(make(hosts=["app.example"]), headers=[("host", host)])) == (421, "wrong_host")


def test_with_tokens_any_name_is_answered(tmp_path):
    add_token(tmp_path / "t", "a", "read")
    assert ask(make(tokens=Tokens(tmp_path / "t")), headers=[("host", "evil.example")])[0] == 200


# ---- tokens and rates -------------------------------------------------------------------------------------------------------------


def test_a_route_needs_its_scope_and_an_open_one_needs_nothing(tmp_path):
    few, all_ = add_token(tmp_path / "t", "few", "predict"), add_token(tmp_path / "t", "all", "admin")
    gate = make(tokens=Tokens(tmp_path / "t"))

    def asked(method, path, token=None):
        return ask(gate, method, path, [("authorization", f"Bearer {token}")] if token else [])

    assert asked("GET", "/open")[0] == 200
    assert code(asked("POST", "/predict")) == (401, "unauthorized")
    assert asked("POST", "/predict")[1]["www-authenticate"] == 'Bearer realm="everlearn"'
    assert asked("POST", "/predict", few)[0] == 200
    assert code(asked("DELETE", "/rows/7", few)) == (403, "forbidden")
    assert asked("DELETE", "/rows/7", all_)[0] == 200
    assert asked("GET", "/nowhere")[0] == 200  # left to the router, which knows no such route


def test_a_spent_rate_is_told_with_the_time_to_wait():
    clock = Clock()
    gate = make(rate=0.5, clock=clock)
    assert ask(gate, "POST", "/predict")[0] == 200
    refused = ask(gate, "POST", "/predict")
    assert code(refused) == (429, "rate_limited")
    assert refused[1]["retry-after"] == "2"
    assert ask(gate, "POST", "/predict", client=("127.0.0.2", 1))[0] == 200  # another address
    assert ask(gate, "GET", "/open")[0] == 200  # what needs no token costs nothing
    clock.now = 2.0
    assert ask(gate, "POST", "/predict", client=None)[0] == 200
    assert ask(gate, "POST", "/predict")[0] == 200


def test_a_token_has_a_rate_of_its_own_wherever_it_comes_from(tmp_path):
    slow, free = add_token(tmp_path / "t", "slow", "predict", rate=0.1), add_token(tmp_path / "t", "free", "predict")
    gate = make(tokens=Tokens(tmp_path / "t"))
    statuses = [
        ask(gate, "POST", "/predict", [("authorization", f"Bearer {token}")], client=(address, 1))[0]
        for token, address in [(slow, "192.0.2.1"), (slow, "192.0.2.2"), (free, "192.0.2.1"), (free, "192.0.2.1")]
    ]
    assert statuses == [200, 429, 200, 200]


def test_a_refused_token_does_not_spend_the_rate_of_others(tmp_path):
    token = add_token(tmp_path / "t", "a", "predict")
    gate = make(tokens=Tokens(tmp_path / "t"), rate=1.0)
    for _ in range(5):
        assert ask(gate, "POST", "/predict", [("authorization", "Bearer wrong")])[0] == 401
    assert ask(gate, "POST", "/predict", [("authorization", f"Bearer {token}")])[0] == 200


def test_a_body_above_the_limit_is_refused_announced_or_not():
    gate = make(body_bytes=10)
    assert ask(gate, "POST", "/predict", [("content-length", "10")], b"1234567890")[2] == b"got 1234567890"
    assert code(ask(gate, "POST", "/predict", [("content-length", "11")], b"12345678901")) == (413, "too_large")
    assert code(ask(gate, "POST", "/predict", [], b"12345678901")) == (413, "too_large")


# ---- refusals and logs -------------------------------------------------------------------------------------------------------------


def raising(error):
    async def answer(scope, receive, send):
        raise error

    return answer


def test_a_refusal_is_answered_with_its_status_and_the_id_of_the_request():
    answer = ask(make(raising(ServeError("conflict", "said otherwise", 422))), headers=[("x-request-id", "r7")])
    told = json.loads(answer[2])
    assert (answer[0], told["code"], told["detail"], told["request"]) == (422, "conflict", "said otherwise", "r7")
    assert int(answer[1]["content-length"]) == len(answer[2])


@pytest.mark.parametrize(
    "error", [ValueError("x=[0.123]"), StateError("the row [0.123] in state.db"), RecursionError("0.123")]
)
def test_a_fault_tells_nothing_and_is_logged_without_its_message(error, caplog):
    with caplog.at_level(logging.INFO, "everlearn.serve"):
        answer = ask(make(raising(error)), headers=[("x-request-id", "r8")])
    assert code(answer) == (500, "internal")
    assert "0.123" not in answer[2].decode() + caplog.text
    fault = next(record for record in caplog.records if record.levelname == "ERROR")
    assert fault.fields["request"] == "r8"
    assert fault.fields["fault"] == type(error).__name__
    assert any("test_gate.py" in place for place in fault.fields["places"])


def test_a_fault_after_the_answer_began_breaks_the_connection_and_tells_nothing(caplog):
    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("secret")

    with pytest.raises(Exception, match=r"^$") as caught:
        ask(make(answer))
    assert caught.value.__suppress_context__
    assert "secret" not in caplog.text


def test_a_request_is_logged_by_its_route_and_never_by_its_input(tmp_path, caplog):
    token = add_token(tmp_path / "t", "phone", "admin")

    async def answer(scope, receive, send):
        scope["everlearn"].seen = {"id": "row-1", "version": 3, "seq": 9}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    gate = make(answer, tokens=Tokens(tmp_path / "t"))
    with caplog.at_level(logging.INFO, "everlearn.serve"):
        ask(gate, "DELETE", "/rows/0.123", [("authorization", f"Bearer {token}"), ("x-request-id", "r9")], b"[0.456]")
    (record,) = caplog.records
    told = dict(record.fields)
    assert told.pop("ms") >= 0
    assert told == {
        "request": "r9", "method": "DELETE", "route": "/rows/{id}", "status": 200, "who": "phone", "id": "row-1", "version": 3,
        "seq": 9,
    }  # fmt: skip
    everything = repr(record.__dict__)
    assert not [secret for secret in (token, token[3:], "0.123", "0.456") if secret in everything]


def test_every_request_is_counted_under_a_template():
    gate = make()
    for path in ("/open", "/rows/1", "/rows/2", "/made/up/1", "/made/up/2"):
        ask(gate, "DELETE" if path.startswith("/rows") else "GET", path)
    text = gate.figures.text(None).decode()
    assert 'everlearn_requests_total{route="/rows/{id}",status="200"} 2.0' in text
    assert 'everlearn_requests_total{route="other",status="200"} 2.0' in text
    assert "/made/up" not in text


def test_a_client_that_leaves_is_counted_and_no_fault(caplog):
    from everlearn.serve.bodies import Gone

    gate = make(raising(Gone()))
    with pytest.raises(IndexError):  # nothing was sent
        ask(gate)
    assert 'everlearn_requests_total{route="/open",status="499"} 1.0' in gate.figures.text(None).decode()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_is_no_request_goes_by():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(make(app)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]
