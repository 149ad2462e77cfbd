"""The HTTP face on a fake engine: every route, every refusal that the engine knows, tokens, and what operators see."""

import asyncio
import json
import logging
from urllib.parse import quote

import httpx
import jsonschema
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from everlearn.core.errors import ArgumentError, StateError
from everlearn.serve.app import create_app
from everlearn.serve.auth import add_token
from everlearn.serve.limits import Buckets
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options

from .engine_bench import MODELS, folded, row
from .fake_engine import ACTIONS, CLASSES, VALUES, FakeEngine

X = [1, 2, 3, 4]


def pair(spec=CLASSES, **given):
    engine = FakeEngine(spec)
    return engine, TestClient(create_app(engine, **given))


def code(response):
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert told["status"] == response.status_code
    return response.status_code, told["code"]


# ---- predictions and feedback -----------------------------------------------------------------------------------------------


def test_a_prediction_is_answered_with_its_id_and_version():
    engine, client = pair()
    answer = client.post("/v1/predict", json={"id": "a", "x": X})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    output = {"answer": "dog", "probabilities": [0.166667, 0.666667, 0.166667]}
    assert answer.json() == {"id": "a", "output": output, "version": 0}
    assert CLASSES.tensor([engine.asked["a"][0]]).tolist() == [X]


def test_an_id_is_made_where_none_is_given_and_ids_sort_by_time():
    _, client = pair()
    made = [client.post("/v1/predict", json={"x": X}).json()["id"] for _ in range(20)]
    assert made == sorted(made)
    assert len(set(made)) == 20


def test_many_rows_are_answered_in_their_order():
    _, client = pair()
    rows = client.post("/v1/predict", json=[{"id": f"r{i}", "x": [i, 0, 0, 0]} for i in range(1000)]).json()
    assert [row["id"] for row in rows] == [f"r{i}" for i in range(1000)]
    assert [row["output"]["answer"] for row in rows[:4]] == ["cat", "dog", "7", "cat"]
    one = client.post("/v1/predict", json=[{"x": X}]).json()
    assert isinstance(one, list)


def test_the_same_request_again_has_the_same_answer_and_another_row_is_a_conflict():
    engine, client = pair()
    first = client.post("/v1/predict", json={"id": "a", "x": X})
    engine.service = 5
    assert client.post("/v1/predict", json={"id": "a", "x": X}).content == first.content
    assert code(client.post("/v1/predict", json={"id": "a", "x": [0, 0, 0, 0]})) == (422, "conflict")
    assert len(engine.asked) == 1


def test_feedback_joins_its_prediction_early_late_and_twice():
    _, client = pair()
    early = client.post("/v1/feedback", json={"id": "a", "y": "dog"}).json()
    assert early == {"accepted": True, "duplicate": False, "joined": False, "seq": None}
    client.post("/v1/predict", json={"id": "a", "x": X})
    again = client.post("/v1/feedback", json={"id": "a", "y": "dog"}).json()
    assert again == {"accepted": True, "duplicate": True, "joined": True, "seq": 2}
    assert code(client.post("/v1/feedback", json={"id": "a", "y": "cat"})) == (422, "conflict")
    assert client.post("/v1/feedback", json={"id": "a", "y": "cat", "revision": 1}).json()["seq"] == 3
    rows = client.post("/v1/feedback", json=[{"id": "a", "y": "cat", "revision": 1}, {"id": "b", "y": 7}]).json()
    assert [(row["duplicate"], row["joined"]) for row in rows] == [(True, True), (False, False)]


def test_values_and_rewards_have_their_own_words():
    engine, client = pair(VALUES)
    assert client.post("/v1/predict", json={"id": "a", "x": [1, 2]}).json()["output"] == {"answer": [3.0, 3.0]}
    assert client.post("/v1/feedback", json={"id": "a", "y": [1, 2]}).status_code == 200
    assert engine.told["a", 0][0] == [1.0, 2.0]
    engine, client = pair(ACTIONS)
    assert client.post("/v1/predict", json={"id": "a", "x": [1, 2, 3]}).json()["output"] == {
        "answer": 1,
        "propensity": 0.5,
    }
    assert client.post("/v1/feedback", json={"id": "a", "reward": -1.5}).status_code == 200
    assert engine.told["a", 0][0] == -1.5


def test_an_answer_that_comes_after_its_horizon_is_gone():
    now = [1000.0]
    engine = FakeEngine(clock=lambda: now[0], horizon=60.0)
    client = TestClient(create_app(engine))
    client.post("/v1/predict", json={"id": "a", "x": X})
    now[0] = 1061.0
    assert code(client.post("/v1/feedback", json={"id": "a", "y": "dog"})) == (410, "horizon_passed")


@pytest.mark.parametrize(
    ("knob", "value", "wanted", "retry"),
    [
        ("full", True, (429, "overloaded"), "1"),
        ("ready", False, (503, "not_ready"), "2"),
        ("broken", True, (503, "log_unavailable"), "1"),
    ],
)
def test_what_the_engine_refuses_is_told_with_when_to_come_again(knob, value, wanted, retry):
    engine, client = pair()
    setattr(engine, knob, value)
    for path, body in (("predict", {"x": X}), ("feedback", {"id": "a", "y": "dog"})):
        answer = client.post(f"/v1/{path}", json=body)
        assert code(answer) == wanted
        assert answer.headers["retry-after"] == retry
    assert not engine.asked
    assert not engine.told
    assert not engine.early


def test_an_id_that_is_being_answered_is_refused_while_others_wait():
    engine = FakeEngine()
    engine.held = True

    async def run():
        transport = httpx.ASGITransport(create_app(engine))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            first = asyncio.create_task(client.post("/v1/predict", json={"id": "a", "x": X}))
            while not engine.waiting:
                await asyncio.sleep(0.001)
            second = await client.post("/v1/predict", json={"id": "a", "x": X})
            assert (await client.get("/healthz")).status_code == 200  # nobody waits for those who wait
            engine.let_go()
            return await first, second

    first, second = asyncio.run(run())
    assert first.json()["id"] == "a"
    assert code(second) == (409, "in_progress")


def test_a_fault_of_the_engine_is_told_by_its_request_alone(caplog):
    engine, client = pair()
    engine.fault = ValueError("row [0.123] of phone")
    with caplog.at_level(logging.INFO, "everlearn.serve"):
        for answer in (client.post("/v1/predict", json={"x": X}), client.get("/v1/status")):
            assert code(answer) == (500, "internal")
            assert answer.json()["request"] == answer.headers["x-request-id"]
            assert answer.json()["request"] in caplog.text
    assert "0.123" not in caplog.text


def test_what_diverged_is_told_as_null():
    engine, client = pair(VALUES)
    engine._output = lambda x: {"answer": [float("nan"), float("inf")]}
    answer = client.post("/v1/predict", json={"x": [1, 2]})
    assert json.loads(answer.content, parse_constant=pytest.fail)["output"] == {"answer": [None, None]}


# ---- looking and operating ------------------------------------------------------------------------------------------------------


def test_what_is_looked_at_has_dates_as_numbers_and_as_text():
    engine, client = pair()
    engine.clock = lambda: 1790000000.5
    engine.ring("lag", "answers wait")
    client.post("/v1/pause", json={"reason": "look"})
    assert client.get("/v1/status").json()["time_iso"] == "2026-09-21T14:13:20.500Z"
    assert client.get("/v1/decisions").json()[0]["time_iso"] == "2026-09-21T14:13:20.500Z"
    alarm = client.get("/v1/alarms").json()[0]
    assert (alarm["time"], alarm["time_iso"]) == (1790000000.5, "2026-09-21T14:13:20.500Z")
    assert client.get("/v1/versions").json()[0]["created_iso"].endswith("Z")
    assert client.get("/v1/series").json()[0]["seq"] == 0


def test_the_newest_come_first_and_as_many_as_are_wanted():
    _, client = pair()
    for reason in "abc":
        client.post("/v1/pause", json={"reason": reason})
    assert [row["reason"] for row in client.get("/v1/decisions?limit=2").json()] == ["c", "b"]
    for query in ("limit=0", "limit=1001", "limit=x", "limits=2", "limit=1&limit2=2"):
        assert code(client.get(f"/v1/decisions?{query}")) == (422, "invalid_request")


def test_going_back_is_one_request_and_is_kept_with_its_reason():
    engine, client = pair()
    done = client.post("/v1/rollback", json={"version": 2, "reason": "worse", "after": "replay", "first": 1, "last": 9})
    assert done.json() | {"time": 0, "time_iso": ""} == {
        "time": 0, "time_iso": "", "seq": 0, "action": "rollback", "before": 0, "after": 2, "reason": "worse", "who": "local",
    }  # fmt: skip
    assert client.post("/v1/predict", json={"x": X}).json()["version"] == 2
    assert code(client.post("/v1/rollback", json={"version": 99, "reason": "x"})) == (404, "unknown_version")
    assert code(client.post("/v1/rollback", json={"version": 1, "reason": "x"})) == (409, "version_pruned")
    assert engine.service == 2


def test_what_becomes_of_later_feedback_is_handed_on():
    engine, client = pair()
    client.post("/v1/rollback", json={"version": 2, "reason": "x", "after": "skip", "first": 5, "last": 9})
    assert engine.aside == []
    client.post("/v1/rollback", json={"version": 0, "reason": "x", "first": 5, "last": 9})
    assert engine.aside == [(5, 9)]
    turned = client.post("/v1/rollback", json={"version": 0, "reason": "x", "first": 9, "last": 5})
    assert code(turned) == (422, "invalid_request")
    assert client.post("/v1/release", json={"first": 1, "last": 9, "reason": "fine"}).json()["action"] == "release"
    assert code(client.post("/v1/release", json={"first": 1, "last": 9, "reason": "x"})) == (409, "nothing_set_aside")


def test_learning_is_stopped_and_begun_again():
    engine, client = pair()
    client.post("/v1/pause", json={"reason": "look"})
    assert engine.learning == "paused"
    client.post("/v1/resume", json={"reason": "fine"})
    assert engine.learning == "running"
    assert code(client.post("/v1/pause", json={})) == (422, "invalid_request")
    assert code(client.post("/v1/pause")) == (415, "unsupported_media")


@pytest.mark.parametrize("id", ["a", "a/b", "../../etc/passwd", "a%2Fb", "a?b#c", "é 日本", "%2e%2e"])
def test_what_is_stored_under_any_id_can_be_erased(id):
    engine = FakeEngine()
    address = f"/v1/predictions/{quote(id, safe='')}"

    async def run():  # starlette's own client would decode the address twice
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(engine)), base_url="http://localhost"
        ) as client:
            await client.post("/v1/predict", json={"id": id, "x": X})
            await client.post("/v1/feedback", json={"id": id, "y": "dog"})
            return await client.delete(f"{address}?relearn=true&reason=asked"), await client.delete(address)

    done, again = asyncio.run(run())
    told = done.json()
    assert (told["action"], told["reason"], told["removed"], told["relearned"]) == ("erase", "asked", 2, True)
    assert code(again) == (404, "unknown_id")
    assert not engine.asked
    assert not engine.told


@pytest.mark.parametrize("address", ["%00", "a%0Ab", "x" * 201, "", "a?relern=true", "a?relearn=perhaps"])
def test_an_erasure_that_is_not_understood_is_refused(address):
    engine, client = pair()
    client.post("/v1/predict", json={"id": "a", "x": X})
    assert code(client.delete(f"/v1/predictions/{address}"))[0] in (404, 422)
    assert list(engine.asked) == ["a"]


def test_errors_meant_for_users_pass_and_others_do_not():
    engine, client = pair()
    engine.rollback = lambda *_, **__: (_ for _ in ()).throw(ArgumentError("first must be a number of the log."))
    answer = client.post("/v1/rollback", json={"version": 0, "reason": "x"})
    assert code(answer) == (422, "invalid_request")
    assert answer.json()["detail"] == "first must be a number of the log."
    engine.rollback = lambda *_, **__: (_ for _ in ()).throw(StateError("secret folder"))
    answer = client.post("/v1/rollback", json={"version": 0, "reason": "x"})
    assert code(answer) == (500, "internal")
    assert "secret" not in answer.text


# ---- health, figures, addresses ---------------------------------------------------------------------------------------------------


def test_health_is_of_the_process_and_readiness_of_the_engine():
    engine, client = pair()
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"ready": True}
    assert client.head("/readyz").status_code == 200
    engine.ready = False
    assert client.get("/healthz").status_code == 200
    assert code(client.get("/readyz")) == (503, "not_ready")


def test_figures_count_what_was_answered():
    _, client = pair()
    client.post("/v1/predict", json={"id": "a", "x": X})
    client.post("/v1/predict", json={"x": 1})
    client.get("/v1/nothing")
    text = client.get("/metrics").text
    assert 'everlearn_requests_total{route="/v1/predict",status="200"} 1.0' in text
    assert 'everlearn_requests_total{route="/v1/predict",status="422"} 1.0' in text
    assert 'everlearn_requests_total{route="other",status="404"} 1.0' in text
    assert "everlearn_last_seq 1.0" in text


def test_what_no_route_takes_is_a_problem_too():
    _, client = pair()
    assert code(client.get("/v1/nothing")) == (404, "not_found")
    assert code(client.get("/v1/status/")) == (404, "not_found")
    assert code(client.get("/docs")) == (404, "not_found")
    refused = client.put("/v1/predict")
    assert code(refused) == (405, "method_not_allowed")
    assert refused.headers["allow"] == "POST"


def test_a_page_is_answered_without_a_token(tmp_path):
    add_token(tmp_path / "t", "a", "admin")
    routes = [
        Route("/", lambda request: PlainTextResponse("page")),
        Route("/static/{name}", lambda r: PlainTextResponse("js")),
    ]
    _, client = pair(tokens=tmp_path / "t", page=routes)
    assert (client.get("/").text, client.get("/static/a.js").text) == ("page", "js")
    assert code(client.get("/v1/status")) == (401, "unauthorized")
    _, bare = pair()
    assert code(bare.get("/")) == (404, "not_found")


# ---- tokens and limits ------------------------------------------------------------------------------------------------------------

ROUTES = {
    "predict": [("POST", "/v1/predict")],
    "feedback": [("POST", "/v1/feedback")],
    "read": [("GET", f"/v1/{name}") for name in ("status", "versions", "decisions", "alarms", "series", "schema")]
    + [("GET", "/metrics"), ("GET", "/openapi.json")],
    "admin": [("POST", f"/v1/{name}") for name in ("rollback", "release", "pause", "resume")]
    + [("DELETE", "/v1/predictions/a")],
}


@pytest.mark.parametrize("scope", ROUTES)
def test_a_token_opens_the_routes_of_its_scopes_and_no_others(tmp_path, scope):
    token = add_token(tmp_path / "t", "phone", [scope])
    _, client = pair(tokens=tmp_path / "t")
    headers = {"authorization": f"Bearer {token}"}
    for other, routes in ROUTES.items():
        for method, path in routes:
            assert client.request(method, path).status_code == 401
            status = client.request(method, path, headers=headers).status_code
            assert (status == 403) is (other != scope and scope != "admin"), (method, path, status)
            assert status != 401
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200


def test_every_route_of_the_app_is_in_the_table_above():
    """So that none is open by mistake: FastAPI's own list against it."""
    engine = FakeEngine()
    app = create_app(engine)
    known = {
        (method, path.replace("/a", "/{id:path}") if "predictions" in path else path)
        for routes in ROUTES.values()
        for method, path in routes
    }
    known |= {("GET", "/healthz"), ("GET", "/readyz")}
    found = {(method, route.path) for route in app.routes for method in route.methods or ()}
    assert found - {("HEAD", path) for _, path in found} == known


def test_decisions_name_the_token_that_made_them(tmp_path):
    token = add_token(tmp_path / "t", "boss", ["admin"])
    _, client = pair(tokens=tmp_path / "t")
    done = client.post("/v1/pause", json={"reason": "x"}, headers={"authorization": f"Bearer {token}"})
    assert done.json()["who"] == "boss"


def test_rows_of_an_array_spend_the_rate_like_rows_of_their_own():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    clock = Clock()
    _, client = pair(rate=Buckets(10.0, burst=20, clock=clock))
    assert client.post("/v1/predict", json=[{"x": X}] * 100).status_code == 200
    refused = client.post("/v1/predict", json={"x": X})
    assert code(refused) == (429, "rate_limited")
    assert refused.headers["retry-after"] == "9"  # 20 - 100 rows, and one more, at 10 a second: 8.1 s
    clock.now = 8.2
    assert client.post("/v1/feedback", json={"id": "a", "y": "dog"}).status_code == 200


def test_a_body_above_the_limit_is_refused():
    engine, client = pair(body_bytes=1000)
    assert code(client.post("/v1/predict", json=[{"x": X}] * 100)) == (413, "too_large")
    chunks = (b" " * 400 for _ in range(5))
    refused = client.post("/v1/predict", content=chunks, headers={"content-type": "application/json"})
    assert code(refused) == (413, "too_large")
    assert not engine.asked


def test_logs_hold_ids_and_versions_and_neither_inputs_nor_tokens(tmp_path, caplog):
    token = add_token(tmp_path / "t", "phone", ["admin"])
    _, client = pair(tokens=tmp_path / "t")
    headers = {"authorization": f"Bearer {token}"}
    with caplog.at_level(logging.DEBUG):
        client.post("/v1/predict", json={"id": "row-1", "x": [0.123, 2, 3, 4]}, headers=headers)
        client.post("/v1/feedback", json={"id": "row-1", "y": "dog"}, headers=headers)
        client.post("/v1/predict", json={"id": "row-2", "x": [0.123, 2, 3, "0.123"]}, headers=headers)
        client.post("/v1/predict", json={"id": "row-1", "x": [0.123, 0, 0, 0]}, headers=headers)
        client.post("/v1/predict", json={"x": X}, headers={"authorization": f"Bearer {token}x"})
    ours = [record for record in caplog.records if record.name.startswith("everlearn")]
    told = [(record.fields["route"], record.fields["status"], record.fields.get("id")) for record in ours]
    assert told == [
        ("/v1/predict", 200, "row-1"), ("/v1/feedback", 200, "row-1"), ("/v1/predict", 422, None), ("/v1/predict", 422, None),
        ("/v1/predict", 401, None),
    ]  # fmt: skip
    assert (ours[0].fields["version"], ours[0].fields["seq"], ours[0].fields["who"]) == (0, 1, "phone")
    everything = "".join(repr(record.__dict__) for record in ours)
    assert not [secret for secret in (token, "0.123", "dog") if secret in everything]


# ---- a real engine -----------------------------------------------------------------------------------------------------------


def test_a_model_learns_and_is_rolled_back_over_http(tmp_path):
    """The same requests on the engine that keeps a log and a learner; what it tells is as the description says."""
    served = MODELS["classes"]
    options = Options(batch=4, every=2, wait=None, guard=False)
    with LocalEngine(served.make(), served.spec, tmp_path, options) as engine, TestClient(create_app(engine)) as client:
        engine.wait_ready()
        for number in range(24):
            x, y = row(number)
            asked = {"id": f"r{number}", "x": served.spec.tensor([x])[0].tolist()}
            assert client.post("/v1/predict", json=asked).status_code == 200
            receipt = client.post("/v1/feedback", json={"id": f"r{number}", "y": served.spec.classes[y]}).json()
            assert (receipt["joined"], receipt["duplicate"]) == (True, False)
        assert engine.learned()
        status = client.get("/v1/status").json()
        assert (status["version"], status["counts"]["answers"]) == (3, 24)
        assert engine.versions()[0]["sha256"] == folded("classes", range(24))
        done = client.post("/v1/rollback", json={"version": 1, "reason": "worse"})
        assert (done.status_code, done.json()["before"], done.json()["after"]) == (200, 3, 1)
        assert client.post("/v1/predict", json={"x": [0, 0, 0, 0]}).json()["version"] == 1
        assert code(client.post("/v1/rollback", json={"version": 99, "reason": "x"})) == (404, "unknown_version")
        erased = client.delete("/v1/predictions/r3?reason=asked").json()
        assert (erased["action"], erased["removed"]) == ("erase", 2)
        described = client.app.openapi()
        for path in ("status", "versions", "decisions", "alarms", "series", "schema"):
            answer = client.get(f"/v1/{path}").json()
            schema = described["paths"][f"/v1/{path}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema.validate(answer, {**schema, "components": described["components"]})
        text = client.get("/metrics").text
        assert 'everlearn_requests_total{route="/v1/feedback",status="200"} 24.0' in text
        assert "everlearn_version 1.0" in text
