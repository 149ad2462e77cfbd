"""How the log of a server lies in a file: Parquet, one row per event, in the order in which they were folded.

    step | seq | id | kind (input, answer) | revision | time | x: one column per feature, or a list `x` | version | default
    classes, values: y, answer        actions: action (JSON), propensity, reward, generation, probabilities (of all actions)

The key `everlearn` of the file's metadata holds JSON {format, spec, model, seed, steps}.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy
import torch

from everlearn.core.errors import DataError, closest
from everlearn.core.stream import Schema
from everlearn.data.encoder import Encoder

if TYPE_CHECKING:
    import pyarrow

KEY, FORMAT = b"everlearn", 1
INPUT, ANSWER = "input", "answer"
KINDS = ("classes", "values", "actions")
FIXED = (
    *("step", "seq", "id", "kind", "revision", "time", "version", "default"),
    *("y", "answer", "action", "propensity", "reward", "x", "generation", "probabilities"),
)
OPTIONAL = ("generation", "probabilities")  # columns that files of before they were kept lack, and many agents leave empty


@dataclass(frozen=True)
class Layout:
    """What the rows of a file hold, read off the spec of the server's requests.

    kind: "classes", "values" or "actions"; shape, dtype: of one row of x; classes, features, targets: the user's own names.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    encoder: Encoder | None = None

    @classmethod
    def from_json(cls, spec: Mapping[str, Any]) -> "Layout":
        """The layout for a spec as JSON. Raises DataError where it is none."""
        try:
            kind, shape, dtype = spec["kind"], tuple(map(int, spec["shape"])), str(spec["dtype"])
            names = (tuple(map(str, spec.get(key, ()))) for key in ("classes", "features", "targets"))
            encoder = spec.get("encoder")
            made = cls(kind, shape, dtype, *names, None if encoder is None else Encoder.from_json(encoder))
            numpy.dtype(dtype)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"the spec of its rows cannot be read ({type(error).__name__}: {error}).") from error
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise DataError(f"the spec of its rows cannot be read: there is no dtype {dtype[:40]!r}.")
        if kind not in KINDS:
            raise DataError(f"the spec of its rows cannot be read: {closest('kind', str(kind), KINDS)}")
        return made

    @property
    def schema(self) -> Schema:
        """What one row of x looks like."""
        return Schema(self.shape, getattr(torch, self.dtype), self.classes, self.features, self.encoder, self.targets)

    @cached_property
    def x_columns(self) -> tuple[str, ...]:
        """The columns that hold x: named as the features (`x.` before names that are taken), or one list `x`."""
        if not self.features or self.shape != (len(self.features),):
            return ("x",)
        names: list[str] = []
        taken = set(FIXED)
        for feature in self.features:
            while feature in taken:
                feature = f"x.{feature}"
            taken.add(feature)
            names.append(feature)
        return tuple(names)

    @property
    def columns(self) -> "pyarrow.Schema":
        """The columns of the file with their types."""
        import pyarrow

        one = pyarrow.from_numpy_dtype(numpy.dtype(self.dtype))
        x = one if self.x_columns != ("x",) else pyarrow.list_(one, math.prod(self.shape))
        text, whole, real = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
        told = text if self.kind == "classes" else pyarrow.list_(real) if len(self.targets) > 1 else real
        fields = [("step", whole), ("seq", whole), ("id", text), ("kind", text), ("revision", whole), ("time", real)]
        fields += [(name, x) for name in self.x_columns]
        if self.kind == "actions":
            fields += [("action", text), ("propensity", real), ("reward", real)]
            fields += [("generation", whole), ("probabilities", pyarrow.list_(real))]
        else:
            fields += [("y", told), ("answer", told)]
        return pyarrow.schema([*fields, ("version", whole), ("default", pyarrow.bool_())])
