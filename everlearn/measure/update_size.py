"""How far the weights move in a step, relative to their size, from a fixed sample of them.

    size = sqrt( sum_i s_i (w_i - w'_i)^2 / sum_i s_i w'_i^2 )      s_i: how many weights the sampled weight i stands for

A step is held against the running median of the newest ones: a spike is a sign of an outlier, of a label gone wrong, or of a step
size that is too large. At most `SAMPLE` weights are kept, whatever the network's size.
"""

import math
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

    parts = ("weights", "sizes", "not_finite")

    def __init__(self, *, times: float | None = 10.0):
        self.times = times
        self.weights = torch.zeros(0)  # the sample, as the last step left it
        self.sizes: list[float] = []
        self.not_finite = False  # whether the newest sample held a number that is not finite

    def add(self, learner: Any) -> list[Reading]:
        """Look at a learner's networks after a step. No reading where nothing moved, or where there are no networks."""
        weights, scale = sample_weights(learner)
        before, self.weights = self.weights, weights
        self.not_finite = len(weights) > 0 and not math.isfinite(float(weights.sum()))
        if len(before) != len(weights) or not len(weights) or self.not_finite:
            return []
        moved = float((scale * (weights - before).square()).sum())
        if moved == 0.0 or not math.isfinite(moved):
            return []
        size = math.sqrt(moved / (float((scale * before.square()).sum()) + TINY))
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


def sample_weights(learner: Any, most: int = SAMPLE) -> tuple[Tensor, Tensor]:
    """(weights, scale) float64: evenly spaced weights of each parameter, and how many each stands for. Small networks are taken whole.

    >>> weights, scale = sample_weights(torch.nn.Linear(100, 10), most=50)
    >>> len(weights) <= 50, float(scale.sum())
    (True, 1010.0)
    """
    parameters = [parameter.detach().flatten() for network in networks(learner) for parameter in network.parameters()]
    parameters = [parameter for parameter in parameters if len(parameter)]
    total = sum(len(parameter) for parameter in parameters)
    if not total:
        return torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    stride = math.ceil(total / max(1, most - len(parameters)))
    taken = [parameter[::stride] for parameter in parameters]
    lengths = torch.tensor([len(part) for part in taken])
    scale = torch.tensor([len(parameter) for parameter in parameters], dtype=torch.float64) / lengths
    return torch.cat(taken).cpu().double(), scale.repeat_interleave(lengths)
