"""Weights drawn from Gaussians that are held to those of the last task.

    penalty = strength * KL(q, q_last) = strength * sum log(s_last / s) + (s^2 + (m - m_last)^2) / (2 s_last^2) - 1/2

The prior before the first task has mean 0 and deviation 1.
Reference: Nguyen et al. (2018), Variational continual learning, arXiv 1710.10628.
"""

import torch
from torch import Tensor

from everlearn.nn.bregman import gaussian_divergence
from everlearn.nn.mean_field import MeanField


class Posterior:
    """Holds the Gaussians of a network's weights to what they were at the last announced change.

    >>> held = Posterior(MeanField(torch.nn.Linear(1, 1), deviation=1.0), strength=2.0)
    >>> held.consolidate()
    >>> held.penalty().item()
    0.0
    """

    parts = ("mean", "deviation")

    def __init__(self, model: MeanField, strength: float):
        self.model = model
        self.strength = strength
        means, _ = model.row()
        self.mean = torch.zeros_like(means.detach())  # (weights,) of the prior, as is the deviation
        self.deviation: Tensor = torch.ones_like(self.mean)

    def penalty(self) -> Tensor:
        """strength * KL(q, q_last)."""
        return self.strength * gaussian_divergence(*self.model.row(), self.mean, self.deviation)

    def consolidate(self) -> None:
        """A task ends: what was learned is the prior of the next one."""
        means, deviations = self.model.row()
        self.mean, self.deviation = means.detach().clone(), deviations.detach().clone()
