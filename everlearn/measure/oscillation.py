"""Whether policies that are fitted to the log of the one before get better or swing: one number for each generation, three for the swing.

    O = mean_{g >= 2} |m_g - m_{g-1}|        oscillation, of a metric m (regret, value) by generation, m_0 that of the first log
    alternation                              share of neighbouring differences of opposite sign: noise 2/3, trend 0, period two 1
    D = m_2 - m_1                            successor drop, where m is regret: what the second learned policy lost to the first

Drift and seasons move a metric, too: hold it against a control slice that is treated uniformly (`uplift`), and against what drawing other
rounds alone would do (`resampled`). Reference: Vangara & Egg (2024), Contextual bandits in payment processing, arXiv 2412.00569.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, InputError, check_count
from everlearn.core.random import generator

TWO_SIDED = 1.959964  # standard errors of a 95 % interval
LEVEL = 0.95


def oscillation(values: Sequence[float]) -> float:
    """The mean step of a metric from one learned generation to the next; values[0] is that of generation 0, which learned nothing.

    >>> round(oscillation([9.0, 1.0, 3.0, 2.0]), 3)
    1.5
    """
    steps = _steps("oscillation", values[1:], 2)
    return math.fsum(map(abs, steps)) / len(steps)


def alternation(values: Sequence[float]) -> float:
    """The share of neighbouring steps that go opposite ways; a step of zero opposes none.

    >>> alternation([1.0, 2.0, 1.0, 2.0, 1.0]), alternation([1.0, 2.0, 3.0, 4.0])
    (1.0, 0.0)
    """
    steps = _steps("alternation", values, 3)
    return sum(one * other < 0.0 for one, other in pairwise(steps)) / (len(steps) - 1)


def successor_drop(values: Sequence[float]) -> float:
    """What the second learned generation has more of a metric than the first.

    >>> round(successor_drop([0.09, 0.02, 0.06]), 3)
    0.04
    """
    _steps("successor_drop", values, 3)
    return values[2] - values[1]


@dataclass(frozen=True)
class Uplift:
    """A difference of two mean rewards with its 95 % interval."""

    value: float
    low: float
    high: float


def uplift(rewards: Tensor, control: Tensor) -> Uplift:
    """What a policy gains over the control slice of the same generation: (n,) rewards of each, which need not be as many.

    The interval is the normal one of two independent means. It holds whatever moved both: drift, a season.

    >>> found = uplift(torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.tensor([0.0, 1.0]))
    >>> found.value, found.low < 0 < found.high
    (0.25, True)
    """
    for name, values in (("rewards", rewards), ("control", control)):
        if values.ndim != 1 or len(values) < 2 or not torch.isfinite(values).all():
            raise InputError(
                f"uplift: {name} must be at least two finite numbers in a row, got shape {tuple(values.shape)}."
            )
    first, second = rewards.double(), control.double()
    value = float(first.mean() - second.mean())
    half = TWO_SIDED * math.sqrt(float(first.var()) / len(first) + float(second.var()) / len(second))
    return Uplift(value, value - half, value + half)


@dataclass(frozen=True)
class Resampled:
    """A swing beside what chance gives: `expected`, and 95 % of the draws between `low` and `high`."""

    value: float
    expected: float
    low: float
    high: float

    @property
    def more_than_noise(self) -> bool:
        """Whether the swing is above what 97.5 % of the draws give."""
        return self.value > self.high


def resampled(rewards: Sequence[Tensor], *, draws: int = 500, seed: int = 0) -> Resampled:
    """The oscillation of the mean reward, beside that of a world in which no generation differs from another.

    rewards: one (n_g,) tensor for each generation. Each draw deals all rounds of the learned generations out anew, with replacement.

    >>> found = resampled([torch.tensor([0.0, 1.0] * 50)] + [torch.zeros(100), torch.ones(100)] * 2, draws=100)
    >>> found.value, found.more_than_noise
    (1.0, True)
    """
    check_count("resampled", "draws", draws)
    value = oscillation([float(row.double().mean()) for row in rewards])
    pool, sizes = torch.cat([row.double() for row in rewards[1:]]), [len(row) for row in rewards[1:]]
    random = generator(seed, "resampled")
    means = torch.stack([_means(pool, size, draws, random) for size in sizes], 1)
    swings = means.diff(dim=1).abs().mean(1)
    low, high = torch.quantile(swings, torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)).tolist()
    return Resampled(value, float(swings.mean()), low, high)


def _means(pool: Tensor, size: int, draws: int, random: torch.Generator) -> Tensor:
    """(draws,) means of `size` rows each. Rewards of 0 and 1 need a binomial number of ones only."""
    if bool(((pool == 0.0) | (pool == 1.0)).all()):
        share = pool.mean()
        return (
            torch.binomial(torch.full((draws,), float(size), dtype=torch.float64), share.expand(draws), generator=random)
            / size
        )
    return torch.stack([pool[torch.randint(len(pool), (size,), generator=random)].mean() for _ in range(draws)])


def _steps(owner: str, values: Sequence[float], least: int) -> list[float]:
    if len(values) < least or not all(map(math.isfinite, values)):
        raise ArgumentError(f"{owner}: at least {least} finite values of generations are needed, got {list(values)}.")
    return [after - before for before, after in pairwise(values)]
