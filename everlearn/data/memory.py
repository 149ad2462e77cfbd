"""A replay memory: rows kept in tensors, by index arithmetic only.

`insert(x=..., y=..., logits=...)` offers rows with named fields, `draw(count)` gives a uniform sample of those kept. The rule
`keep` says which rows stay. Fields are stored in the dtype given (images stay uint8). Space is allocated from the first
insertion on: for the whole capacity up to 1,024 rows, beyond that doubled as rows come, so that bytes follow what is held.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import BudgetError, InputError, check_count
from everlearn.core.events import X
from everlearn.core.random import generator
from everlearn.core.spec import describe
from everlearn.core.store import Store
from everlearn.data.keep import RULES, Balanced, Fields, Herding, Plan, Reservoir, Ring, Rule

__all__ = ["RULES", "Balanced", "Herding", "Memory", "Reservoir", "Ring"]

FIRST = 1024  # rows allocated at first
UNLIMITED = 2**62
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class Memory(Store):
    """Keeps at most `capacity` rows in all (None: every row), in at most `bytes` bytes of tensors.

    keep: `reservoir()`, `balanced()`, `ring()` or `herding()`; balanced and herding need a field y of class numbers.
    seen: rows offered; stored: rows held; replayed: rows drawn; per_class: {class: rows held}; nbytes: bytes allocated.
    The rules' own lists of row numbers are not counted in bytes; herding's class means are.

    >>> import torch
    >>> memory = Memory(capacity=100)
    >>> memory.insert(x=torch.rand(250, 4), y=torch.arange(250) % 5)
    >>> memory.seen, memory.stored, memory.draw(8)["x"].shape
    (250, 100, torch.Size([8, 4]))
    """

    name = "memory"
    parts = ("capacity", "bytes", "seen", "replayed", "held", "tensors", "keeper", "random", "device")

    def __init__(self, capacity: int | None = 500, *, bytes: int | None = None, keep: Rule = Reservoir(), seed: int = 0):
        if capacity is not None:
            check_count(self.name, "capacity", capacity, fix="Use fine_tune(model) to learn without replay.")
        if bytes is not None:
            check_count(self.name, "bytes", bytes, fix="Use fine_tune(model) to learn without replay.")
        self.capacity = capacity
        self.bytes = bytes
        self.keep = keep
        self.seed = seed
        self.seen = 0
        self.replayed = 0
        self.held = 0
        self.tensors: Fields = {}
        self.keeper = keep.make()
        self.random = generator(seed, "memory")
        self.device = "cpu"  # of the rows

    @property
    def stored(self) -> int:
        return self.held

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors allocated, used or not yet used."""
        return sum(value.nbytes for value in self.tensors.values()) + self.keeper.nbytes

    @property
    def per_class(self) -> dict[int, int]:
        """{class: rows held}; empty where rows have no class number y."""
        y = self.tensors.get("y")
        if y is None or y.ndim != 1 or y.dtype not in INTEGERS:
            return {}
        labels, counts = y[: self.held].unique(return_counts=True)
        return dict(zip(labels.tolist(), counts.tolist(), strict=True))

    def limit(self, samples: int | None, nbytes: int | None) -> None:
        """Lower the capacity to these limits, before any row is stored. At 0 the memory stores nothing, and draws nothing."""
        if self.held:
            raise BudgetError(
                f"memory: a limit must be set before rows are stored, and {self.held} are. Start with a new learner, or without a budget."
            )
        if samples is not None:
            self.capacity = samples if self.capacity is None else min(self.capacity, samples)
        if nbytes is not None:
            self.bytes = nbytes if self.bytes is None else min(self.bytes, nbytes)

    def insert(self, *, x: X, **fields: Tensor) -> None:
        """Offer rows: x (rows, ...) or a dict of such, and any number of named fields (rows, ...).

        Values are copied and detached. The fields, shapes and dtypes of the first insertion are the rule for all that follow.
        Raises InputError before anything changes.
        """
        values = _flatten(x, fields)
        count = self._check(values)
        if self.keeper.measured and "x" not in values and "feature" not in values:
            raise InputError(
                f"memory: {self.keep!r} has no distance between rows of a dict; insert a field `feature` (rows, size) as well."
            )
        labels = self._labels(values) if self.keeper.labelled else []
        if not self.tensors:
            self._begin(values)
        if self.capacity != 0:
            self._store(count, labels, values)
        self.seen += count

    def draw(self, count: int, times: int = 1) -> dict[str, Any] | None:
        """`count` different rows at random (all of them where fewer are held), as copies by field; None where none is held.

        times: independent draws, one behind the other.
        """
        check_count(self.name, "count", count)
        if self.held == 0:
            return None
        index = self._sample(min(count, self.held))
        if times > 1:
            index = torch.cat([index, *(self._sample(len(index)) for _ in range(times - 1))])
        self.replayed += len(index)
        if self.device != "cpu":
            index = index.to(self.device)
        return _unflatten({name: value.index_select(0, index) for name, value in self.tensors.items()})

    def pick(self, slots: Sequence[int]) -> dict[str, Any]:
        """The rows of some slots, as copies by field. They count as replayed."""
        self.replayed += len(slots)
        index = torch.tensor(slots, dtype=torch.int64, device=self.device)
        return _unflatten({name: value.index_select(0, index) for name, value in self.tensors.items()})

    def rows(self) -> dict[str, Any]:
        """All rows held, by field, in order of their slots: views that the next insertion may change. {} where none is held."""
        if self.held == 0:
            return {}
        return _unflatten({name: value[: self.held] for name, value in self.tensors.items()})

    def release(self) -> None:
        """Give all rows away, and the space they took. Limits and counters stay."""
        self.keeper, self.held, self.tensors = self.keep.make(), 0, {}

    def restored(self) -> None:
        """Put restored rows back on their device."""
        if self.device != "cpu" and torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            self.device = "cpu"
        self.tensors = {name: value.to(self.device) for name, value in self.tensors.items()}

    def __repr__(self) -> str:
        return describe(self)

    def _sample(self, count: int) -> Tensor:
        """`count` different row numbers, each set of them equally likely: repeats are thrown away and drawn again."""
        if 2 * count > self.held or self.held <= FIRST:
            return torch.randperm(self.held, generator=self.random)[:count]
        index = torch.randint(self.held, (count,), generator=self.random)
        distinct = dict.fromkeys(index.tolist())
        if len(distinct) == count:
            return index
        while len(distinct) < count:
            again = torch.randint(self.held, (count - len(distinct),), generator=self.random)
            distinct |= dict.fromkeys(again.tolist())
        return torch.tensor(list(distinct))

    def _check(self, values: Fields) -> int:
        """The number of rows; refuses fields that do not fit together, or that differ from those held."""
        lengths = {name: len(value) if isinstance(value, Tensor) and value.ndim else None for name, value in values.items()}
        counts = set(lengths.values())
        if len(counts) != 1 or not counts.isdisjoint((None, 0)):
            raise InputError(
                f"memory: every field must be a tensor with the same number of rows, at least one, got {lengths}."
            )
        if self.tensors:
            if values.keys() != self.tensors.keys():
                raise InputError(f"memory: the fields are {sorted(self.tensors)}, got {sorted(values)}.")
            for name, value in values.items():
                held = self.tensors[name]
                if value.dtype != held.dtype or value.shape[1:] != held.shape[1:]:
                    raise InputError(
                        f"memory: rows of {name} have shape {tuple(held.shape[1:])} and dtype {held.dtype}, "
                        f"got {tuple(value.shape[1:])} and {value.dtype}."
                    )
        return counts.pop()

    def _labels(self, values: Fields) -> list[int]:
        y = values.get("y")
        if y is None or y.ndim != 1 or y.dtype not in INTEGERS:
            found = "none" if y is None else f"{tuple(y.shape)} {y.dtype}"
            raise InputError(f"memory: {self.keep!r} needs a field y of shape (rows,) with class numbers, got {found}.")
        return y.tolist()

    def _begin(self, values: Fields) -> None:
        """Take the layout of the first rows, and turn a limit in bytes into one in rows."""
        self.tensors = {name: value.new_zeros((0, *value.shape[1:])) for name, value in values.items()}
        self.device = str(values[next(iter(values))].device)
        if self.bytes is not None:
            most = self.bytes // self._row_bytes()
            self.capacity = most if self.capacity is None else min(self.capacity, most)

    def _row_bytes(self) -> int:
        return max(1, sum(value.shape[1:].numel() * value.element_size() for value in self.tensors.values()))

    def _room(self) -> int:
        """How many rows may be held now."""
        room = UNLIMITED if self.capacity is None else self.capacity
        if self.bytes is not None:
            room = min(room, max(0, self.bytes - self.keeper.nbytes) // self._row_bytes())
        return room

    def _store(self, count: int, labels: list[int], values: Fields) -> None:
        """Let the keeper plan, and move rows so. Where there is no limit every row is kept, whatever the rule."""
        if self.capacity is None and self.bytes is None:
            self._apply(Plan(count, self.held + count), values, UNLIMITED)
            return
        self.keeper.observe(labels, values)
        if self.bytes is not None and self.keeper.nbytes > self.bytes:  # what it must know of classes is too much already
            self.keeper, self.capacity, self.held = self.keep.make(), 0, 0
            self._resize(0)
            return
        room = self._room()
        if room:
            plan = self.keeper.plan(count, labels, values, self.tensors, self.held, room, self.seen, self.random)
            self._apply(plan, values, room)

    def _apply(self, plan: Plan, values: Fields, room: int) -> None:
        """Move rows as the keeper planned."""
        needed = max(plan.stored, self.held)
        allocated = len(next(iter(self.tensors.values())))
        if needed > allocated:
            self._resize(min(room, max(needed, FIRST, 2 * allocated)))
        held, end = self.held, self.held + plan.append
        to, source, slots, rows = (
            torch.tensor(index, dtype=torch.int64, device=self.device) if index else None
            for index in (plan.to, plan.source, plan.slots, plan.rows)
        )
        for name, value in values.items():
            tensor, value = self.tensors[name], value.detach().to(self.device)
            if plan.append:
                tensor[held:end] = value[: plan.append]
            if to is not None:
                tensor[to] = tensor[source]
            if slots is not None:
                tensor.index_copy_(0, slots, value.index_select(0, rows))
        self.held = plan.stored
        if allocated > room:
            self._resize(room)

    def _resize(self, count: int) -> None:
        """Allocate `count` rows; what is not yet used is zero, so that two equal folds have equal bits."""
        for name, value in self.tensors.items():
            grown = value.new_zeros((count, *value.shape[1:]))
            grown[: self.held] = value[: self.held]
            self.tensors[name] = grown


def _flatten(x: X, fields: Fields) -> Fields:
    """One flat dict of tensors: x, or x.KEY for each tensor of a dict, then the other fields."""
    if isinstance(x, Tensor):
        return {"x": x, **fields}
    return {**{f"x.{key}": value for key, value in x.items()}, **fields}


def _unflatten(values: Fields) -> dict[str, Any]:
    if "x" in values:
        return values
    parts = {name[2:]: value for name, value in values.items() if name.startswith("x.")}
    return {"x": parts, **{name: value for name, value in values.items() if not name.startswith("x.")}}
