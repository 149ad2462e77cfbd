"""The network that begins as a rule: what it sees, worked out by hand, and that it starts at bald or ucb."""

import math

import pytest
import torch

from everlearn.agents.learned_query import Learned
from everlearn.agents.query_policy import Policy
from everlearn.agents.query_posterior import PosteriorScores
from everlearn.agents.query_rules import Bald
from everlearn.agents.query_training import train_query_policy
from everlearn.core.errors import ArgumentError
from everlearn.core.state import same
from everlearn.data.query_families import best_arm, thresholds, top_k, twenty_questions
from everlearn.data.query_problem import QueryProblem

TABLE = torch.tensor([[0.9, 0.9, 0.1], [0.9, 0.1, 0.1], [0.1, 0.1, 0.1]], dtype=torch.float64)


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def h(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def test_features_of_a_table_by_hand():
    """One yes to the first of three questions: weights .9, .9, .1 over 1.9."""
    problem = twenty_questions(TABLE, 2)
    counts, sums = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    found, known = PosteriorScores(problem).features(counts, sums, torch.tensor([[0.5]]))
    weight = [9 / 19, 9 / 19, 1 / 19]
    assert known[0].exp().tolist() == pytest.approx(weight, abs=1e-6)
    yes = [(18 * 0.9 + 0.1) / 19, (9 * 0.9 + 10 * 0.1) / 19, 0.1]
    told = [h(p) - h(0.1) for p in yes]
    most = told[1]  # the first may not be asked again, and the third tells nothing
    for query in range(3):
        expected = [told[query] / most, most, yes[query], (0.0, 0.8, 0.0)[query], 9 / 19]
        expected += [(1 / 3, 0.0, 0.0)[query], (1 / 3, 0.0, 0.0)[query], 0.5]
        assert found[0, query].tolist() == pytest.approx(expected, abs=1e-6)


def test_features_of_arms_by_hand():
    """Prior N(0, I), sigma 2; one answer of 5 to the first arm: estimate 5 / 5, variance 4 / 5, in units of 2."""
    prior = (torch.zeros(2), torch.eye(2))
    problem = QueryProblem(torch.eye(2), torch.eye(2), noise="gaussian", sigma=2.0, horizon=4, prior=prior)
    counts, sums = torch.tensor([[1.0, 0.0]]), torch.tensor([[5.0, 0.0]])
    found, known = PosteriorScores(problem).features(counts, sums, torch.tensor([[0.25]]))
    worth, deviation = [0.5, 0.0], [0.8**0.5 / 2, 0.5]
    bound = [w + d for w, d in zip(worth, deviation, strict=True)]
    for arm in range(2):
        expected = [bound[arm] - bound[0], worth[arm] - 0.5, deviation[arm], 0.5, deviation[arm] - 0.5]
        expected += [counts[0, arm] / 3, sums[0, arm] / 3, 0.25]
        assert found[0, arm].tolist() == pytest.approx([float(x) for x in expected], abs=1e-6)
    assert known[0].tolist() == pytest.approx([0.0, -0.5])


@pytest.mark.parametrize("noise", ["sign", "bernoulli"])
def test_it_starts_as_bald_softened(noise):
    problem = thresholds(6, horizon=6, noise=noise, constraint=None)
    counts = torch.tensor([[0.0, 1, 0, 2, 0, 1], [1, 1, 1, 0, 0, 0]]).double()
    sums = torch.tensor([[0.0, -1, 0, 2, 0, 1], [-1, 1, 1, 0, 0, 0]]).double()
    sums = sums if noise == "sign" else (sums + counts) / 2
    rule = Learned(problem, network="posterior", width=4)
    scores = Bald().scores(problem, counts, sums)
    expected = (20.0 * scores / scores.amax(1, keepdim=True)).softmax(1)
    assert torch.allclose(rule(counts, sums, 2, random()), expected, atol=1e-5)
    assert (
        rule(counts, sums, 2, random()).argmax(1).tolist()
        == Policy(Bald(), problem)(counts, sums, 2, random()).argmax(1).tolist()
    )


@pytest.mark.parametrize("part", ["bias", "strength", "last.bias", "last.weight", "answer_bias"])
def test_each_part_has_its_say(part):
    problem = twenty_questions(TABLE, 2)
    network = PosteriorScores(problem, 3, 8)
    state = (torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.5]]))
    queries, answers = network(*state)
    value = dict(network.named_parameters())[part]
    with torch.no_grad():
        value.copy_(torch.linspace(0.5, 1.5, value.numel()).reshape(value.shape))
    moved = network(*state)
    if part == "answer_bias":
        assert torch.equal(moved[0], queries)
        assert (moved[1] - answers)[0].tolist() == pytest.approx([2.5, 5.0, 7.5], abs=1e-4)
    elif part == "bias":
        assert (moved[0] - queries)[0].tolist() == pytest.approx([0.5, 1.0, 1.5], abs=1e-5)
    else:
        shift = (moved[0] - queries)[0]
        assert float(shift.detach().abs().max()) > 0.1 and torch.equal(moved[1], answers)
        if part == "last.bias":  # the same for every query: no other choice
            assert shift.tolist() == pytest.approx([0.5] * 3, abs=1e-5)


def test_queries_are_treated_alike():
    """Questions in another order have their scores in that order."""
    order = torch.tensor([2, 0, 1])
    plain, turned = (PosteriorScores(twenty_questions(table, 2), 0, 8) for table in (TABLE, TABLE[:, order]))
    with torch.no_grad():
        plain.last.weight.normal_(generator=random())
    turned.load_state_dict(plain.state_dict())
    counts, sums, share = torch.tensor([[1.0, 0, 1]]), torch.tensor([[1.0, 0, -1]]), torch.tensor([[0.5]])
    assert torch.allclose(
        plain(counts, sums, share)[0][:, order], turned(counts[:, order], sums[:, order], share)[0], atol=1e-5
    )


def test_training_starts_at_the_rule_and_not_at_a_copy_of_it():
    problem = thresholds(5, horizon=5)
    figures = {"rounds": 1, "steps": 1, "particles": 6, "ascent": 1, "problems": 4, "episodes": 3, "value_episodes": 2}
    given = {"network": "posterior", "width": 4, "lr": 0.0, **figures}
    found = [train_query_policy(problem, [12.0], clone_steps=steps, **given) for steps in (0, 50)]
    untrained = Learned(problem, network="posterior", width=4).state_dict()["weights"]
    assert all(same(rule.state_dict()["weights"], untrained) for rule in found)


def test_what_has_no_posterior_is_refused():
    assert Learned(best_arm(4, horizon=4), network="posterior", width=4).network == "posterior"
    with pytest.raises(ArgumentError, match="network='mlp'"):
        Learned(top_k(4, 2, horizon=4), network="posterior")
