"""Masks from scores that are learned with the weights: the winning sub-network of each task.

    mask = the highest |s| of each layer, as many as its density says;  effective weight = w * mask
    ds = dL/d(effective weight) * w * sign(s)     straight through the choice, for every place, active or not

Scores are followed by Adam with the rate of the weights. Unlike growth and removal the mask may change with every step.
Reference: Kang et al. (2022), Forget-free continual learning with winning subnetworks, ICML.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from everlearn.core.flat import flat
from everlearn.nn.masks import highest

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Scores:
    """A score for every masked weight, and the values of the weights that are not in the mask at the moment.

    >>> scores = Scores({"layer": (2, 4)}, {"layer": 0.25}, lr=0.1)
    >>> scores.begin(torch.ones(8), torch.Generator().manual_seed(0))
    >>> int(scores.mask().sum())
    2
    """

    parts = ("values", "first", "second", "steps", "latent")

    def __init__(self, shapes: Mapping[str, Sequence[int]], densities: Mapping[str, float], lr: float):
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.counts = {name: max(1, round(densities[name] * math.prod(shape))) for name, shape in self.shapes.items()}
        self.lr = lr
        self.values = torch.zeros(0)  # (weights,) the scores
        self.first = torch.zeros(0)  # Adam's moments
        self.second = torch.zeros(0)
        self.steps = 0
        self.latent = torch.zeros(0)  # (weights,) the weights, in the mask or not

    def begin(self, weights: Tensor, random: torch.Generator) -> None:
        """Draw the scores of a new task, as torch draws the weights of a layer, over weights (weights,) as they stand."""
        drawn = [
            (2.0 * torch.rand(math.prod(shape), generator=random) - 1.0) / math.sqrt(math.prod(shape[1:]))
            for shape in self.shapes.values()
        ]
        self.values = flat(drawn).to(weights.device)
        self.first, self.second = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self.steps = 0
        self.latent = weights.clone()

    def mask(self) -> Tensor:
        """(weights,) bool: the highest scores of each layer."""
        pieces = self.values.abs().split([math.prod(shape) for shape in self.shapes.values()])
        return flat([highest(piece, count) for piece, count in zip(pieces, self.counts.values(), strict=True)])

    def step(self, gradient: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
        """Follow the scores; returns the new mask.

        gradient: (weights,) of the effective weights, dense, at the weights that the step began with; weights: (weights,) after their
        own step; mask: the one that they were stepped under.
        """
        slope = gradient * self.latent * self.values.sign()
        self.latent = torch.where(mask, weights, self.latent)
        self.steps += 1
        self.first = torch.lerp(self.first, slope, 1.0 - BETAS[0])
        self.second = torch.lerp(self.second, slope * slope, 1.0 - BETAS[1])
        first = self.first / (1.0 - BETAS[0] ** self.steps)
        second = self.second / (1.0 - BETAS[1] ** self.steps)
        self.values = self.values - self.lr * first / (second.sqrt() + EPSILON)
        return self.mask()
