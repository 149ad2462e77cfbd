"""How far the weights move in a step, relative to their size, from a fixed sample of them.

    size = sqrt( sum_i s_i (w_i - w'_i)^2 / sum_i s_i w'_i^2 )      s_i: how many weights the sampled weight i stands for

A step is held against the running median of the newest ones: a spike is a sign of an outlier, of a label gone wrong, or of a step
size that is too large. At most `SAMPLE` weights are kept, whatever the network's size.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from everlearn.measure.contents import networks
from everlearn.measure.reading import Reading, above

SAMPLE = 4096
MEMORY = 100  # steps of the running median
FEWEST = 30  # steps before the first reading
TINY = 1e-30


class UpdateSize:
    """Tells of steps more than `times` as large as the median of those before.

    >>> learner = torch.nn.Linear(3, 2)
    >>> sizes = UpdateSize(times=10.0)
    >>> sizes.add(learner), len(sizes.sizes)
    ([], 0)
    """

    parts = ("weights", "norm", "sizes", "not_finite")

    def __init__(self, *, times: float | None = 10.0):
        self.times = times
        self.weights = torch.zeros(0, dtype=torch.float64)  # the sample as the last step left it, each times sqrt(s_i)
        self.norm = 0.0  # squared, of that sample
        self.sizes: list[float] = []
        self.not_finite = False  # whether the newest sample held a number that is not finite
        self._roots: dict[tuple[int, ...], Tensor] = {}

    def add(self, learner: Any) -> list[Reading]:
        """Look at a learner's networks after a step. No reading where nothing moved, or where there are no networks."""
        taken, lengths = sample_weights(learner)
        weights = taken * self._root(lengths) if sum(lengths) > len(taken) else taken
        before, norm = self.weights, self.norm
        self.weights, self.norm = weights, float(weights @ weights)
        self.not_finite = not math.isfinite(self.norm)
        if len(before) != len(weights) or not len(weights) or self.not_finite:
            return []
        step = weights - before
        moved = float(step @ step)
        if moved == 0.0 or not math.isfinite(moved):
            return []
        size = math.sqrt(moved / (norm + TINY))
        earlier = self.sizes
        self.sizes = [*earlier, size][-MEMORY:]
        if self.times is None or len(earlier) < FEWEST:
            return []
        usual = median(earlier)
        return [
            above(
                size,
                self.times * usual,
                f"A step moved the weights by {size:.2%} of their size, {size / usual:.3g} times the usual {usual:.2%} (limit "
                f"{self.times:g} times). Look at the rows and answers of this step, then at the learning rate.",
            )
        ]

    def _root(self, lengths: tuple[int, ...]) -> Tensor:
        if lengths not in self._roots:
            self._roots = {lengths: stands_for(lengths).sqrt()}
        return self._roots[lengths]


def sample_weights(learner: Any, most: int = SAMPLE) -> tuple[Tensor, tuple[int, ...]]:
    """(float64 weights, lengths): evenly spaced weights of each parameter of a learner's networks, at most `most` in all (and one of
    each); how long each parameter is. Small networks are taken whole.

    >>> weights, lengths = sample_weights(torch.nn.Linear(100, 10), most=50)
    >>> len(weights), lengths
    (47, (1000, 10))
    """
    parameters = [parameter.detach() for network in networks(learner) for parameter in network.parameters()]
    lengths = tuple(parameter.numel() for parameter in parameters)
    if not sum(lengths):
        return torch.zeros(0, dtype=torch.float64), ()
    stride = _stride(lengths, most)
    flat = [parameter.reshape(-1) for parameter in parameters]
    taken = flat if stride == 1 else [part[::stride] for part in flat]
    return torch.cat(taken).to("cpu", torch.float64), lengths


def stands_for(lengths: Sequence[int], most: int = SAMPLE) -> Tensor:
    """How many weights each weight of a sample stands for; in all as many as there are.

    >>> float(stands_for((1000, 10), most=50).sum())
    1010.0
    """
    stride = _stride(lengths, most)
    taken = [-(-length // stride) for length in lengths]
    return torch.cat(
        [
            torch.full((count,), length / count, dtype=torch.float64)
            for length, count in zip(lengths, taken, strict=True)
            if count
        ]
        or [torch.zeros(0, dtype=torch.float64)]
    )


def _stride(lengths: Sequence[int], most: int) -> int:
    return max(1, -(-sum(lengths) // max(1, most - len(lengths))))
