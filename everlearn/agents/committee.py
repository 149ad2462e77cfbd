"""Explorers that count the votes of several models: bag, each of whose members sees the rows another number of times, and cover, whose
members are paid for choosing what those before them do not.

    bag:    p_a = share of members that choose a;   member m counts a row Poisson(1) times
    cover:  p_a = eps + (1 - k eps) share_a, eps = min(1 / k, 1 / sqrt(k t));   member i learns  r(a) + psi eps / p_i(a),  r by DR

Members are ridge models. References: Osband & Van Roy (2015), arXiv 1507.00300 (bootstrap); Oza & Russell (2001), Online bagging;
Agarwal et al. (2014), "Taming the monster", arXiv 1402.0555; Bietti, Agarwal, Langford (2021), arXiv 1802.04064, algorithm 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from everlearn.agents.draws import uniforms
from everlearn.agents.explorer import Array, Explorer, Progress, leader
from everlearn.agents.oracles import Model
from everlearn.core.errors import check_count, check_range
from everlearn.core.random import derive

POISSON = numpy.cumsum([numpy.exp(-1.0) / float(numpy.prod(numpy.arange(1, count + 1))) for count in range(8)])  # of mean 1


@dataclass(frozen=True)
class Lesson:
    """One row as a committee is taught it: x (columns,), offered (actions,), scores (actions,) of the oracle, learned rows before it."""

    id: str
    x: Array
    offered: Array
    action: int
    reward: float
    propensity: float
    scores: Array
    learned: int


@dataclass(frozen=True, repr=False)
class Bag(Explorer):
    """Takes each action with the share of the members that choose it.

    members: models, each fitted to a bootstrap sample of its own; add a `floor` or `share` where the log is to judge other policies.
    """

    name = "bag"
    members: int = 10

    def check(self) -> None:
        check_count(self.name, "members", self.members)

    def spread(self, scores: Array, offered: Array, count: Array, progress: Progress) -> Array:
        return shares(progress.votes, offered)

    def teach(self, committee: Sequence[Model], lesson: Lesson, seed: int) -> None:
        """Each member counts the row Poisson(1) times, a draw from the row's id."""
        drawn = uniforms(derive(seed, "bag", lesson.id), numpy.arange(len(committee)))
        for member, times in zip(committee, numpy.searchsorted(POISSON, drawn, side="right"), strict=True):
            if times:
                member.learn(lesson.x, lesson.action, lesson.reward, float(times))


@dataclass(frozen=True, repr=False)
class Cover(Explorer):
    """Takes each action with the share of the members that choose it, and any with a probability that falls as rows are learned.

    members: models; psi: what a member is paid for choosing what the others do not.
    """

    name = "cover"
    members: int = 4
    psi: float = 0.1

    def check(self) -> None:
        check_count(self.name, "members", self.members)
        check_range(self.name, "psi", self.psi, 0.0)

    def spread(self, scores: Array, offered: Array, count: Array, progress: Progress) -> Array:
        least = even(count, progress.learned)
        return offered * (least + (1.0 - count * least) * shares(progress.votes, offered))

    def teach(self, committee: Sequence[Model], lesson: Lesson, seed: int) -> None:
        """Every member learns the doubly robust reward of each action on offer; all but the first with the bonus."""
        count = float(lesson.offered.sum())
        least = float(even(numpy.array([count]), lesson.learned)[0])
        known = numpy.isfinite(lesson.propensity)
        reward = lesson.scores.copy()
        reward[lesson.action] += (lesson.reward - reward[lesson.action]) / (lesson.propensity if known else 1.0)
        chosen = numpy.zeros(len(reward))
        for number, member in enumerate(committee):
            bonus = 0.0
            if number:
                bonus = self.psi * least / numpy.maximum(least + (1.0 - count * least) * chosen / number, 1e-12)
            told = reward + bonus
            own = numpy.where(lesson.offered, member.scores(lesson.x[None])[:, 0], -numpy.inf)
            chosen[int(own.argmax())] += 1.0
            for action in numpy.flatnonzero(lesson.offered):
                member.learn(lesson.x, int(action), float(told[action]), 1.0)


def even(count: Array, learned: int) -> Array:
    """eps = min(1 / k, 1 / sqrt(k t)), the probability that every action keeps."""
    return numpy.minimum(1.0 / count, 1.0 / numpy.sqrt(count * max(learned, 1)))


def shares(votes: Array, offered: Array) -> Array:
    """(actions, rows): the share of members (members, actions, rows) whose best action on offer it is."""
    spread = numpy.zeros(offered.shape)
    columns = numpy.arange(offered.shape[1])
    for scores in votes:
        first, _ = leader(numpy.where(offered, scores, -numpy.inf))
        spread[first, columns] += 1.0 / len(votes)
    return spread
