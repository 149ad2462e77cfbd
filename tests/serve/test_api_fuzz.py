"""The API held to its own description by schemathesis, in process: no fault, only documented answers, what is described is taken and
what is not is refused; links from a prediction to its feedback are followed. And bodies made by hand to do harm.
"""

import copy
import http.client
import json
import re
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks
from starlette.testclient import TestClient

from everlearn.serve import openapi, problems
from everlearn.serve.app import create_app
from everlearn.serve.auth import add_token
from everlearn.serve.bodies import MOST_ITEMS
from everlearn.serve.http import running

from .fake_engine import ACTIONS, CLASSES, IMAGES, RAW, VALUES, FakeEngine

SPECS = {"classes": CLASSES, "values": VALUES, "actions": ACTIONS, "images": IMAGES, "raw rows": RAW}
# ids that are surely printable, the description's own pattern is wider; no %, since schemathesis sends %03 of an id as it stands in a path
ASCII = "^[A-Za-z0-9 _/?#-]{1,200}$"
PLAIN = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)


def description(app, ids=None):
    """What schemathesis is told, with another pattern for ids where one is given."""
    found = copy.deepcopy(app.openapi())

    def narrowed(part):
        if isinstance(part, dict):
            if part.get("pattern", "").startswith(r"^[^\u0000"):
                part["pattern"] = ids
            for item in part.values():
                narrowed(item)
        elif isinstance(part, list):
            for item in part:
                narrowed(item)

    if ids is not None:
        narrowed(found["paths"])
    loaded = schemathesis.openapi.from_dict(found)
    loaded.app = app
    return loaded


def explained(case, answer):
    """Whether a refusal of what the description allows rests on what no schema can say."""
    told = answer.json()
    if told["code"] == "conflict":
        return True  # the id was used before, for something else
    if told["code"] == "not_finite":
        return '"' in re.sub(r'"(id|x|revision|[a-d])"', "", json.dumps(case.body))  # bytes as text may hold any number
    return bool(re.match(r"first \(\d+\) must not be above last", told["detail"]))


def fuzz(spec, examples, engine=FakeEngine):
    """Counts of (route, status) after so many examples of what each route is described to take, and of what it is not."""
    app = create_app(engine(spec))
    seen = Counter()
    for mode, ids in ((GenerationMode.POSITIVE, ASCII), (GenerationMode.NEGATIVE, None)):
        for found in description(app, ids).get_all_operations():
            operation = found.ok()
            varied = bool(operation.body or operation.query or operation.path_parameters)
            if varied or mode is GenerationMode.POSITIVE:
                ask_all(operation, mode, examples if varied else 1, seen)
    return seen


def ask_all(operation, mode, examples, seen):
    """Ask for examples of one route, and hold each answer against the description."""

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(PLAIN, max_examples=examples)
    def run(case):
        answer = case.call()
        seen[operation.label, answer.status_code] += 1
        if answer.status_code != 200:
            assert problems.PROBLEMS[answer.json()["code"]].status == answer.status_code
        allowed = mode is GenerationMode.POSITIVE and answer.status_code == 422 and explained(case, answer)
        case.validate_response(answer, excluded_checks=[checks.positive_data_acceptance] if allowed else [])

    run()


class Liar(FakeEngine):
    """Tells its version as text."""

    def versions(self):
        return [row | {"version": "newest"} for row in FakeEngine.versions(self)]


def test_a_server_that_answers_otherwise_than_described_is_found():
    """A control: the same test of an engine that lies."""
    with pytest.raises(BaseException, match="schema") as caught:
        fuzz(CLASSES, 1, Liar)
    assert "/v1/versions" in str(caught.value)


@pytest.mark.parametrize("name", ["classes", pytest.param("images", marks=pytest.mark.slow)])
def test_the_api_is_as_it_is_described(name):
    seen = fuzz(SPECS[name], 12)
    routes = {route for route, _ in seen}
    assert len(routes) == 17
    assert sum(seen.values()) >= 200
    assert not [key for key in seen if key[1] >= 500]
    assert {status for route, status in seen if route == "POST /v1/predict"} >= {200, 422}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SPECS)
def test_the_api_is_as_it_is_described_for_ten_thousand_requests(name):
    seen = fuzz(SPECS[name], 130)
    assert sum(seen.values()) >= 2000  # of each of five
    assert not [key for key in seen if key[1] >= 500]
    assert len({route for route, status in seen if status == 200}) >= 15


# ---- links -------------------------------------------------------------------------------------------------------------------


UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def follow(spec, examples, steps):
    """Walk along the links of the description. Counts (route, status), and "joined": feedback, and "erased", under ids that servers made,
    which no one can guess."""
    engine = FakeEngine(spec)
    app = create_app(engine)
    seen = Counter()

    class Walk(description(app, ASCII).as_state_machine()):
        def setup(self):
            FakeEngine.__init__(engine, spec)  # each walk begins with nothing stored

        def after_call(self, response, case):
            seen[case.operation.label, response.status_code] += 1
            if response.status_code == 200 and case.operation.label == "POST /v1/feedback" and isinstance(case.body, dict):
                seen["joined"] += bool(UUID.fullmatch(case.body["id"])) and response.json()["joined"]
            if response.status_code == 200 and case.operation.label.startswith("DELETE"):
                seen["erased"] += bool(UUID.fullmatch(case.path_parameters["id"]))

        def validate_response(self, response, case, *_, **__):
            allowed = response.status_code == 422 and explained(case, response)
            if case.meta.generation.mode is GenerationMode.POSITIVE:
                case.validate_response(response, excluded_checks=[checks.positive_data_acceptance] if allowed else [])

    Walk.run(settings=settings(PLAIN, max_examples=examples, stateful_step_count=steps))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classes", "actions"])
def test_links_lead_from_a_prediction_to_its_feedback(name):
    """Far, since few of the walks join: of 25 short ones there may be none, and which are walked hangs on the modules imported."""
    seen = follow(SPECS[name], 150, 12)
    assert seen["joined"]
    assert seen["erased"]
    assert not [key for key in seen if isinstance(key, tuple) and key[1] >= 500]


@pytest.mark.slow
def test_without_links_no_feedback_finds_an_id_that_a_server_made(monkeypatch):
    """A control."""
    monkeypatch.setattr(openapi, "_LINKS", {})
    assert not follow(CLASSES, 150, 12)["joined"]


# ---- by hand -----------------------------------------------------------------------------------------------------------------

X = [1, 2, 3, 4]
HUGE = b"9" * 400
HANDMADE = {
    "nan": (b'{"x": [1, NaN, 3, 4]}', 422, "not_finite", "x[1]"),
    "infinity": (b'{"x": [1, 2, -Infinity, 4]}', 422, "not_finite", "x[2]"),
    "overflow": (b'{"x": [1, 2, 3, 1e999]}', 422, "not_finite", "x[3]"),
    "float32 overflow": (b'{"x": [1, 2, 3, 1e39]}', 422, "not_finite", "x[3]"),
    "huge whole number": (b'{"x": [1, 2, 3, ' + HUGE + b"]}", 422, None, ""),
    "endless whole number": (b'{"x": ' + b"9" * 100_000 + b"}", 400, "malformed", ""),
    "deep arrays": (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "malformed", "recursion"),
    "deep objects": (b'{"x": ' * 100_000, 400, "malformed", ""),
    "deep, but parsed": (b'{"x": ' + b"[" * 150 + b"]" * 150 + b"}", 422, "invalid_request", ""),
    "ragged": (b'{"x": [1, [2], 3, 4]}', 422, "invalid_request", "nested lists"),
    "text": (b'{"x": ["1", "2", "3", "4"]}', 422, "invalid_request", ""),
    "null": (b'{"x": [1, null, 3, 4]}', 422, "invalid_request", ""),
    "objects": (b'{"x": [{}, {}, {}, {}]}', 422, "invalid_request", ""),
    "too long": (b'{"x": [' + b"0," * 100_000 + b"0]}", 422, "invalid_request", "this model takes 4"),
    "empty row": (b'{"x": []}', 422, "invalid_request", "x holds 0 numbers; this model takes 4."),
    "no row": (b"{}", 422, "invalid_request", "x is missing"),
    "no items": (b"[]", 422, "invalid_request", "1 to 1000 items, got 0"),
    "too many items": (json.dumps([{"x": X}] * (MOST_ITEMS + 1)).encode(), 422, "invalid_request", "got 1001"),
    "array of arrays": (b"[[[[]]]]", 422, "invalid_request", ""),
    "nothing": (b"", 400, "malformed", ""),
    "scalar": (b"7", 422, "invalid_request", "got the number 7"),
    "control characters": (b'{"id": "a\\u0000b", "x": [1,2,3,4]}', 422, "invalid_request", "printable"),
    "raw control characters": (b'{"id": "a\nb", "x": [1,2,3,4]}', 400, "malformed", ""),
    "half a surrogate": (b'{"id": "\\ud800", "x": [1,2,3,4]}', 400, "malformed", ""),
    "no utf-8": (b'{"id": "\xff", "x": [1,2,3,4]}', 400, "malformed", ""),
    "utf-16": ('{"x": [1,2,3,4]}'.encode("utf-16"), 400, "malformed", ""),
    "long id": (json.dumps({"id": "a" * 201, "x": X}).encode(), 422, "invalid_request", "1 to 200"),
    "id of dots": (b'{"id": "..", "x": [1,2,3,4]}', 422, "invalid_request", "printable"),
    "number as id": (b'{"id": 7, "x": [1,2,3,4]}', 422, "invalid_request", "got 7"),
    "10 MB": (b'{"x": [' + b"0," * 5_000_000 + b"0]}", 413, "too_large", "1,048,576 bytes"),
    "prototype": (b'{"__proto__": {"x": 1}, "x": [1,2,3,4]}', 422, "invalid_request", "unknown field '__proto__'"),
    "pickle": (b"\x80\x04\x95\x0c\x00\x00\x00", 400, "malformed", ""),
}


@pytest.fixture(scope="module")
def client():
    with TestClient(create_app(FakeEngine())) as client:
        yield client


@pytest.mark.parametrize("name", HANDMADE)
def test_a_body_made_to_do_harm_is_refused_and_stores_nothing(client, name):
    body, status, code, told = HANDMADE[name]
    engine = client.app.state.engine
    before = len(engine.asked)
    answer = client.post("/v1/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert code is None or answer.json()["code"] == code
    assert told in answer.json()["detail"]
    assert len(answer.content) < 10_000
    assert len(engine.asked) == before


def test_of_a_key_that_stands_twice_the_last_counts(client):
    body = b'{"id": "twice", "x": [0, 0, 0, 0], "x": [1, 2, 3, 4]}'
    assert client.post("/v1/predict", content=body, headers={"content-type": "application/json"}).status_code == 200
    stored = client.app.state.engine.asked["twice"][0]
    assert CLASSES.tensor([stored]).tolist() == [X]


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml"]
)
def test_a_form_of_a_web_page_is_no_request(client, kind):
    headers = {} if kind is None else {"content-type": kind}
    answer = client.post("/v1/predict", content=b'{"x": [1, 2, 3, 4]}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media")


@pytest.mark.parametrize(
    "version", ['"../../etc/passwd"', '"0"', "-1", "1.5", "1e400", "NaN", "true", "null", "[0]", "9" * 400]
)
def test_a_version_is_a_whole_number_and_no_path(client, version):
    body = f'{{"version": {version}, "reason": "x"}}'
    answer = client.post("/v1/rollback", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert client.app.state.engine.service == 0


def test_an_address_leads_to_no_file():
    with running(create_app(FakeEngine())) as address:
        for path in ("/static/../../etc/passwd", "/..%2f..%2fetc/passwd", "/v1/../../etc/passwd", "//etc/passwd", "/%00"):
            connection = http.client.HTTPConnection(address.removeprefix("http://"))
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 404
            assert b"root:" not in answer.read()


@pytest.mark.parametrize(
    "header", ["Bearer " + "é" * 10, "Bearer \x00", "Bearer", "bearer  ", "Negotiate AAAA", "Bearer " + "a" * 60_000]
)
def test_a_strange_authorization_is_unauthorized(tmp_path, header):
    add_token(tmp_path / "t", "a", "admin")
    app = create_app(FakeEngine(), tokens=tmp_path / "t")
    answer = TestClient(app).get("/v1/status", headers={"authorization": header.encode()})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
