"""How much a log can say of another policy, before any reward is looked at.

    w = pi(a | x) / p_a      ESS = (sum w)^2 / sum w^2      sum w / n = 1 on average, if propensities are right and nothing is missing

Reference: Kong (1992), A note on importance sampling using standardized weights; Owen (2013), Monte Carlo theory, ch. 9.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import DataError
from everlearn.data.decision_log import SUM, DecisionLog, check_probabilities
from everlearn.measure.exploration import effective_size

FEW, THIN = 50.0, 0.01  # ESS, and share of the rounds, below which an estimate is not to be trusted
QUANTILES = (0.5, 0.9, 0.99, 0.999)
SIGMAS = 4.0  # standard errors by which the mean weight may be off


@dataclass(frozen=True)
class Overlap:
    """What the weights of a policy on a log say.

    rounds; ess; share: ess / rounds; max_weight; mean_weight; error: standard error of the mean weight; quantiles: {share: weight};
    never: share of rounds
    whose action the policy would never take; unseen: mean probability that the policy gives to actions which the log could not have
    taken (None where the log keeps no probabilities); actions: for each {"action", "offered", "taken", "policy", "propensity"}.
    """

    rounds: int
    ess: float
    share: float
    max_weight: float
    mean_weight: float
    error: float
    quantiles: dict[str, float]
    never: float
    unseen: float | None
    actions: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        return {**asdict(self), "actions": list(self.actions)}

    def warnings(self) -> tuple[str, ...]:
        """What is wrong, in words."""
        found = []
        if self.ess < FEW or self.share < THIN:
            found.append(
                f"This number is worthless: the log weighs as much as {self.ess:.1f} of its {self.rounds:,} rounds for this policy "
                f"(at least {FEW:g} and {THIN:.0%} are needed), and one round has the weight {_plain(self.max_weight)}."
            )
        if abs(self.mean_weight - 1.0) > SIGMAS * max(self.error, 1e-6):
            found.append(
                f"The weights average {self.mean_weight:.3g} and not 1: the propensities are not those of the decisions, or the policy "
                "takes actions that the log never took."
            )
        if self.unseen is not None and self.unseen > 0.01:
            found.append(f"{self.unseen:.1%} of what the policy does cannot be seen in this log: its propensity there is 0.")
        return tuple(found)


def weights(log: DecisionLog, policy: Tensor) -> Tensor:
    """(n,) float64: pi(a | x) / p_a of each round. Raises DataError where the policy is no distribution over the offered actions."""
    wanted = (len(log), log.actions)
    if not isinstance(policy, Tensor) or tuple(policy.shape) != wanted:
        got = tuple(policy.shape) if isinstance(policy, Tensor) else type(policy).__name__
        raise DataError(f"policy: probabilities must be a tensor of shape {wanted}, (rounds, actions), got {got}.")
    policy = policy.double()
    check_probabilities("policy", policy, log.offered, log.id)
    return policy.gather(1, log.action[:, None])[:, 0] / log.propensity


def overlap(log: DecisionLog, policy: Tensor) -> Overlap:
    """What a log can say of a policy (rounds, actions)."""
    weight = weights(log, policy)
    policy, count = policy.double(), log.counts
    n, held = len(log), weight * count
    ess = effective_size(held)
    unseen = None
    if log.probabilities is not None:
        unseen = float((count * (policy * (log.probabilities <= 0)).sum(dim=1)).sum() / count.sum())
    mean = float(held.sum() / count.sum())
    error = float((count * (weight - mean)).norm() / count.sum())
    places = torch.tensor(QUANTILES, dtype=torch.float64) * (n - 1)
    ordered = weight.sort().values  # torch.quantile refuses more than 2^24 rows
    rows = []
    for action in range(log.actions):
        taken = log.action == action
        rows.append(
            {
                "action": action,
                "offered": int(log.offered[:, action].sum()),
                "taken": int(taken.sum()),
                "policy": float((count * policy[:, action]).sum() / count.sum()),
                "propensity": float(log.propensity[taken].mean()) if bool(taken.any()) else None,
            }
        )
    return Overlap(
        rounds=n,
        ess=ess,
        share=ess / n,
        max_weight=float(weight.max()),
        mean_weight=mean,
        error=error,
        quantiles={f"{share:g}": float(ordered[int(place)]) for share, place in zip(QUANTILES, places.round(), strict=True)},
        never=float((weight <= 0).double().mean()),
        unseen=unseen,
        actions=tuple(rows),
    )


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def is_uniform(log: DecisionLog) -> bool:
    """Whether each action on offer was taken with equal probability."""
    return bool(((log.propensity * log.offered.sum(dim=1) - 1.0).abs() <= max(SUM, 1e-3)).all())
