"""What a client sends: rows and answers as JSON, large arrays as base64 of their bytes, and many items in parts that a server takes.

A row is sent as bytes only where the server's schema is known and has the row's very shape, because bytes carry no shape.
"""

import base64
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy

from everlearn.core.errors import ServeError
from everlearn.serve.ids import LONGEST_ID

LARGE = 256  # numbers in a row from which bytes are worth it
LAST = 2**31 - 1  # the highest revision
PART = 1000  # items that a server takes at once
PART_BYTES = 1_000_000  # of one request; servers take 1 MiB by default


def as_array(x: Any) -> numpy.ndarray | None:
    """The array behind a numpy array, a torch tensor, or what numpy reads as one; None for plain lists, numbers, text and dicts."""
    if isinstance(x, numpy.ndarray):
        return x
    if x is None or isinstance(x, (list, tuple, str, bytes, int, float, Mapping)):
        return None
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        x = x.detach().cpu()
        return x.float().numpy() if x.dtype is torch.bfloat16 else x.numpy()
    values = numpy.asarray(x)
    return None if values.dtype.kind == "O" else values


def row(x: Any, schema: Mapping[str, Any] | None = None) -> Any:
    """One row as something that JSON can carry. schema: the server's, with `dtype` and `shape`, where it is known.

    >>> row(numpy.ones((2, 2))), row({"age": numpy.float32(41)})
    ([[1.0, 1.0], [1.0, 1.0]], {'age': 41.0})
    """
    if isinstance(x, Mapping):
        return {str(name): plain(value) for name, value in x.items()}
    values = as_array(x)
    if values is None:
        return x
    return _packed(values, schema) or values.tolist()


def rows(x: Any) -> list[Any]:
    """Many rows, one by one: of a sequence, of an array with the rows first, or of a dict of columns."""
    if isinstance(x, Mapping):
        columns = {str(name): plain(values) for name, values in x.items()}
        lengths = {name: len(values) if isinstance(values, list) else None for name, values in columns.items()}
        if len(set(lengths.values())) != 1 or None in lengths.values():
            raise invalid(f"rows as a dict of columns need lists of one length, got {_short(lengths)}.")
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    values = as_array(x)
    if values is not None and values.ndim:
        return list(values)
    if isinstance(x, (str, bytes)) or not isinstance(x, Sequence):
        raise invalid(f"rows must be a list, an array with the rows first, or a dict of columns, got {_short(x)}.")
    return list(x)


def plain(value: Any) -> Any:
    """Numbers, lists and text behind numpy's and torch's own. Raises ServeError for anything else."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.item() if isinstance(value, numpy.generic) else value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    values = None if isinstance(value, (Mapping, bytes)) else as_array(value)
    if values is None or values.dtype.kind not in "biufU":
        raise invalid(f"numbers, text or lists of them can be sent, got {_short(value)}.")
    return values.tolist()


def check_id(id: Any) -> str:
    """An id as servers take it. Raises ServeError."""
    if not isinstance(id, str) or not 1 <= len(id) <= LONGEST_ID or not id.isprintable() or id in (".", ".."):
        raise invalid(f"id must be text of 1 to {LONGEST_ID} printable characters, and no dots alone, got {_short(id)}.")
    return id


def told(item: Mapping[str, Any]) -> dict[str, Any]:
    """One piece of feedback in the form that is sent: id, y or reward, revision. Raises ServeError."""
    if not isinstance(item, Mapping):
        raise invalid(f"feedback must be a dict of id, y or reward, and revision, got {_short(item)}.")
    unknown = sorted(set(map(str, item)) - {"id", "y", "reward", "revision"})
    if unknown:
        raise invalid(f"feedback has no field {unknown[0]!r}; known: id, y, reward, revision.")
    given = [key for key in ("y", "reward") if item.get(key) is not None]
    if len(given) != 1:
        raise invalid(f"feedback needs y or reward, and got {' and '.join(given) or 'neither'}.")
    revision = plain(item.get("revision", 0))
    if not isinstance(revision, int) or isinstance(revision, bool) or not 0 <= revision <= LAST:
        raise invalid(f"revision must be an int in 0..{LAST}, got {_short(revision)}.")
    return {"id": check_id(item.get("id")), given[0]: plain(item[given[0]]), "revision": revision}


def encoded(value: Any) -> bytes:
    """JSON of a value. Raises ServeError that names the place of a number that is not finite."""
    try:
        return json.dumps(value, default=plain, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise _unsendable(value, error) from error


def joined(items: Sequence[bytes]) -> bytes:
    """The body of a request: an item by itself, or an array of several."""
    return items[0] if len(items) == 1 else b"[" + b",".join(items) + b"]"


def parts(items: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Items in the parts that a server takes at once: at most 1,000 of them, and at most a megabyte unless one alone is larger."""
    part: list[bytes] = []
    size = 0
    for item in items:
        if part and (len(part) == PART or size + len(item) > PART_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item) + 1
    if part:
        yield part


def invalid(detail: str) -> ServeError:
    """The refusal of what could not be sent; a server would have answered the same."""
    return ServeError("invalid_request", detail, 422)


def _packed(values: numpy.ndarray, schema: Mapping[str, Any] | None) -> str | None:
    """base64 of the bytes in the schema's dtype, or None where that would change or hide something."""
    if schema is None or values.size < LARGE or values.dtype.kind not in "biuf" or list(values.shape) != schema.get("shape"):
        return None
    try:
        wanted = numpy.dtype(str(schema.get("dtype"))).newbyteorder("<")
    except TypeError:
        return None
    if wanted.kind not in "biuf":
        return None
    with numpy.errstate(over="ignore", invalid="ignore"):
        sent = values.astype(wanted)
    exact = wanted.kind == "f" or values.dtype == wanted or numpy.array_equal(sent, values)
    return base64.b64encode(sent.tobytes()).decode() if exact else None


def _unsendable(value: Any, error: Exception) -> ServeError:
    try:
        place = next(_not_finite(value), None)
    except RecursionError:
        place = None
    if place is None:
        return invalid(f"this cannot be sent as JSON: {error}.")
    return ServeError("not_finite", f"{place} is not a finite number; fill or drop missing values.", 422)


def _not_finite(value: Any, place: str = "") -> Iterator[str]:
    """The places of numbers in nested lists and dicts that JSON cannot carry."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _not_finite(item, f"{place}.{name}" if place else str(name))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{place}[{index}]")
    elif isinstance(value, (float, numpy.floating)):
        if not numpy.isfinite(value):
            yield place or "the value"
    else:
        values = as_array(value)
        if values is not None and values.dtype.kind == "f":
            yield from _not_finite(values.tolist(), place)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
