"""A rule on a problem as a callable, and whole episodes."""

import pytest
import torch

from everlearn.agents.query_policy import Policy, replay, simulate
from everlearn.agents.query_rules import Random
from everlearn.agents.rage import Rage
from everlearn.core.errors import InputError
from everlearn.data.query_families import best_arm, thresholds


def test_a_callable_of_ones_own_is_a_policy():
    def third(counts, sums, step, generator):
        return torch.nn.functional.one_hot(torch.full((len(counts),), 2), counts.shape[1]).double()

    found = simulate(third, thresholds(4, horizon=5), torch.ones(2, 4).double(), torch.Generator().manual_seed(0))
    assert found.counts.tolist() == [[0, 0, 5, 0]] * 2 and found.sums.tolist() == [[0, 0, 5, 0]] * 2


def test_episodes_sum_to_the_horizon_and_are_made_from_the_generator():
    theta = torch.ones(3, 10).double()
    first, again = (simulate(Random(), thresholds(10), theta, torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.counts.sum(1).tolist() == [10.0] * 3
    assert torch.equal(first.counts, again.counts) and torch.equal(first.answer, again.answer)
    with pytest.raises(InputError, match="sign noise"):
        simulate(Random(), thresholds(10), 2 * theta, torch.Generator())


def test_asking_twice_changes_nothing():
    policy, generator = Policy(Rage(), best_arm(3, horizon=30)), torch.Generator().manual_seed(0)
    counts, sums = torch.tensor([[4.0, 4.0, 4.0]]), torch.tensor([[0.0, 1.0, 40.0]])
    none = torch.zeros(1, 3)
    policy(none, none, 0, generator)
    first = policy(counts, sums, 12, generator)
    assert torch.equal(first, policy(counts, sums, 12, generator))


def test_a_record_of_replies_is_played_back():
    """Four people, each of whom likes another arm best, are all served right once every arm was asked."""
    replies = torch.eye(4).double()
    assert replay(Random(), best_arm(4, horizon=4, repeat=False), replies, torch.Generator().manual_seed(0)).tolist() == [
        0,
        1,
        2,
        3,
    ]
    with pytest.raises(InputError, match="replies must be finite"):
        replay(Random(), best_arm(4), replies[:, :3], torch.Generator())
