"""Which samples of a stream to have labelled: the inputs of a window are the queries, and labels are bought one by one.

    committee(x) -> (members, rows, classes) probabilities        P(yes | member, row) = its chance of the leading class
    log w_k <- discount log w_k + log p_k(y | x)                  once the label of a bought row comes

A window may spend `share` of the rows seen so far, less what was spent, and never more than the budget's labels. A label counts when
it is bought, so that answers which come late, or never, change nothing in what is spent. One model is a committee of one.

References: Zhang, Jain & Jamieson (2020), arXiv 2010.15382 (query policies); Zliobaite et al. (2014), Active learning with drifting
streaming data, IEEE Transactions on Neural Networks and Learning Systems 25 (budgets).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from everlearn.agents.query_rules import Bald, FromPosterior, Rule
from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError, check_range
from everlearn.core.events import Batch, rows
from everlearn.core.random import generator
from everlearn.core.spec import describe

FLOOR = 0.01  # of each member's probability is spread evenly, so that none rules a class out


class StreamLabeler:
    """Buys labels for rows of a stream, exactly within a budget of labels, and lets through the answers that were bought.

    policy: the rule that says which row next, bald() by default; budget: Budget(labels=...) to spend in all; share: of the rows seen
    that may be bought at most, so that the budget lasts; discount: how much of a member's standing a new label leaves, below 1 under
    drift. State: spent and seen, ids that wait for their answers, what the members said of them, log-weights of the members.

    Raises ArgumentError for a budget without labels, or one that limits anything else.

    >>> import torch
    >>> from everlearn import Batch, Budget
    >>> labeler = StreamLabeler(budget=Budget(labels=2), share=0.5)
    >>> inputs = Batch(torch.zeros(3, 1), id=("a", "b", "c"))
    >>> sure, unsure = [0.9, 0.1], [0.5, 0.5]
    >>> members = torch.tensor([[sure, [0.9, 0.1], unsure], [sure, [0.1, 0.9], unsure]])  # they differ on b
    >>> labeler.buy(inputs, members)
    ('b',)
    >>> late = Batch(torch.zeros(3, 1), torch.tensor([0, 1, 1]), id=("a", "b", "c"))
    >>> labeler.receive(late).id, labeler.spent, labeler.waiting
    (('b',), 1, [])
    """

    name = "stream_labeler"
    parts = ("spent", "seen", "waiting", "said", "log_weights")

    def __init__(
        self,
        policy: Rule | None = None,
        budget: Budget | None = None,
        *,
        share: float = 0.1,
        discount: float = 1.0,
        seed: int = 0,
    ):
        self.policy = Bald() if policy is None else policy
        self.budget = Budget(labels=100) if budget is None else budget
        if not (isinstance(self.policy, Rule) and isinstance(self.policy, FromPosterior)):
            raise ArgumentError(
                f"stream_labeler: policy must be bald(), uncertainty(), sgbs() or random_query(), got {self.policy!r}."
            )
        if self.budget.labels is None or self.budget != Budget(labels=self.budget.labels):
            raise ArgumentError(
                f"stream_labeler: budget must limit labels and nothing else, got {self.budget!r}; other limits belong to the run."
            )
        check_range(self.name, "share", share, 0.0, 1.0)
        check_range(self.name, "discount", discount, 0.0, 1.0)
        self.share = share
        self.discount = discount
        self.seed = seed
        self.spent = 0
        self.seen = 0
        self.waiting: list[str] = []
        self.said: dict[str, Tensor] = {}  # id -> (members, classes) of rows that wait
        self.log_weights = torch.zeros(0, dtype=torch.float64)

    def __repr__(self) -> str:
        return describe(self)

    @property
    def remaining(self) -> int:
        """Labels that may still be bought."""
        return self.budget.labels - self.spent

    def buy(self, batch: Batch, committee: Tensor | Callable[[Any], Tensor]) -> tuple[str, ...]:
        """The ids of the rows whose labels are bought from this window, in the order of their worth.

        batch: inputs with ids; committee: (members, rows, classes) probabilities, (rows, classes) of one model, or a function of x
        that gives either. Raises InputError, with nothing changed, for rows without ids, ids that wait already, or what is no
        distribution.
        """
        if not isinstance(batch, Batch) or batch.id is None:
            raise InputError("stream_labeler: buy takes a Batch whose rows have ids, which join a late label to its input.")
        again = next((name for name in batch.id if name in self.said), None)
        if again is not None or len(set(batch.id)) < len(batch.id):
            raise InputError(f"stream_labeler: ids must be new, one for each row; {again or 'one of them'!r} stands twice.")
        said = self._probabilities(committee if isinstance(committee, Tensor) else committee(batch.x), len(batch))
        allowed = int(self.share * (self.seen + len(batch)) + 1e-9) - self.spent
        count = max(0, min(allowed, self.remaining, len(batch)))
        chosen = self._choose(said, count)
        if len(self.log_weights) == 0:
            self.log_weights = torch.zeros(len(said), dtype=torch.float64)
        self.seen += len(batch)
        self.spent += count
        self.said = {**self.said, **{batch.id[row]: said[:, row].clone() for row in chosen}}
        self.waiting = [*self.waiting, *(batch.id[row] for row in chosen)]
        return tuple(batch.id[row] for row in chosen)

    def receive(self, batch: Batch) -> Batch | None:
        """The rows of a labelled batch that were bought and wait for their label; None where there is none.

        Labels that nobody bought are not let through, whatever the source gives away; a second label for one id is not either.
        """
        if not isinstance(batch, Batch) or batch.id is None or batch.y is None:
            raise InputError("stream_labeler: receive takes a Batch with y and ids.")
        index = [row for row, name in enumerate(batch.id) if name in self.said and name not in batch.id[:row]]
        if not index:
            return None
        classes = next(iter(self.said.values())).shape[1]
        for row in index:
            if not 0 <= int(batch.y[row]) < classes:
                raise InputError(
                    f"stream_labeler: label {int(batch.y[row])} of {batch.id[row]!r} is not in 0..{classes - 1}."
                )
        for row in index:
            chance = self.said[batch.id[row]][:, int(batch.y[row])]
            weights = self.discount * self.log_weights + chance.log()
            self.log_weights = torch.log_softmax(weights, 0)
        arrived = {batch.id[row] for row in index}
        self.said = {name: value for name, value in self.said.items() if name not in arrived}
        self.waiting = [name for name in self.waiting if name not in arrived]
        kept = torch.tensor(index)
        return Batch(
            rows(batch.x, kept),
            batch.y[kept],
            batch.task,
            None if batch.time is None else batch.time[kept],
            tuple(batch.id[row] for row in index),
        )

    def _probabilities(self, said: Tensor, count: int) -> Tensor:
        """(members, rows, classes) float64, checked, and kept off 0 and 1."""
        said = said[None] if isinstance(said, Tensor) and said.ndim == 2 else said
        good = isinstance(said, Tensor) and said.ndim == 3 and said.shape[1] == count and said.shape[2] >= 2
        members = len(self.log_weights)
        if not good or (members and len(said) != members):
            got = tuple(said.shape) if isinstance(said, Tensor) else type(said).__name__
            raise InputError(
                f"stream_labeler: the committee must give ({members or 'members'}, {count}, classes) probabilities, got {got}."
            )
        said = said.detach().double()
        if not bool((said >= 0).all()) or not bool(((said.sum(2) - 1.0).abs() < 1e-4).all()):
            raise InputError(
                "stream_labeler: each member's probabilities of a row must be >= 0 and sum to 1; use softmax(1)."
            )
        return (1.0 - FLOOR) * said + FLOOR / said.shape[2]

    def _choose(self, said: Tensor, count: int) -> list[int]:
        """Row numbers, best first. No label of the window is known yet, so asking for one leaves the worth of the others as it is."""
        if count == 0:
            return []
        members, size, _ = said.shape
        weight = (
            self.log_weights.exp() if len(self.log_weights) else torch.full((members,), 1.0 / members, dtype=torch.float64)
        )
        leading = torch.einsum("k,knc->nc", weight, said).argmax(1)
        chance = said.gather(2, leading[None, :, None].expand(members, size, 1))[:, :, 0]
        scores = self.policy.of(weight[None], chance)[0]
        order = torch.randperm(size, generator=generator(self.seed, self.name, self.seen))  # equal rows: one at random
        best = scores[order].argsort(descending=True, stable=True)[:count]
        return order[best].tolist()
