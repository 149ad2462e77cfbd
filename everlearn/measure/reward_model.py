"""Models of the reward, q(x, a) = E[r | x, a], fitted so that no round is judged by a model that has seen it.

    fold(i) in 0..folds-1 at random,  q(x_i, .) = the model fitted on all rounds of other folds

One linear model for each action: `ridge` for any reward, `logistic` where rewards are 0 or 1. A model of your own is a function
`fit(x, action, reward, weight, actions) -> predict`, where `predict(x)` gives (rows, actions).
Reference: Chernozhukov et al. (2018), arXiv 1608.00060 (cross-fitting).
"""

from collections.abc import Callable

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import InputError, SpecError, check_count, closest
from everlearn.core.random import generator
from everlearn.data.decision_log import DecisionLog

Predict = Callable[[Tensor], Tensor]
Fit = Callable[[Tensor, Tensor, Tensor, Tensor, int], Predict]

PENALTY = 1.0  # of both, on standardised features
FEW = 2  # rounds of an action below which its model is a constant


def cross_fitted(
    log: DecisionLog, model: str | Fit | None = None, *, folds: int = 3, weight: Tensor | None = None, seed: int = 0
) -> Tensor:
    """q (n, actions) float64 for each round of a log, by models that were fitted on the other folds.

    model: "ridge", "logistic", a function of your own, or None: logistic where all rewards are 0 or 1, else ridge; weight: (n,)
    of the rounds in the fit, beside those of the log. Raises SpecError, ArgumentError, InputError.
    """
    check_count("reward model", "folds", folds, low=2)
    fit = chosen(log, model)
    held = log.counts if weight is None else log.counts * weight
    number = torch.randperm(len(log), generator=generator(seed, "folds")) % folds
    q = torch.zeros(len(log), log.actions, dtype=torch.float64)
    for fold in range(folds):
        out = number == fold
        rest = ~out
        if not out.any():
            continue
        if not rest.any():
            raise InputError(f"reward model: {len(log)} rounds are too few for {folds} folds.")
        predict = fit(log.x[rest].double(), log.action[rest], log.reward[rest], held[rest], log.actions)
        told = predict(log.x[out].double())
        if tuple(told.shape) != (int(out.sum()), log.actions) or not bool(torch.isfinite(told).all()):
            raise InputError(
                f"reward model: predict must give finite scores of shape {(int(out.sum()), log.actions)}, got {tuple(told.shape)}."
            )
        q[out] = told.double()
    return q


def chosen(log: DecisionLog, model: str | Fit | None) -> Fit:
    """The function that fits, of a name or None. Raises SpecError."""
    if callable(model):
        return model
    if model is None:
        return logistic if bool(((log.reward == 0) | (log.reward == 1)).all()) else ridge
    if model not in MODELS:
        raise SpecError(closest("reward model", str(model), MODELS))
    return MODELS[model]


def ridge(x: Tensor, action: Tensor, reward: Tensor, weight: Tensor, actions: int) -> Predict:
    """Weighted ridge regression for each action; an action of fewer than two rounds has the mean of all."""
    from sklearn.linear_model import Ridge

    center, scale = _standard(x)
    z = ((x - center) / scale).numpy()
    slopes = torch.zeros(actions, x.shape[1], dtype=torch.float64)
    heights = torch.full((actions,), _mean(reward, weight), dtype=torch.float64)
    for number in range(actions):
        rows = (action == number) & (weight > 0)
        if int(rows.sum()) < FEW:
            continue
        if x.shape[1] == 0:
            heights[number] = _mean(reward[rows], weight[rows])
            continue
        g = weight[rows] / weight[rows].mean()
        made = Ridge(alpha=PENALTY, solver="cholesky").fit(z[rows.numpy()], reward[rows].numpy(), sample_weight=g.numpy())
        slopes[number], heights[number] = torch.from_numpy(made.coef_.copy()), float(made.intercept_)
    return lambda new: ((new - center) / scale) @ slopes.T + heights


def logistic(x: Tensor, action: Tensor, reward: Tensor, weight: Tensor, actions: int) -> Predict:
    """Weighted logistic regression for each action; one whose rewards are all alike has (sum + mean of all) / (rounds + 1)."""
    from sklearn.linear_model import LogisticRegression

    center, scale = _standard(x)
    z = ((x - center) / scale).numpy()
    mean = _mean(reward, weight)
    slopes = torch.zeros(actions, x.shape[1], dtype=torch.float64)
    heights = torch.zeros(actions, dtype=torch.float64)
    for number in range(actions):
        rows = (action == number) & (weight > 0)
        r, count = reward[rows], int(rows.sum())
        if count < FEW or r.min() == r.max() or x.shape[1] == 0:
            g = weight[rows] / weight[rows].mean() if count else weight[rows]
            height = (float((g * r).sum()) + mean) / (count + 1.0)
            heights[number] = torch.logit(torch.tensor(min(max(height, 1e-6), 1.0 - 1e-6), dtype=torch.float64))
            continue
        g = weight[rows] / weight[rows].mean()
        made = LogisticRegression(C=1.0 / PENALTY, solver="lbfgs", max_iter=200)
        made.fit(z[rows.numpy()], r.numpy().astype(numpy.int64), sample_weight=g.numpy())
        slopes[number], heights[number] = torch.from_numpy(made.coef_[0].copy()), float(made.intercept_[0])
    return lambda new: torch.sigmoid(((new - center) / scale) @ slopes.T + heights)


MODELS: dict[str, Fit] = {"ridge": ridge, "logistic": logistic}


def _standard(x: Tensor) -> tuple[Tensor, Tensor]:
    scale = x.std(dim=0, unbiased=False) if x.numel() else torch.ones(x.shape[1], dtype=x.dtype)
    return x.mean(dim=0), torch.where(scale > 0, scale, torch.ones_like(scale))


def _mean(reward: Tensor, weight: Tensor) -> float:
    total = float(weight.sum())
    return float((weight * reward).sum()) / total if total > 0 else float(reward.mean())
