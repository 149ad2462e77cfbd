"""The memory of learning one batch, measured: what autograd keeps for the backward pass, beside weights and optimiser state.

    activations   floating-point tensors kept, each storage once, at the moment when most are kept; weights and buffers excluded
    masks         kept tensors that are no floating-point numbers: bit masks of ReLU, places of maxima

What a learner must keep by its formula is counted by `measure.activation_formula`; this counts what it does keep.
Reference: Song et al. (2023), EcoTTA, arXiv 2303.01904 (the accounting).
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from everlearn.core.budget import Kept, Ledger
from everlearn.core.errors import InputError
from everlearn.core.events import Batch
from everlearn.core.learner import Adapter, Learner
from everlearn.measure.contents import networks, optimizer_bytes

MEGA = 1e6
COLUMNS = ("parameters", "activations", "masks", "optimizer", "total")


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """Bytes. name: of the learner; parameters: of all its networks; activations, masks: kept for the backward pass; optimizer: its
    state; buffers: of the networks; rows: of the batch; formula: activations by the closed count, None where there is none."""

    name: str
    rows: int
    parameters: int
    activations: int
    masks: int = 0
    optimizer: int = 0
    buffers: int = 0
    formula: int | None = None

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

    _, activations, masks = saved_for_backward(step, [*parameters, *buffers])
    return MemoryReport(
        repr(learner), len(batch), _bytes(parameters), activations, masks, optimizer_bytes(one), _bytes(buffers), formula
    )


def memory_table(reports: Sequence[MemoryReport]) -> str:
    """A table in Markdown: megabytes (10^6) by learner, with the formula beside where it is known."""
    lines = ["| learner | rows | " + " | ".join(f"{column} MB" for column in COLUMNS) + " | activations by formula MB |"]
    lines.append("|---" * (len(COLUMNS) + 3) + "|")
    for report in reports:
        figures = [f"{getattr(report, column) / MEGA:.2f}" for column in COLUMNS]
        counted = "" if report.formula is None else f"{report.formula / MEGA:.2f}"
        lines.append(f"| `{report.name}` | {report.rows} | " + " | ".join([*figures, counted]) + " |")
    return "\n".join(lines)


def _bytes(tensors: Iterable[Tensor]) -> int:
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
