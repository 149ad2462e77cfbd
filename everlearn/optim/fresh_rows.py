"""Forgetting for one batch: some of its tokens have new rows in one forward and backward pass, and their own again after it.

    E'[token] = init  with a probability, drawn for each token that the batch holds, else E[token]          gradients reach E alone

The form for models that are trained already. Nothing has to be put back, since the table itself does not change; rows that were new are
not trained by the batch.

Reference: Anand et al. (2025), Dual process learning, ICLR, arXiv 2406.00053 (probabilistic temporary forgetting).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_range
from everlearn.core.random import generator
from everlearn.optim.forgetting import Law, Normal, Reset, check_rows, select_parameters


def fresh_rows(
    table: Tensor,
    ids: Tensor,
    probability: float,
    random: torch.Generator,
    init: Law = Normal(),
    exclude_rows: Sequence[int] = (),
) -> Tensor:
    """A table in which, for this batch only, each token that occurs in `ids` has new values with a probability.

    Use it in the place of the table for one forward and backward pass (`torch.func.functional_call(model, {name: fresh_rows(...)}, ...)`,
    which follows ties). exclude_rows: tokens that stay, special ones say.

    >>> table = torch.zeros(4, 2, requires_grad=True)
    >>> new = fresh_rows(table, torch.tensor([[1, 3, 3]]), 1.0, torch.Generator().manual_seed(0))
    >>> (new != 0).all(1).tolist(), table.sum().item()
    ([False, True, False, True], 0.0)
    """
    check_range("fresh_rows", "probability", probability, 0.0, 1.0)
    return _with_rows(table, _drawn(ids, probability, random, exclude_rows), random, init)


class FreshRows:
    """Applies a `Reset` of scope "batch" to tables of a model while it trains.

    model: any module, a Hugging Face model too; select: names of the weights of `nn.Embedding`, or patterns; tied="together": also a
    table that an output layer shares, which then has the same rows. What is new in an update is a function of (seed, its number).

    Raises ArgumentError for a rule of another scope, and where what is selected is no table of an `nn.Embedding`, is tied, or lacks rows.

    >>> model = nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(4, 5))
    >>> fresh = FreshRows(model, ["0.weight"], Reset(every=1, stop=3, scope="batch"))
    >>> counts = []
    >>> for t in (1, 2, 3):
    ...     with fresh.during(lambda: t) as rows:
    ...         model(torch.tensor([[0, 3], [3, 4]])).sum().backward()
    ...     counts.append(sum(rows))
    >>> counts
    [3, 3, 0]
    """

    def __init__(self, model: nn.Module, select: Sequence[str], rule: Reset, *, tied: str | None = None, seed: int = 0):
        if rule.scope != "batch":
            raise ArgumentError(f"forgetting: new rows for one batch need a rule of scope='batch', got {rule!r}.")
        self.model, self.rule, self.seed = model, rule, seed
        self.tables = select_parameters(model, select, tied=tied)
        modules = list(model.modules())
        self._owners = {
            name: [(layer, key) for layer in modules for key, value in layer._parameters.items() if value is table]
            for name, table in self.tables.items()
        }
        for name, table in self.tables.items():
            if not any(isinstance(layer, nn.Embedding) for layer, _ in self._owners[name]):
                raise ArgumentError(
                    f"forgetting: scope='batch' makes rows of an nn.Embedding anew, and {name} is the weight of none; name one by select."
                )
            check_rows(rule, name, table)

    @contextmanager
    def during(self, step: Callable[[], int]) -> Iterator[list[int]]:
        """While it lasts, forward passes in training mode find new rows; gives how many each of them found.

        step: tells the number of the update that is being made, counted from 1.
        """
        rows: list[int] = []

        def look(name: str, tokens: Tensor) -> None:
            table, t = self.tables[name], step()
            if self.model.training and torch.is_grad_enabled() and self.rule.due(t):
                random = generator(self.seed, "fresh rows", t, name)
                drawn = _drawn(tokens, self.rule.probability, random, self.rule.exclude_rows)
                rows.append(len(drawn))
                table = _with_rows(table, drawn, random, self.rule.init)
            self._put(name, table)

        def put_back(*_: object) -> None:
            for name, table in self.tables.items():
                self._put(name, table)

        handles = [self.model.register_forward_hook(put_back)]
        for name, owners in self._owners.items():
            for layer in {layer for layer, _ in owners if isinstance(layer, nn.Embedding)}:
                handles.append(layer.register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs[0])))
        try:
            yield rows
        finally:
            put_back()
            for handle in handles:
                handle.remove()

    def _put(self, name: str, table: Tensor) -> None:
        for layer, key in self._owners[name]:
            layer._parameters[key] = table  # in its place, so that the order of parameters stays


def _drawn(ids: Tensor, probability: float, random: torch.Generator, exclude_rows: Sequence[int]) -> Tensor:
    """Some of the tokens that occur, each once."""
    tokens = ids.unique().cpu()
    tokens = tokens[~torch.isin(tokens, torch.tensor(list(exclude_rows), dtype=tokens.dtype))]
    return tokens[torch.rand(len(tokens), generator=random) < probability]


def _with_rows(table: Tensor, drawn: Tensor, random: torch.Generator, init: Law) -> Tensor:
    """The table with new rows of the tokens drawn; the table itself where there are none."""
    if not len(drawn):
        return table
    drawn = drawn.to(table.device)
    mask = torch.zeros(len(table), dtype=torch.bool, device=table.device)
    mask[drawn] = True
    fresh = torch.zeros_like(table)
    fresh[drawn] = init.new(table.detach()[drawn].cpu(), random).to(table.device)
    return torch.where(mask.view(-1, *[1] * (table.dim() - 1)), fresh, table)
