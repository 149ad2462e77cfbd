"""Networks that score queries: what they see, and that arms are treated alike."""

import torch

from everlearn.agents.query_network import ArmScores, FlatScores, make_network
from everlearn.data.query_families import best_arm, thresholds


def states(arms=5, count=4):
    random = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 4, (count, arms), generator=random).float()
    return counts, torch.randn(count, arms, generator=random) * counts, torch.full((count, 1), 0.3)


def test_the_flat_network_is_two_layers_on_counts_sums_and_the_share_spent():
    network, (counts, sums, share) = make_network("mlp", thresholds(5), 3, 8, 0), states()
    scores, answers = network(counts, sums, share)
    x = torch.cat((counts / 3, sums / 3, share), 1)
    hidden = torch.relu(x @ network.first.weight.T + network.first.bias)
    hidden = torch.relu(hidden @ network.second.weight.T + network.second.bias)
    expected = hidden @ network.last.weight.T + network.last.bias
    assert torch.allclose(torch.cat((scores, answers), 1), expected, atol=1e-6)
    assert FlatScores(5, 0, 8)(counts, sums, share)[1] is None


def test_arms_are_treated_alike_and_may_be_of_any_number():
    network = make_network("arms", best_arm(5), 5, 16, 0)
    counts, sums, share = states()
    order = torch.tensor([3, 1, 4, 0, 2])
    for plain, renamed in zip(network(counts, sums, share), network(counts[:, order], sums[:, order], share), strict=True):
        assert torch.allclose(plain[:, order], renamed, atol=1e-6)
    assert network(*states(arms=9))[0].shape == (4, 9)
    assert ArmScores(8)(counts, sums, share)[1] is None


def test_the_mean_over_arms_reaches_every_score():
    network = make_network("arms", best_arm(5), 0, 16, 0)
    counts, sums, share = states()
    other = sums.clone()
    other[:, 4] += 10.0
    counts[:, 4] += 1.0
    before, after = network(counts, sums, share)[0], network(counts, other, share)[0]
    assert bool(((before - after)[:, :4].abs().sum(1) > 1e-5).all())


def test_the_same_seed_gives_the_same_network():
    first, second, other = (make_network("mlp", thresholds(3), 0, 8, seed).first.weight for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
