"""The forms of requests and answers, from which the API's description is made, and by which operators' requests are checked.

The two routes that every client calls are checked by hand in `bodies`, which is faster; `predict_schema` and `feedback_schema` say the
same as JSON schema.
"""

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from everlearn.serve.bodies import LARGEST, MOST_ITEMS
from everlearn.serve.ids import LONGEST_ID
from everlearn.serve.input_spec import GREATEST as GREATEST_ANSWER
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.records import After

MOST_LABELS = 200  # labels that are listed one by one
GREATEST = 2**53 - 1  # of the numbers in a log: what every reader of JSON keeps whole
VISIBLE = r"^[^\u0000-\u001f\u007f-\u009f]+$"  # of ids; what is printable beyond ASCII is more than a pattern should list
FLOATS = {
    "float16": 65520.0,
    "float32": 3.4028235677973366e38,
}  # what is rounded to infinity: half a step above the greatest


class Form(BaseModel):
    """A request; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


def _whole(value: Any) -> Any:
    """A whole number that was written with a point, which JSON does not tell apart."""
    return int(value) if type(value) is float and value.is_integer() else value


Place = Annotated[int, Field(ge=1, le=GREATEST), BeforeValidator(_whole)]
Reason = Field(min_length=1, max_length=1000, description="Why; it is kept with the decision.")


class Rollback(Form):
    """Serve a version again and learn on from it."""

    version: Annotated[int, Field(ge=0, le=GREATEST), BeforeValidator(_whole)] = Field(
        description="The version to return to."
    )
    reason: str = Reason
    after: Literal["replay", "skip", "quarantine"] = Field(
        After.QUARANTINE.value,
        description="What becomes of the feedback that came after it: learned from again, left out, set aside.",
    )
    first: Place | None = Field(None, description="First number of the feedback meant; by default all since.")
    last: Place | None = Field(None, description="Last number of the feedback meant.")


class Release(Form):
    """Learn from feedback that was set aside."""

    first: Place
    last: Place
    reason: str = Reason


class Switch(Form):
    """Stop learning, or learn again."""

    reason: str = Reason


class Erasure(Form):
    """How to remove what is stored under an id."""

    relearn: bool = Field(False, description="Also learn anew without it, from a version that had not seen it.")
    reason: str = Field("", max_length=1000, description="Why; it is kept with the decision.")


class Newest(Form):
    """How many rows are wanted."""

    limit: int = Field(100, ge=1, le=1000, description="How many, the newest first.")


class Points(Form):
    """How many points are wanted."""

    limit: int = Field(500, ge=1, le=5000, description="At most so many points along the log, the oldest first.")


class Row(BaseModel):
    """An answer; newer servers may tell more."""

    model_config = ConfigDict(extra="allow")


class Prediction(Row):
    """An answer that is in the log."""

    id: str
    output: dict[str, Any] = Field(
        description="`answer`, and `probabilities` (classes) or `propensity` (actions, some with `probabilities` and `generation`)."
    )
    version: int = Field(description="The version that answered.")


class Accepted(Row):
    """Feedback that is in the log."""

    accepted: bool
    duplicate: bool = Field(description="It had been told before, in the same words.")
    joined: bool = Field(description="Whether its prediction is known; if not, it waits for it.")
    seq: int | None = Field(description="Its number in the order of learning, once it is joined.")


class Status(Row):
    """The state of the server."""

    model: str
    kind: Literal["classes", "values", "actions"]
    version: int | None
    branch: int
    applied_seq: int
    last_seq: int
    lag: dict[str, Any]
    queue: dict[str, Any]
    learning: Literal["running", "paused", "recovering", "failed", "following"]
    fault: str | None
    ready: bool
    counts: dict[str, int]
    started: float = Field(description="Seconds since 1970; `started_iso` is the same as text.")
    started_iso: str
    time: float
    time_iso: str


class VersionRow(Row):
    """A version."""

    version: int
    parent: int | None
    branch: int
    state: str
    created: float = Field(description="Seconds since 1970.")
    created_iso: str
    score: float | None
    reason: str


class DecisionRow(Row):
    """What was done about versions or learning."""

    time: float = Field(description="Seconds since 1970.")
    time_iso: str
    action: str
    before: int | None = None
    after: int | None = None
    reason: str
    who: str


class AlarmRow(Row):
    """Something an operator should know."""

    time: float = Field(description="Seconds since 1970.")
    time_iso: str
    kind: str
    value: float | None
    limit: float | None
    message: str


class Point(Row):
    """A point of what is drawn over time."""

    time: float
    seq: int
    score: float | None
    version: int | None


class Health(Row):
    """Whether the process answers."""

    status: Literal["ok"]


class Readiness(Row):
    """Whether predictions are answered."""

    ready: Literal[True]


class Described(Row):
    """What a row and its answer look like."""

    kind: Literal["classes", "values", "actions"]
    shape: list[int]
    dtype: str
    classes: list[str]
    features: list[str]
    targets: list[str]
    input: dict[str, Any] = Field(description="JSON schema of `x`.")
    answer: dict[str, Any] = Field(description="JSON schema of `y`, or of `reward`.")


def input_schema(spec: InputSpec) -> dict[str, Any]:
    """JSON schema of x: nested lists, a flat list, names with values where columns have names, or base64 of the bytes."""
    nested = _widened(spec.json_schema(), FLOATS.get(spec.dtype))
    number = nested
    while number.get("type") == "array":
        number = number["items"]
    count = math.prod(spec.shape)
    forms = [nested]
    if len(spec.shape) > 1:
        forms.append({"type": "array", "items": number, "minItems": count, "maxItems": count})
    named = spec.named_schema()
    if named is not None and spec.encoder is None:
        named = {**named, "properties": dict.fromkeys(spec.features, number)}
    if named is not None:
        forms.append(named)
    left = -spec.row_bytes % 3  # bytes by which the last group of three is short
    length = (spec.row_bytes + left) // 3 * 4
    forms.append(
        {
            "type": "string",
            "contentEncoding": "base64",
            "minLength": length,
            "maxLength": length,
            "pattern": f"^[A-Za-z0-9+/]{{{length - left}}}={{{left}}}$",
            "description": f"The {spec.row_bytes} bytes of the row as little-endian {spec.dtype}.",
        }
    )
    return {"anyOf": forms}


def answer_schema(spec: InputSpec) -> dict[str, Any]:
    """JSON schema of y, or of a reward."""
    number = {"type": "number", "minimum": -GREATEST_ANSWER, "maximum": GREATEST_ANSWER}
    if spec.kind == "actions":
        return number
    if spec.kind == "values":
        count = len(spec.targets)
        several = {"type": "array", "items": number, "minItems": count, "maxItems": count}
        return {"anyOf": [number, several]} if count == 1 else several
    if len(spec.classes) > MOST_LABELS:
        return {
            "type": ["string", "integer"],
            "description": f"One of {len(spec.classes)} labels; `GET /v1/schema` lists them.",
        }
    whole = [int(label) for label in spec.classes if re.fullmatch("-?[0-9]{1,15}", label) and str(int(label)) == label]
    return {"enum": [*spec.classes, *whole]}


def id_schema() -> dict[str, Any]:
    """JSON schema of an id."""
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": LONGEST_ID,
        "pattern": VISIBLE,
        "description": f"1 to {LONGEST_ID} printable characters, but for '.' and '..'.",
    }


def predict_schema(spec: InputSpec) -> dict[str, Any]:
    """JSON schema of the body of a prediction's request."""
    id = {
        "anyOf": [id_schema(), {"type": "null"}],
        "description": "Joins feedback to this row; made by the server if left out.",
    }
    return _one_or_many({"id": id, "x": input_schema(spec)}, ["x"])


def feedback_schema(spec: InputSpec) -> dict[str, Any]:
    """JSON schema of the body of feedback."""
    name = "reward" if spec.kind == "actions" else "y"
    revision = {
        "type": "integer", "minimum": 0, "maximum": LARGEST, "default": 0, "description": "A correction has a higher one.",
    }  # fmt: skip
    return _one_or_many({"id": id_schema(), name: answer_schema(spec), "revision": revision}, ["id", name])


def described(spec: InputSpec) -> dict[str, Any]:
    """What `GET /v1/schema` tells."""
    return {**spec.to_json(), "input": input_schema(spec), "answer": answer_schema(spec)}


def dated(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """A row with its dates as text too.

    >>> dated({"time": 1790000000.5}, "time")
    {'time': 1790000000.5, 'time_iso': '2026-09-21T14:13:20.500Z'}
    """
    found = {name: row[name] for name in names if isinstance(row.get(name), (int, float))}
    texts = {
        f"{name}_iso": datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        for name, value in found.items()
    }
    return {**row, **texts}


def _one_or_many(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    one = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": MOST_ITEMS}]}


def _widened(schema: dict[str, Any], greatest: float | None) -> dict[str, Any]:
    """A schema of nested lists whose numbers fit the dtype, and may be true and false, which stand for 1 and 0."""
    if schema.get("type") == "array":
        return {**schema, "items": _widened(schema["items"], greatest)}
    limits = {} if greatest is None else {"exclusiveMinimum": -greatest, "exclusiveMaximum": greatest}
    return {**schema, **limits, "type": [schema["type"], "boolean"]}
