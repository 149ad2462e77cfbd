"""Features as a learner's last layer sees them, and a projection where there is none."""

import pytest
import torch

from everlearn import FineTune, Uniform
from everlearn.core.state import digest
from everlearn.measure.features_seen import PROJECTED, projected, seen_features
from everlearn.nn.features import features


def made():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(16, 7), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(7, 3)
        )


def test_they_are_the_inputs_of_the_last_linear_layer_and_looking_changes_nothing():
    network, x = made(), torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    learner = FineTune(network)
    before = digest(learner.state_dict())
    found = seen_features(learner, x)
    torch.testing.assert_close(found, features(network, x).double(), rtol=0.0, atol=0.0)
    assert digest(learner.state_dict()) == before
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_hooks_are_removed_where_predict_fails():
    network = made()
    learner = FineTune(network)
    with pytest.raises(Exception, match="shape"):
        seen_features(learner, torch.zeros(2, 5))
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_what_has_no_last_layer_sees_nothing():
    assert seen_features(Uniform(), torch.zeros(2, 4)) is None
    assert (
        seen_features(FineTune(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten())), torch.zeros(2, 1, 4, 4))
        is None
    )


def test_a_projection_is_fixed_keeps_distances_and_scales_bytes():
    x = torch.randn(40, 3, 10, 10, generator=torch.Generator().manual_seed(2))
    first = projected(x)
    assert torch.equal(first, projected(x.clone()))
    assert first.shape == (40, PROJECTED)
    ratios = torch.pdist(first) / torch.pdist(x.flatten(1).double())
    spread = ratios / ratios.mean()
    assert 0.5 < float(spread.min()) < float(spread.max()) < 1.6
    white = torch.full((1, 3, 10, 10), 255, dtype=torch.uint8)
    torch.testing.assert_close(projected(white), projected(torch.ones(1, 3, 10, 10)))
