"""Gaussians over weights held to those of the last task."""

import pytest
import torch

from everlearn.learners.variational import Posterior
from everlearn.nn.bregman import LogNorm, bregman, gaussian_parameters
from everlearn.nn.mean_field import MeanField


def test_the_first_prior_is_standard_and_the_penalty_a_log_partition_divergence():
    """KL(N(1, 2^2), N(0, 1)) = 1.3068528194 for each of two weights."""
    model = MeanField(torch.nn.Linear(1, 1), deviation=2.0)
    torch.nn.init.ones_(model.network.weight), torch.nn.init.ones_(model.network.bias)
    held = Posterior(model, strength=0.5)
    assert held.penalty().item() == pytest.approx(1.3068528194, rel=1e-6)
    now, prior = gaussian_parameters(*model.row()), gaussian_parameters(held.mean, held.deviation)
    assert bregman(prior, now, LogNorm()).item() == pytest.approx(2 * 1.3068528194, rel=1e-6)


def test_what_was_learned_is_the_next_prior():
    model = MeanField(torch.nn.Linear(2, 2), deviation=0.3)
    held = Posterior(model, strength=1.0)
    assert held.penalty() > 0
    held.consolidate()
    assert held.penalty().item() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        model.network.weight += 0.3
    assert held.penalty().item() == pytest.approx(4 * 0.5, rel=1e-5)  # four means, each one deviation away
    assert held.deviation[0].item() == pytest.approx(0.3) and not held.mean.requires_grad
