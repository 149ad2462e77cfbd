"""Which classes each task of a recurring stream has: class probabilities, and the structures that draw from them.

    imbalanced   q_c = (1 - slope c) / N normalised,   p_c = q_c^exponent / sum_j q_j^exponent,   c shuffled by the seed
    drawn        a task's classes are the n least of E_c / p_c with E_c ~ Exp(1): n draws without replacement by p
    cycle        all n-combinations in lexicographic order, each class replaced by a drawn one with probability mix
    listed       tasks from a list: repeated in order (partition, all classes), or drawn from it (pairs)

The numbers of task t stand at a known place of a counter-based generator, so any span of tasks is made without those before
it, many at once. Only where probabilities depend on what has come (reduction > 1) is the walk made from the start.

Reference: Lesort et al. (2023), Challenging common assumptions about catastrophic forgetting, arXiv 2207.04543.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import ClassVar

import numpy

from everlearn.core.errors import ArgumentError, check_range
from everlearn.core.random import derive
from everlearn.core.spec import describe

SLOPE = 0.05  # of the published setting with 10 classes; with 100 it is 0.01 = 1 / 100
BLOCK = 1 << 20  # random numbers drawn at once
WORDS = 4  # numbers per step of the counter
LISTED = 1 << 20  # the longest list of combinations that is kept
GRID = 0.05  # step of the integral over the logarithm of time in `inclusion`

Weights = numpy.ndarray
Span = tuple[int, Weights]  # the first task, and the class probabilities from there on


@dataclass(frozen=True, repr=False)
class Imbalanced:
    """Class probabilities that fall with the number of a class, which the seed then hands out: `imbalanced(exponent=2)`.

    q_c = (1 - slope c) / N normalised, p_c = q_c^exponent / sum_j q_j^exponent, c = 0..N-1. exponent: 0 gives equal
    probabilities; slope: 0.05 for up to 20 classes and 1 / N for more unless given, which are the published 0.05 for 10 and 0.01
    for 100 classes.

    >>> Imbalanced(exponent=1, slope=0.05).probabilities(10).round(5)[:3].tolist()
    [0.12903, 0.12258, 0.11613]

    Reference: Lesort et al. (2023), arXiv 2207.04543.
    """

    exponent: float = 1.0
    slope: float | None = None
    name: ClassVar[str] = "imbalanced"

    def __post_init__(self) -> None:
        check_range(self.name, "exponent", self.exponent, 0.0, 100.0)
        if self.slope is not None:
            check_range(self.name, "slope", self.slope, 0.0, 1.0)

    def __repr__(self) -> str:
        return describe(self)

    def probabilities(self, classes: int) -> Weights:
        """(classes,) probabilities, falling. Raises ArgumentError where the slope would make some negative."""
        slope = min(SLOPE, 1.0 / classes) if self.slope is None and classes > 1 / SLOPE else self.slope
        slope = SLOPE if slope is None else slope
        if slope * (classes - 1) > 1:
            raise ArgumentError(
                f"imbalanced: slope={slope!r} makes the probability of the last of {classes} classes negative. "
                f"Use slope={int(1e4 / classes) / 1e4:g} or less."
            )
        falling = 1.0 - slope * numpy.arange(classes)
        powers = (falling / falling.sum()) ** self.exponent
        return powers / powers.sum()


class Schedule(ABC):
    """The classes of every task: rows of rising class numbers, -1 behind the last where tasks differ in size."""

    @abstractmethod
    def walk(self, start: int, stop: int) -> numpy.ndarray:
        """(tasks, classes per task) int64, of the tasks start..stop-1."""

    @abstractmethod
    def shares(self, tasks: int) -> Weights | None:
        """(classes,) the part of `tasks` tasks that are expected to have each class; None where no formula says."""


class Drawn(Schedule):
    """Classes drawn without replacement by the probabilities of the span.

    spans: rising first tasks with the (classes,) probabilities from there on; reduction: what the probability of a class is
    divided by after each task that had it.
    """

    def __init__(self, spans: Sequence[Span], per_task: int, reduction: float, seed: int):
        self.spans = tuple(spans)
        self.per_task = per_task
        self.reduction = float(reduction)
        self._seed = derive(seed, "classes")

    def walk(self, start: int, stop: int) -> numpy.ndarray:
        if self.reduction != 1.0:
            return self._from_the_start(stop)[start:]
        classes = len(self.spans[0][1])
        found = []
        for low, high, weights in _within(self.spans, start, stop):
            rows = max(1, BLOCK // classes)
            for first in range(low, high, rows):
                found.append(_least(uniforms(self._seed, first, min(high, first + rows), classes), weights, self.per_task))
        return numpy.concatenate(found) if found else numpy.empty((0, self.per_task), dtype=numpy.int64)

    def _from_the_start(self, stop: int) -> numpy.ndarray:
        classes = len(self.spans[0][1])
        found = numpy.empty((stop, self.per_task), dtype=numpy.int64)
        times = numpy.zeros(classes)  # tasks so far that had each class
        for low, high, weights in _within(self.spans, 0, stop):
            draws = uniforms(self._seed, low, high, classes)
            for number in range(low, high):
                more = numpy.maximum(times - times[weights > 0].min(), 0.0)
                reduced = weights * self.reduction**-more
                found[number] = _least(draws[number - low : number - low + 1], reduced, self.per_task)[0]
                times[found[number]] += 1
        return found

    def shares(self, tasks: int) -> Weights | None:
        if self.reduction != 1.0:
            return None
        return _mean_of_spans([(low, inclusion(weights, self.per_task)) for low, weights in self.spans], tasks)


class Cycle(Schedule):
    """Every combination of the classes of the span, in lexicographic order and again; each class replaced with probability mix."""

    def __init__(self, spans: Sequence[Span], per_task: int, mix: float, seed: int):
        self.spans = tuple(spans)
        self.per_task = per_task
        self.mix = float(mix)
        self._seed = derive(seed, "classes")
        self._coins = derive(seed, "replaced")

    def walk(self, start: int, stop: int) -> numpy.ndarray:
        found = []
        for low, high, weights in _within(self.spans, start, stop):
            first = max(at for at, _ in self.spans if at <= low)
            allowed = numpy.flatnonzero(weights)
            total = comb(len(allowed), self.per_task)
            ranks = [(number - first) % total for number in range(low, high)]
            fixed = allowed[numpy.array([unrank(rank, len(allowed), self.per_task) for rank in ranks])]
            found.append(fixed if self.mix == 0.0 else self._replaced(fixed, low, high, weights))
        return numpy.concatenate(found) if found else numpy.empty((0, self.per_task), dtype=numpy.int64)

    def _replaced(self, fixed: numpy.ndarray, low: int, high: int, weights: Weights) -> numpy.ndarray:
        """Kept classes go first in the race, so that the rest are drawn from all the others; at mix=1 that is `Drawn`."""
        kept = uniforms(self._coins, low, high, self.per_task) >= self.mix
        draws = uniforms(self._seed, low, high, len(weights))
        rows = numpy.nonzero(kept)[0]
        draws[rows, fixed[kept]] = -1.0
        return _least(draws, weights, self.per_task)

    def shares(self, tasks: int) -> Weights | None:
        positive = [weights[weights > 0] for _, weights in self.spans]
        if self.mix > 0.0 and any(numpy.ptp(values) > 0 for values in positive):
            return None
        even = [(low, (weights > 0) * self.per_task / (weights > 0).sum()) for low, weights in self.spans]
        return _mean_of_spans(even, tasks)


class Listed(Schedule):
    """Tasks from a list: repeated in its order, or (drawn) one of them at random for each task.

    spans: rising first tasks with the (tasks in the list, classes) class numbers from there on.
    """

    def __init__(self, spans: Sequence[tuple[int, numpy.ndarray]], classes: int, drawn: bool, seed: int):
        self.spans = tuple(spans)
        self.classes = classes
        self.drawn = drawn
        self._width = max(groups.shape[1] for _, groups in spans)
        self._seed = derive(seed, "listed")

    def walk(self, start: int, stop: int) -> numpy.ndarray:
        found = numpy.full((max(0, stop - start), self._width), -1, dtype=numpy.int64)
        for low, high, groups in _within(self.spans, start, stop):
            if self.drawn:
                number = (uniforms(self._seed, low, high, 1)[:, 0] * len(groups)).astype(numpy.int64)
            else:
                first = max(at for at, _ in self.spans if at <= low)
                number = (numpy.arange(low, high) - first) % len(groups)
            found[low - start : high - start, : groups.shape[1]] = groups[number]
        return found

    def shares(self, tasks: int) -> Weights | None:
        means = [(low, numpy.bincount(groups.ravel(), minlength=self.classes) / len(groups)) for low, groups in self.spans]
        return _mean_of_spans(means, tasks)


def uniforms(seed: int, start: int, stop: int, width: int) -> numpy.ndarray:
    """(stop - start, width) numbers in 0..1: rows start..stop-1 of a table that the seed defines, made without those before."""
    steps = -(-width // WORDS)
    bits = numpy.random.Philox(key=seed)
    bits.advance(start * steps)
    return numpy.random.Generator(bits).random((max(0, stop - start), steps * WORDS))[:, :width]


def _least(draws: numpy.ndarray, weights: Weights, count: int) -> numpy.ndarray:
    """The `count` classes with the least E_c / p_c in each row, rising; negative draws come first, p_c = 0 never."""
    with numpy.errstate(divide="ignore", invalid="ignore"):
        keys = -numpy.log1p(-draws) / weights
    keys[:, weights == 0] = numpy.inf
    first = keys.argpartition(count - 1, axis=1)[:, :count] if count < keys.shape[1] else keys.argsort(axis=1)
    first.sort(axis=1)
    return first


def _within(spans: Sequence[tuple[int, numpy.ndarray]], start: int, stop: int):
    """(low, high, value) of the parts of start..stop-1 in each span."""
    ends = [*(low for low, _ in spans[1:]), stop]
    for (low, value), end in zip(spans, ends, strict=True):
        low, high = max(low, start), min(end, stop)
        if low < high:
            yield low, high, value


def _mean_of_spans(spans: Sequence[tuple[int, numpy.ndarray]], tasks: int) -> Weights:
    return sum((high - low) * value for low, high, value in _within(spans, 0, tasks)) / tasks


def unrank(rank: int, classes: int, count: int) -> list[int]:
    """The combination of `count` of the numbers 0..classes-1 with a place in lexicographic order.

    >>> [unrank(rank, 4, 2) for rank in range(6)]
    [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    """
    found: list[int] = []
    number = 0
    while len(found) < count:
        following = comb(classes - number - 1, count - len(found) - 1)  # combinations that go on with `number`
        if rank < following:
            found.append(number)
        else:
            rank -= following
        number += 1
    return found


def some_combinations(classes: int, count: int, fraction: float, seed: int) -> numpy.ndarray:
    """(int(fraction * C), count): that part of the C combinations, drawn without replacement, in lexicographic order."""
    total = comb(classes, count)
    kept = int(fraction * total)
    if kept < 1:
        raise ArgumentError(
            f"recurring: mix={fraction!r} of the {total} combinations of {count} of {classes} classes leaves none. "
            f"Use mix={-(-(10**6) // total) / 10**6:g} or more."
        )
    if kept > LISTED or total >= 1 << 62:
        raise ArgumentError(
            f"recurring: structure='pairs' lists int(mix * combinations) tasks, at most {LISTED:,}, and mix={fraction!r} of the "
            f"{total:,} combinations of {count} of {classes} classes are more. Use a smaller mix, or structure='random'."
        )
    random = numpy.random.default_rng(derive(seed, "pairs"))
    ranks = numpy.sort(random.choice(total, size=kept, replace=False))
    return numpy.array([unrank(int(rank), classes, count) for rank in ranks], dtype=numpy.int64)


def inclusion(weights: Weights, count: int) -> Weights:
    """(classes,) the probability that a class is among `count` draws without replacement; sums to count.

    Class c is drawn when fewer than `count` others finish the race before it:
    integral of p_c exp(-p_c x) P(fewer than count of the others with time < x) dx, x = exp(s), by the trapezium rule.
    """
    positive = weights > 0
    p = weights[positive]
    found = numpy.zeros(len(weights))
    if len(p) <= count or numpy.ptp(p) < 1e-12:
        found[positive] = min(1.0, count / len(p))
        return found
    times = numpy.exp(numpy.arange(numpy.log(1e-14 / p.max()), numpy.log(45.0 / p.min()), GRID))
    done = -numpy.expm1(-p[:, None] * times)  # (classes, times)
    ahead = numpy.zeros((count, len(p), len(times)))  # P(that many of the others are done), for each class left out
    ahead[0] = 1.0
    for number, chance in enumerate(done):
        chances = numpy.broadcast_to(chance, (len(p), len(times))).copy()
        chances[number] = 0.0
        for level in range(count - 1, 0, -1):
            ahead[level] += chances * (ahead[level - 1] - ahead[level])
        ahead[0] *= 1.0 - chances
    found[positive] = (p[:, None] * times * (1.0 - done) * ahead.sum(0)).sum(1) * GRID
    return found
