"""Addresses, headers, and what httpx's failures mean."""

import httpx
import pytest

from everlearn.core.errors import ArgumentError
from everlearn.serve.retry import Request
from everlearn.serve.transfer import LONGEST_ANSWER, arguments, broken, checked_url, failed, headers, secured

ASKED = Request("GET", "/v1/alarms", query=(("limit", "5"),), timeout=0.5)


def test_an_address_loses_its_last_slash_and_keeps_its_path():
    assert checked_url("http://127.0.0.1:8000/") == "http://127.0.0.1:8000"
    assert checked_url("https://a.example/models/one") == "https://a.example/models/one"
    assert checked_url("http://[::1]:8000") == "http://[::1]:8000"
    with pytest.raises(ArgumentError, match="got 'localhost'"):
        checked_url("localhost")


def test_certificates_are_checked_wherever_there_are_any():
    assert secured("https://a.example")
    assert secured("HTTPS://a.example")
    assert not secured("http://a.example")


def test_a_token_goes_into_the_headers():
    assert headers("abc")["authorization"] == "Bearer abc"
    assert "authorization" not in headers(None)
    assert headers(None)["content-type"] == "application/json"


def test_a_request_becomes_httpxs_arguments():
    built = httpx.Client(base_url="http://a/b").build_request(**arguments(ASKED))
    assert (built.method, str(built.url), built.extensions["timeout"]["read"]) == (
        "GET",
        "http://a/b/v1/alarms?limit=5",
        0.5,
    )
    assert str(httpx.Request("POST", "http://a/v1/predict", params=arguments(Request("POST", "/"))["params"]).url).endswith(
        "predict"
    )


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (httpx.ConnectError("refused"), False),
        (httpx.ConnectTimeout("late"), False),
        (httpx.PoolTimeout("full"), False),
        (httpx.ReadTimeout("late"), True),
        (httpx.ReadError("reset"), True),
        (httpx.WriteError("reset"), True),
        (httpx.RemoteProtocolError("half"), True),
        (httpx.DecodingError("no gzip"), True),
    ],
)
def test_whether_a_request_may_have_been_heard(error, sent):
    reply = failed(ASKED, error)
    assert (reply.sent, reply.status) == (sent, 0)
    assert reply.fault == ("nothing came within 0.5 s" if isinstance(error, httpx.TimeoutException) else str(error))


def test_an_answer_without_end_or_too_late():
    assert "longer than 64 MiB" in broken(ASKED, LONGEST_ANSWER + 1).fault
    assert "not whole within 0.5 s" in broken(ASKED, 10).fault
