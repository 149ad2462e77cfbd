"""What stands in the bodies of requests: read once, parsed, and checked field by field before anything is stored.

An item, or an array of at most 1,000; a refusal names every place that is wrong by a JSON pointer ("/3/x"). JSON's NaN and Infinity are
parsed, so that they can be refused by their index. Of a key that stands twice in one object the last counts.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from everlearn.core.errors import ServeError, closest
from everlearn.serve.ids import LONGEST_ID, new_id
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.limits import too_large
from everlearn.serve.records import Ask, Told

T = TypeVar("T")
Form = TypeVar("Form", bound=BaseModel)
Receive = Callable[[], Awaitable[Any]]
MOST_ITEMS = 1000
MOST_FAULTS = 20  # places named in one refusal
SLOW = 30.0  # seconds without a further part of a body
LARGEST = 2**31 - 1  # a revision


class Gone(Exception):
    """The client left before its request was whole."""


def bounded(receive: Receive, headers: Sequence[tuple[bytes, bytes]], most: int) -> Receive:
    """`receive` with at most so many bytes of body. Raises ServeError too_large, at once where the length is announced."""
    for name, value in headers:
        if name == b"content-length":
            if not value.isdigit() or len(value) > 18 or int(value) > most:
                raise too_large(most)
            return receive
    left = most

    async def counting() -> Any:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise too_large(most)
        return message

    return counting


async def read(receive: Receive, content_type: str | None) -> Any:
    """The JSON of a body. Raises ServeError: unsupported_media, malformed, request_timeout; and Gone."""
    kind, _, extra = (content_type or "").partition(";")
    if kind.strip().lower() != "application/json" or not _utf8(extra):
        got = f"got {content_type[:100]!r}" if content_type else "got none"
        raise ServeError("unsupported_media", f"the body must be JSON in UTF-8: Content-Type: application/json; {got}.", 415)
    message = await receive()
    parts = [_part(message)]
    while message.get("more_body"):
        try:
            message = await asyncio.wait_for(receive(), SLOW)
        except TimeoutError as error:
            raise ServeError("request_timeout", f"no further part of the body came in {SLOW:g} s.", 408) from error
        parts.append(_part(message))
    try:
        return from_json(parts[0] if len(parts) == 1 else b"".join(parts), cache_strings="keys")
    except ValueError as error:
        raise ServeError("malformed", f"the body is no JSON: {error}.", 400) from error


def asks(value: Any, spec: InputSpec) -> list[Ask]:
    """The rows that a request asks about. Raises ServeError."""
    return _each(value, lambda item: _ask(item, spec))


def told(value: Any, spec: InputSpec) -> list[Told]:
    """The answers or rewards that a request tells. Raises ServeError."""
    return _each(value, lambda item: _told(item, spec))


def check_id(id: Any) -> str:
    """An id that a client chose. Raises ServeError.

    "." and ".." are refused because no address could name them.
    """
    if type(id) is not str or not 1 <= len(id) <= LONGEST_ID or not id.isprintable() or id in (".", ".."):
        shown = repr(id) if len(repr(id)) <= 80 else f"{repr(id)[:77]}..."
        raise _wrong("/id", f"id must be text of 1 to {LONGEST_ID} printable characters, got {shown}.")
    return id


def form(value: Any, model: type[Form]) -> Form:
    """A body as one of the API's forms. Raises ServeError that names each field."""
    if type(value) is not dict:
        raise _wrong("", f"the body must be an object of {', '.join(model.model_fields)}, got {_sort(value)}.")
    _known(value, tuple(model.model_fields))
    try:
        return model.model_validate(value, strict=True)
    except ValidationError as error:
        raise of_pydantic(error.errors(include_url=False, include_context=False)) from error


def of_pydantic(faults: Sequence[dict[str, Any]]) -> ServeError:
    """The refusal that stands for what pydantic found."""
    places = [
        ("".join(f"/{part}" for part in fault["loc"]), f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}.")
        for fault in faults
    ]
    return _refusal("invalid_request", 422, places)


def _ask(item: Any, spec: InputSpec) -> Ask:
    if type(item) is not dict:
        raise _wrong("", f"an object of id and x was expected, got {_sort(item)}.")
    if not item.keys() <= _ASK:
        _known(item, ("id", "x"))
    if "x" not in item:
        raise _wrong("/x", "x is missing.")
    id = item.get("id")
    id = new_id() if id is None else check_id(id)
    try:
        return Ask(id, spec.row(item["x"]))
    except ServeError as error:
        error.errors = error.errors or [{"at": "/x", "detail": str(error)}]
        raise


_ASK = {"id", "x"}


def _told(item: Any, spec: InputSpec) -> Told:
    name = "reward" if spec.kind == "actions" else "y"
    if type(item) is not dict:
        raise _wrong("", f"an object of id, {name} and revision was expected, got {_sort(item)}.")
    other = "y" if name == "reward" else "reward"
    if other in item:
        raise _wrong(f"/{other}", f"this model is told {name}, not {other}.")
    _known(item, ("id", name, "revision"))
    for field in ("id", name):
        if field not in item:
            raise _wrong(f"/{field}", f"{field} is missing.")
    revision = item.get("revision", 0)
    if type(revision) is float and revision.is_integer():
        revision = int(revision)
    if type(revision) is not int or not 0 <= revision <= LARGEST:
        raise _wrong("/revision", f"revision must be a whole number in 0..{LARGEST}, got {_sort(revision)}.")
    id = check_id(item["id"])
    try:
        y = spec.answer(item[name])
    except ServeError as error:
        error.errors = error.errors or [{"at": f"/{name}", "detail": str(error)}]
        raise
    return Told(id, y, revision)


def _each(value: Any, check: Callable[[Any], T]) -> list[T]:
    """An item, or each of an array. Raises ServeError with the first faults and their places."""
    if type(value) is not list:
        return [check(value)]
    if not 1 <= len(value) <= MOST_ITEMS:
        raise _wrong("", f"an array must hold 1 to {MOST_ITEMS} items, got {len(value)}.")
    good: list[T] = []
    faults: list[tuple[str, str]] = []
    first: ServeError | None = None
    for number, item in enumerate(value):
        try:
            good.append(check(item))
        except ServeError as error:
            first = first or error
            faults += [(f"/{number}{place['at']}", f"item {number}: {place['detail']}") for place in error.errors]
            if len(faults) >= MOST_FAULTS:
                break
    if first is not None:
        raise _refusal(first.code, first.status, faults)
    return good


def _known(item: dict, names: tuple[str, ...]) -> None:
    """Refuse a field that nothing bears."""
    for name in item:
        if name not in names:
            raise _wrong(f"/{name[:100]}", closest("field", name[:100], names))


def _refusal(code: str, status: int, places: list[tuple[str, str]]) -> ServeError:
    more = f" ({len(places) - 1} more in errors)" if len(places) > 1 else ""
    return ServeError(code, f"{places[0][1]}{more}", status, errors=[{"at": at, "detail": detail} for at, detail in places])


def _wrong(at: str, detail: str, code: str = "invalid_request") -> ServeError:
    return ServeError(code, detail, 422, errors=[{"at": at, "detail": detail}])


def _part(message: Any) -> bytes:
    if message["type"] != "http.request":
        raise Gone
    return message.get("body", b"")


def _utf8(extra: str) -> bool:
    """Whether the parameters of a content type leave UTF-8."""
    pairs = [part.strip().lower() for part in extra.split(";") if part.strip()]
    return all(pair.partition("=")[2].strip('"') in ("utf-8", "utf8") for pair in pairs if pair.startswith("charset="))


def _sort(value: Any) -> str:
    """What a value is, in the words of JSON."""
    names = {dict: "an object", list: "an array", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), f"the number {value!r}"[:60] if isinstance(value, (int, float)) else "something else")
