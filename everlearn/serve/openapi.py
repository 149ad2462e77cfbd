"""The routes of the API, each with the scope that it needs and what is told of it, and the description made of them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from everlearn.serve import forms, problems
from everlearn.serve.input_spec import InputSpec

Answer = Callable[..., Awaitable[Response]]
ALWAYS = ("invalid_request", "too_large", "wrong_host", "internal")
GUARDED = ("unauthorized", "forbidden", "rate_limited")
BODY = ("malformed", "request_timeout", "unsupported_media")


@dataclass(frozen=True)
class Made:
    """A route. scope: what a token needs, None for nothing; shown: what FastAPI is told of it; plain: whether nothing of the address
    is read by FastAPI."""

    method: str
    path: str
    answer: Answer
    scope: str | None
    shown: dict[str, Any]
    plain: bool


class Answers(Protocol):
    """Whatever answers the routes."""

    predict: Answer
    feedback: Answer
    status: Answer
    versions: Answer
    decisions: Answer
    alarms: Answer
    series: Answer
    schema: Answer
    healthz: Answer
    readyz: Answer
    metrics: Answer
    openapi: Answer
    rollback: Answer
    release: Answer
    pause: Answer
    resume: Answer
    erase: Answer


def made(face: Answers, spec: InputSpec) -> list[Made]:
    """Every route but those of the page."""
    stored = ("not_ready", "log_unavailable", "overloaded")
    return [
        _route("POST", "/v1/predict", face.predict, "predict", forms.Prediction | list[forms.Prediction],
               ("conflict", "not_finite", "in_progress", *stored), forms.predict_schema(spec), links=_LINKS),
        _route("POST", "/v1/feedback", face.feedback, "feedback", forms.Accepted | list[forms.Accepted],
               ("conflict", "horizon_passed", *stored), forms.feedback_schema(spec)),
        _route("GET", "/v1/status", face.status, "read", forms.Status, ("log_unavailable",)),
        _route("GET", "/v1/versions", face.versions, "read", list[forms.VersionRow], ("log_unavailable",)),
        _route("GET", "/v1/decisions", face.decisions, "read", list[forms.DecisionRow], ("log_unavailable",)),
        _route("GET", "/v1/alarms", face.alarms, "read", list[forms.AlarmRow], ("log_unavailable",)),
        _route("GET", "/v1/series", face.series, "read", list[forms.Point], ("log_unavailable",)),
        _route("GET", "/v1/schema", face.schema, "read", forms.Described, ()),
        _route("POST", "/v1/rollback", face.rollback, "admin", forms.DecisionRow,
               ("unknown_version", "version_pruned", *stored), forms.Rollback.model_json_schema()),
        _route("POST", "/v1/release", face.release, "admin", forms.DecisionRow, ("nothing_set_aside", *stored),
               forms.Release.model_json_schema()),
        _route("POST", "/v1/pause", face.pause, "admin", forms.DecisionRow, stored, forms.Switch.model_json_schema()),
        _route("POST", "/v1/resume", face.resume, "admin", forms.DecisionRow, stored, forms.Switch.model_json_schema()),
        _route("DELETE", "/v1/predictions/{id:path}", face.erase, "admin", forms.DecisionRow, ("unknown_id", *stored)),
        _route("GET", "/healthz", face.healthz, None, forms.Health, ()),
        _route("GET", "/readyz", face.readyz, None, forms.Readiness, ("not_ready",)),
        _route("GET", "/metrics", face.metrics, "read", None, ()),
        _route("GET", "/openapi.json", face.openapi, "read", dict[str, Any], ()),
    ]  # fmt: skip


def describe(app: FastAPI, *, secured: bool) -> dict[str, Any]:
    """The API's description (OpenAPI 3.1), made once. secured: whether tokens are needed."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=version("everlearn"), routes=app.routes, description=_ABOUT)
        found["components"]["schemas"]["Problem"] = problems.SCHEMA
        if secured:
            found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        else:
            for path in found["paths"].values():
                for operation in path.values():
                    operation.pop("security", None)
        app.openapi_schema = found
    return app.openapi_schema


_ABOUT = (
    "A model that keeps learning. Ask for predictions, tell their answers when they are known, and look at what the model became.\n\n"
    f"Refusals are `{problems.MEDIA_TYPE}` with a stable `code`:\n\n{problems.table()}"
)
_LINKS = {
    "feedback": {
        "operationId": "feedback",
        "requestBody": {"id": "$response.body#/id"},
        "description": "Tell the answer to this prediction.",
        "x-schemathesis": {"merge_body": True},
    },
    "erase": {"operationId": "erase", "parameters": {"path.id": "$response.body#/id"}, "description": "Remove it."},
}


def _route(
    method: str,
    path: str,
    answer: Answer,
    scope: str | None,
    result: Any,
    codes: tuple[str, ...],
    body: dict[str, Any] | None = None,
    links: dict[str, Any] | None = None,
) -> Made:
    name = answer.__name__
    every = (*ALWAYS, *(GUARDED if scope else ()), *(BODY if body else ()), *codes)
    good: dict[str, Any] = {"description": "Done."}
    if result is not None:
        good["model"] = result
    else:
        good["content"] = {"text/plain": {"schema": {"type": "string"}}}
    if links:
        good["links"] = links
    extra: dict[str, Any] = {"security": [{"token": []}]} if scope else {}
    if body:
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if scope:
        extra["description"] = f"{_text(answer)}\n\nScope: `{scope}`."
    shown = {
        "operation_id": name,
        "response_class": Response,
        "response_model": None,
        "responses": {200: good, **problems.responses(every)},
        "openapi_extra": extra,
        "summary": _text(answer).split(". ")[0].split("\n")[0].rstrip("."),
    }
    return Made(method, path, answer, scope, shown, method == "POST")


def _text(answer: Answer) -> str:
    lines = (answer.__doc__ or "").strip().splitlines()
    return "\n".join(line.strip() for line in lines)
