"""Failures of single links as cases of a study: when links fail, what a failure does to another link, which links are watched.

    effect = mean load of the day after the failure / what it would have been      drastic: at least 2 or at most 1/2, moderate: 1.1

The load of the day before would be another yardstick; it has the day of the week in it, which alone is worth up to a factor 1.9.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy

from everlearn.core.random import derive
from everlearn.data.demands import Traffic, abilene, euro28
from everlearn.data.link_loads import LinkDown, drift_class, link_loads

WINDOW = 24
TRAINED, CALM, DAY = 2016, 144, 288  # matrices of training, then until the failure, then that are scored
FAILS = TRAINED + CALM
IDLE = 0.01  # links with less than this share of the largest mean load are left out: their percentages mean nothing
CLASSES = ("drastic", "moderate")
EURO_RUNS = 6  # failures of Euro28 for each seed
# Denver-Kansas City fails and Houston>Kansas City is watched, Chicago-Indianapolis and Atlanta>Indianapolis
QUICK = ((3, 6), (4, 6)), ((2, 5), (1, 5))


class Case(NamedTuple):
    """A failure and the link that is watched. effect: its load after the failure, as a multiple of what it would have been."""

    failure: tuple[int, int]
    link: tuple[int, int]
    kind: str
    effect: float


@cache
def traffic(name: str) -> Traffic:
    """The matrices that are used: those of "abilene" measured, those of "euro28" generated."""
    if name == "euro28":
        return euro28(FAILS + DAY)
    whole = abilene()
    return Traffic(whole.name, whole.network, whole.demands[: FAILS + DAY], whole.step_minutes)


@cache
def cases(scale: str) -> tuple[Case, ...]:
    """Failures of single cables, none of which cuts the network, with the link that each changes most in each class; largest first."""
    found = changes("abilene", cables("abilene"))
    if scale == "quick":
        return tuple(case for case in found if (case.failure, case.link) in QUICK)
    most: dict[tuple, Case] = {}
    for case in found:
        most.setdefault((case.failure, case.kind), case)
    return tuple(most.values())


@cache
def changes(name: str, failures: tuple[tuple[int, int], ...]) -> tuple[Case, ...]:
    """Every change that these failures make to another link, the largest first."""
    given = traffic(name)
    network = given.network
    found = []
    for failure in failures:
        loads = link_loads(network, given.demands, [LinkDown(FAILS, failure)])
        if float(loads.lost.sum()) > 0:
            continue
        effect = loads.effect(FAILS)
        before, after = loads.loads[:FAILS].mean(0), loads.loads[FAILS:].mean(0)
        busy = (before >= IDLE * before.max()) & (after >= IDLE * after.max())
        kinds = drift_class(effect)
        for number, link in enumerate(network.links):
            if bool(busy[number]) and kinds[number] in CLASSES and {*link} != {*failure}:
                found.append(Case(failure, link, kinds[number], float(effect[number])))
    return tuple(sorted(found, key=lambda case: -abs(math.log(case.effect))))


def euro_cases(seed: int) -> list[Case]:
    """Failures of Euro28, no two seeds with the same, each with one link that it changes drastically."""
    every = cables("euro28")
    order = numpy.random.default_rng(derive(0, "failures")).permutation(len(every))[seed::3]
    chosen: list[Case] = []
    for place in order.tolist():
        if len(chosen) == EURO_RUNS:
            break
        drastic = [case for case in changes("euro28", (every[place],)) if case.kind == "drastic"]
        if drastic:
            chosen.append(drastic[int(numpy.random.default_rng(derive(0, "link", place)).integers(len(drastic)))])
    return chosen


def cables(name: str) -> tuple[tuple[int, int], ...]:
    """The pairs of nodes that a link joins."""
    return tuple(sorted({(min(ends), max(ends)) for ends in traffic(name).network.links}))
