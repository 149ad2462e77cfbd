"""By which route a model answers: from its context, or from what its weights stored about the tokens.

    icl         share of switched sequences that are answered by the roles of the context
    iwl         share of them that are answered by what the tokens are
    preference  icl / (icl + iwl), undefined where both are below 5 %
    unseen      share of sequences of tokens that training never showed, with new rows of the table, answered right

A sequence is answered right where all its asked positions are. For unseen tokens only, their rows (of inputs and tied outputs) are drawn
anew and their output bias is 0, in a copy of the table: rows that training never showed are pushed down by the softmax, and shrink by
weight decay. The model is never changed.

Reference: Anand et al. (2025), Dual process learning, ICLR, arXiv 2406.00053.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from everlearn.core.errors import ArgumentError
from everlearn.core.random import generator
from everlearn.data.role_sentences import RoleSentences
from everlearn.data.roles import RoleProbe, RoleStream
from everlearn.optim.forgetting import Law, Normal

ROWS = 2000  # judged at once
FAINT = 0.05  # below it in both, a preference says nothing


@dataclass(frozen=True)
class RouteReport:
    """Shares of sequences answered right, of each kind; icl and iwl on all switched tokens, and on frequent and rare ones."""

    val: float
    head: float
    tail: float
    unseen: float
    icl: float
    iwl: float
    icl_head: float
    iwl_head: float
    icl_tail: float
    iwl_tail: float

    @property
    def preference(self) -> float:
        """icl / (icl + iwl); NaN where neither route is taken."""
        return preference(self.icl, self.iwl)


def preference(icl: float, iwl: float) -> float:
    """How far answers from the context outweigh those from the weights.

    >>> preference(0.6, 0.2), preference(0.01, 0.02)
    (0.7499999999999999, nan)
    """
    return math.nan if icl < FAINT and iwl < FAINT else icl / (icl + iwl)


@torch.no_grad()
def route(
    model: nn.Module,
    stream: RoleStream | RoleSentences,
    *,
    count: int = 2000,
    table: str = "table",
    bias: str | None = "bias",
    init: Law | None = None,
    fresh: bool = True,
    seed: int = 0,
) -> RouteReport:
    """Ask a model by which route it answers.

    model: tokens (rows, length) -> scores of all positions or of those asked (three of a `RoleStream`, the middle one of
    `RoleSentences`); count: sequences of each kind; table, bias: names of the parameter that holds a row for each token and of the
    output's bias (None without one, or where the output is not tied to the table); init: the law of new rows, by default that
    of the model's own start (`model.std`, else 1); fresh=False: take unseen rows as they are. Raises ArgumentError for unknown names.
    """
    names = dict(model.named_parameters())
    for name in (table, bias):
        if name is not None and name not in names:
            raise ArgumentError(f"route: the model has no parameter {name!r}; it has {', '.join(names)}.")
    shares = {
        kind: _right(model, {}, probe.x, probe.y, stream.asked)
        for kind, probe in _probes(stream, ("val", "head", "tail"), count)
    }
    for kind, probe in _probes(stream, ("switch", "head_switch", "tail_switch"), count):
        ending = kind.removesuffix("switch").rstrip("_")
        ending = f"_{ending}" if ending else ""
        shares |= {f"icl{ending}": _right(model, {}, probe.x, probe.y, stream.asked)}
        shares |= {f"iwl{ending}": _right(model, {}, probe.x, probe.by_identity, stream.asked)}
    changed: dict[str, Tensor] = {}
    if fresh:
        ids = stream.ids("unseen")
        law = init if init is not None else Normal(getattr(model, "std", 1.0))
        changed[table] = names[table].detach().clone()
        changed[table][ids] = law.new(changed[table][ids], generator(seed, "unseen"))
        if bias is not None:
            changed[bias] = names[bias].detach().clone()
            changed[bias][ids] = 0.0
    probe = stream.probe("unseen", count)
    return RouteReport(**shares, unseen=_right(model, changed, probe.x, probe.y, stream.asked))


def _probes(stream: RoleStream | RoleSentences, kinds: tuple[str, ...], count: int) -> list[tuple[str, RoleProbe]]:
    return [(kind, stream.probe(kind, count)) for kind in kinds]


def _right(model: nn.Module, changed: dict[str, Tensor], tokens: Tensor, targets: Tensor, asked: slice) -> float:
    """The share of sequences all of whose asked positions are answered as `targets` has them."""
    right = 0
    mode = model.training
    model.eval()
    try:
        for x, y in zip(tokens.split(ROWS), targets.split(ROWS), strict=True):
            scores = functional_call(model, changed, (x,)) if changed else model(x)
            answers = scores.argmax(2)
            given = answers if answers.shape[1] == asked.stop - asked.start else answers[:, asked]
            right += int((given == y[:, asked]).all(1).sum())
    finally:
        model.train(mode)
    return right / len(tokens)
