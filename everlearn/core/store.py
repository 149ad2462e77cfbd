"""What a budget and a monitor need to know of anything that keeps rows: how many, how large, and how to shrink it."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar


class Store(ABC):
    """Keeps at most `capacity` rows (None: no limit).

    Counters that tests and reports read: seen (rows offered), stored (rows held now), replayed (rows drawn), nbytes (held now).
    """

    parts: ClassVar[tuple[str, ...]]
    capacity: int | None
    seen: int
    replayed: int

    @property
    @abstractmethod
    def stored(self) -> int:
        """Rows held now."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes held now."""

    @abstractmethod
    def limit(self, samples: int | None, nbytes: int | None) -> None:
        """Lower the capacity to these limits, before any row is stored."""


def stores(value: Any) -> list[Store]:
    """Every store among an object's parts, in order, also inside learners that wrap learners."""
    if isinstance(value, Store):
        return [value]
    if isinstance(value, (list, tuple)):
        return [store for item in value for store in stores(item)]
    return [store for part in getattr(value, "parts", ()) for store in stores(getattr(value, part))]
