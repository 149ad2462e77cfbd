"""The explorers by name: from scores of the actions on offer to the probability of taking each.

    greedy()   epsilon_greedy(epsilon)   softmax(temperature)   squarecb(gamma)   squarecb_exact(gamma)   fastcb(gamma)   falcon(c)
    uniformly()  linucb(alpha)         lints(scale)           regcb(c0)         bag(members)            cover(members, psi)

All are values: `SquareCB(gamma=20.0).probabilities(scores, offered)` needs no agent. `floor=` and `share=` go with each.
References: those of `explorer`, `gap_weighting`, `confidence` and `committee`.
"""

from dataclasses import dataclass

import numpy

from everlearn.agents.committee import Bag, Cover
from everlearn.agents.confidence import LinTS, LinUCB, RegCB
from everlearn.agents.explorer import Array, Explorer, Progress, leader, only
from everlearn.agents.gap_weighting import Falcon, FastCB, SquareCB, SquareCBExact
from everlearn.core.errors import ArgumentError, check_range


@dataclass(frozen=True, repr=False)
class Uniformly(Explorer):
    """Takes every action on offer with equal probability, whatever the scores."""

    name = "uniformly"
    uniform = 1.0

    def check(self) -> None:
        pass

    def spread(self, scores: Array, offered: Array, count: Array, progress: Progress) -> Array:
        return offered / count


@dataclass(frozen=True, repr=False)
class Greedy(Explorer):
    """Takes the action of the greatest score."""

    name = "greedy"

    def check(self) -> None:
        pass

    def spread(self, scores: Array, offered: Array, count: Array, progress: Progress) -> Array:
        return only(leader(scores)[0], scores.shape)


@dataclass(frozen=True, repr=False)
class EpsilonGreedy(Explorer):
    """Takes the action of the greatest score, but any one of those on offer in a part `epsilon` of the choices."""

    name = "epsilon_greedy"
    epsilon: float = 0.1

    def check(self) -> None:
        check_range(self.name, "epsilon", self.epsilon, 0.0, 1.0)

    @property
    def uniform_part(self) -> float:
        return max(self.floor, self.share + (1.0 - self.share) * self.epsilon)

    def spread(self, scores: Array, offered: Array, count: Array, progress: Progress) -> Array:
        return (1.0 - self.epsilon) * only(leader(scores)[0], scores.shape) + offered * (self.epsilon / count)


@dataclass(frozen=True, repr=False)
class Softmax(Explorer):
    """Takes actions in proportion to exp(score / temperature) (Boltzmann's rule)."""

    name = "softmax"
    temperature: float = 0.05

    def check(self) -> None:
        check_range(self.name, "temperature", self.temperature, 0.0)
        if self.temperature == 0.0:
            raise ArgumentError("softmax: temperature must be above 0, got 0. Use greedy().")

    def spread(self, scores: Array, offered: Array, count: Array, progress: Progress) -> Array:
        raised = numpy.exp((scores - scores.max(axis=0)) / self.temperature)
        return raised / raised.sum(axis=0)


EXPLORERS = {
    cls.name: cls
    for cls in (
        Uniformly,
        Greedy,
        EpsilonGreedy,
        Softmax,
        SquareCB,
        SquareCBExact,
        FastCB,
        Falcon,
        LinUCB,
        LinTS,
        RegCB,
        Bag,
        Cover,
    )
} | {"boltzmann": Softmax}
