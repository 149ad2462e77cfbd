"""Scores that are learned with the weights: the choice by hand, and Adam on them beside torch's."""

import torch

from everlearn.learners.sparse_scores import Scores


def begun(seed=0, lr=0.1):
    scores = Scores({"a": (4, 5), "b": (2, 10)}, {"a": 0.25, "b": 0.1}, lr)
    scores.begin(torch.randn(40, generator=torch.Generator().manual_seed(9)), torch.Generator().manual_seed(seed))
    return scores


def test_each_layer_has_its_highest_scores():
    scores = begun()
    scores.values = torch.tensor([*range(20), *range(0, -20, -1)], dtype=torch.float32)
    assert scores.mask().nonzero().flatten().tolist() == [15, 16, 17, 18, 19, 38, 39]  # by size, whatever the sign


def test_scores_are_drawn_as_wide_as_weights():
    values = begun().values
    assert (values[:20].abs() <= 5**-0.5).all() and (values[20:].abs() <= 10**-0.5).all()
    assert values[:20].abs().max() > 0.8 * 5**-0.5 and not torch.equal(values, begun(1).values)


def test_scores_follow_adam_through_the_choice():
    scores = begun()
    twin = torch.nn.Parameter(scores.values.clone())
    adam = torch.optim.Adam([twin], lr=0.1)
    source = torch.Generator().manual_seed(3)
    for _ in range(5):
        gradient, weights, mask = torch.randn(40, generator=source), torch.randn(40, generator=source), scores.mask()
        twin.grad = gradient * scores.latent * twin.detach().sign()
        adam.step()
        scores.step(gradient, weights, mask)
        assert torch.allclose(scores.values, twin, atol=1e-5)


def test_weights_outside_the_mask_keep_their_values():
    scores = begun()
    before, mask = scores.latent.clone(), scores.mask()
    weights = torch.full((40,), 7.0)
    found = scores.step(torch.ones(40), weights, mask)
    assert torch.equal(scores.latent[~mask], before[~mask]) and (scores.latent[mask] == 7.0).all()
    assert int(found.sum()) == 7


def test_a_layer_keeps_at_least_one_place():
    assert Scores({"a": (2, 2)}, {"a": 0.01}, 0.1).counts == {"a": 1}
