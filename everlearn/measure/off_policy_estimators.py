"""The estimators of what another policy would have earned, each as a sum of ratios of sums over rounds.

    w = pi(a | x) / p_a      q = reward model      q_e(x) = sum_a pi(a | x) q(x, a)
    dm  mean q_e                        ips(clip)  mean min(w, clip) r            snips  sum w r / sum w
    dr  mean[q_e + w (r - q)]           sndr       mean q_e + sum w (r - q) / sum w
    switch_dr(tau)  as dr, w of those above tau set to 0                  dros(shrinkage)  as dr, w <- shrinkage w / (w^2 + shrinkage)
    mrdr  as dr, q fitted for its variance                               replay     mean of r where argmax pi is the action taken

So one resample of the rounds is one weighting of the sums, whichever the estimator. References: Dudík et al. (2014), arXiv 1503.02834
(dm, ips, dr); Swaminathan & Joachims (2015) (snips); Wang et al. (2017), arXiv 1612.01205 (switch); Su et al. (2020), arXiv 1907.09623
(dros); Farajtabar et al. (2018), arXiv 1802.03493 (mrdr); Li et al. (2011), arXiv 1003.5956 (replay).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from everlearn.core.errors import ArgumentError, SpecError, check_range, closest
from everlearn.core.spec import describe, invoke, parse


@dataclass(frozen=True)
class Terms:
    """What the rounds give, each (n,) float64. count: decisions that a row stands for; match: 1.0 where argmax pi is the action."""

    count: Tensor
    weight: Tensor
    reward: Tensor
    match: Tensor
    model: Tensor | None = None  # q(x, a) of the action taken
    expected: Tensor | None = None  # q_e(x)


Sum = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Estimator:
    """One of them. ratios: its sums, (numerator, denominator) for each; range: of one term, for weights up to a bound and rewards.

    needs_model: whether it asks a reward model; mean: whether it is the mean of one number for each round.
    """

    name: str
    ratios: Callable[[Terms], Sequence[Sum]]
    used: Callable[[Tensor], Tensor]
    needs_model: bool = True
    mean: bool = True
    spec: str = ""


def dm() -> Estimator:
    """The direct method: what the reward model expects of the policy. No weights, so no variance from them, and the model's bias."""
    return Estimator("dm", lambda t: [(t.count * t.expected, t.count)], lambda w: w * 0.0)


def ips(clip: float = math.inf) -> Estimator:
    """Inverse propensity weighting: unbiased without a clip, and as wild as its largest weight.

    clip: weights above it are cut to it, which biases towards 0.
    """
    _positive("ips", "clip", clip)
    cut = _clipped(clip)
    return Estimator("ips", lambda t: [(t.count * cut(t.weight) * t.reward, t.count)], cut, needs_model=False)


def snips() -> Estimator:
    """Self-normalised weighting: divided by the weights' own sum, so it stays within the range of the rewards."""

    def ratios(t: Terms) -> Sequence[Sum]:
        weight = t.count * t.weight
        return [(weight * t.reward, weight)]

    return Estimator("snips", ratios, lambda w: w, needs_model=False, mean=False)


def dr() -> Estimator:
    """Doubly robust: right where either the propensities or the model are."""
    return _corrected("dr", lambda w: w)


def sndr() -> Estimator:
    """Doubly robust with self-normalised correction."""

    def ratios(t: Terms) -> Sequence[Sum]:
        weight = t.count * t.weight
        return [(t.count * t.expected, t.count), (weight * (t.reward - t.model), weight)]

    return Estimator("sndr", ratios, lambda w: w, mean=False)


def switch_dr(tau: float = 10.0) -> Estimator:
    """Doubly robust where weights are at most tau, the model alone where they are larger."""
    check_range("switch_dr", "tau", tau, 0.0)
    return _corrected("switch_dr", lambda w: w * (w <= tau))


def dros(shrinkage: float = 100.0) -> Estimator:
    """Doubly robust with shrunken weights: shrinkage 0 is dm, infinity dr (the lambda of the paper)."""
    check_range("dros", "shrinkage", shrinkage, 0.0)

    def shrunk(weight: Tensor) -> Tensor:
        if shrinkage == 0.0:
            return weight * 0.0
        return weight if math.isinf(shrinkage) else shrinkage * weight / (weight * weight + shrinkage)

    return _corrected("dros", shrunk)


def mrdr() -> Estimator:
    """Doubly robust with a model fitted under the weights pi (1 - p) / p^2, which make its variance small."""
    return _corrected("mrdr", lambda w: w)


def replay() -> Estimator:
    """The mean of the rewards where the policy would have done the same: right only on logs that were drawn uniformly."""

    def ratios(t: Terms) -> Sequence[Sum]:
        match = t.count * t.match
        return [(match * t.reward, match)]

    return Estimator("replay", ratios, lambda w: w, needs_model=False, mean=False)


ESTIMATORS: dict[str, Callable[..., Estimator]] = {
    item.__name__: item for item in (dm, ips, snips, dr, sndr, switch_dr, dros, mrdr, replay)
}


def estimator(text: str) -> Estimator:
    """The estimator of a call string such as "ips(clip=10)". Raises SpecError, ArgumentError."""
    call = parse(text)
    if call.name not in ESTIMATORS:
        raise SpecError(closest("estimator", call.name, ESTIMATORS))
    made = invoke(call.name, ESTIMATORS[call.name], list(call.args), dict(call.kwargs))
    inside = [*map(describe, call.args), *(f"{key}={describe(value)}" for key, value in call.kwargs)]
    return replace(made, spec=f"{call.name}({', '.join(inside)})" if inside else call.name)


def _corrected(name: str, used: Callable[[Tensor], Tensor]) -> Estimator:
    def ratios(t: Terms) -> Sequence[Sum]:
        return [(t.count * (t.expected + used(t.weight) * (t.reward - t.model)), t.count)]

    return Estimator(name, ratios, used)


def _clipped(clip: float) -> Callable[[Tensor], Tensor]:
    return lambda weight: weight.clamp(max=clip)


def _positive(owner: str, argument: str, value: float) -> None:
    check_range(owner, argument, value, 0.0)
    if value == 0.0:
        raise ArgumentError(f"{owner}: {argument} must be above 0, got 0. Without it nothing is cut.")
