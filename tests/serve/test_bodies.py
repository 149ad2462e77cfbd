"""Bodies: read in parts, parsed, and refused by the place that is wrong."""

import asyncio
import json
import math

import pytest

from everlearn.core.errors import ServeError
from everlearn.serve import bodies
from everlearn.serve.forms import Rollback

from .fake_engine import ACTIONS, CLASSES, IMAGES, VALUES

JSON = "application/json"


def receiver(*parts, end="http.request"):
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = False
    messages[-1]["type"] = end

    async def receive():
        return messages.pop(0)

    return receive


def read(*parts, kind=JSON, end="http.request"):
    return asyncio.run(bodies.read(receiver(*parts, end=end), kind))


def refusal(work, *arguments):
    with pytest.raises(ServeError) as caught:
        work(*arguments)
    return caught.value


def test_a_body_in_parts_is_one():
    assert read(b'{"x": [1, ', b"", b"2]}") == {"x": [1, 2]}
    assert read(b'{"a": 1, "a": 2}') == {"a": 2}  # the last counts


@pytest.mark.parametrize("kind", [JSON, "APPLICATION/JSON; charset=UTF-8", 'application/json;charset="utf-8"; x=y'])
def test_json_in_utf_8_is_taken(kind):
    assert read(b'"\xc3\xa9"', kind=kind) == "é"


@pytest.mark.parametrize("kind", [None, "", "text/plain", "application/jsonx", "application/json; charset=latin-1"])
def test_anything_else_is_refused_unread(kind):
    error = refusal(lambda: read(b"{}", kind=kind))
    assert (error.code, error.status) == ("unsupported_media", 415)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b'"\\ud800"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
        b"nan",
    ],
)
def test_what_is_no_json_is_malformed(body):
    error = refusal(lambda: read(body))
    assert (error.code, error.status) == ("malformed", 400)
    assert len(str(error)) < 200


def test_not_a_number_is_parsed_so_that_it_can_be_named():
    found = read(b'{"x": [NaN, Infinity, -Infinity, 1e999]}')["x"]
    assert math.isnan(found[0])
    assert found[1:] == [math.inf, -math.inf, math.inf]


def test_a_client_that_leaves_is_gone():
    with pytest.raises(bodies.Gone):
        read(b"{", b"", end="http.disconnect")


def test_a_body_that_stops_coming_is_given_up(monkeypatch):
    monkeypatch.setattr(bodies, "SLOW", 0.01)

    async def run():
        first = [{"type": "http.request", "body": b"{", "more_body": True}]

        async def receive():
            return first.pop() if first else await asyncio.sleep(10)

        await bodies.read(receive, JSON)

    error = refusal(lambda: asyncio.run(run()))
    assert (error.code, error.status) == ("request_timeout", 408)


@pytest.mark.parametrize("length", [b"11", b"99999999999999999999999", b"-1", b"1e3"])
def test_an_announced_length_is_refused_before_reading(length):
    error = refusal(bodies.bounded, receiver(b"{}"), [(b"content-length", length)], 10)
    assert (error.code, error.status) == ("too_large", 413)


def test_a_body_of_unknown_length_is_counted_as_it_comes():
    def through(*parts):
        return asyncio.run(bodies.read(bodies.bounded(receiver(*parts), [], 10), JSON))

    assert through(b"[1,2,", b"3,45]") == [1, 2, 3, 45]
    assert refusal(lambda: through(b"[1,2,", b"3,456]")).code == "too_large"


# ---- rows --------------------------------------------------------------------------------------------------------------------


def test_a_row_is_asked_about_with_or_without_an_id():
    given, made = bodies.asks([{"id": "a", "x": [1, 2, 3, 4]}, {"x": [0.5, 0, 0, 0]}], CLASSES)
    assert given.id == "a"
    assert CLASSES.tensor([given.x, made.x]).tolist() == [[1, 2, 3, 4], [0.5, 0, 0, 0]]
    assert len(made.id) == 36
    assert bodies.asks({"id": None, "x": [1, 2, 3, 4]}, CLASSES)[0].id != made.id


@pytest.mark.parametrize(
    ("item", "at", "told"),
    [
        ({"x": [1, 2, 3]}, "/x", "x holds 3 numbers; this model takes 4."),
        ({"x": [1, 2, 3, math.nan]}, "/x", "x[3] is not a finite float32"),
        ({"x": [1, 2, 3, "4"]}, "/x", "must hold numbers"),
        ({"x": [1, 2, 3, 10**400]}, "/x", "must hold numbers"),
        ({"x": None}, "/x", "must hold numbers"),
        ({"x": {"a": 1, "b": 2, "c": 3}}, "/x", "column 'd' is missing"),
        ({"x": {"a": 1, "b": 2, "c": 3, "e": 4}}, "/x", "unknown column 'e'"),
        ({"x": "AAAA"}, "/x", "x holds 3 bytes; float32 of shape [4] has 16."),
        ({}, "/x", "x is missing."),
        ({"X": [1]}, "/X", "unknown field 'X'; known: id, x."),
        ({"idd": "a", "x": [1]}, "/idd", "unknown field 'idd'; did you mean 'id'?"),
        ({"id": "", "x": [1]}, "/id", "1 to 200 printable characters"),
        ({"id": "a\nb", "x": [1]}, "/id", "1 to 200 printable characters"),
        ({"id": "a\u202eb", "x": [1]}, "/id", "1 to 200 printable characters"),
        ({"id": "a" * 201, "x": [1]}, "/id", "1 to 200 printable characters"),
        ({"id": 7, "x": [1]}, "/id", "got 7."),
        ({"id": "..", "x": [1]}, "/id", "got '..'."),
        ([1], "/0", "an object of id and x was expected, got the number 1."),
        (7, "", "an object of id and x was expected, got the number 7."),
        ([], "", "1 to 1000 items, got 0."),
        ([{}] * 1001, "", "1 to 1000 items, got 1001."),
    ],
)
def test_a_wrong_row_is_named_by_its_place(item, at, told):
    error = refusal(bodies.asks, item, CLASSES)
    assert error.status == 422
    assert error.errors[0]["at"] == at
    assert told in str(error)


def test_an_array_names_every_place_up_to_twenty():
    rows = [{"x": [0] * 4}] * 3 + [{"x": [1]}, {"x": [math.inf] * 4}] + [{}] * 100
    error = refusal(bodies.asks, rows, CLASSES)
    assert error.code == "invalid_request"
    assert [place["at"] for place in error.errors] == [f"/{number}/x" for number in range(3, 23)]
    assert str(error) == "item 3: x holds 1 numbers; this model takes 4. (19 more in errors)"


@pytest.mark.parametrize("id", ["a" * 200, "é", "日本", "a/b", "a b", "%2e%2e", "../../etc/passwd", "';--", "😀"])
def test_an_id_may_hold_any_printable_characters(id):
    assert bodies.check_id(id) == id


def test_images_must_be_whole_numbers():
    assert bodies.asks({"x": [[[0, 255], [1, 2]]]}, IMAGES)[0].x == bytes([0, 255, 1, 2])
    assert "x[0, 0, 1] must be a whole number in 0..255" in str(refusal(bodies.asks, {"x": [[[0, 256], [1, 2]]]}, IMAGES))


# ---- answers -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "item", "stored"),
    [
        (CLASSES, {"id": "a", "y": "dog"}, 1),
        (CLASSES, {"id": "a", "y": 7, "revision": 3}, 2),
        (VALUES, {"id": "a", "y": [1, 2.5]}, [1.0, 2.5]),
        (ACTIONS, {"id": "a", "reward": -3}, -3.0),
    ],
)
def test_an_answer_is_stored_in_the_form_of_its_kind(spec, item, stored):
    (told,) = bodies.told(item, spec)
    assert (told.id, told.y, told.revision) == ("a", stored, item.get("revision", 0))


@pytest.mark.parametrize(
    ("spec", "item", "at", "detail"),
    [
        (CLASSES, {"id": "a", "y": "dgo"}, "/y", "did you mean 'dog'?"),
        (CLASSES, {"id": "a", "y": 1.0}, "/y", "as text or a whole number"),
        (CLASSES, {"id": "a", "y": True}, "/y", "as text or a whole number"),
        (CLASSES, {"id": "a", "y": None}, "/y", "as text or a whole number"),
        (CLASSES, {"id": "a"}, "/y", "y is missing."),
        (CLASSES, {"y": "dog"}, "/id", "id is missing."),
        (CLASSES, {"id": "a", "reward": 1.0}, "/reward", "this model is told y, not reward."),
        (CLASSES, {"id": "a", "y": "dog", "revison": 1}, "/revison", "did you mean 'revision'?"),
        (CLASSES, {"id": "a", "y": "dog", "revision": -1}, "/revision", "got the number -1."),
        (CLASSES, {"id": "a", "y": "dog", "revision": 2**31}, "/revision", "whole number in 0..2147483647"),
        (CLASSES, {"id": "a", "y": "dog", "revision": True}, "/revision", "got true or false."),
        (CLASSES, {"id": "a", "y": "dog", "revision": 1.5}, "/revision", "got the number 1.5."),
        (VALUES, {"id": "a", "y": [1]}, "/y", "2 finite numbers (height, width)"),
        (VALUES, {"id": "a", "y": [1, math.nan]}, "/y", "2 finite numbers"),
        (ACTIONS, {"id": "a", "reward": math.inf}, "/reward", "finite number"),
        (ACTIONS, {"id": "a", "y": 1.0}, "/y", "this model is told reward, not y."),
        (ACTIONS, "a", "", "an object of id, reward and revision was expected, got text."),
    ],
)
def test_a_wrong_answer_is_named_by_its_place(spec, item, at, detail):
    error = refusal(bodies.told, item, spec)
    assert (error.code, error.status) == ("invalid_request", 422)
    assert error.errors == [{"at": at, "detail": str(error)}]
    assert detail in str(error)


@pytest.mark.parametrize(
    ("spec", "item"),
    [
        (spec, {"id": "a"} | given)
        for value in (1e39, -1e300, 10**400)
        for spec, given in [(VALUES, {"y": [0, value]}), (ACTIONS, {"reward": value})]
    ],
)
def test_an_answer_that_learning_would_count_as_infinite_is_refused(spec, item):
    error = refusal(bodies.told, item, spec)
    assert (error.code, error.status) == ("not_finite", 422)
    assert error.errors[0]["at"] in ("/y", "/reward")
    greatest = 3.4028234663852886e38
    assert bodies.told({"id": "a", "reward": -greatest}, ACTIONS)[0].y == -greatest


# ---- operators' forms ----------------------------------------------------------------------------------------------------------


def test_a_form_is_read_with_its_defaults():
    found = bodies.form({"version": 3, "reason": "worse"}, Rollback)
    assert (found.version, found.reason, found.after, found.first) == (3, "worse", "quarantine", None)


@pytest.mark.parametrize(
    ("value", "at", "told"),
    [
        ([], "", "the body must be an object of version, reason, after, first, last, got an array."),
        ({"version": 1, "reasn": "x"}, "/reasn", "unknown field 'reasn'; did you mean 'reason'?"),
        ({"version": "1", "reason": "x"}, "/version", "valid integer"),
        ({"version": "../../etc", "reason": "x"}, "/version", "valid integer"),
        ({"version": -1, "reason": "x"}, "/version", "greater than or equal to 0"),
        ({"version": 2**63, "reason": "x"}, "/version", "less than or equal to"),
        ({"version": 10**4000, "reason": "x"}, "/version", "version: "),
        ({"version": 1, "reason": ""}, "/reason", "at least 1 character"),
        ({"version": 1, "reason": "x", "after": "forget"}, "/after", "'replay', 'skip' or 'quarantine'"),
        ({"version": 1, "reason": "x", "first": True}, "/first", "valid integer"),
    ],
)
def test_a_wrong_form_is_named_by_its_field(value, at, told):
    error = refusal(bodies.form, value, Rollback)
    assert (error.code, error.status, error.errors[0]["at"]) == ("invalid_request", 422, at)
    assert told in str(error)


def test_refusals_can_be_sent_as_json_whatever_was_in_the_row():
    error = refusal(bodies.asks, [{"id": "\x00\u2028" * 300, "x": math.nan}, {"😀" * 5000: 1}], CLASSES)
    assert len(json.dumps(error.errors)) < 5000
