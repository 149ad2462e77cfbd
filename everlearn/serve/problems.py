"""Refusals as problem+json: {"type", "title", "status", "detail", "code", "request", "errors"?}, with a stable `code` (RFC 9457).

`PROBLEMS` is the table of all codes; the API's description and the documentation are made of it. What nobody expected is answered as
"internal" with the id of the request, and nothing of its cause is told.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Any

from pydantic_core import to_json

from everlearn.core.errors import ArgumentError, EverlearnError, InputError, ServeError, SpecError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Problem:
    """One way in which a request can fail. meaning: what it says and what helps; again: whether trying again later can help."""

    code: str
    status: int
    title: str
    meaning: str
    again: bool = False


PROBLEMS = {
    problem.code: problem
    for problem in (
        Problem("malformed", 400, "No JSON", "The body is no JSON, or is nested too deeply."),
        Problem(
            "unauthorized", 401, "No valid token", "Send `Authorization: Bearer TOKEN` with a token that this server knows."
        ),
        Problem("forbidden", 403, "Scope is missing", "The token is known, but its scopes do not allow this."),
        Problem("not_found", 404, "No such address", "Nothing answers at this address."),
        Problem("unknown_version", 404, "No such version", "`GET /v1/versions` names those there are."),
        Problem("unknown_id", 404, "No such id", "Nothing is stored under this id."),
        Problem(
            "method_not_allowed", 405, "Method not allowed", "The address exists; the header `Allow` names its methods."
        ),
        Problem("request_timeout", 408, "Body came too slowly", "The rest of the body did not come in time.", again=True),
        Problem(
            "in_progress", 409, "Being answered", "The same id is being answered now. Ask again for its answer.", again=True
        ),
        Problem("version_pruned", 409, "Snapshot was removed", "The version is too old: the rule of retention removed it."),
        Problem("nothing_set_aside", 409, "Nothing to release", "No feedback in this range is set aside."),
        Problem("horizon_passed", 410, "Too late", "The answer came after its horizon and was not stored."),
        Problem("too_large", 413, "Body is too large", "Send fewer rows at once. Nothing was stored."),
        Problem("unsupported_media", 415, "No JSON announced", "Send `Content-Type: application/json`, in UTF-8."),
        Problem("wrong_host", 421, "Wrong host", "Without tokens only local names and addresses are answered."),
        Problem(
            "invalid_request", 422, "Invalid request", "A field is missing, unknown or wrong; `errors` names the places."
        ),
        Problem("not_finite", 422, "Not a finite number", "A number is NaN, infinite or too large; the index is named."),
        Problem(
            "conflict", 422, "Said otherwise before", "The id was used before with another content. Nothing was stored."
        ),
        Problem("overloaded", 429, "Overloaded", "Too many requests wait. Nothing was stored.", again=True),
        Problem("rate_limited", 429, "Too many requests", "The rate of this token or address is spent.", again=True),
        Problem("internal", 500, "Internal error", "A fault of the server; its log names the request by the id given here."),
        Problem("not_ready", 503, "Not ready", "The server starts, recovers or stops.", again=True),
        Problem("log_unavailable", 503, "Log cannot be written", "Nothing of the request was stored.", again=True),
    )
}
BY_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media"}
OF_USERS = (ArgumentError, SpecError, InputError)  # errors whose sentence is meant for the one who asked


def refusal(error: Exception) -> ServeError:
    """The refusal behind an error. What is no user's fault becomes "internal" and tells nothing."""
    if isinstance(error, ServeError):
        return error
    if isinstance(error, OF_USERS):
        return ServeError("invalid_request", str(error), 422)
    return ServeError("internal", "the server failed to answer this request; nothing more is told here.", 500)


def unanswerable(status: int, method: str, path: str) -> ServeError:
    """The refusal of a request that no route takes."""
    code = BY_STATUS.get(status, "invalid_request")
    shown = path if len(path) <= 100 else f"{path[:97]}..."
    detail = f"{method} is not allowed at {shown}." if status == 405 else f"nothing answers at {shown}."
    return ServeError(code, detail, PROBLEMS[code].status)


def body(error: ServeError, request: str) -> bytes:
    """The JSON of a refusal. request: the id of the request."""
    known = PROBLEMS.get(error.code)
    told: dict[str, Any] = {
        "type": f"urn:everlearn:problem:{error.code}",
        "title": known.title if known else error.code.replace("_", " ").capitalize(),
        "status": error.status,
        "detail": str(error),
        "code": error.code,
        "request": request,
    }
    if error.errors:
        told["errors"] = error.errors
    return to_json(told, inf_nan_mode="null")


def headers(error: ServeError) -> list[tuple[bytes, bytes]]:
    """The headers of a refusal: its type, when to try again, and how to give a token."""
    found = [(b"content-type", MEDIA_TYPE.encode())]
    again = error.retry_after
    if again is None and error.code in PROBLEMS and PROBLEMS[error.code].again:
        again = 1.0
    if again is not None:
        found.append((b"retry-after", b"%d" % max(1, ceil(again))))
    if error.status == 401:
        found.append((b"www-authenticate", b'Bearer realm="everlearn"'))
    if error.status == 403:
        found.append((b"www-authenticate", b'Bearer realm="everlearn", error="insufficient_scope"'))
    return found


def responses(codes: Iterable[str]) -> dict[int | str, dict[str, Any]]:
    """The part of the API's description that tells which refusals a route may give."""
    found: dict[int | str, dict[str, Any]] = {}
    for problem in (PROBLEMS[code] for code in codes):
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        entry = found.setdefault(problem.status, {"description": "", "content": content})
        entry["description"] += f"{' ' if entry['description'] else ''}`{problem.code}`: {problem.meaning}"
        if problem.again:
            entry["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
        if problem.status == 401:
            entry["headers"] = {"WWW-Authenticate": {"description": "How to send a token.", "schema": {"type": "string"}}}
    return found


SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(PROBLEMS)},
        "request": {"type": "string", "description": "The id of the request, which stands in the server's log too."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["at", "detail"],
                "properties": {"at": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


def table() -> str:
    """The codes as a table of Markdown."""
    rows = [f"| `{problem.code}` | {problem.status} | {problem.meaning} |" for problem in PROBLEMS.values()]
    return "\n".join(["| code | status | meaning |", "|---|---|---|", *rows])


def is_expected(error: Exception) -> bool:
    """Whether an error is an answer, rather than a fault that someone should look at."""
    return isinstance(error, EverlearnError) and refusal(error).code != "internal"
