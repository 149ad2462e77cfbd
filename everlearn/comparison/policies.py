"""Policies by call string, for the rounds of a log: what each would do there, and never on rounds that it was fitted on.

    uniform()   constant(action=2)   logged()   or an agent, such as bandit(explore=greedy(), oracle=logistic())

The first three know nothing, so all rounds judge them. An agent is trained on the earlier part of the log and judged on the later.
Reference: Li et al. (2011), arXiv 1003.5956.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from everlearn.comparison.building import build_agent
from everlearn.comparison.catalog import agents
from everlearn.core.agent import Agent
from everlearn.core.errors import ArgumentError, DataError, SpecError, check_count, closest
from everlearn.core.events import Feedback
from everlearn.core.spec import Call, invoke, lookup, parse
from everlearn.data.decision_log import DecisionLog

PLAIN = ("uniform", "constant", "logged")


@dataclass(frozen=True)
class Judged:
    """A policy on the rounds that judge it. trained: rounds that it was fitted on before them; exact: False where only the mean of the
    log is known, because it keeps no probabilities."""

    log: DecisionLog
    probabilities: Tensor
    trained: int = 0
    exact: bool = True


def policy_on(text: str, log: DecisionLog, *, train: float = 0.5, seed: int = 0) -> Judged:
    """What the policy of a call string would do on the rounds of a log that it has not seen.

    train: the part of the log, its earliest rounds, on which an agent is trained. Raises SpecError, ArgumentError, DataError.
    """
    call = parse(text)
    if call.name in PLAIN:
        return _plain(call, log)
    if ":" not in call.name and call.name not in agents():
        raise SpecError(closest("policy", call.name, [*PLAIN, *agents()]))
    first, rest = log.split(train)
    agent = build_agent(str(_with_actions(call, log.actions)), seed)
    teach(agent, first)
    return Judged(rest, probabilities(agent, rest), len(first))


def teach(agent: Agent, log: DecisionLog) -> None:
    """Let an agent learn from all rounds of a log, in order, as it does from its own; one that is fitted by periods closes the last."""
    learn, refit = getattr(agent, "learn", None), getattr(agent, "refit", None)
    if learn is not None:
        learn(log.x, log.offered, log.action, log.reward, log.propensity, list(log.id))
    else:
        for row, name in enumerate(log.id):
            told = int(log.action[row]), float(log.propensity[row]), float(log.reward[row])
            agent.update(Feedback(name, log.x[row : row + 1], *told))
    if refit is not None:
        refit()


def probabilities(agent: Agent, log: DecisionLog) -> Tensor:
    """(n, actions) float64: the agent's distribution on each round. Raises DataError where it tells none."""
    decide = getattr(agent, "decide", None)
    if decide is not None:
        return decide({"x": log.x, "offered": log.offered}, list(range(len(log)))).probabilities
    found = torch.zeros(len(log), log.actions, dtype=torch.float64)
    for row in range(len(log)):
        decision = agent.act(log.x[row : row + 1], key=row)
        if decision.probabilities is not None:
            found[row] = torch.tensor(decision.probabilities, dtype=torch.float64)
        elif decision.propensity == 1.0:
            found[row, decision.action] = 1.0
        elif decision.propensity is not None and abs(decision.propensity * log.actions - 1.0) < 1e-9:
            found[row] = 1.0 / log.actions  # one in as many as there are: all are alike
        else:
            raise DataError(
                f"{agent.name}: its decisions do not tell the probabilities of all actions, so it cannot be judged."
            )
    found = torch.where(log.offered, found, 0.0)  # what is not on offer is not done; the rest is done more often
    total = found.sum(dim=1, keepdim=True)
    if not bool((total > 0).all()):
        raise DataError(f"{agent.name}: in round {int((total <= 0).int().argmax())} it would only do what is not on offer.")
    return found / total


def _plain(call: Call, log: DecisionLog) -> Judged:
    def uniform() -> Judged:
        return Judged(log, log.offered.double() / log.offered.sum(dim=1, keepdim=True))

    def constant(action: int) -> Judged:
        check_count("constant", "action", action, low=0)
        if action >= log.actions:
            raise ArgumentError(f"constant: action must lie in 0..{log.actions - 1}, got {action}.")
        there = log.offered[:, action]
        if not bool(there.any()):
            raise DataError(f"constant: action {action} is never on offer in this log, so it cannot be judged.")
        shown = log if bool(there.all()) else log.rows(there)
        chosen = torch.zeros(len(shown), log.actions, dtype=torch.float64)
        chosen[:, action] = 1.0
        return Judged(shown, chosen)

    def logged() -> Judged:
        if log.probabilities is not None:
            return Judged(log, log.probabilities)
        others = log.offered.clone().scatter_(1, log.action[:, None], False).double()
        count = others.sum(dim=1, keepdim=True)
        spread = others * (1.0 - log.propensity[:, None]) / count.clamp(min=1.0)
        spread.scatter_(1, log.action[:, None], torch.where(count > 0, log.propensity[:, None], 1.0))
        return Judged(log, spread, exact=False)

    known: dict[str, Any] = {"uniform": uniform, "constant": constant, "logged": logged}
    return invoke(call.name, known[call.name], list(call.args), dict(call.kwargs))


def _with_actions(call: Call, actions: int) -> Call:
    """The call of an agent with the number of actions of the log, where it takes one and was not given it."""
    import inspect

    target = lookup(call.name, agents(), "agent")
    if call.args or "actions" in dict(call.kwargs) or "actions" not in inspect.signature(target).parameters:
        return call
    return Call(call.name, call.args, (("actions", actions), *call.kwargs), True)
