"""The agent that asks: the contract with every rule, answers that are exact, resumption, what cannot be an answer."""

import pytest
import torch

from everlearn import Feedback, check_agent
from everlearn.agents.arm_rules import Lucb, SequentialHalving, Thompson, TopTwo, Ucb
from everlearn.agents.query import Query
from everlearn.agents.query_names import RULES as RULE_NAMES
from everlearn.agents.query_policy import Policy
from everlearn.agents.query_rules import Bald, GeneralizedBinarySearch, Random, Static, Uncertainty
from everlearn.agents.rage import Rage
from everlearn.comparison.building import build_agent
from everlearn.core.errors import ArgumentError, InputError
from everlearn.data.query_families import best_arm, thresholds, twenty_questions

SEEN = torch.zeros(1, 1)
ARMS = best_arm(4, horizon=20)
RULES = [Random(), Uncertainty(), Bald(), Static(), Ucb(), Thompson(), TopTwo(), Lucb(), SequentialHalving(), Rage()]


def test_every_rule_is_held_to_the_contract():
    assert {rule.name for rule in RULES} | {"sgbs"} == set(RULE_NAMES)


QUICK = (Thompson, SequentialHalving, Rage)  # one that draws, one that reads the counts, one that remembers


@pytest.mark.parametrize(
    "rule", [pytest.param(rule, marks=() if isinstance(rule, QUICK) else pytest.mark.slow) for rule in RULES], ids=repr
)
def test_agents_of_every_rule_keep_the_contract(rule):
    assert len(check_agent(lambda seed: Query(ARMS, rule, seed=seed), actions=4)) == 9


def say(agent, action, y):
    return agent.update(Feedback("0", SEEN, action, None, y))


def test_four_answers_find_any_of_eleven_thresholds():
    for cut in range(11):
        agent = Query(thresholds(10, horizon=4), GeneralizedBinarySearch(beta=1e-6))
        for key in range(4):
            action = agent.act(SEEN, key).action
            metrics = say(agent, action, 1.0 if action >= cut else -1.0)
        assert agent.answer() == cut and metrics == {"asked": 4, "remaining": 0}


def test_a_rule_that_draws_states_no_propensity():
    assert Query(ARMS, Thompson()).act(SEEN, 0).propensity is None
    assert Query(ARMS, Random()).act(SEEN, 0).propensity == 0.25


def test_a_query_that_is_withheld_is_never_asked():
    agent = Query(thresholds(4, horizon=4), Random())
    agent.withhold(2)
    agent.withhold(0)
    assert {agent.act(SEEN, key).action for key in range(50)} == {1, 3}
    agent.withhold(1)
    with pytest.raises(InputError, match="last query"):
        agent.withhold(3)
    again = Query(thresholds(4, horizon=4), Random())
    again.load_state_dict(agent.state_dict())
    assert {again.act(SEEN, key).action for key in range(20)} == {3}


def test_the_agent_asks_as_the_policy_does():
    """One state of the agent against the batched form, rule by rule, also where the rule remembers."""
    theta = torch.linspace(0, 1, 4).double()
    for rule in (SequentialHalving(), Rage(), Ucb()):
        agent, policy = Query(ARMS, rule), Policy(rule, ARMS)
        for key in range(20):
            shares = policy(agent.counts[None], agent.sums[None], key, torch.Generator())[0]
            assert torch.equal(shares, agent.probabilities(key))
            action = agent.act(SEEN, key).action
            say(agent, action, float(theta[action]) + (0.3 if key % 2 else -0.3))
        answer = policy.recommend(agent.counts[None], agent.sums[None], torch.Generator())
        assert agent.answer() == int(answer)


def test_answers_that_the_noise_does_not_know_are_refused():
    agent = Query(thresholds(4))
    for wrong in (1.5, -2.0, True, None):
        with pytest.raises(InputError, match=r"-1\.\.1 under sign noise"):
            say(agent, 0, wrong)
    assert agent.counts.sum() == 0
    with pytest.raises(InputError, match=r"0\.\.1 under bernoulli noise"):
        say(Query(best_arm(2, noise="bernoulli"), Random()), 0, -1.0)


def test_scores_are_log_probabilities_of_a_table():
    agent = Query(twenty_questions(torch.tensor([[0.9, 0.5], [0.3, 0.6]]), 2), Bald())
    say(agent, 0, 1.0)
    assert agent.scores().exp().tolist() == pytest.approx([0.75, 0.25])


def test_it_is_made_from_a_text():
    agent = build_agent("query(problem=best_arm(n=4, horizon=20), rule=rage(delta=0.1))", seed=3)
    assert (agent.rule, agent.actions, agent.seed) == (Rage(delta=0.1), 4, 3)
    assert build_agent(repr(agent), seed=3).problem.spec == agent.problem.spec
    with pytest.raises(ArgumentError, match="ucb: the answers must be the queries"):
        Query(thresholds(4), Ucb())
    with pytest.raises(ArgumentError, match="rule must be a Rule"):
        Query(thresholds(4), "sgbs")
