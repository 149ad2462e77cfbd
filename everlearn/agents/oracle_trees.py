"""Oracles from scikit-learn: gradient-boosted trees, or any classifier with `predict_proba`, on the columns and the action.

    f(x, a) = model([x, a]),    a as a category for the trees, as one column for each action otherwise

Such models are no tensors: what is kept is the rows of the last fit, and a model that is loaded is fitted to them again, when it is
first asked. Reference: Ke et al. (2017), LightGBM (histograms); Friedman (2001), Greedy function approximation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import torch

from everlearn.agents.oracles import Array, Model, Oracle, Rows
from everlearn.agents.window import tensor_of
from everlearn.core.errors import ArgumentError, check_count, check_range

FOLD = 255  # categories that the trees take


@dataclass(frozen=True, repr=False)
class Boosted(Oracle):
    """Gradient-boosted trees of scikit-learn, of log loss where rewards are 0 and 1, of squared loss where they are not.

    rounds, depth, lr: trees, their greatest depth, and the share of each that counts; least: rows in a leaf.
    """

    name = "boosted"
    rounds: int = 100
    depth: int = 4
    lr: float = 0.1
    least: int = 20

    def __post_init__(self) -> None:
        for key in ("rounds", "depth", "least"):
            check_count(self.name, key, getattr(self, key))
        check_range(self.name, "lr", self.lr, 1e-12, 1.0)

    def start(self, actions: int, seed: int) -> Model:
        if actions > FOLD:
            raise ArgumentError(f"boosted: trees take at most {FOLD} actions, got {actions}; use ridge() or logistic().")
        return EstimatorModel(actions, seed, self._trees, plain=True)

    def _trees(self, seed: int, two: bool, columns: int) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        kind = HistGradientBoostingClassifier if two else HistGradientBoostingRegressor
        return kind(
            max_iter=self.rounds, max_depth=self.depth, learning_rate=self.lr, min_samples_leaf=self.least,
            categorical_features=[columns - 1], early_stopping=False, random_state=seed % 2**32,
        )  # fmt: skip


@dataclass(frozen=True, repr=False)
class Estimator(Oracle):
    """A classifier or regressor of scikit-learn's interface, made by a function of yours: `estimator(mymodule:make)`.

    make: called without arguments before each fit; what it gives has fit(X, y) and predict_proba(X) or predict(X).
    """

    name = "estimator"
    make: Callable[[], Any] = None

    def __post_init__(self) -> None:
        if not callable(self.make):
            raise ArgumentError(f"estimator: make must be a function that gives an estimator, got {self.make!r}.")

    def start(self, actions: int, seed: int) -> Model:
        return EstimatorModel(actions, seed, lambda seed, two, columns: self.make(), plain=False)


class EstimatorModel(Model):
    """State: the rows that it was fitted to, and its seed."""

    parts = ("rows", "seed")

    def __init__(self, actions: int, seed: int, make: Callable[[int, bool, int], Any], plain: bool):
        self.actions, self.seed, self.plain = actions, seed, plain
        self._make = make
        self._model: Any = None
        self.rows: dict[str, torch.Tensor] = {}

    def restored(self) -> None:
        """The model is fitted again when it is next asked."""
        self._model = None

    def fit(self, rows: Rows) -> None:
        self.rows = {key: tensor_of(getattr(rows, key)) for key in ("x", "action", "reward", "weight")}
        self._model = None

    def scores(self, x: Array) -> Array:
        if not self.rows:
            return numpy.full((self.actions, len(x)), 0.5)
        reward = self.rows["reward"].numpy()
        if (reward == reward[0]).all():
            return numpy.full((self.actions, len(x)), reward[0])
        model = self._model if self._model is not None else self._grown(reward)
        asked = numpy.concatenate([self._columns(x, numpy.full(len(x), action)) for action in range(self.actions)])
        sure = hasattr(model, "predict_proba")
        given = model.predict_proba(asked)[:, list(model.classes_).index(1)] if sure else model.predict(asked)
        return numpy.asarray(given, dtype=numpy.float64).reshape(self.actions, len(x))

    def _grown(self, reward: Array) -> Any:
        two = bool(((reward == 0.0) | (reward == 1.0)).all())
        x = self._columns(self.rows["x"].numpy(), self.rows["action"].numpy())
        model = self._make(self.seed, two, x.shape[1])
        if not two and hasattr(model, "predict_proba"):
            raise ArgumentError("estimator: a classifier takes rewards 0 and 1, and other rewards came; give a regressor.")
        weight = self.rows["weight"].numpy()
        told = {} if (weight == 1.0).all() else {"sample_weight": weight}
        self._model = model.fit(x, reward.astype(numpy.int64) if two and hasattr(model, "predict_proba") else reward, **told)
        return self._model

    def _columns(self, x: Array, action: Array) -> Array:
        """The rows with the action behind them, as a number or as a column for each action."""
        behind = action[:, None] if self.plain else numpy.eye(self.actions)[action]
        return numpy.hstack([x, behind])
