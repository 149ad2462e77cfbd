"""What another policy would have earned, judged on the log of the one that decided.

    evaluate(log, probabilities)  ->  for each estimator: value, low, high, ess, max_weight, warnings

Every estimate stands beside its effective sample size and largest weight: an interval alone does not show that one round decides all.
Estimators: `off_policy_estimators`; intervals: `off_policy_intervals`; the reward model: `reward_model`; diagnostics: `overlap`.
Reference: Dudík et al. (2014), arXiv 1503.02834; Saito et al. (2020), arXiv 2008.07146.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError, SpecError, check_count, check_range, closest
from everlearn.data.decision_log import DecisionLog
from everlearn.measure.exploration import effective_size
from everlearn.measure.off_policy_estimators import Estimator, Terms, estimator
from everlearn.measure.off_policy_intervals import INTERVALS, Pair, bernstein, bootstrap, clopper_pearson, cressie_read
from everlearn.measure.overlap import Overlap, is_uniform, overlap, weights
from everlearn.measure.reward_model import Fit, cross_fitted

USUAL = ("snips", "dr")


@dataclass(frozen=True)
class Estimate:
    """One estimate. name: the estimator's call string; low, high: None where the interval does not go with the estimator."""

    name: str
    value: float
    low: float | None
    high: float | None
    ess: float
    max_weight: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """The estimates of one policy. logged: the mean reward of the log itself; trusted: whether the log weighs enough for the policy."""

    estimates: tuple[Estimate, ...]
    overlap: Overlap
    logged: float
    interval: str
    level: float
    trusted: bool

    def __getitem__(self, name: str) -> Estimate:
        """The estimate of a name such as "snips"."""
        found = {item.name: item for item in self.estimates}
        if name not in found:
            raise SpecError(closest("estimate", name, found))
        return found[name]

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        rows = [{**asdict(item), "warnings": list(item.warnings)} for item in self.estimates]
        told = {"logged": self.logged, "interval": self.interval, "level": self.level, "trusted": self.trusted}
        return {"estimates": rows, **told, "overlap": self.overlap.as_dict()}


def evaluate(
    log: DecisionLog,
    policy_probabilities: Tensor,
    reward_model: Tensor | str | Fit | None = None,
    estimators: Sequence[str] = USUAL,
    interval: str = "bootstrap",
    *,
    draws: int = 1000,
    level: float = 0.95,
    folds: int = 3,
    bounds: tuple[float, float] | None = None,
    largest: float | None = None,
    strict: bool = False,
    seed: int = 0,
) -> Evaluation:
    """What a policy would have earned on the rounds of a log.

    policy_probabilities: (n, actions), each row a distribution over the actions on offer; reward_model: q (n, actions) that has not
    seen these rounds, or what `reward_model.cross_fitted` fits in folds; estimators: call strings; interval: bootstrap, bernstein,
    clopper_pearson, cressie_read; draws: resamples; bounds: of rewards (default 0..1, wider where rewards are); largest: the largest
    weight there can be (default: the largest there is); strict: raise DataError where the log weighs too little (ESS below 50 or 1 %).

    >>> log = DecisionLog.of(torch.zeros(4, 1), action=torch.tensor([0, 1, 0, 1]), propensity=torch.full((4,), 0.5),
    ...                      reward=torch.tensor([1.0, 0.0, 1.0, 0.0]))
    >>> always_first = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    >>> evaluate(log, always_first, estimators=("snips",))["snips"].value
    1.0

    Raises DataError where probabilities are none, SpecError, ArgumentError.
    """
    if interval not in INTERVALS:
        raise SpecError(closest("interval", interval, INTERVALS))
    check_count("evaluate", "draws", draws)
    check_range("evaluate", "level", level, 0.5, 1.0)
    if level == 1.0:
        raise ArgumentError("evaluate: level must be below 1, got 1; 0.95 is usual.")
    chosen = [estimator(text) for text in ([estimators] if isinstance(estimators, str) else estimators)]
    if not chosen:
        raise ArgumentError("evaluate: at least one estimator is needed, such as snips.")
    found = overlap(log, policy_probabilities)
    warned = found.warnings()
    if strict and warned:
        raise DataError(f"evaluate: {warned[0]}")
    terms = _terms(log, policy_probabilities, reward_model, chosen, folds, seed)
    ratios = [item.ratios(term) for item, term in zip(chosen, terms, strict=True)]
    span = _bounds(log, bounds)
    most = found.max_weight if largest is None else largest
    if interval == "bootstrap":
        pairs = bootstrap(ratios, draws, level, seed)
    else:
        pairs = [_pair(interval, *both, log, span, most, level) for both in zip(chosen, terms, strict=True)]
    rows = []
    for item, term, pair, sums in zip(chosen, terms, pairs, ratios, strict=True):
        ess, top = found.ess, found.max_weight
        if item.name == "replay":
            ess, top = effective_size(term.match * term.count), float((term.match * term.count).max())
        more = _warnings(item, log, interval, pair)
        rows.append(Estimate(item.spec, _value(sums), *pair, ess, top, (*warned, *more)))
    logged = float((log.counts * log.reward).sum() / log.counts.sum())
    return Evaluation(tuple(rows), found, logged, interval, level, not warned)


def _value(sums: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The sum of the ratios; NaN where no round counts."""
    parts = [(float(top.sum()), float(bottom.sum())) for top, bottom in sums]
    return math.fsum(top / bottom if bottom > 0 else math.nan for top, bottom in parts)


def _terms(
    log: DecisionLog, policy: Tensor, model: Tensor | str | Fit | None, chosen: Sequence[Estimator], folds: int, seed: int
) -> list[Terms]:
    """What the rounds give to each estimator; `mrdr` has a reward model of its own."""
    policy, weight = policy.double(), weights(log, policy)
    match = (policy.argmax(dim=1) == log.action).double()
    plain = Terms(log.counts, weight, log.reward, match)

    def with_model(q: Tensor) -> Terms:
        expected = (policy * torch.where(log.offered, q, 0.0)).sum(dim=1)
        return Terms(log.counts, weight, log.reward, match, q.gather(1, log.action[:, None])[:, 0], expected)

    usual = own = None
    for item in chosen:
        if item.needs_model and item.name != "mrdr" and usual is None:
            usual = with_model(
                _scores(log, model) if isinstance(model, Tensor) else cross_fitted(log, model, folds=folds, seed=seed)
            )
        if item.name == "mrdr" and own is None:
            if isinstance(model, Tensor):
                raise ArgumentError(
                    "evaluate: mrdr fits the reward model itself; give its name or a function, not its scores."
                )
            wanted = weight * (1.0 - log.propensity) / log.propensity
            own = with_model(cross_fitted(log, model, folds=folds, weight=wanted, seed=seed))
    return [own if item.name == "mrdr" else usual if item.needs_model else plain for item in chosen]


def _scores(log: DecisionLog, q: Tensor) -> Tensor:
    if tuple(q.shape) != (len(log), log.actions) or not bool(torch.isfinite(q[log.offered]).all()):
        raise DataError(f"reward model: scores must be finite, of shape {(len(log), log.actions)}, got {tuple(q.shape)}.")
    return q.double()


def _bounds(log: DecisionLog, bounds: tuple[float, float] | None) -> tuple[float, float]:
    low, high = float(log.reward.min()), float(log.reward.max())
    if bounds is None:
        return min(low, 0.0), max(high, 1.0)
    if not bounds[0] <= low <= high <= bounds[1]:
        raise ArgumentError(f"evaluate: bounds must hold all rewards, {low:g}..{high:g}, got {bounds[0]:g}..{bounds[1]:g}.")
    return float(bounds[0]), float(bounds[1])


def _pair(
    interval: str, item: Estimator, term: Terms, log: DecisionLog, span: tuple[float, float], largest: float, level: float
) -> Pair:
    """The interval of one estimator; (None, None) where it does not go with it."""
    low, high = span
    count = term.count / term.count.mean()
    most = max(largest, float(term.weight.max()))
    if interval == "cressie_read":
        good = item.name == "snips" or item.spec == "ips"
        return (
            cressie_read(count * term.weight, log.reward, span, most * float(count.max()), level) if good else (None, None)
        )
    grid = item.used(torch.cat([term.weight, torch.linspace(0.0, most, 1001, dtype=torch.float64)]))
    top = float(grid.max()) * float(count.max())
    if interval == "clopper_pearson":
        if item.name != "ips" or low < 0.0:
            return None, None
        total = float((count * item.used(term.weight) * log.reward).sum())
        return clopper_pearson(total, len(log), top * high, level)
    if not item.mean:
        return None, None
    values = item.ratios(term)[0][0] / term.count.mean()
    inside = (high - low) * (float(count.max()) + 2.0 * top) if item.needs_model else top * (max(high, 0.0) - min(low, 0.0))
    return bernstein(values, inside, level)


def _warnings(item: Estimator, log: DecisionLog, interval: str, pair: Pair) -> tuple[str, ...]:
    found = []
    if item.name == "dm":
        found.append("It rests on the reward model alone.")
    if item.name == "replay" and not is_uniform(log):
        found.append("The log was not drawn uniformly, so replay is biased.")
    if interval == "bootstrap" and pair[0] is not None and pair[0] == pair[1]:
        found.append("All resamples are alike, so this interval says nothing; take clopper_pearson or bernstein.")
    if pair[0] is None:
        found.append(f"The interval {interval} does not go with {item.name}; take bootstrap.")
    return tuple(found)
