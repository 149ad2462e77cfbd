"""What to look at in each generation of a policy that is fitted to its own log: its choices, their log, and how far to trust its scores.

    effective actions = exp(-sum_a p_a log p_a)      ESS = (sum w)^2 / sum w^2,  w = next policy / propensity
    exploration cost = value of the greedy policy less value of the policy
    log loss, AUC, ECE on the window and on a slice that was treated uniformly: only the slice tells of actions that are hardly chosen

References: Vangara & Egg (2024), arXiv 2412.00569. Naeini, Cooper & Hauskrecht (2015), Obtaining well calibrated probabilities using
Bayesian binning, AAAI (ECE). Kong (1992), A note on importance sampling using standardized weights (ESS).
"""

import math
from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import InputError, check_count
from everlearn.measure.exploration import effective_size


def effective_actions(probabilities: Tensor) -> Tensor:
    """(rows,) exp(entropy) of (rows, actions) probabilities: 1 where one is certain, k where k are alike.

    >>> round(float(effective_actions(torch.tensor([[0.70909091, 0.2, 0.09090909]], dtype=torch.float64))), 6)
    2.189435
    """
    return torch.special.entr(probabilities.double()).sum(1).exp()


def expected_calibration_error(scores: Tensor, outcomes: Tensor, bins: int = 10) -> float:
    """Over bins of equal width: the distance of mean score and share of ones, weighted by rows.

    >>> expected_calibration_error(torch.tensor([0.25, 0.25, 0.75, 0.75]).double(), torch.tensor([0, 1, 1, 1]))
    0.25
    """
    check_count("expected_calibration_error", "bins", bins)
    values = _scores("expected_calibration_error", scores, outcomes)
    place = (values * bins).long().clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, values - outcomes.double())
    return float(gap.abs().sum()) / len(values)


def trust(scores: Tensor, action: Tensor, outcomes: Tensor) -> dict[str, Any]:
    """How good scores (rows, actions) are as probabilities of what came of (rows,) actions.

    Returns log_loss, auc, ece, positive (share of ones), and by_action: for each action its count, mean score and share of ones.
    """
    from sklearn.metrics import log_loss, roc_auc_score

    chosen = _scores("trust", scores.double().gather(1, action[:, None])[:, 0], outcomes)
    truth = outcomes.numpy()
    rows = []
    for number in range(scores.shape[1]):
        took = action == number
        count = int(took.sum())
        told = (float(chosen[took].mean()), float(outcomes[took].double().mean())) if count else (None, None)
        rows.append({"action": number, "count": count, "expected": told[0], "observed": told[1]})
    return {
        "log_loss": float(log_loss(truth, chosen.numpy(), labels=[0, 1])),
        "auc": float(roc_auc_score(truth, chosen.numpy())) if 0 < truth.sum() < len(truth) else None,
        "ece": expected_calibration_error(chosen, outcomes),
        "positive": float(outcomes.double().mean()),
        "by_action": rows,
    }


def generation_figures(
    scores: Tensor,
    probabilities: Tensor,
    action: Tensor,
    reward: Tensor,
    *,
    next_probabilities: Tensor | None = None,
    chances: Tensor | None = None,
    control: tuple[Tensor, Tensor, Tensor] | None = None,
) -> dict[str, Any]:
    """The diagnostics of one generation.

    scores, probabilities: (rows, actions) of the policy on what it served, 0 probability where not offered; action, reward: (rows,);
    next_probabilities: of the policy fitted to this log, on the same rows; chances: (rows, actions), the true mean rewards, where a
    simulator knows them; control: (scores, action, reward) of the slice that was treated uniformly in the same generation.

    Returns approval (mean reward), effective_actions, counts by action, window (see `trust`), and where their input is given
    control (`trust`), control_approval, ess and ess_share, exploration_cost. The cost is that of the true chances, else of the scores.
    """
    taken = probabilities.double().gather(1, action[:, None])[:, 0]
    if (taken <= 0.0).any():
        row = int((taken <= 0.0).nonzero()[0])
        raise InputError(f"row {row}: the policy never takes action {int(action[row])} there, so it cannot have chosen it.")
    offered = probabilities > 0.0
    leader = scores.double().masked_fill(~offered, -math.inf).argmax(1)
    worth = (scores if chances is None else chances).double()
    figures = {
        "approval": float(reward.double().mean()),
        "effective_actions": float(effective_actions(probabilities).mean()),
        "exploration_cost": float((worth.gather(1, leader[:, None])[:, 0] - (probabilities * worth).sum(1)).mean()),
        "counts": torch.bincount(action, minlength=scores.shape[1]).tolist(),
        "window": trust(scores, action, reward),
    }
    if next_probabilities is not None:
        size = effective_size(next_probabilities.double().gather(1, action[:, None])[:, 0] / taken)
        figures |= {"ess": size, "ess_share": size / len(action)}
    if control is not None:
        figures |= {"control": trust(*control), "control_approval": float(control[2].double().mean())}
    return figures


def _scores(owner: str, scores: Tensor, outcomes: Tensor) -> Tensor:
    values = scores.double()
    wrong = ~((values >= 0.0) & (values <= 1.0))
    if values.ndim != 1 or values.shape != outcomes.shape or not len(values):
        raise InputError(
            f"{owner}: scores and outcomes must be as many, got {tuple(scores.shape)} and {tuple(outcomes.shape)}."
        )
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise InputError(f"{owner}: row {row}: a probability lies in 0..1, got {float(values[row])}.")
    if not ((outcomes == 0) | (outcomes == 1)).all():
        raise InputError(f"{owner}: outcomes must be 0 or 1, got {sorted(set(outcomes.tolist()))[:5]}.")
    return values
