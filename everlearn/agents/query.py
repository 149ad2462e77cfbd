"""The agent that asks: a query rule on a problem, one question and one answer at a time.

    act -> the index of the next query      update(Feedback(action=index, reward=y))      answer() -> the index of z

State is how often each query was asked, the sum of its answers, and what the rule remembers. The observation plays no part.

Reference: Zhang, Jain & Jamieson (2020), Learning to actively learn: a robust approach, arXiv 2010.15382.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from everlearn.agents.query_rules import GeneralizedBinarySearch, Memory, Rule
from everlearn.core.agent import Agent, Decision
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Feedback, Metrics, X
from everlearn.core.random import generator
from everlearn.data.query_families import thresholds
from everlearn.data.query_problem import QueryProblem, pick


class Query(Agent):
    """Chooses which of a problem's queries to ask next, and at the end which answer holds.

    problem: what can be asked and answered, thresholds(n=10, horizon=10) by default; rule: which question next, sgbs() by default.
    Whether queries repeat is the problem's to say (`repeat`). Answers are those of its noise: within -1..1 (sign) or 0..1
    (bernoulli), where a value between counts as so much of each, or any number (gaussian). Past the horizon it goes on choosing.
    State: counts and sums (n,) float64, withheld (n,) bool, the rule's memory.

    Raises ArgumentError where the rule means nothing on the problem, InputError for an answer that the noise does not know.

    >>> import torch
    >>> from everlearn import Feedback
    >>> agent = Query(thresholds(n=4, horizon=3))
    >>> for key in range(3):  # the labels are -1 -1 1 1
    ...     action = agent.act(torch.zeros(1, 1), key).action
    ...     y = 1.0 if action >= 2 else -1.0
    ...     metrics = agent.update(Feedback(str(key), torch.zeros(1, 1), action, None, y))
    >>> agent.problem.answers[agent.answer()].tolist()
    [-0.5, -0.5, 0.5, 0.5]
    """

    name = "query"
    parts = ("counts", "sums", "withheld", "memory")

    def __init__(self, problem: QueryProblem | None = None, rule: Rule | None = None, *, seed: int = 0):
        self.problem = thresholds(n=10, horizon=10) if problem is None else problem
        self.rule = GeneralizedBinarySearch() if rule is None else rule
        for name, value, kind in (("problem", self.problem, QueryProblem), ("rule", self.rule, Rule)):
            if not isinstance(value, kind):
                raise ArgumentError(f"query: {name} must be a {kind.__name__}, got {value!r}.")
        self.rule.check(self.problem)
        self.actions = self.problem.size
        self.seed = seed
        self.counts = torch.zeros(self.actions, dtype=torch.float64)
        self.sums = torch.zeros(self.actions, dtype=torch.float64)
        self.withheld = torch.zeros(self.actions, dtype=torch.bool)
        self.memory: Memory = self.rule.begin(self.problem, 1)

    def act(self, observation: X, key: int) -> Decision:
        """The next query, drawn from (seed, key); its probability where the rule knows it."""
        chances = self.probabilities(key)
        action = int(pick(chances[None], generator(self.seed, self.name, "act", key)))
        return Decision(action, float(chances[action]) if self.rule.exact else None)

    def probabilities(self, key: int = 0) -> Tensor:
        """(n,) of the next query; for a rule that draws, under the draw of this key."""
        draws = generator(self.seed, self.name, "rule", key)
        step = int(self.counts.sum())
        problem = self._open()
        return self.rule.probabilities(problem, self.counts[None], self.sums[None], step, draws, self.memory)[0]

    def update(self, feedback: Feedback) -> Metrics:
        """Take one answer. Raises InputError, with nothing changed, where it cannot be one to these queries."""
        self._check(feedback)
        counts, sums = self.counts.clone(), self.sums.clone()
        counts[feedback.action] += 1.0
        sums[feedback.action] += feedback.reward
        self.memory = self.rule.advance(self.problem, counts[None], sums[None], self.memory)
        self.counts, self.sums = counts, sums
        return {"asked": int(counts.sum()), "remaining": max(0, self.problem.horizon - int(counts.sum()))}

    def withhold(self, query: int) -> None:
        """Never ask this query: its answer cannot be had. What was answered to it stays. Refuses to withhold the last one."""
        if not isinstance(query, int) or isinstance(query, bool) or not 0 <= query < self.actions:
            raise InputError(f"query: the query to withhold must be an int in 0..{self.actions - 1}, got {query!r}.")
        left = self.withheld.clone()
        left[query] = True
        if left.all():
            raise InputError("query: this is the last query that may be asked; it cannot be withheld too.")
        self.withheld = left

    def answer(self) -> int:
        """The index of the answer that holds by what is known; equal ones are decided by the seed."""
        draws = generator(self.seed, self.name, "answer")
        return int(self.rule.recommend(self.problem, self.counts[None], self.sums[None], draws, self.memory))

    def scores(self) -> Tensor:
        """(m,) by which the problem would recommend: log-probabilities where it has a likelihood."""
        return self.problem.scores(self.counts[None], self.sums[None])[0]

    def _open(self) -> QueryProblem:
        return replace(self.problem, withheld=self.withheld) if self.withheld.any() else self.problem

    def _check(self, feedback: Feedback) -> None:
        if not isinstance(feedback, Feedback):
            raise InputError(f"query: update takes a Feedback, got {type(feedback).__name__}.")
        action, propensity, reward = feedback.action, feedback.propensity, feedback.reward
        if not isinstance(action, int) or isinstance(action, bool) or not 0 <= action < self.actions:
            raise InputError(f"query: action must be an int in 0..{self.actions - 1}, got {action!r}.")
        if propensity is not None and not (_number(propensity) and 0.0 < propensity <= 1.0):
            raise InputError(f"query: propensity must be None or a number above 0 and at most 1, got {propensity!r}.")
        low, high = {"sign": (-1.0, 1.0), "bernoulli": (0.0, 1.0), "gaussian": (-math.inf, math.inf)}[self.problem.noise]
        if not (_number(reward) and math.isfinite(reward) and low <= reward <= high):
            allowed = "a finite number" if self.problem.noise == "gaussian" else f"a number in {low:g}..{high:g}"
            raise InputError(
                f"query: an answer (reward) must be {allowed} under {self.problem.noise} noise, got {reward!r}."
            )


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
