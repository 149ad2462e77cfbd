"""The memory of learning one batch, measured: what autograd keeps for the backward pass, beside weights and optimiser state.

    activations   floating-point tensors kept, each storage once, at the moment when most are kept; weights and buffers excluded
    masks         kept tensors that are no floating-point numbers: bit masks of ReLU, places of maxima
    trained       weights with gradients that the step changes
    replay        rows remembered, by capacity, and the bytes that hold them

What a learner must keep by its formula is counted by `measure.activation_formula`; this counts what it does keep.
Reference: Song et al. (2023), EcoTTA, arXiv 2303.01904 (the accounting).
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from everlearn.core.budget import Kept, Ledger
from everlearn.core.errors import InputError
from everlearn.core.events import Batch
from everlearn.core.learner import Adapter, Learner
from everlearn.core.store import stores
from everlearn.measure.contents import networks, optimizer_bytes, storage_bytes

MEGA = 1e6
HEADS = (
    "learner",
    "rows",
    "parameters",
    "trained",
    "activations",
    "by formula",
    "masks",
    "optimizer",
    "total",
    "replay rows",
    "replay",
)
SMALL = 0.1  # megabytes below which more digits are shown
COUNTED = ("rows", "replay rows")  # the others are megabytes


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """Bytes. name: of the learner; parameters: of all its networks; activations, masks: kept for the backward pass; optimizer: its
    state; buffers: of the networks; rows: of the batch; formula: activations by the closed count; trained: weights with gradients
    that the step changed; replay_rows, replay: the capacity of memories that hold rows, and their bytes. None where it is not known."""

    name: str
    rows: int
    parameters: int
    activations: int
    masks: int = 0
    optimizer: int = 0
    buffers: int = 0
    formula: int | None = None
    trained: int | None = None
    replay_rows: int | None = None
    replay: int | None = None

    @property
    def total(self) -> int:
        """Parameters and activations: the figure that is published for adapters."""
        return self.parameters + self.activations

    @property
    def measured(self) -> int:
        """All that is kept for the backward pass: activations and masks."""
        return self.activations + self.masks


def saved_for_backward(step: Callable[[], Any], weights: Iterable[Tensor] = ()) -> tuple[Any, int, int]:
    """(result of step, bytes of floating-point tensors, bytes of other tensors) that autograd kept, each at its most.

    weights: tensors that are there anyway and do not count, also seen through views.

    >>> x, weight = torch.ones(8, 4), torch.ones(4, 2, requires_grad=True)
    >>> saved_for_backward(lambda: (x @ weight).relu().sum(), [weight])[1:]
    (192, 0)
    """
    held = {tensor.untyped_storage().data_ptr() for tensor in weights}
    floats, others = Ledger(), Ledger()

    def keep(tensor: Tensor) -> Kept:
        if tensor.untyped_storage().data_ptr() in held:
            return Kept(tensor.detach(), None)
        return Kept(tensor.detach(), floats if tensor.is_floating_point() else others)

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
        result = step()
    return result, floats.most, others.most


def memory_report(learner: Learner, batch: Batch, *, formula: int | None = None) -> MemoryReport:
    """What learning one batch takes. The learner stays as it is: a copy learns.

    An adapter is given a batch without y by `adapt`, any other learner, or a batch with y, by `update`. Raises InputError where
    other learners get no y.

    >>> from everlearn import FineTune
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> report = memory_report(FineTune(network), Batch(torch.zeros(16, 4), torch.zeros(16, dtype=torch.int64)))
    >>> report.parameters, report.activations >= 4 * 16 * (4 + 8)
    (232, True)
    """
    if batch.y is None and not isinstance(learner, Adapter):
        raise InputError(f"{learner.name} learns from answers: give memory_report a batch with y.")
    one = copy.deepcopy(learner)
    found = networks(one)
    parameters = [tensor for network in found for tensor in network.parameters()]
    buffers = [tensor for network in found for tensor in network.buffers()]

    def step() -> Any:
        return one.adapt(batch.x) if batch.y is None else one.update(batch)

    before = [weight._version for weight in parameters]  # raised by every change in place
    stepped: set[int] = set()

    def note(optimizer: torch.optim.Optimizer, *arguments: Any) -> None:  # fused steps raise no version
        stepped.update(
            id(weight) for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None
        )

    hook = register_optimizer_step_pre_hook(note)
    try:
        _, activations, masks = saved_for_backward(step, [*parameters, *buffers])
    finally:
        hook.remove()
    changed = {id(weight) for weight, old in zip(parameters, before, strict=True) if weight._version > old}
    moved = [weight for weight in parameters if weight.requires_grad and id(weight) in changed | stepped]
    memories = [store for store in stores(one) if store.stored]
    return MemoryReport(
        repr(learner),
        len(batch),
        storage_bytes(parameters),
        activations,
        masks,
        optimizer_bytes(one),
        storage_bytes(buffers),
        formula,
        trained=storage_bytes(moved),
        replay_rows=sum(store.stored if store.capacity is None else store.capacity for store in memories),
        replay=sum(store.nbytes for store in memories),
    )


def memory_cells(report: MemoryReport) -> list[str]:
    """The texts of one row below `HEADS`: megabytes (10^6), and numbers of rows; empty where nothing is known."""
    values = {**{field.name: getattr(report, field.name) for field in fields(report)}, "total": report.total}
    values |= {"learner": report.name, "by formula": report.formula, "replay rows": report.replay_rows}
    return [_cell(head, values[head]) for head in HEADS]


def memory_table(reports: Sequence[MemoryReport]) -> str:
    """A table in Markdown: megabytes (10^6) by learner, with the formula beside where it is known."""
    heads = [head if head == "learner" or head in COUNTED else f"{head} MB" for head in HEADS]
    rows = [memory_cells(report) for report in reports]
    lines = [heads, ["---", *["---:"] * (len(HEADS) - 1)], *[[f"`{name}`", *cells] for name, *cells in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(head: str, value: Any) -> str:
    if value is None or head == "learner":
        return value or ""
    small = 0 < value < SMALL * MEGA
    return str(value) if head in COUNTED else f"{value / MEGA:.{4 if small else 2}f}"
