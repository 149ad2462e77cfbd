"""The trained policy as a rule: its probabilities, its ways to answer, its state, its speed."""

import time

import pytest
import torch

from everlearn.agents.learned_query import Learned
from everlearn.agents.query import Query
from everlearn.agents.query_policy import Policy, simulate
from everlearn.core.check import check_agent
from everlearn.core.errors import ArgumentError, StateError
from everlearn.core.state import same
from everlearn.data.query_families import best_arm, thresholds


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def some(problem, count=6):
    counts = torch.randint(0, 3, (count, problem.size), generator=random()).double()
    return counts, (torch.rand(count, problem.size, generator=random(1)).double() * 2 - 1) * counts


def test_it_is_a_rule_and_a_callable_with_one_set_of_probabilities():
    problem = thresholds(5, horizon=6)
    rule = Learned(problem, width=16, seed=3)
    counts, sums = some(problem)
    own = rule(counts, sums, 2, random())
    assert torch.equal(own, Policy(rule, problem)(counts, sums, 2, random()))
    assert torch.allclose(own.sum(1), torch.ones(6, dtype=torch.float64))
    logits = rule.scores(counts.float(), sums.float(), torch.full((6, 1), 2 / 6))[0]
    assert torch.allclose(own, logits.double().softmax(1), atol=1e-6)
    assert simulate(rule, problem, problem.answers[:3], random()).counts.sum(1).tolist() == [6.0] * 3


def test_a_query_is_not_asked_twice_where_it_may_not_be():
    problem = thresholds(5, horizon=5, repeat=False)
    ended = simulate(Learned(problem, width=16), problem, problem.answers[:4], random())
    assert torch.equal(ended.counts, torch.ones(4, 5, dtype=torch.float64))
    problem = thresholds(5, horizon=5)
    assert simulate(Learned(problem, width=16), problem, problem.answers[:4], random()).counts.max() > 1


def test_the_three_ways_to_answer():
    problem = thresholds(5, horizon=6)
    counts, sums = some(problem)
    by_sum = Learned(problem, width=8).answer_probabilities(counts, sums)
    assert by_sum.argmax(1).tolist() == (sums @ problem.answers.T).argmax(1).tolist()
    # labels that flip alike make the posterior a rising function of sum_i S_i z_i
    assert torch.equal(Learned(problem, width=8, answer="posterior").answer_probabilities(counts, sums), by_sum)
    head = Learned(problem, width=8, answer="head")
    scores = head.scores(counts.float(), sums.float(), torch.ones(6, 1))[1]
    assert torch.allclose(head.answer_probabilities(counts, sums), scores.double().softmax(1), atol=1e-6)
    assert not torch.allclose(head.answer_probabilities(counts, sums), by_sum)


def test_untouched_ties_are_broken_at_random():
    problem = thresholds(5, horizon=6)
    none = torch.zeros(600, 5, dtype=torch.float64)
    drawn = Learned(problem, width=8).recommend(none, none, random()).bincount(minlength=6)
    # 600 draws of 6: mean 100, standard deviation 9.1; five of them
    assert int(drawn.min()) > 54 and int(drawn.max()) < 146


def test_one_network_serves_any_number_of_arms():
    rule = Learned(best_arm(4, horizon=8), network="arms", width=8)
    problem = best_arm(7, horizon=8)
    assert simulate(rule, problem, torch.rand(3, 7, generator=random()).double(), random()).counts.shape == (3, 7)
    with pytest.raises(ArgumentError, match="trained for"):
        Policy(Learned(thresholds(4, horizon=4), width=8), thresholds(5, horizon=4))


def test_state_is_kept_and_read_back(tmp_path):
    problem = thresholds(5, horizon=6)
    rule = Learned(problem, width=8, seed=5)
    rule.values, rule.curve = {12.0: 0.5}, [{"round": 0, "loss": 0.25}]
    rule.archive = {"theta": problem.answers.clone()}
    rule.save(tmp_path)
    read = Learned.load(tmp_path, problem)
    assert same(read.state_dict(), rule.state_dict()) and read.values == {12.0: 0.5}
    counts, sums = some(problem)
    assert torch.equal(read(counts, sums, 1, random()), rule(counts, sums, 1, random()))
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}
    before = rule.state_dict()
    with pytest.raises(StateError, match="horizon"):
        Learned(thresholds(5, horizon=7), width=8).load_state_dict(before)
    with pytest.raises(StateError, match="does not fit"):
        Learned.load(tmp_path, thresholds(4, horizon=6))
    with pytest.raises(StateError, match="no policy"):
        Learned.load(tmp_path / "none", problem)


def test_the_agent_asks_with_it_and_keeps_the_contract():
    problem = thresholds(5, horizon=6)
    rule = Learned(problem, width=8)
    agent, none = Query(problem, rule=rule), torch.zeros(1, 5, dtype=torch.float64)
    decision = agent.act(torch.zeros(1, 1), key=3)
    assert decision.propensity == float(rule(none, none, 0, random())[0, decision.action])
    assert check_agent(lambda seed: Query(problem, rule=rule, seed=seed), actions=5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"answer": "best"}, "answer must be"), ({"network": "big"}, "network must be"), ({"network": "arms"}, "best-arm")],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Learned(thresholds(4, horizon=4), **arguments)


def test_a_posterior_needs_probabilities():
    with pytest.raises(ArgumentError, match="posterior"):
        Learned(best_arm(4, horizon=4), answer="posterior")


@pytest.mark.slow
def test_a_thousand_states_take_two_milliseconds():
    """The least processor time of twenty."""
    problem = thresholds(10, horizon=10)
    rule, states = Learned(problem), torch.zeros(1000, 10)
    times = []
    for _ in range(20):
        start = time.process_time()
        rule.act(states, states, 0, random())
        times.append(time.process_time() - start)
    print(f"{1e3 * min(times):.2f} ms")
    assert min(times) <= 0.002
