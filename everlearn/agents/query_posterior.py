"""A network that begins as a rule: it scores each query by what the posterior says of it, all queries by the same small network.

    score_i = strength g_i + bias_i + MLP(g_i, p_i, ..., N_i, S_i, t / T)        score_z = 5 (log p(z) + bias_z)

Where answers are labellings or have a likelihood, g_i is what the answer tells of z (bald), as a share of the most that any query
tells, and p_i the chance of yes. Where the answers are the queries, g_i is the upper bound (ucb) and p_i the estimate, both below
the best and in units of the noise. The MLP's last layer and all biases begin at 0, so that training starts at the rule, not at chance.

References: Houlsby et al. (2011), arXiv 1112.5745 (bald); Auer (2002), Using confidence bounds for exploitation-exploration
trade-offs (ucb); Zhang, Jain & Jamieson (2020), arXiv 2010.15382 (training).
"""

import torch
from torch import Tensor, nn

from everlearn.agents.query_rules import BETA, Bald, askable, posterior, spread
from everlearn.core.errors import ArgumentError
from everlearn.data.query_problem import QueryProblem

SCALE = 3.0  # of counts and sums
STRENGTH, SURE = 20.0, 5.0  # of a rule's relative score before training; of the log-posterior where a head answers
FEATURES = 8
FLOOR = 1e-9


class PosteriorScores(nn.Module):
    """(counts, sums, share) -> (B, n) scores of queries and (B, m) scores of answers (or None).

    Raises ArgumentError for problems of which neither answers have probabilities nor are the queries.

    >>> from everlearn.data.query_families import thresholds
    >>> none = torch.zeros(1, 5)
    >>> PosteriorScores(thresholds(5), width=4)(none, none, none[:, :1])[0].argmax(1).tolist()  # the middle
    [2]
    """

    def __init__(self, problem: QueryProblem, heads: int = 0, width: int = 32):
        super().__init__()
        self.problem = problem
        self.heads = heads
        self.discrete = problem.likelihood is not None or problem.is_labelling
        if not self.discrete and not torch.equal(problem.answers, problem.queries):
            raise ArgumentError(
                f"learned: network='posterior' is for labellings, tables with a likelihood, and answers that are the queries, got "
                f"{problem}. Use network='mlp'."
            )
        self.strength = nn.Parameter(torch.tensor(STRENGTH).log())
        self.bias = nn.Parameter(torch.zeros(problem.size))
        self.first = nn.Linear(FEATURES, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, 1)
        self.answer_bias = nn.Parameter(torch.zeros(len(problem.answers))) if heads else None
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, counts: Tensor, sums: Tensor, share: Tensor) -> tuple[Tensor, Tensor | None]:
        """sums: with -1 for no; share: (B, 1) of the budget that is spent."""
        with torch.no_grad():
            features, known = self.features(counts, sums, share)
        hidden = self.second(self.first(features).relu()).relu()
        scores = self.strength.exp() * features[..., 0] + self.bias + self.last(hidden)[..., 0]
        return scores, None if self.answer_bias is None else SURE * (known + self.answer_bias)

    def features(self, counts: Tensor, sums: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n, 8): the rule's score, four more of the posterior, N / 3, S / 3, t / T; and (B, m) what is known of the answers."""
        told = (counts + sums) / 2.0 if self.problem.noise == "bernoulli" else sums
        found, known = (self._labels if self.discrete else self._arms)(counts.double(), told.double())
        columns = [*found, counts / SCALE, sums / SCALE, share]
        return torch.stack([x.to(counts.dtype).expand_as(counts) for x in columns], 2), known.to(counts.dtype)

    def _labels(self, counts: Tensor, sums: Tensor) -> tuple[list[Tensor], Tensor]:
        """Information as a share of the most, the most, chance of yes, how far the two likeliest differ, how likely the first is."""
        weight, chance = posterior(self.problem, counts, sums, BETA)
        told = Bald(BETA).of(weight, chance).clamp_min(0.0)
        most = told.masked_fill(~askable(self.problem, counts), 0.0).amax(1, keepdim=True).clamp_min(FLOOR)
        top = weight.topk(2, 1)
        apart = (chance[top.indices[:, 0]] - chance[top.indices[:, 1]]).abs()
        return [told / most, most, weight @ chance, apart, top.values[:, :1]], weight.clamp_min(FLOOR).log()

    def _arms(self, counts: Tensor, sums: Tensor) -> tuple[list[Tensor], Tensor]:
        """Upper bounds and estimates below the best of each, deviations, the largest, and deviations below it; in units of the noise."""
        unit = self.problem.variance**0.5
        worth = self.problem.scores(counts, sums) / unit
        deviation = spread(self.problem, counts, sums).clamp_min(0.0).sqrt() / unit
        bound, below, less = (x - x.amax(1, keepdim=True) for x in (worth + deviation, worth, deviation))
        return [bound, below, deviation, deviation.amax(1, keepdim=True), less], below
