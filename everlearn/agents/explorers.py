"""How a bandit turns scores into probabilities of actions; every explorer is a value named by its call string.

    b = argmax_a f(a)    gap_a = f(b) - f(a)    k = number of offered actions

    squarecb         p_a = 1 / (k + gamma gap_a),  the rest to b                      inverse-gap weighting
    squarecb_exact   p_a = 1 / (lambda + gamma gap_a),  lambda so that they sum to 1
    fastcb           p_a = l_b / (k l_b + gamma (l_a - l_b)),  l = 1 - f,  the rest to b
    epsilon_greedy   p_a = eps / k + (1 - eps) [a = b]
    softmax          p_a ~ exp(f(a) / temperature)

Scores are mean rewards in 0..1, so gamma counts per unit of probability. Of equal scores the lowest index leads. An action that is not
offered has probability 0, and its score plays no part.

References: Foster & Rakhlin (2020), Beyond UCB, ICML, arXiv 2002.04926. Foster & Krishnamurthy (2021), Efficient first-order contextual
bandits, NeurIPS. Simchi-Levi & Xu (2020), Bypassing the monster, arXiv 2003.12699.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, InputError, check_range
from everlearn.core.spec import describe

LEAST_LOSS = 1e-6  # of the leader, for FastCB: at 0 it would never explore again
NEWTON_STEPS, NEWTON_ERROR = 60, 1e-15
DIALS = torch.logspace(0, 6, 61, dtype=torch.float64)  # values of gamma among which a target is looked for


@dataclass(frozen=True)
class Progress:
    """What an explorer may know of the policy: rows learned from so far, rows of the last fit, and what `dial` gave then."""

    learned: int = 0
    fitted: int = 0
    dial: float | None = None


class Explorer(Protocol):
    """Turns scores into probabilities. A pure function of its arguments."""

    name: ClassVar[str]

    def probabilities(self, scores: Tensor, offered: Tensor, progress: Progress = ...) -> Tensor:
        """(n, K) probabilities for (n, K) float64 scores and the (n, K) bool of what is offered."""
        ...

    def dial(self, scores: Tensor, offered: Tensor, progress: Progress) -> float | None:
        """The strength to use until the next fit, from scores of the window it was fitted on; None where it is set otherwise."""
        ...


class Undialled:
    """An explorer without a strength that a fit sets."""

    def dial(self, scores: Tensor, offered: Tensor, progress: Progress) -> float | None:
        """None: nothing is set by a fit."""
        return None

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True, repr=False)
class Uniformly(Undialled):
    """Each offered action alike: the control, and what a log is best made of.

    >>> Uniformly().probabilities(torch.tensor([[0.9, 0.8, 0.5]]), torch.tensor([[True, False, True]]))
    tensor([[0.5000, 0.0000, 0.5000]], dtype=torch.float64)
    """

    name: ClassVar[str] = "uniformly"

    def probabilities(self, scores: Tensor, offered: Tensor, progress: Progress = Progress()) -> Tensor:
        """1 / k for each offered action."""
        return offered.double() / offered.sum(1, keepdim=True)


@dataclass(frozen=True, repr=False)
class Greedy(Undialled):
    """Always the action with the highest score."""

    name: ClassVar[str] = "greedy"

    def probabilities(self, scores: Tensor, offered: Tensor, progress: Progress = Progress()) -> Tensor:
        """1 for the leader."""
        return _only(leaders(scores, offered)[1], scores)


@dataclass(frozen=True, repr=False)
class EpsilonGreedy(Undialled):
    """The leader, but with probability epsilon any offered action.

    >>> EpsilonGreedy(0.1).probabilities(torch.tensor([[0.9, 0.8]]), torch.tensor([[True, True]]))
    tensor([[0.9500, 0.0500]], dtype=torch.float64)
    """

    epsilon: float = 0.1
    name: ClassVar[str] = "epsilon_greedy"

    def __post_init__(self) -> None:
        check_range(self.name, "epsilon", self.epsilon, 0.0, 1.0)

    def probabilities(self, scores: Tensor, offered: Tensor, progress: Progress = Progress()) -> Tensor:
        """epsilon / k for each offered action, and 1 - epsilon more for the leader."""
        return mixed(_only(leaders(scores, offered)[1], scores), offered, self.epsilon)


@dataclass(frozen=True, repr=False)
class Softmax(Undialled):
    """Boltzmann exploration: probabilities that fall exponentially with the gap.

    >>> Softmax(0.1).probabilities(torch.tensor([[0.9, 0.8]]), torch.tensor([[True, True]]))
    tensor([[0.7311, 0.2689]], dtype=torch.float64)
    """

    temperature: float = 0.05
    name: ClassVar[str] = "softmax"

    def __post_init__(self) -> None:
        check_range(self.name, "temperature", self.temperature, 1e-12)

    def probabilities(self, scores: Tensor, offered: Tensor, progress: Progress = Progress()) -> Tensor:
        """Softmax of score / temperature over the offered actions."""
        return (scores.double() / self.temperature).masked_fill(~offered, -math.inf).softmax(1)


@dataclass(frozen=True, repr=False)
class SquareCB:
    """Inverse-gap weighting: an action is tried the more, the closer its score comes to the leader's.

    gamma: a constant; else scale and exponent give gamma = scale learned^exponent (Vowpal Wabbit's: 10 and 0.5); else `batch` gives
    gamma = batch sqrt(k rows of the last fit), k the mean number of offered actions (FALCON); else `effective_actions` sets gamma with
    every fit to the largest at which exp(entropy) stays at least that many actions, on average over the window (1,000,000 at most).
    eliminate: c0 of Vowpal Wabbit's elimination: only actions whose optimistic cost is below the lowest pessimistic one are tried.

    >>> SquareCB(gamma=20.0).probabilities(torch.tensor([[0.9, 0.8, 0.5]]).double(), torch.ones(1, 3, dtype=torch.bool))
    tensor([[0.7091, 0.2000, 0.0909]], dtype=torch.float64)
    """

    gamma: float | None = None
    scale: float | None = None
    exponent: float = 0.5
    batch: float | None = None
    effective_actions: float | None = None
    eliminate: float | None = None
    name: ClassVar[str] = "squarecb"

    def __post_init__(self) -> None:
        given = [key for key in ("gamma", "scale", "batch", "effective_actions") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ArgumentError(f"squarecb: {' and '.join(given)} are ways to set one strength; give one of them.")
        if not given:
            object.__setattr__(self, "gamma", 200.0)
        for key in ("gamma", "scale", "batch", "eliminate"):
            if getattr(self, key) is not None:
                check_range(self.name, key, getattr(self, key), 0.0)
        check_range(self.name, "exponent", self.exponent, 0.0)
        if self.effective_actions is not None:
            check_range(self.name, "effective_actions", self.effective_actions, 1.0)

    def probabilities(self, scores: Tensor, offered: Tensor, progress: Progress = Progress()) -> Tensor:
        """The leader's probability is what the others leave, at least 1 / k."""
        gamma = self.strength(progress)
        tried = offered if self.eliminate is None else self._standing(scores, offered, progress)
        return inverse_gap(scores, tried, gamma)

    def strength(self, progress: Progress) -> float:
        """gamma at this point; 0 (uniform) before the first fit, where it hangs on one."""
        if self.gamma is not None:
            return self.gamma
        if self.scale is not None:
            return self.scale * float(progress.learned) ** self.exponent
        return progress.dial or 0.0

    def dial(self, scores: Tensor, offered: Tensor, progress: Progress) -> float | None:
        """gamma by the rows of the fit, or by the number of effective actions."""
        if self.batch is not None:
            return self.batch * math.sqrt(float(offered.sum(1).double().mean()) * progress.fitted)
        if self.effective_actions is None:
            return None
        low, high = 0, len(DIALS)  # DIALS[:low] explore enough
        while low < high:
            middle = (low + high) // 2
            enough = effective_actions(inverse_gap(scores, offered, float(DIALS[middle]))).mean() >= self.effective_actions
            low, high = (middle + 1, high) if enough else (low, middle)
        return float(DIALS[low - 1]) if low else 0.0

    def _standing(self, scores: Tensor, offered: Tensor, progress: Progress) -> Tensor:
        """What elimination leaves: the optimistic cost is at most the lowest pessimistic one."""
        rows = progress.learned
        if not rows:
            return offered
        reach = math.sqrt(
            max(0.0, self.eliminate * math.log(scores.shape[1] * rows)) / rows
        )  # confidence of a mean of rows costs
        best = leaders(scores, offered)[0]
        return offered & (best - scores.double() <= 2.0 * reach)

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True, repr=False)
class SquareCBExact(Undialled):
    """The minimax form of inverse-gap weighting: one rule for all actions, the leader included.

    >>> SquareCBExact(20.0).probabilities(torch.tensor([[0.9, 0.8, 0.5]]).double(), torch.ones(1, 3, dtype=torch.bool))
    tensor([[0.6193, 0.2767, 0.1040]], dtype=torch.float64)
    """

    gamma: float = 200.0
    name: ClassVar[str] = "squarecb_exact"

    def __post_init__(self) -> None:
        check_range(self.name, "gamma", self.gamma, 0.0)

    def probabilities(self, scores: Tensor, offered: Tensor, progress: Progress = Progress()) -> Tensor:
        """Newton's steps on sum_a 1 / (lambda + gamma gap_a) = 1, from below, where it is convex and falling."""
        best, _ = leaders(scores, offered)
        weighted = (self.gamma * (best - scores.double())).masked_fill(~offered, math.inf)
        found = torch.ones_like(best)  # the leader alone gives a sum of 1 there, so the sum is at least 1
        for _ in range(NEWTON_STEPS):
            shares = 1.0 / (found + weighted)
            excess = shares.sum(1, keepdim=True) - 1.0
            if float(excess.max()) <= NEWTON_ERROR:
                break
            found = found + excess / (shares * shares).sum(1, keepdim=True)
        shares = 1.0 / (found + weighted)
        return shares / shares.sum(1, keepdim=True)


@dataclass(frozen=True, repr=False)
class FastCB(Undialled):
    """Inverse-gap weighting for losses near 0: gaps count in proportion to the leader's loss. Wants scores from a log loss.

    >>> FastCB(20.0).probabilities(torch.tensor([[0.9, 0.8, 0.5]]).double(), torch.ones(1, 3, dtype=torch.bool))
    tensor([[0.9445, 0.0435, 0.0120]], dtype=torch.float64)
    """

    gamma: float = 20.0
    name: ClassVar[str] = "fastcb"

    def __post_init__(self) -> None:
        check_range(self.name, "gamma", self.gamma, 0.0)

    def probabilities(self, scores: Tensor, offered: Tensor, progress: Progress = Progress()) -> Tensor:
        """The leader's loss is at least 1e-6: at 0 it would be greedy for ever."""
        best, leader = leaders(scores, offered)
        least = (1.0 - best).clamp_min(LEAST_LOSS)
        others = least / (offered.sum(1, keepdim=True) * least + self.gamma * (best - scores.double()))
        return _rest(others, offered, leader)


EXPLORERS = {cls.name: cls for cls in (Uniformly, Greedy, EpsilonGreedy, Softmax, SquareCB, SquareCBExact, FastCB)}


def check_offers(scores: Tensor, offered: Tensor) -> None:
    """Refuse rows in which nothing is offered, and scores that are no finite numbers where an action is offered; rows are named."""
    empty = (~offered.any(1)).nonzero().flatten()
    if len(empty):
        raise InputError(
            f"row {int(empty[0])}: no action is offered; each row must offer at least one of {offered.shape[1]}."
        )
    wrong = (offered & ~scores.isfinite()).any(1).nonzero().flatten()
    if len(wrong):
        raise InputError(f"row {int(wrong[0])}: scores must be finite numbers, got {scores[int(wrong[0])].tolist()}.")


def leaders(scores: Tensor, offered: Tensor) -> tuple[Tensor, Tensor]:
    """(highest score, its index), both (n, 1); of equal scores the lowest index leads."""
    best, leader = scores.double().masked_fill(~offered, -math.inf).max(1, keepdim=True)
    return best, leader


def inverse_gap(scores: Tensor, offered: Tensor, gamma: float) -> Tensor:
    """p_a = 1 / (k + gamma gap_a) for all but the leader, who has the rest."""
    best, leader = leaders(scores, offered)
    return _rest(1.0 / (offered.sum(1, keepdim=True) + gamma * (best - scores.double())), offered, leader)


def mixed(probabilities: Tensor, offered: Tensor, share: float) -> Tensor:
    """(1 - share) p + share / k: a fixed uniform share."""
    return (1.0 - share) * probabilities + share * offered.double() / offered.sum(1, keepdim=True)


def floored(probabilities: Tensor, offered: Tensor, floor: float) -> Tensor:
    """At least floor / k for every offered action; what that takes comes from those above it, in proportion (Vowpal Wabbit's rule)."""
    if not floor:
        return probabilities
    least = floor / offered.double().sum(1, keepdim=True)
    low = offered & (probabilities <= least)
    for _ in range(probabilities.shape[1]):
        left = 1.0 - (least * low).sum(1, keepdim=True)
        above = probabilities * (offered & ~low)
        raised = torch.where(low, least, above * (left / above.sum(1, keepdim=True).clamp_min(1e-300)))
        sunk = offered & ~low & (raised < least)
        if not sunk.any():
            return torch.where(offered, torch.where(low.all(1, keepdim=True) | ~offered, probabilities, raised), 0.0)
        low = low | sunk
    return torch.where(offered, least.expand_as(probabilities), 0.0)


def effective_actions(probabilities: Tensor) -> Tensor:
    """exp(entropy) of each row: 1 where one action is certain, k where k are alike.

    >>> round(float(effective_actions(torch.tensor([[0.70909091, 0.2, 0.09090909]], dtype=torch.float64))), 6)
    2.189435
    """
    return torch.special.entr(probabilities.double()).sum(1).exp()


def _only(leader: Tensor, scores: Tensor) -> Tensor:
    return torch.zeros(scores.shape, dtype=torch.float64).scatter_(1, leader, 1.0)


def _rest(others: Tensor, offered: Tensor, leader: Tensor) -> Tensor:
    """Probabilities of all but the leader, and for the leader what is left (never negative: they are at most 1 / k each)."""
    others = torch.where(offered, others, 0.0).scatter_(1, leader, 0.0)
    return others.scatter_(1, leader, (1.0 - others.sum(1, keepdim=True)).clamp_min_(0.0))
