"""Noise on images: Gaussian, shot, impulse, speckle; and the random numbers of all corruptions, row by row.

    gaussian  x + c N(0, 1)     shot  Poisson(c x) / c     impulse  0 or 1 with probability c     speckle  x + c x N(0, 1)

Every row draws from a generator of its own, so what a row becomes does not depend on which rows stand beside it.

Reference: Hendrycks & Dietterich (2019), arXiv 1903.12261.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from everlearn.core.random import generator


class Draws:
    """Random numbers for some rows: row i draws from a generator made of (seed, kind, index[i])."""

    def __init__(self, seed: int, kind: str, index: Iterable[int]):
        self.each = [generator(seed, "corruption", kind, row) for row in index]

    def normal(self, *shape: int) -> Tensor:
        """(rows, *shape) of N(0, 1)."""
        found = torch.empty(len(self.each), *shape)
        for row, random in zip(found.unbind(), self.each, strict=True):
            row.normal_(generator=random)
        return found

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(rows, *shape) of U(low, high)."""
        found = torch.empty(len(self.each), *shape)
        for row, random in zip(found.unbind(), self.each, strict=True):
            row.uniform_(generator=random)
        return found.mul_(high - low).add_(low)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """(rows, *shape) of int64, low included, high left out."""
        found = torch.empty(len(self.each), *shape, dtype=torch.int64)
        for row, random in zip(found.unbind(), self.each, strict=True):
            row.random_(low, high, generator=random)
        return found

    def poisson(self, rate: Tensor) -> Tensor:
        """Poisson numbers with the rates given, (rows, ...)."""
        drawn = [torch.poisson(row, generator=random) for row, random in zip(rate.unbind(), self.each, strict=True)]
        return torch.stack(drawn)


def gaussian_noise(x: Tensor, deviation: float, *, draws: Draws) -> Tensor:
    """x + deviation * N(0, 1)."""
    return x + deviation * draws.normal(*x.shape[1:])


def shot_noise(x: Tensor, photons: float, *, draws: Draws) -> Tensor:
    """Poisson(photons * x) / photons."""
    return draws.poisson(x * photons) / photons


def impulse_noise(x: Tensor, amount: float, *, draws: Draws) -> Tensor:
    """Each element becomes 0 or 1, half each, with probability `amount`."""
    drawn = draws.uniform(0.0, 1.0, *x.shape[1:])
    return torch.where(drawn < amount / 2, 0.0, torch.where(drawn < amount, 1.0, x))


def speckle_noise(x: Tensor, deviation: float, *, draws: Draws) -> Tensor:
    """x + x * deviation * N(0, 1)."""
    return x + x * deviation * draws.normal(*x.shape[1:])
