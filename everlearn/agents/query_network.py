"""Networks that score queries by what was answered so far: counts N_i, sums S_i, and the share of the budget that is spent.

    mlp     [N / 3, S / 3, t / T] -> two hidden layers, ReLU -> n scores (and m more, where the network also gives the answer)
    arms    per arm: (N_i / 3, S_i / 3, S_i / N_i, t / T), one layer, the mean over arms joins the second; one network for any n
    posterior   what the posterior says of each query (`query_posterior`)

The first is tied to one list of queries; the second treats arms alike: renaming them renames its scores.
"""

from typing import Any

import torch
from torch import Tensor, nn

from everlearn.agents.query_posterior import PosteriorScores
from everlearn.core.random import isolated
from everlearn.data.query_problem import QueryProblem

SCALE = 3.0


class FlatScores(nn.Module):
    """(counts, sums, share) -> (B, n) scores of queries and (B, m) scores of answers (or None)."""

    def __init__(self, queries: int, answers: int = 0, width: int = 128):
        super().__init__()
        self.queries = queries
        self.answers = answers
        self.first = nn.Linear(2 * queries + 1, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, queries + answers)

    def forward(self, counts: Tensor, sums: Tensor, share: Tensor) -> tuple[Tensor, Tensor | None]:
        """share: (B, 1) of the budget that is spent."""
        x = torch.cat((counts / SCALE, sums / SCALE, share), 1)
        scores = self.last(self.second(self.first(x).relu()).relu())
        return scores[:, : self.queries], scores[:, self.queries :] if self.answers else None


class ArmScores(nn.Module):
    """The same for arms: equivariant to their order, for any number of them."""

    def __init__(self, width: int = 64, heads: int = 1):
        super().__init__()
        self.heads = heads
        self.first = nn.Linear(4, width)
        self.second = nn.Linear(width, width)
        self.pooled = nn.Linear(width, width, bias=False)
        self.last = nn.Linear(width, heads)

    def forward(self, counts: Tensor, sums: Tensor, share: Tensor) -> tuple[Tensor, Tensor | None]:
        """The second head, where there is one, scores the arm as the answer."""
        mean = sums / counts.clamp_min(1.0)
        x = torch.stack((counts / SCALE, sums / SCALE, mean, share.expand_as(counts)), 2)
        hidden = self.first(x).relu()
        hidden = (self.second(hidden) + self.pooled(hidden.mean(1, keepdim=True))).relu()
        scores = self.last(hidden)
        return scores[..., 0], scores[..., 1] if self.heads > 1 else None


def make_network(kind: str, problem: QueryProblem, answers: int, width: int, seed: int) -> nn.Module:
    """A network of a kind with weights from the seed; its last layer begins at a tenth, so that all queries begin almost alike.

    "posterior" begins at the rule, with a last layer of 0.
    """
    with isolated(seed, "query_network"):
        if kind == "posterior":
            return PosteriorScores(problem, answers, width)
        network: Any = FlatScores(problem.size, answers, width) if kind == "mlp" else ArmScores(width, 2 if answers else 1)
    with torch.no_grad():
        network.last.weight.mul_(0.1)
    return network
