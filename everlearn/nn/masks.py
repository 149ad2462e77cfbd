"""Masks over the weights of a network: which are dropped, which grow, and a store of one bit per weight and task.

    removal rate at step s of T:   last + (first - last) (1 + cos(pi s / T)) / 2,   k = ceil(rate * active)

Reference: Mocanu et al. (2018), arXiv 1707.04780; Evci et al. (2020), arXiv 1911.11134; Yildirim et al. (2024), arXiv 2308.14831.
"""

import math
from collections.abc import Iterable

import numpy
import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError
from everlearn.core.flat import flat

ROUNDING = 1e-9  # of rate * active: 0.07 * 100 is a little above 7, and means 7
MASKABLE = (nn.Linear, nn.modules.conv._ConvNd)


def maskable(model: nn.Module) -> dict[str, nn.Parameter]:
    """{name: weight} of the convolutions and linear layers; biases and normalisations are never masked.

    >>> list(maskable(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4))))
    ['0.weight']
    """
    return {
        f"{name}.weight".lstrip("."): layer.weight for name, layer in model.named_modules() if isinstance(layer, MASKABLE)
    }


def magnitude_mask(parameters: Iterable[Tensor], fraction: float) -> Tensor:
    """(weights,) bool: the fraction of all weights that is smallest in magnitude, over all parameters one after the other.

    >>> magnitude_mask([torch.tensor([0.5, -0.1, 2.0])], 0.34).tolist()
    [False, True, False]
    """
    if not 0.0 <= fraction <= 1.0:
        raise ArgumentError(f"magnitude_mask: fraction must be in [0, 1], got {fraction!r}. Use 1.0 for all weights.")
    row = flat(list(parameters)).detach().abs()
    return highest(-row, round(fraction * len(row)))


def removal_rate(step: int, steps: int, first: float = 0.5, last: float = 0.005) -> float:
    """The share of active weights that an update removes after `step` of `steps`.

    >>> [round(removal_rate(step, 4), 4) for step in range(5)]
    [0.5, 0.4275, 0.2525, 0.0775, 0.005]
    """
    return last + (first - last) * (1.0 + math.cos(math.pi * min(step / steps, 1.0))) / 2.0


def highest(score: Tensor, count: int) -> Tensor:
    """Bool, of the score's shape: the `count` highest; among equals those that come first. NaN counts as the highest.

    In time proportional to the number of scores, where sorting them all would take ten times as long.

    >>> highest(torch.tensor([1.0, 3.0, 2.0, 2.0]), 2).tolist()
    [False, True, True, False]
    """
    row = score.flatten()
    if count <= 0 or count >= len(row):
        return torch.full_like(score, count > 0, dtype=torch.bool)
    row = row.masked_fill(row.isnan(), math.inf)
    place = len(row) - count
    least = float(numpy.partition(row.detach().cpu().numpy(), place)[place])  # five times as fast as torch's kthvalue
    chosen = row > least
    equal = (row == least).nonzero().flatten()
    chosen[equal[: count - int(chosen.count_nonzero())]] = True
    return chosen.view(score.shape)


def drop(mask: Tensor, importance: Tensor, rate: float) -> Tensor:
    """The mask without the ceil(rate * active) active places of least importance (|w|, say); ties drop no more than that."""
    count = math.ceil(rate * int(mask.count_nonzero()) - ROUNDING)
    kept = mask.clone()
    kept[mask] = ~highest(-importance[mask], count)
    return kept


def grow(mask: Tensor, score: Tensor, count: int) -> Tensor:
    """The mask with the `count` inactive places of the highest score (|gradient|, or random draws), all where fewer are left."""
    grown = mask.clone()
    grown[~mask] = highest(score[~mask], count)
    return grown


class Masks:
    """The masks of the tasks over one row of weights, one bit per weight and task.

    >>> masks = Masks(10)
    >>> masks.append(torch.arange(10) < 3)
    >>> masks[0].sum().item(), masks.used().sum().item(), masks.bytes
    (3, 3, 2)
    """

    parts = ("packed",)

    def __init__(self, weights: int):
        self.weights = weights
        self.packed = torch.zeros(0, math.ceil(weights / 8), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, task: int) -> Tensor:
        """(weights,) bool of the task appended in this place."""
        return self._unpack(self.packed[task])

    def append(self, mask: Tensor) -> None:
        """Store the mask (weights,) of one more task."""
        if mask.shape != (self.weights,):
            raise ArgumentError(
                f"Masks: a mask must have shape ({self.weights},), got {tuple(mask.shape)}. Flatten it first."
            )
        bits = torch.nn.functional.pad(mask.to(torch.uint8), (0, -self.weights % 8)).reshape(-1, 8)
        row = (bits << torch.arange(8, dtype=torch.uint8)).sum(1).to(torch.uint8)
        self.packed = torch.cat([self.packed, row[None]])

    def used(self) -> Tensor:
        """(weights,) bool: what any task reads."""
        union = torch.zeros(self.packed.shape[1], dtype=torch.uint8)
        for row in self.packed:
            union |= row
        return self._unpack(union)

    @property
    def bytes(self) -> int:
        """Bytes that the masks take."""
        return self.packed.numel()

    def _unpack(self, row: Tensor) -> Tensor:
        bits = (row[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
        return bits.flatten()[: self.weights].bool()
