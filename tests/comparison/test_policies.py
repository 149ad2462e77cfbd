"""Policies by call string: what each would do on a log, and that an agent is never judged on rounds it was fitted on."""

import pytest
import torch

from everlearn.agents.uniform import Uniform
from everlearn.comparison.policies import policy_on, probabilities, teach
from everlearn.core.agent import Agent, Decision
from everlearn.core.errors import ArgumentError, DataError, SpecError
from everlearn.data.decision_log import DecisionLog


def log_of(rows=8, keep=False):
    offered = torch.ones(rows, 3, dtype=torch.bool)
    offered[::2, 2] = False
    spread = offered.double() / offered.sum(dim=1, keepdim=True)
    action = torch.arange(rows) % 2
    return DecisionLog.of(
        torch.arange(rows).float()[:, None],
        offered=offered,
        action=action,
        propensity=spread.gather(1, action[:, None])[:, 0],
        reward=(torch.arange(rows) % 3 == 0).double(),
        probabilities=spread if keep else None,
    )


class Recorder(Agent):
    """Takes the action that paid most so far, and keeps what it was told."""

    name, parts = "recorder", ("told",)

    def __init__(self, actions=3):
        self.actions, self.told = actions, []

    def act(self, observation, key):
        return Decision(1, 1.0)

    def update(self, feedback):
        self.told.append(feedback.id)
        return {}


def test_plain_policies_by_hand():
    log = log_of()
    uniform = policy_on("uniform()", log)
    assert uniform.probabilities[:2].tolist() == [[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]] and len(uniform.log) == 8
    two = policy_on("constant(action=2)", log)
    assert two.log.id == ("1", "3", "5", "7") and two.probabilities.tolist() == [[0.0, 0.0, 1.0]] * 4, "where it is on offer"
    kept = policy_on("logged()", log_of(keep=True))
    assert kept.exact and torch.equal(kept.probabilities, log_of(keep=True).probabilities)
    guessed = policy_on("logged()", log)
    held = guessed.probabilities.gather(1, log.action[:, None])[:, 0]
    assert not guessed.exact and torch.equal(held, log.propensity), "weights of one"
    assert torch.allclose(guessed.probabilities.sum(dim=1), torch.ones(8).double())


def test_an_agent_is_trained_on_earlier_rounds_alone():
    agent = Recorder()
    first, rest = log_of().split(0.25)
    teach(agent, first)
    assert agent.told == ["0", "1"] and not set(agent.told) & set(rest.id)
    assert probabilities(agent, rest).tolist() == [[0.0, 1.0, 0.0]] * 6


def test_a_call_string_of_an_agent_is_given_the_number_of_actions(monkeypatch):
    from everlearn.comparison import catalog, policies

    made = []
    monkeypatch.setattr(policies, "agents", lambda: {"recorder": Recorder})
    monkeypatch.setattr(policies, "build_agent", lambda text, seed: made.append(text) or Recorder())
    judged = policy_on("recorder", log_of(), train=0.25)
    assert made == ["recorder(actions=3)"] and judged.trained == 2 and judged.log.id == tuple("234567")
    assert catalog.agents()["uniform"] is Uniform


def test_the_uniform_agent_is_uniform_over_what_is_offered():
    log = log_of()
    assert torch.allclose(probabilities(Uniform(actions=3), log), policy_on("uniform()", log).probabilities)


class Secretive(Recorder):
    """Tells no probability."""

    name = "secretive"

    def act(self, observation, key):
        return Decision(0, 0.7)


class Stubborn(Recorder):
    """Takes what is not on offer."""

    name = "stubborn"

    def act(self, observation, key):
        return Decision(2, 1.0)


def test_what_cannot_be_judged_is_refused():
    log = log_of()
    for act, error, said in [
        (lambda: policy_on("unifrom()", log), SpecError, "did you mean 'uniform'"),
        (lambda: policy_on("uniform(seed=1)", log), SpecError, "unknown argument 'seed'"),
        (lambda: policy_on("constant(action=3)", log), ArgumentError, "0..2, got 3"),
        (lambda: policy_on("constant(action=2)", log.rows(slice(0, 1))), DataError, "never on offer"),
        (lambda: probabilities(Secretive(), log), DataError, "do not tell the probabilities"),
        (lambda: probabilities(Stubborn(), log), DataError, "in round 0 it would only do what is not on offer"),
    ]:
        with pytest.raises(error, match=said):
            act()
