"""A query policy that was trained rather than thought up: a network on counts and sums of answers, and how it answers at the end.

    P(i_t = i) = softmax_i f(N / 3, S / 3, t / T)        z_hat: erm | head | posterior

It is a rule like every other: bind it with `Policy(rule, problem)`, simulate it, attack it, or ask with it. Its state is tensors and
JSON. `train_query_policy` makes it.

Reference: Zhang, Jain & Jamieson (2020), Learning to actively learn: a robust approach, arXiv 2010.15382.
"""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from everlearn.agents.query_network import make_network
from everlearn.agents.query_rules import Memory, Memoryless, askable
from everlearn.core.errors import ArgumentError, StateError, check_count
from everlearn.core.state import capture, newest_snapshot, save_snapshot
from everlearn.data.query_problem import QueryProblem, leaders, pick

ANSWERS = ("erm", "head", "posterior")
NETWORKS = ("mlp", "arms", "posterior")
FLIP = 0.2315


class Learned(Memoryless):
    """A trained policy for one problem; also a callable (counts, sums, step, generator) -> (B, n) probabilities.

    problem: what it was trained for (its horizon is part of the state that the network sees). answer: "erm" as the problem recommends,
    "head" by scores that the network learned with the same loss, "posterior" the most probable under the problem's likelihood (or
    labels that flip with probability 0.2315). network: "mlp"; "arms" for best-arm problems: equivariant, for any number of arms; or
    "posterior", which begins as a rule (bald, or ucb where the answers are the queries) and sees what the posterior says of each query.

    values: {r: V_r}, the worst-case loss that a policy of its own reaches at each difficulty; archive: {theta, loss, level} of
    the instances that it was trained on; curve: figures by round.

    Raises ArgumentError for a network or an answer that the problem does not allow.

    >>> from everlearn.data.query_families import thresholds
    >>> rule = Learned(thresholds(4, horizon=4), seed=1)
    >>> none = torch.zeros(2, 4)
    >>> rule(none, none, 0, torch.Generator()).sum(1).tolist(), rule.act(none, none, 0, torch.Generator().manual_seed(0)).tolist()
    ([1.0, 1.0], [3, 2])
    """

    name: ClassVar[str] = "learned"

    def __init__(self, problem: QueryProblem, *, answer: str = "erm", network: str = "mlp", width: int = 128, seed: int = 0):
        if answer not in ANSWERS:
            raise ArgumentError(f"learned: answer must be one of {ANSWERS}, got {answer!r}.")
        if network not in NETWORKS:
            raise ArgumentError(f"learned: network must be one of {NETWORKS}, got {network!r}.")
        if answer == "posterior" and problem.likelihood is None and not problem.is_labelling:
            raise ArgumentError(f"learned: answer='posterior' needs labellings or a likelihood; {problem} has neither.")
        if network == "arms" and not (problem.is_identity and torch.equal(problem.answers, problem.queries)):
            raise ArgumentError(f"learned: network='arms' is for best-arm problems, got {problem}.")
        check_count("learned", "width", width)
        self.problem = problem
        self.answer = answer
        self.network = network
        self.width = width
        heads = len(problem.answers) if answer == "head" else 0
        self.scores = make_network(network, problem, heads, width, seed)
        self.values: dict[float, float] = {}
        self.archive: dict[str, Tensor] = {}
        self.curve: list[dict[str, Any]] = []

    def __repr__(self) -> str:
        return f"learned({self.problem!r}, answer={self.answer!r}, network={self.network!r}, width={self.width})"

    def check(self, problem: QueryProblem) -> None:
        """The queries it was trained on; arms may be of another number."""
        if self.network != "arms" and (problem.size, len(problem.answers)) != (self.problem.size, len(self.problem.answers)):
            raise ArgumentError(f"learned: trained for {self.problem}, asked to play {problem}; train it for that one.")

    def outputs(self, counts: Tensor, sums: Tensor, share: Tensor | float) -> tuple[Tensor, Tensor | None]:
        """Scores of queries (B, n) and of answers; sums are read with -1 for no. share: (B, 1), or one number, of the budget spent."""
        weight = self.scores.first.weight
        counts, sums = counts.to(weight.dtype), self.problem.signed(counts, sums).to(weight.dtype)
        if not isinstance(share, Tensor):
            share = torch.full((len(counts), 1), float(share), dtype=weight.dtype)
        return self.scores(counts, sums, share)

    def log_probabilities(self, counts: Tensor, sums: Tensor, share: Tensor | float) -> Tensor:
        """(B, n) log-probabilities of queries, minus infinity where a query may not be asked (again)."""
        logits = self.outputs(counts, sums, share)[0]
        if not self.problem.repeat:
            logits = logits.masked_fill(~askable(self.problem, counts), -torch.inf)
        return logits.log_softmax(1)

    def __call__(self, counts: Tensor, sums: Tensor, step: int, generator: torch.Generator) -> Tensor:
        return self.probabilities(self.problem, counts, sums, step, generator, {})

    def begin(self, *arguments: Any) -> Memory:
        """Nothing to remember: of (episodes), or as a rule of (problem, episodes)."""
        return {}

    def act(self, counts: Tensor, sums: Tensor, step: int, generator: torch.Generator) -> Tensor:
        """(B,) the next query for each of B states."""
        return pick(self(counts, sums, step, generator), generator)

    def probabilities(
        self, problem: QueryProblem, counts: Tensor, sums: Tensor, step: int, generator: torch.Generator, memory: Memory
    ) -> Tensor:
        """The rule's form of the call; arms of another problem than the one of training may be played."""
        with torch.no_grad():
            logits = self.outputs(counts, sums, step / problem.horizon)[0]
            if not problem.repeat:
                logits = logits.masked_fill(~askable(problem, counts), -torch.inf)
            return logits.double().softmax(1)

    def answer_probabilities(self, counts: Tensor, sums: Tensor, problem: QueryProblem | None = None) -> Tensor:
        """(B, m) of the answer at the end; equal ones share it."""
        problem = problem or self.problem
        if self.answer == "head":
            with torch.no_grad():
                return self.outputs(counts, sums, 1.0)[1].double().softmax(1)
        if self.answer == "posterior":
            return leaders(problem.log_posterior(counts, sums, FLIP))
        return leaders(problem.scores(counts, sums))

    def recommend(self, *arguments: Any) -> Tensor:
        """(B,) the answer: of (counts, sums, generator), or as a rule of (problem, counts, sums, generator, memory)."""
        problem, counts, sums, random = arguments[:4] if isinstance(arguments[0], QueryProblem) else (None, *arguments[:3])
        return pick(self.answer_probabilities(counts, sums, problem), random)

    def state_dict(self) -> dict[str, Any]:
        """Weights, values, archive and curve as a tree of tensors and JSON scalars."""
        made = {"answer": self.answer, "network": self.network, "width": self.width}
        values = [[float(r), float(value)] for r, value in self.values.items()]
        return {
            "made": made,
            "horizon": self.problem.horizon,
            "weights": capture(self.scores),
            "values": values,
            "archive": capture(self.archive),
            "curve": capture(self.curve),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state. Raises StateError, with nothing changed, where it is of another network or horizon."""
        made = {"answer": self.answer, "network": self.network, "width": self.width}
        if state.get("made") != made or state.get("horizon") != self.problem.horizon:
            raise StateError(
                f"learned: the state is of {state.get('made')} with horizon {state.get('horizon')}, this policy of {made} with "
                f"{self.problem.horizon}."
            )
        weights, own = state["weights"], self.scores.state_dict()
        if weights.keys() != own.keys() or any(weights[key].shape != own[key].shape for key in own):
            raise StateError(f"learned: the state's network does not fit {self.problem}.")
        self.scores.load_state_dict(weights)
        self.values = dict(state["values"])
        self.archive = {key: value.clone() for key, value in state["archive"].items()}
        self.curve = capture(state["curve"])

    def save(self, folder: str | Path) -> Path:
        """Write the policy into a folder (safetensors beside JSON)."""
        return save_snapshot(Path(folder), 0, self.state_dict())

    @classmethod
    def load(cls, folder: str | Path, problem: QueryProblem) -> "Learned":
        """Read a policy that `save` wrote, for the problem that it was trained for. Raises StateError where it cannot be."""
        found = newest_snapshot(Path(folder))
        if found is None:
            raise StateError(f"learned: {folder} holds no policy; train one with train_query_policy and save it there.")
        state = found[1]
        rule = cls(problem, **state["made"])
        rule.load_state_dict(state)
        return rule
