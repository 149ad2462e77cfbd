"""Limits that are enforced, not hoped for.

Limits in replay samples or bytes, labels and updates act inside the fold, deterministically. A limit in seconds ends learning
at some prefix of the log and never changes a step. Activation memory is measured on every update where it is limited (else
on the first one, for the record) and refused if larger.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch

from everlearn.core.errors import BudgetError, check_count, check_range
from everlearn.core.events import Batch, Boundary, rows
from everlearn.core.learner import Learner
from everlearn.core.spec import describe
from everlearn.core.store import stores


@dataclass(frozen=True)
class Budget:
    """What adaptation may use. None means no limit.

    replay: samples kept in all memories; replay_bytes: their bytes; labels: answers learned from; updates: batches learned
    from; seconds: time in predict and update; activation_bytes: memory kept for one backward pass; latency_ms: 99th
    percentile of one predict call (a learner above it is never recommended).
    """

    replay: int | None = None
    replay_bytes: int | None = None
    labels: int | None = None
    updates: int | None = None
    seconds: float | None = None
    activation_bytes: int | None = None
    latency_ms: float | None = None
    name: ClassVar[str] = "budget"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if field.name in ("seconds", "latency_ms"):
                check_range("budget", field.name, value, 0.0)
            else:
                check_count("budget", field.name, value, low=0)

    def __repr__(self) -> str:
        return describe(self)

    def limit(self, learner: Learner) -> None:
        """Shrink a learner's memories to the limits. A reference learner is left alone: it shows what no limit would give."""
        memories = stores(learner)
        if learner.reference or not memories or (self.replay is None and self.replay_bytes is None):
            return
        share = len(memories)
        for memory in memories:
            samples = None if self.replay is None else self.replay // share
            size = None if self.replay_bytes is None else self.replay_bytes // share
            memory.limit(samples, size)


class Meter:
    """Counts what a fold has used of its budget."""

    parts = ("labels", "updates", "seconds", "closed")

    def __init__(self, budget: Budget):
        self.budget = budget
        self.labels = 0
        self.updates = 0
        self.seconds = 0.0
        self.closed = ""  # the limit that ended learning, if one did

    def admit(self, batch: Batch) -> Batch | None:
        """The part of a batch that may be learned from; None where nothing may."""
        budget = self.budget
        if self.closed:
            return None
        if budget.updates is not None and self.updates >= budget.updates:
            self.closed = "updates"
            return None
        if budget.seconds is not None and self.seconds >= budget.seconds:
            self.closed = "seconds"
            return None
        if batch.y is None:
            return batch
        count = len(batch)
        if budget.labels is not None and self.labels + count > budget.labels:
            count = budget.labels - self.labels
            if count == 0:
                self.closed = "labels"
                return None
            batch = first_rows(batch, count)
        self.labels += count
        self.updates += 1
        return batch

    def admits_feedback(self) -> bool:
        """Whether the consequence of one more decision may be learned from; it counts as one answer and one update."""
        budget = self.budget
        for name, used in (("updates", self.updates), ("labels", self.labels), ("seconds", self.seconds)):
            most = getattr(budget, name)
            if not self.closed and most is not None and used >= most:
                self.closed = name
        if self.closed:
            return False
        self.labels += 1
        self.updates += 1
        return True

    def announce(self, boundary: Boundary) -> Boundary:
        """The boundary as it may be heard: where answers are counted, its rows come without them."""
        if boundary.data is None or boundary.data.y is None or self.budget.labels is None:
            return boundary
        return replace(boundary, data=replace(boundary.data, y=None))

    def adapted(self) -> None:
        """Count an update that was made from inputs alone."""
        self.updates += 1

    def used(self) -> dict[str, Any]:
        """Counts so far, with the limit that ended learning ('' where none did)."""
        return {"labels": self.labels, "updates": self.updates, "closed": self.closed}


def first_rows(batch: Batch, count: int) -> Batch:
    """The first `count` rows of a batch."""
    part = slice(0, count)
    return replace(
        batch,
        x=rows(batch.x, part),
        y=None if batch.y is None else batch.y[part],
        time=None if batch.time is None else batch.time[part],
        id=None if batch.id is None else batch.id[part],
    )


def activation_bytes(step: Callable[[], Any]) -> tuple[Any, int]:
    """(result of step, most bytes that autograd kept at one time for its backward passes).

    Each storage counts once, while at least one kept tensor lives in it; weights, also seen through a view, do not count.
    """
    ledger = Ledger()
    with torch.autograd.graph.saved_tensors_hooks(ledger.keep, lambda kept: kept.tensor):
        result = step()
    return result, ledger.most


class Ledger:
    """Bytes of the storages in which kept tensors live, now and at most."""

    def __init__(self) -> None:
        self.holders: dict[int, int] = {}
        self.bytes = 0
        self.most = 0

    def keep(self, tensor: torch.Tensor) -> "Kept":
        owner = tensor if tensor._base is None else tensor._base
        return Kept(tensor.detach(), None if isinstance(owner, torch.nn.Parameter) else self)

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        holders = self.holders.get(storage.data_ptr(), 0)
        self.holders[storage.data_ptr()] = holders + 1
        if holders == 0:
            self.bytes += storage.nbytes()
            self.most = max(self.most, self.bytes)

    def drop(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        self.holders[storage.data_ptr()] -= 1
        if self.holders[storage.data_ptr()] == 0:
            self.bytes -= storage.nbytes()


class Kept:
    """A tensor that autograd keeps until its backward pass is over; it is on the ledger for as long as it lives."""

    __slots__ = ("ledger", "tensor")

    def __init__(self, tensor: torch.Tensor, ledger: Ledger | None):
        self.tensor = tensor
        self.ledger = ledger
        if ledger is not None:
            ledger.add(tensor)

    def __del__(self) -> None:
        if self.ledger is not None:
            self.ledger.drop(self.tensor)


def refuse_activations(learner: Learner, used: int, budget: Budget) -> None:
    """Raise where one update keeps more activation memory than the budget allows."""
    if budget.activation_bytes is not None and used > budget.activation_bytes:
        raise BudgetError(
            f"{learner}: one update keeps {used} bytes of activations, the budget allows {budget.activation_bytes}. "
            "Use smaller batches, a smaller model, or raise activation_bytes."
        )
