"""A rule bound to a problem, as a callable, and whole episodes of it played at once.

    p = policy(counts, sums, step, generator)        counts, sums (B, n): how often each query was asked, and the sum of its answers

Any callable of this form is a query policy; `simulate` plays it as it does the rules here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from everlearn.agents.query_rules import Memory, Rule
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.random import generator as seeded
from everlearn.data.query_problem import QueryProblem, pick


class Policy:
    """A rule bound to a problem: call it with (counts, sums, step, generator) for (B, n) probabilities of the next query.

    `begin(B)` starts B episodes. Calls may be repeated: a rule's memory is a function of what was answered so far.

    >>> from everlearn.agents.query_rules import Random
    >>> from everlearn.data.query_families import thresholds
    >>> policy, none = Policy(Random(), thresholds(4)), torch.zeros(1, 4)
    >>> policy(none, none, 0, torch.Generator()).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    def __init__(self, rule: Rule, problem: QueryProblem):
        rule.check(problem)
        self.rule = rule
        self.problem = problem
        self.memory: Memory | None = None

    def begin(self, episodes: int) -> None:
        """Forget, and remember nothing of so many episodes."""
        self.memory = self.rule.begin(self.problem, episodes)

    def __call__(self, counts: Tensor, sums: Tensor, step: int, generator: torch.Generator) -> Tensor:
        if self.memory is None or step == 0:
            self.begin(len(counts))
        self.memory = self.rule.advance(self.problem, counts, sums, self.memory)
        return self.rule.probabilities(self.problem, counts, sums, step, generator, self.memory)

    def recommend(self, counts: Tensor, sums: Tensor, generator: torch.Generator) -> Tensor:
        """(B,) the answer that is given after these."""
        memory = self.rule.advance(self.problem, counts, sums, self.memory or self.rule.begin(self.problem, len(counts)))
        return self.rule.recommend(self.problem, counts, sums, generator, memory)


@dataclass(frozen=True)
class Episodes:
    """What episodes ended in: counts and sums (B, n), the answer given (B,), its loss (B,)."""

    counts: Tensor
    sums: Tensor
    answer: Tensor
    loss: Tensor


def simulate(
    policy: Rule | Callable[[Tensor, Tensor, int, torch.Generator], Tensor],
    problem: QueryProblem,
    theta: Tensor,
    generator: torch.Generator,
) -> Episodes:
    """Play the horizon once for each row of theta (B, d), all at once. A callable of your own answers as the problem does.

    >>> from everlearn.agents.query_rules import GeneralizedBinarySearch
    >>> from everlearn.data.query_families import thresholds
    >>> theta = torch.tensor([[-1.0, -1.0, 1.0, 1.0]], dtype=torch.float64)
    >>> simulate(GeneralizedBinarySearch(), thresholds(4, horizon=3), theta, torch.Generator()).loss.tolist()
    [0.0]
    """
    problem.check(theta)
    counts, sums, answer = _play(policy, problem, len(theta), lambda index: problem.draw(index, theta, generator), generator)
    return Episodes(counts, sums, answer, problem.losses(theta, answer))


def replay(
    policy: Rule | Callable[[Tensor, Tensor, int, torch.Generator], Tensor],
    problem: QueryProblem,
    replies: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """(B,) answers given to people whose replies (B, n) to all queries are on record, such as the ratings of `jokes`."""
    if replies.ndim != 2 or replies.shape[1] != problem.size or not torch.isfinite(replies).all():
        raise InputError(f"replay: replies must be finite ({problem.size} for each row), got shape {tuple(replies.shape)}.")
    told = replies.double()
    return _play(policy, problem, len(told), lambda index: told.gather(1, index[:, None])[:, 0], generator)[2]


def _play(
    policy: Rule | Callable[[Tensor, Tensor, int, torch.Generator], Tensor],
    problem: QueryProblem,
    episodes: int,
    reply: Callable[[Tensor], Tensor],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """(counts, sums, answer) after a horizon."""
    known = Policy(policy, problem) if isinstance(policy, Rule) else None
    play = known or policy
    counts = torch.zeros(episodes, problem.size, dtype=torch.float64)
    sums = torch.zeros_like(counts)
    for step in range(problem.horizon):
        index = pick(play(counts, sums, step, generator), generator)
        y = reply(index)
        counts = counts.scatter_add(1, index[:, None], torch.ones_like(y)[:, None])
        sums = sums.scatter_add(1, index[:, None], y[:, None])
    return counts, sums, (known or problem).recommend(counts, sums, generator)


def hit_rates(rule: Rule, problem: QueryProblem, episodes: int, seed: int = 0) -> Tensor:
    """(m,) how often each object of a table of questions is guessed when it answers as its own row says.

    The rows are the problem's likelihood, so that a player with flips meets objects that flip as often. Raises ArgumentError for
    problems without one.
    """
    if problem.likelihood is None or problem.noise != "sign":
        raise ArgumentError(
            f"hit_rates: {problem} has no table of probabilities; twenty_questions and question_table give one."
        )
    truth = torch.arange(len(problem.answers)).repeat_interleave(episodes)
    theta = 2.0 * problem.likelihood[truth] - 1.0
    answer = simulate(rule, problem, theta, seeded(seed, "hit_rates")).answer
    return (answer == truth).double().view(-1, episodes).mean(1)
