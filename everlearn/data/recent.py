"""The newest rows of a stream in their order: what a model that is fitted again on a window of time needs to keep.

    insert(x=..., y=...)   offers rows, the oldest give way        newest(n)   the last n rows, oldest first

Rows lie in a ring of tensors; room is made as rows come, doubled up to the capacity.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import check_count
from everlearn.core.events import X
from everlearn.core.store import Store

FIRST = 64  # rows of room at first


class Recent(Store):
    """Keeps the newest `capacity` rows (0: none).

    seen: rows offered; stored: rows held; replayed: rows given out by `newest`; nbytes: bytes of the room.

    >>> import torch
    >>> recent = Recent(capacity=3)
    >>> recent.insert(x=torch.arange(5.0)[:, None], y=torch.arange(5.0)[:, None])
    >>> recent.newest(2)["x"].flatten().tolist()
    [3.0, 4.0]
    """

    parts = ("capacity", "bytes", "seen", "replayed", "held", "end", "tensors")

    def __init__(self, capacity: int):
        check_count("recent", "capacity", capacity, low=0)
        self.capacity = capacity
        self.bytes: int | None = None
        self.seen = 0
        self.replayed = 0
        self.held = 0
        self.end = 0  # where the next row goes
        self.tensors: dict[str, Tensor] = {}  # fields, those of a dict x as x/key: (room, ...)

    @property
    def stored(self) -> int:
        return self.held

    @property
    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    def limit(self, samples: int | None, nbytes: int | None) -> None:
        """Lower the capacity to these limits, before any row is stored."""
        if samples is not None:
            self.capacity = min(self.capacity, samples)
        self.bytes = nbytes

    def insert(self, *, x: X, **fields: Tensor) -> None:
        """Offer rows; those that come last are the newest."""
        given = {"x": x} if isinstance(x, Tensor) else {f"x/{key}": value for key, value in x.items()}
        given |= fields
        count = len(next(iter(given.values())))
        self.seen += count
        if self.bytes is not None:  # now a row's size is known
            row = sum(value[0].numel() * value.element_size() for value in given.values())
            self.capacity, self.bytes = min(self.capacity, self.bytes // row), None
        kept = min(count, self.capacity)
        if not kept:
            return
        self._make_room(kept, given)
        room = len(next(iter(self.tensors.values())))
        index = (self.end + torch.arange(kept)) % room
        for name, value in given.items():
            self.tensors[name][index] = value[count - kept :]
        self.end = (self.end + kept) % room
        self.held = min(self.held + kept, room)

    def newest(self, count: int) -> dict[str, Any]:
        """The last rows, oldest first, at most as many as are held: {"x": X, field: tensor}."""
        count = min(count, self.held)
        self.replayed += count
        room = len(next(iter(self.tensors.values()))) if self.tensors else 1
        index = (self.end - count + torch.arange(count)) % room
        found: dict[str, Any] = {name: tensor[index] for name, tensor in self.tensors.items()}
        nested = {name: found.pop(name) for name in list(found) if name.startswith("x/")}
        return ({"x": {name[2:]: value for name, value in nested.items()}} if nested else {}) | found

    def shrink(self, capacity: int) -> None:
        """Keep fewer rows from now on, the newest of those held."""
        kept = self.newest(min(capacity, self.held)) if self.held else {}
        self.replayed -= min(capacity, self.held)  # moved, not given out
        self.capacity, self.tensors, self.held, self.end = capacity, {}, 0, 0
        if kept and capacity:
            seen = self.seen
            self.insert(**kept)
            self.seen = seen

    def _make_room(self, count: int, given: Mapping[str, Tensor]) -> None:
        """Room for so many more rows, or for the capacity; the ring is unrolled where it grows."""
        room = len(next(iter(self.tensors.values()))) if self.tensors else 0
        if self.held + count <= room or room == self.capacity:
            return
        wanted = min(self.capacity, max(FIRST, 2 * room, self.held + count))
        index = (self.end - self.held + torch.arange(self.held)) % max(1, room)
        for name, value in given.items():
            grown = value.new_zeros(wanted, *value.shape[1:])
            if self.held:
                grown[: self.held] = self.tensors[name][index]
            self.tensors[name] = grown
        self.end = self.held % wanted
