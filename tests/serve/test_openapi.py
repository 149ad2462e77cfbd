"""The description: it is sound, complete, small, and says who may do what."""

import json

import pytest
from starlette.testclient import TestClient

from everlearn.serve import problems
from everlearn.serve.app import create_app
from everlearn.serve.auth import add_token
from everlearn.serve.input_spec import InputSpec

from .fake_engine import ACTIONS, CLASSES, FakeEngine


def described(spec=CLASSES, **given):
    return create_app(FakeEngine(spec), **given).openapi()


def operations(found):
    return {(method.upper(), path): told for path, methods in found["paths"].items() for method, told in methods.items()}


def test_every_reference_leads_somewhere():
    found = described()
    text = json.dumps(found)
    for part in text.split('"$ref": "')[1:]:
        place = found
        for step in part.split('"')[0].removeprefix("#/").split("/"):
            place = place[step]
    assert text.count('"$ref"') > 50


def test_every_route_tells_what_it_does_under_a_name_of_its_own():
    found = operations(described())
    assert len(found) == 17
    assert len({told["operationId"] for told in found.values()}) == 17
    assert found["POST", "/v1/predict"]["operationId"] == "predict"
    for told in found.values():
        assert told["summary"]
        assert "200" in told["responses"]
        assert "413" in told["responses"]


def test_every_code_of_the_table_is_explained_where_it_can_come():
    told = json.dumps(described())
    elsewhere = {"not_found", "method_not_allowed"}  # of no route
    assert [code for code in problems.PROBLEMS if f"`{code}`" not in told] == []
    by_route = json.dumps(described()["paths"])
    assert {code for code in problems.PROBLEMS if f"`{code}`" not in by_route} == elsewhere


def test_rows_and_answers_are_described_by_the_model():
    body = operations(described())["POST", "/v1/feedback"]["requestBody"]["content"]["application/json"]["schema"]
    one, many = body["anyOf"]
    assert one["properties"]["y"]["enum"] == ["cat", "dog", "7", 7]
    assert (many["minItems"], many["maxItems"], many["items"]) == (1, 1000, one)
    told = operations(described(ACTIONS))["POST", "/v1/feedback"]["requestBody"]["content"]["application/json"]["schema"]
    assert sorted(told["anyOf"][0]["properties"]) == ["id", "revision", "reward"]


def test_a_prediction_links_to_its_feedback_and_its_erasure():
    found = operations(described())
    links = found["POST", "/v1/predict"]["responses"]["200"]["links"]
    names = {told["operationId"] for told in found.values()}
    assert {link["operationId"] for link in links.values()} == {"feedback", "erase"} <= names


def test_scopes_are_told_where_tokens_are_needed(tmp_path):
    token = add_token(tmp_path / "t", "a", "read")
    found = described(tokens=tmp_path / "t")
    assert found["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    secured = {key for key, told in operations(found).items() if told.get("security")}
    assert {key for key in operations(found) if key not in secured} == {("GET", "/healthz"), ("GET", "/readyz")}
    assert "Scope: `admin`." in operations(found)["POST", "/v1/rollback"]["description"]
    bare = described()
    assert "securitySchemes" not in bare["components"]
    assert not [told for told in operations(bare).values() if "security" in told]
    client = TestClient(create_app(FakeEngine(), tokens=tmp_path / "t"))
    assert client.get("/openapi.json").status_code == 401
    assert client.get("/openapi.json", headers={"authorization": f"Bearer {token}"}).json() == found


@pytest.mark.parametrize(("classes", "shape", "least"), [(1000, (64,), 20_000), (10, (3, 224, 224), 20_000)])
def test_the_description_stays_small_for_large_models(classes, shape, least):
    spec = InputSpec("classes", shape, "uint8", classes=tuple(f"class {number}" for number in range(classes)))
    assert least < len(json.dumps(described(spec))) < 100_000
