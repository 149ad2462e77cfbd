"""Refusals as problem+json: the table, what is told, and what is not."""

import json
import re
from pathlib import Path

import pytest

from everlearn.core.errors import (
    ArgumentError,
    BudgetError,
    ContractError,
    DataError,
    InputError,
    MissingExtraError,
    ServeError,
    SpecError,
    StateError,
)
from everlearn.serve import problems


def test_a_refusal_has_the_fields_of_the_standard_and_its_code():
    error = ServeError("conflict", "asked before", 422, errors=[{"at": "/3/x", "detail": "no"}])
    assert json.loads(problems.body(error, "r1")) == {
        "type": "urn:everlearn:problem:conflict", "title": "Said otherwise before", "status": 422, "detail": "asked before",
        "code": "conflict", "request": "r1", "errors": [{"at": "/3/x", "detail": "no"}],
    }  # fmt: skip


def test_a_code_of_a_newer_engine_is_told_under_a_title_of_its_own():
    told = json.loads(problems.body(ServeError("moon_is_full", "wait", 409), "r"))
    assert (told["code"], told["title"], "errors" in told) == ("moon_is_full", "Moon is full", False)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (ServeError("overloaded", "x", 429, retry_after=2.2), (b"retry-after", b"3")),
        (ServeError("overloaded", "x", 429, retry_after=0.01), (b"retry-after", b"1")),
        (ServeError("not_ready", "x", 503), (b"retry-after", b"1")),
        (ServeError("unauthorized", "x", 401), (b"www-authenticate", b'Bearer realm="everlearn"')),
        (
            ServeError("forbidden", "x", 403),
            (b"www-authenticate", b'Bearer realm="everlearn", error="insufficient_scope"'),
        ),
        (ServeError("conflict", "x", 422), None),
    ],
)
def test_headers_say_when_to_come_again_and_how_to_give_a_token(error, wanted):
    found = problems.headers(error)
    assert found[0] == (b"content-type", b"application/problem+json")
    assert found[1:] == ([wanted] if wanted else [])


@pytest.mark.parametrize("kind", [ArgumentError, SpecError, InputError])
def test_errors_made_for_users_are_told_in_their_own_words(kind):
    found = problems.refusal(kind("after must be one of replay, skip, got 'x'."))
    assert (found.code, found.status, str(found)) == (
        "invalid_request",
        422,
        "after must be one of replay, skip, got 'x'.",
    )
    assert problems.is_expected(kind("x"))


@pytest.mark.parametrize(
    "kind", [StateError, DataError, BudgetError, ContractError, MissingExtraError, ValueError, KeyError]
)
def test_faults_of_the_server_tell_nothing_of_their_cause(kind):
    found = problems.refusal(kind("secret of a row"))
    assert (found.code, found.status) == ("internal", 500)
    assert b"secret" not in problems.body(found, "r")
    assert not problems.is_expected(kind("x"))


def test_what_no_route_takes_is_named_and_cut_short():
    assert problems.unanswerable(404, "GET", "/nix").code == "not_found"
    assert problems.unanswerable(405, "PUT", "/v1/predict").code == "method_not_allowed"
    assert len(str(problems.unanswerable(404, "GET", "/" + "a" * 5000))) < 150


def test_the_description_names_the_codes_by_status():
    found = problems.responses(["conflict", "not_finite", "overloaded", "unauthorized"])
    assert sorted(found) == [401, 422, 429]
    assert "`conflict`" in found[422]["description"]
    assert "`not_finite`" in found[422]["description"]
    assert list(found[429]["headers"]) == ["Retry-After"]
    assert list(found[401]["headers"]) == ["WWW-Authenticate"]
    assert "headers" not in found[422]


def test_every_code_that_the_room_raises_is_in_the_table():
    """By reading the code: ServeError("code", ...)."""
    room = Path(problems.__file__).parent
    ours = ("client", "calls", "retry", "wire", "outbox", "transfer")  # what a client says of a server has codes of its own
    found = {}
    for path in room.rglob("*.py"):
        if path.stem not in ours:
            for code in re.findall(r'ServeError\(\s*"(\w+)"', path.read_text()):
                found.setdefault(code, path.name)
    assert {code: name for code, name in found.items() if code not in problems.PROBLEMS} == {}
    assert len(found) >= 12


def test_the_table_of_the_documentation_has_every_code_once():
    rows = problems.table().splitlines()[2:]
    assert [row.split("|")[1].strip(" `") for row in rows] == list(problems.PROBLEMS)
    assert "| `horizon_passed` | 410 |" in problems.table()
