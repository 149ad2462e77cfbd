"""RAGE: answers are eliminated phase by phase, each phase asking by the design that tells the remaining ones apart best.

    N_j = max(ceil(8 4^(j-1) rho_j (1 + 1/factor) log(2 |Z|^2 j^2 / delta)), 2 factor support)
    drop z where  sqrt(2 sigma^2 ||z' - z||^2_{A^-1} log(2 n^2 j^2 / delta)) <= <z' - z, theta_hat>  for some z' that remains

theta_hat is of the phase's own answers. With a fixed budget, `phases` phases are shortened by one factor so that they fill the
horizon; the bound is then that of one pair, log(1 / delta) in the place of the logarithm, since all pairs cannot be told apart at once.

Reference: Fiez, Jain, Jamieson & Ratliff (2019), Sequential experimental design for transductive linear bandits, NeurIPS,
arXiv 1906.08399.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from everlearn.agents.query_design import allocate, elimination_design
from everlearn.agents.query_rules import Memory, Rule
from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.data.query_problem import QueryProblem, leaders, pick

UNSEEN = 1e-8  # squared length of what no query of a phase touches


@dataclass(frozen=True, repr=False)
class Rage(Rule):
    """Elimination of answers by designs, for any queries and answers.

    delta: probability of being wrong that the phases are made for; factor: the rounding may cost a share 1 / factor; phases: into
    which a fixed budget is cut; 0 keeps the published lengths, whatever the horizon is, and stops at one answer.
    Differs from the paper in: answers have deviation sigma instead of 1, and the fixed budget.
    """

    delta: float = 0.05
    factor: int = 10
    phases: int = 2
    name: ClassVar[str] = "rage"

    def __post_init__(self) -> None:
        check_range(self.name, "delta", self.delta, 1e-12, 1.0)
        check_count(self.name, "factor", self.factor)
        check_count(self.name, "phases", self.phases, low=0)

    def check(self, problem: QueryProblem) -> None:
        """Queries that may be asked again."""
        if not problem.repeat:
            raise ArgumentError("rage: queries must be allowed to repeat; a design asks some of them many times.")

    def begin(self, problem: QueryProblem, episodes: int) -> Memory:
        """All answers remain, and the first phase is planned."""
        plan = self._plan(problem, torch.ones(len(problem.answers), dtype=torch.bool), 1)
        nothing = torch.zeros(episodes, problem.size, dtype=torch.float64)
        return {
            "active": torch.ones(episodes, len(problem.answers), dtype=torch.bool),
            "plan": plan.repeat(episodes, 1),
            "counts": nothing,
            "sums": nothing,
            "phase": torch.ones(episodes, dtype=torch.int64),
        }

    def advance(self, problem: QueryProblem, counts: Tensor, sums: Tensor, memory: Memory) -> Memory:
        """Where a phase is over: drop answers, and plan the next phase."""
        over = ((counts - memory["counts"]).sum(1) >= memory["plan"].sum(1)) & (memory["active"].sum(1) > 1)
        if not over.any():
            return memory
        memory = {key: value.clone() for key, value in memory.items()}
        plans: dict[bytes, Tensor] = {}
        for row in over.nonzero()[:, 0].tolist():
            asked, told = counts[row] - memory["counts"][row], sums[row] - memory["sums"][row]
            active, phase = memory["active"][row], int(memory["phase"][row])
            active = self._eliminate(problem, active, asked, told, phase)
            key = active.numpy().tobytes() + bytes([phase % 256])
            if key not in plans:
                plans[key] = self._plan(problem, active, phase + 1)
            memory["active"][row] = active
            memory["plan"][row] = plans[key]
            memory["counts"][row], memory["sums"][row] = counts[row].double(), sums[row].double()
            memory["phase"][row] = phase + 1
        return memory

    def probabilities(self, problem, counts, sums, step, generator, memory) -> Tensor:
        """Shared by the queries that lack most of the phase's plan."""
        return leaders(memory["plan"] - (counts - memory["counts"]))

    def recommend(self, problem, counts, sums, generator, memory) -> Tensor:
        """The best estimate among those that remain."""
        return pick(leaders(problem.scores(counts, sums), memory["active"]), generator)

    def _length(self, rho: float, phase: int, answers: int) -> float:
        spread = 8.0 * 4.0 ** (phase - 1) * rho * (1.0 + 1.0 / self.factor)
        return spread * math.log(2.0 * answers**2 * phase**2 / self.delta)

    def _plan(self, problem: QueryProblem, active: Tensor, phase: int) -> Tensor:
        """(n,) how often each query is asked in a phase."""
        if int(active.sum()) < 2:  # decided: what is left of the horizon confirms it evenly
            return torch.full((problem.size,), float(problem.horizon), dtype=torch.float64)
        share, rho = elimination_design(problem.queries, problem.answers[active])
        support = int((share > 0).sum())
        lengths = [
            self._length(rho * problem.variance, number, len(problem.answers))
            for number in range(1, (self.phases or phase) + 1)
        ]
        if not self.phases:
            return allocate(share, max(math.ceil(lengths[-1]), 2 * self.factor * support)).double()
        if phase >= self.phases:  # the last phase lasts to the end
            return allocate(share, problem.horizon).double()
        return allocate(share, max(support, round(problem.horizon * lengths[phase - 1] / sum(lengths)))).double()

    def _eliminate(self, problem: QueryProblem, active: Tensor, asked: Tensor, told: Tensor, phase: int) -> Tensor:
        """Who remains. The best estimate always does."""
        information = (problem.queries * asked[:, None]).T @ problem.queries / problem.variance
        inverse = torch.linalg.pinv(information, hermitian=True)
        seen = told if problem.offset is None else told - asked * problem.offset
        theta = inverse @ (seen @ problem.queries) / problem.variance
        index = active.nonzero()[:, 0]
        answers = problem.answers[index]
        gain = answers @ theta if problem.offset is None else answers @ theta + problem.offset[index]
        unseen = torch.eye(len(inverse), dtype=torch.float64) - inverse @ information  # of which this phase tells nothing
        norm = _squares(answers, inverse).masked_fill(_squares(answers, unseen) > UNSEEN, torch.inf)
        level = 1.0 / self.delta if self.phases else 2.0 * problem.size**2 * phase**2 / self.delta
        bound = (2.0 * norm * math.log(level)).sqrt()
        beaten = ((gain[:, None] - gain[None] >= bound) & ~torch.eye(len(index), dtype=torch.bool)).any(0)
        beaten[int(gain.argmax())] = False
        remains = active.clone()
        remains[index[beaten]] = False
        return remains


def _squares(answers: Tensor, form: Tensor) -> Tensor:
    """(k, k) of (z - z')^T form (z - z')."""
    inner = answers @ form @ answers.T
    return (inner.diagonal()[:, None] + inner.diagonal()[None] - 2.0 * inner).clamp(min=0.0)
