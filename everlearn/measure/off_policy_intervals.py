"""Intervals around estimates of a policy's value.

    bootstrap        percentiles over resampled rounds                                              any estimator
    bernstein        mean +- sqrt(2 V ln(4/d) / n) + 7 R ln(4/d) / (3 (n - 1))                      means: dm, ips, dr and its kin
    clopper_pearson  that of a binomial with sum(w r) / w_max successes of n                        ips with rewards in 0..1
    cressie_read     all values that the log allows at this level, given that weights average 1     ips, snips

Bernstein and Clopper-Pearson hold for any n, if `largest` bounds the weights beforehand; bootstrap and Cressie-Read for many rounds.
References: Efron (1979); Maurer & Pontil (2009), arXiv 0907.3740; Clopper & Pearson (1934); Karampatziakis, Langford & Mineiro (2019),
arXiv 1906.03323.
"""

import math
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

from everlearn.core.random import derive

INTERVALS = ("bootstrap", "bernstein", "clopper_pearson", "cressie_read")
Pair = tuple[float | None, float | None]
EXACT = (
    20_000_000  # resampled rows up to which counts are multinomial; beyond, each is Poisson(1), which is faster and as good
)
CHUNK = 8192  # rows whose counts are held at once


def bootstrap(ratios: Sequence[Sequence[tuple[Tensor, Tensor]]], draws: int, level: float, seed: int) -> list[Pair]:
    """Percentile intervals of several estimators on the same resamples; an estimator is a sum of ratios of sums over rounds.

    Rounds are drawn with replacement. Many rows: how often each is drawn is Poisson(1), so all sums are one product of
    matrices, in chunks. Resamples in which a denominator is 0 are left out; (None, None) where none is left.
    """
    columns: dict[int, Tensor] = {}
    for pairs in ratios:
        for pair in pairs:
            columns.update({id(column): column for column in pair})
    order = {key: place for place, key in enumerate(columns)}
    sums = resampled(torch.stack(list(columns.values()), dim=1), draws, seed)
    found = []
    for pairs in ratios:
        top, bottom = (sums[:, [order[id(pair[side])] for pair in pairs]] for side in (0, 1))
        good = (bottom > 0).all(axis=1)
        values = (top[good] / bottom[good]).sum(axis=1)
        tail = (1.0 - level) / 2.0
        found.append(tuple(map(float, numpy.quantile(values, [tail, 1.0 - tail]))) if len(values) else (None, None))
    return found


def resampled(columns: Tensor, draws: int, seed: int) -> numpy.ndarray:
    """(draws, columns): sums of the columns (rows, columns) over rows drawn with replacement."""
    n = len(columns)
    random = numpy.random.default_rng(derive(seed, "bootstrap"))
    values = columns.numpy()
    if n * draws <= EXACT:
        step = max(1, 4_000_000 // n)
        parts = [_multinomial(random, min(step, draws - start), n) @ values for start in range(0, draws, step)]
        return numpy.concatenate(parts)
    center = values.mean(axis=0)  # what is left is small beside the sums, so single precision serves
    scale = numpy.abs(values - center).max(axis=0)
    scale[scale == 0.0] = 1.0
    table, sums, total = _poisson_table(), numpy.zeros((draws, values.shape[1])), numpy.zeros(draws)
    for start in range(0, n, CHUNK):
        part = ((values[start : start + CHUNK] - center) / scale).astype(numpy.float32)
        counts = table[random.integers(0, 65536, (draws, len(part)), dtype=numpy.uint16)]
        both = counts @ numpy.concatenate([part, numpy.ones((len(part), 1), numpy.float32)], axis=1)
        sums += both[:, :-1]
        total += both[:, -1]
    return sums * scale + total[:, None] * center


def _multinomial(random: numpy.random.Generator, draws: int, n: int) -> numpy.ndarray:
    """(draws, n) float64: how often each of n rows is drawn in n draws with replacement."""
    picked = random.integers(0, n, (draws, n)) + n * numpy.arange(draws)[:, None]
    return numpy.bincount(picked.reshape(-1), minlength=draws * n).reshape(draws, n).astype(numpy.float64)


def _poisson_table() -> numpy.ndarray:
    """Poisson(1) by inversion of a 16-bit number: probabilities are right to 2^-17."""
    below = numpy.cumsum([math.exp(-1.0) / math.factorial(count) for count in range(12)])
    return numpy.searchsorted(below, (numpy.arange(65536) + 0.5) / 65536, side="right").astype(numpy.float32)


def bernstein(terms: Tensor, width: float, level: float) -> tuple[float, float]:
    """The empirical Bernstein interval of a mean of independent terms that lie in an interval of a width."""
    n = len(terms)
    if n < 2:
        return -math.inf, math.inf
    log = math.log(4.0 / (1.0 - level))  # ln(2 / delta) for each of two sides at delta / 2
    mean, variance = float(terms.mean()), float(terms.var())
    half = math.sqrt(2.0 * variance * log / n) + 7.0 * width * log / (3.0 * (n - 1))
    return mean - half, mean + half


def clopper_pearson(total: float, n: int, largest: float, level: float) -> tuple[float, float]:
    """The interval of a mean of n terms in 0..largest that sum to `total`, as if each were 0 or largest."""
    from scipy.special import betaincinv

    if largest <= 0.0:
        return 0.0, 0.0
    hits, tail = min(total / largest, float(n)), (1.0 - level) / 2.0
    low = 0.0 if hits <= 0.0 else float(betaincinv(hits, n - hits + 1.0, tail))
    high = 1.0 if hits >= n else float(betaincinv(hits + 1.0, n - hits, 1.0 - tail))
    return low * largest, high * largest


def cressie_read(
    weight: Tensor, reward: Tensor, bounds: tuple[float, float], largest: float, level: float
) -> tuple[float, float]:
    """All values sum q w r of distributions q near the empirical one with sum q w = 1.

        (n + 1) sum (q - 1 / (n + 1))^2 <= (least that sum q w = 1 needs + F(1, n)) / (n + 1)

    Beside the n rounds q may put mass on one that was not seen, whose weight is 0 or `largest` and whose reward is at the bound.
    """
    from scipy.special import fdtri

    n = len(weight)
    budget = float(fdtri(1, n, level)) / (n + 1)
    budget += min(_distance(torch.cat([weight, weight.new_tensor([unseen])])) for unseen in (0.0, largest))
    found = []
    for bound, sign in zip(bounds, (-1.0, 1.0), strict=True):
        ends = [end for unseen in (0.0, largest) if (end := _end(weight, reward, unseen, bound, budget, sign)) is not None]
        found.append(min(max(sign * max(sign * end for end in ends), bounds[0]), bounds[1]) if ends else bound)
    return found[0], found[1]


def _distance(weight: Tensor) -> float:
    """min N sum (q - 1 / N)^2 / N over q with sum q = 1 and sum q w = 1."""
    variance = float(weight.var(unbiased=False))
    away = (1.0 - float(weight.mean())) ** 2
    return 0.0 if away < 1e-24 else away / variance if variance > 0.0 else math.inf


def _end(weight: Tensor, reward: Tensor, unseen: float, bound: float, budget: float, sign: float) -> float | None:
    """The greatest (sign 1) or least (sign -1) sum q v, v = w r, over N = n + 1 rounds. None where no q is near enough."""
    w = torch.cat([weight, weight.new_tensor([unseen])])
    v = torch.cat([weight * reward, weight.new_tensor([unseen * bound])])
    slack = budget - _distance(w)
    if slack < -1e-12:
        return None
    variance = float(w.var(unbiased=False))
    both = float(((w - w.mean()) * (v - v.mean())).mean())
    slope = both / variance if variance > 0.0 else 0.0
    left = max(float(v.var(unbiased=False)) - slope * both, 0.0)
    return float(v.mean()) + slope * (1.0 - float(w.mean())) + sign * math.sqrt(left * max(slack, 0.0))
