"""The uniform agent: exact probabilities, choices that depend on (seed, key) only, counts, and refusals."""

import pytest
import torch
from scipy.stats import chisquare

from everlearn.agents.uniform import Uniform
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Feedback
from everlearn.core.state import load_snapshot, same, save_snapshot

SEEN = torch.zeros(1, 3)


def feedback(action=1, propensity=0.25, reward=1.0):
    return Feedback("7", SEEN, action, propensity, reward)


def choices(agent, count, observation=SEEN):
    return [agent.act(observation, key).action for key in range(count)]


def test_every_action_is_equally_likely():
    counts = torch.bincount(torch.tensor(choices(Uniform(5, seed=1), 5000)), minlength=5)
    # A fixed draw: p is a number, not a chance. 1e-3 is where a fair die would fall in one of a thousand seeds.
    assert chisquare(counts.numpy()).pvalue > 1e-3
    # The control: a die off by 3 points adds 2 * 150^2 / 1000 = 45 to a statistic whose limit at 1e-3 is 18.5.
    assert chisquare((counts + torch.tensor([150, 0, 0, 0, -150])).numpy()).pvalue < 1e-3


def test_choices_follow_one_another_without_pattern():
    taken = torch.tensor(choices(Uniform(3, seed=2), 6000))
    pairs = torch.bincount(taken[:-1] * 3 + taken[1:], minlength=9)
    assert chisquare(pairs.numpy()).pvalue > 1e-3


def test_the_choice_is_a_function_of_seed_and_key():
    agent = Uniform(4, seed=3)
    first = choices(agent, 50)
    for action in first[:10]:
        agent.update(feedback(action))
    torch.manual_seed(99)
    assert choices(agent, 50, torch.ones(1, 3)) == first == choices(Uniform(4, seed=3), 50)
    assert choices(Uniform(4, seed=4), 50) != first


def test_propensity_is_exact():
    assert Uniform(4).act(SEEN, 0).propensity == 0.25
    assert Uniform(1).act(SEEN, 0) == Uniform(1).act(SEEN, 1)


def test_counts_by_hand():
    agent = Uniform(3)
    for action, reward in ((0, 1.0), (2, -0.5), (2, 2.0)):
        assert agent.update(feedback(action, None, reward)) == {"reward": reward}
    assert agent.pulls.tolist() == [1, 0, 2]
    assert agent.rewards.tolist() == [1.0, 0.0, 1.5]


def test_acting_changes_nothing_and_a_snapshot_continues(tmp_path):
    agent = Uniform(3, seed=1)
    agent.update(feedback(2))
    before = agent.state_dict()
    choices(agent, 20)
    assert same(before, agent.state_dict())
    save_snapshot(tmp_path, 1, before)
    second = Uniform(3, seed=1)
    second.load_state_dict(load_snapshot(tmp_path / "000000001.json")[1])
    for one in (agent, second):
        one.update(feedback(0))
    assert same(agent.state_dict(), second.state_dict())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (feedback(action=4), r"action must be an int in 0\.\.3, got 4"),
        (feedback(action=-1), "action must be an int"),
        (feedback(action="left"), "got 'left'"),
        (feedback(action=True), "got True"),
        (feedback(propensity=0.0), r"propensity must be None or a number above 0 and at most 1, got 0\.0"),
        (feedback(propensity=1.5), "propensity"),
        (feedback(propensity=float("nan")), "propensity"),
        (feedback(reward=float("nan")), "reward must be a finite number, got nan"),
        (feedback(reward=float("inf")), "reward"),
        (feedback(reward=None), "reward"),
        ({"action": 1}, "update takes a Feedback, got dict"),
    ],
    ids=str,
)
def test_bad_feedback_is_refused_with_nothing_changed(wrong, message):
    agent = Uniform(4)
    agent.update(feedback())
    before = agent.state_dict()
    with pytest.raises(InputError, match=message):
        agent.update(wrong)
    assert same(before, agent.state_dict())


def test_arguments():
    assert repr(Uniform(actions=5)) == "uniform(actions=5)"
    for wrong in (0, 2.0, True):
        with pytest.raises(ArgumentError, match="uniform: actions must be an int >= 1"):
            Uniform(wrong)
