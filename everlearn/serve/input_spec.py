"""What a request may hold: read off the learner's schema, checked before anything is stored.

A row travels as nested lists of numbers (or base64 of its bytes, little-endian and in the dtype of the schema), is kept in the log
as those bytes, and becomes a tensor (rows, *shape) for the learner. Answers are the user's own labels.
"""

import base64
import binascii
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy
import torch
from torch import Tensor

from everlearn.core.agent import Agent, Decision
from everlearn.core.errors import InputError, ServeError, closest
from everlearn.core.learner import Learner
from everlearn.core.stream import Schema
from everlearn.data.encoder import Encoder

GREATEST = float(numpy.finfo(numpy.float32).max)
KINDS = ("classes", "values", "actions")


@dataclass(frozen=True)
class InputSpec:
    """One row of input, and what an answer to it may be.

    kind: "classes" (the answer is one of `classes`), "values" (a number for each of `targets`) or "actions" (a reward);
    shape, dtype: of one row; features: names of its columns where it is a table's; encoder: what makes such a row of a raw one,
    {"age": 41, "colour": "red"} (`data.encoder.Encoder` as JSON).

    >>> spec = InputSpec("classes", (2,), "float32", classes=("cat", "dog"))
    >>> row = spec.row([0.5, 1.0])
    >>> spec.tensor([row, row]).tolist(), spec.answer("dog")
    ([[0.5, 1.0], [0.5, 1.0]], 1)
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    encoder: dict[str, Any] | None = field(default=None, hash=False)

    @classmethod
    def of(cls, served: Learner | Agent, schema: Schema, targets: Sequence[str] = ()) -> "InputSpec":
        """The spec of a learner or agent on rows of a schema. A schema without classes is one of values."""
        kind = "actions" if isinstance(served, Agent) else "classes" if schema.classes else "values"
        named = tuple(targets) or (schema.targets or ("value",) if kind == "values" else ())
        encoder = None if schema.encoder is None else schema.encoder.to_json()
        dtype = str(schema.dtype).removeprefix("torch.")
        return cls(kind, tuple(schema.shape), dtype, schema.classes, schema.features, named, encoder)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "InputSpec":
        """The spec that `to_json` wrote."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in record.items()})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; without an encoder, not a word of it."""
        record = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return record if self.encoder is not None else {key: value for key, value in record.items() if key != "encoder"}

    @property
    def schema(self) -> Schema:
        """The schema of the rows."""
        return Schema(self.shape, getattr(torch, self.dtype), self.classes, self.features, self._encoder, self.targets)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * numpy.dtype(self.dtype).itemsize

    def row(self, x: Any) -> bytes:
        """The bytes of one row given as nested lists, a flat list, an array, base64, or a dict (a raw row where there is an encoder,
        else the columns of x by name). Raises ServeError that names the place."""
        if isinstance(x, str):
            return self._decoded(x)
        if isinstance(x, dict):
            x = self._named(x)
        try:
            values = numpy.asarray(x)
            if values.dtype.kind == "O" and all(type(item) is int for item in values.flat):  # beyond 64 bits
                values = values.astype(numpy.float64)
        except (ValueError, TypeError, OverflowError):
            values = numpy.asarray(None)
        if values.dtype.kind not in "biuf":
            raise _invalid(f"x must hold numbers in nested lists of shape {list(self.shape)}, got {_short(x)}.")
        if values.shape != self.shape:
            if values.ndim == 1 and values.size == math.prod(self.shape):
                values = values.reshape(self.shape)
            else:
                raise _invalid(self._misshapen(values))
        return self._checked(values).tobytes()

    def tensor(self, rows: Sequence[bytes]) -> Tensor:
        """(rows, *shape) of the schema's dtype."""
        flat = numpy.frombuffer(b"".join(rows), numpy.dtype(self.dtype)).reshape(len(rows), *self.shape)
        return torch.from_numpy(flat.copy())

    def answer(self, y: Any) -> int | float | list[float]:
        """What is stored for an answer: the number of a class, the values of the targets, or a reward. Raises ServeError."""
        if self.kind == "classes":
            text = y if isinstance(y, str) else str(y) if isinstance(y, int) and not isinstance(y, bool) else None
            if text is None:
                raise _invalid(
                    f"y must be one of the {len(self.classes)} labels as text or a whole number, got {_short(y)}."
                )
            if text not in self.classes:
                raise _invalid(f"y: {closest('label', text[:100], self.classes)}")
            return self.classes.index(text)
        if self.kind == "actions":
            if not _finite_number(y):
                raise _invalid(f"reward must be a finite number, got {_short(y)}.")
            return _counted("reward", y)
        values = [y] if _finite_number(y) else y
        if not isinstance(values, list) or len(values) != len(self.targets) or not all(map(_finite_number, values)):
            raise _invalid(f"y must be {len(self.targets)} finite numbers ({', '.join(self.targets)}), got {_short(y)}.")
        return [_counted("y", value) for value in values]

    def answers(self, values: Sequence[Any]) -> Tensor:
        """Stored answers as y: (rows,) int64 of class numbers, or (rows, targets) float32."""
        kind = torch.int64 if self.kind == "classes" else torch.float32
        return torch.tensor(values, dtype=kind)

    def outputs(self, scores: Tensor) -> list[dict[str, Any]]:
        """What is answered for rows of scores: the label and the probabilities in the order of `classes`, or the values."""
        if self.kind == "values":
            return [{"answer": values} for values in scores.reshape(len(scores), -1).tolist()]
        chosen = scores.argmax(dim=1).tolist()
        shares = torch.softmax(scores.double(), dim=1).tolist()
        return [
            {"answer": self.classes[label], "probabilities": [round(value, 6) for value in row]}
            for label, row in zip(chosen, shares, strict=True)
        ]

    def decided(self, decision: Decision) -> dict[str, Any]:
        """What is answered for an agent's decision: with the probabilities of all actions and the policy's generation, where known."""
        more = {"probabilities": decision.probabilities, "generation": decision.generation}
        known = {key: list(value) if isinstance(value, tuple) else value for key, value in more.items() if value is not None}
        return {"answer": decision.action, "propensity": decision.propensity, **known}

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of `x` as nested lists, for the API's description."""
        number = {"type": "integer", "minimum": 0, "maximum": 255} if self.dtype == "uint8" else {"type": "number"}
        nested: dict[str, Any] = number
        for length in reversed(self.shape):
            nested = {"type": "array", "items": nested, "minItems": length, "maxItems": length}
        return nested

    def named_schema(self) -> dict[str, Any] | None:
        """The JSON schema of `x` as a dict: a raw row, or the columns of x by name; None where columns have no names."""
        if self._encoder is not None:
            return self._encoder.json_schema()
        if not self.features or len(self.features) != math.prod(self.shape):
            return None
        number = self.json_schema()
        while number["type"] == "array":
            number = number["items"]
        columns = dict.fromkeys(self.features, number)
        return {"type": "object", "properties": columns, "required": list(self.features), "additionalProperties": False}

    @cached_property
    def _encoder(self) -> Encoder | None:
        return None if self.encoder is None else Encoder.from_json(self.encoder)

    def _named(self, x: dict) -> Any:
        """The columns of a row in order. Raises ServeError for names that are missing or unknown."""
        if self._encoder is not None:
            try:
                return self._encoder.encode([x])[0]
            except InputError as error:
                raise _invalid(f"x: {error}") from error
        if not self.features or len(self.features) != math.prod(self.shape):
            raise _invalid(f"x must be nested lists of shape {list(self.shape)}; this model's columns have no names.")
        unknown = sorted(set(x) - set(self.features))
        if unknown:
            raise _invalid(f"x: {closest('column', unknown[0][:100], self.features)}")
        missing = [name for name in self.features if name not in x]
        if missing:
            raise _invalid(f"x: column {missing[0]!r} is missing ({len(missing)} of {len(self.features)} in all).")
        return [x[name] for name in self.features]

    def _decoded(self, text: str) -> bytes:
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _invalid(f"x is text, but no base64: {error}.") from error
        if len(data) != self.row_bytes:
            raise _invalid(f"x holds {len(data)} bytes; {self.dtype} of shape {list(self.shape)} has {self.row_bytes}.")
        return self._checked(numpy.frombuffer(data, numpy.dtype(self.dtype)).reshape(self.shape)).tobytes()

    def _checked(self, values: numpy.ndarray) -> numpy.ndarray:
        """In the schema's dtype, once every number fits it."""
        wanted = numpy.dtype(self.dtype)
        if wanted.kind == "f":
            with numpy.errstate(over="ignore"):
                values = values.astype(wanted)
            if not numpy.isfinite(values).all():
                place = numpy.argwhere(~numpy.isfinite(values))[0].tolist()
                raise ServeError("not_finite", f"x{place} is not a finite {self.dtype}; fill or drop missing values.", 422)
            return values
        limits = (0, 1) if wanted.kind == "b" else (numpy.iinfo(wanted).min, numpy.iinfo(wanted).max)
        with numpy.errstate(invalid="ignore"):  # 2.0**63 passes for the largest int64, and would become the smallest
            fits = values.astype(wanted) == values
        wrong = ~(fits & (values >= limits[0]) & (values <= limits[1]))
        if wrong.any():
            place = numpy.argwhere(wrong)[0].tolist()
            raise _invalid(f"x{place} must be a whole number in {limits[0]}..{limits[1]}, got {values[tuple(place)]}.")
        return values.astype(wanted)

    def _misshapen(self, values: numpy.ndarray) -> str:
        if values.ndim == 1 and len(self.shape) == 1:
            return f"x holds {len(values)} numbers; this model takes {self.shape[0]}."
        return f"x has shape {list(values.shape)}; this model takes {list(self.shape)}."


def _finite_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _counted(name: str, value: int | float) -> float:
    """As a float; refused where learning, in float32, would count it as infinite."""
    if abs(value) > GREATEST:
        raise ServeError(
            "not_finite", f"{name} must not be beyond {GREATEST:.4g}, where learning would count it as infinite.", 422
        )
    return float(value)


def _invalid(detail: str) -> ServeError:
    return ServeError("invalid_request", detail, 422)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
