"""Gradient-boosted trees over the window: the forecaster to beat where there is no network, fitted again on a schedule.

    z = (x - mean_w) / scale_w,    f = x_last + scale_w trees(z)        one ensemble for all targets

Trees of scikit-learn are no tensors: what is kept is the data of the last fit, and a learner that is loaded grows them again.
Reference: Friedman (2001), Greedy function approximation: a gradient boosting machine; Ke et al. (2017), LightGBM (histograms).
"""

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import check_count, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard
from everlearn.core.learner import Learner
from everlearn.core.random import derive
from everlearn.data.recent import Recent
from everlearn.data.windows import series
from everlearn.learners.persistence import check_windows
from everlearn.nn.window import window_scale
from everlearn.optim.refit import Every, Refit


class Boosted(Learner):
    """Grows an ensemble on the newest `capacity` windows, when `updates` batches (or `first` rows) have come, and as `refit` says.

    refit: `every(n)`, `never()`, `grown(factor)` or `on_drift(detector)` (told the absolute error as a share of the mean size of the
    answers kept); rounds, depth, lr: trees, their greatest depth, and the share of each that counts. columns: places of the targets
    among x's columns, None for all. Where x is a dict, dt is not heeded.

    >>> import torch
    >>> learner = Boosted(first=30, rounds=5)
    >>> waves = torch.sin(torch.arange(60.0))
    >>> windows = waves.unfold(0, 7, 1)
    >>> metrics = learner.update(Batch(windows[:, :6, None].clone(), windows[:, 6:].clone()))
    >>> learner.fits
    1
    """

    name = "boosted"
    parts = ("guard", "recent", "refit", "learned", "fits", "x", "y")
    gives = ("values",)

    def __init__(
        self,
        *,
        refit: Refit = Every(144),
        rounds: int = 100,
        depth: int = 4,
        lr: float = 0.1,
        capacity: int = 2016,
        first: int = 288,
        updates: int | None = None,
        columns: Sequence[int] | None = None,
        seed: int = 0,
    ):
        for argument, count in (("rounds", rounds), ("depth", depth), ("first", first)):
            check_count(self.name, argument, count)
        check_count(self.name, "capacity", capacity, low=0)
        check_range(self.name, "lr", lr, 0.0, 1.0)
        self.rounds = rounds
        self.depth = depth
        self.lr = lr
        self.capacity = capacity
        self.first = first
        self.updates = updates
        self.columns = None if columns is None else tuple(columns)
        self.seed = seed
        self.guard = Guard(self.name, targets=0 if self.columns is None else len(self.columns))
        self.recent = Recent(capacity)
        self.refit = refit.fresh()
        self.learned = 0
        self.fits = 0
        self.x = torch.zeros(0)  # windows in units of their own, and the increments, of the last fit
        self.y = torch.zeros(0)
        self._trees: Any = None

    def predict(self, x: X) -> Tensor:
        check_windows(self.name, x, self.columns)
        self.guard.inputs(x)
        return self._forecast(x)

    def update(self, batch: Batch) -> Metrics:
        if isinstance(batch, Batch):
            check_windows(self.name, batch.x, self.columns, batch.y)
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        error = None
        if self.refit.needs_error and self.fits:
            size = self.recent.newest(self.recent.stored)["y"].abs().mean().clamp(min=1e-12)
            error = float((self._forecast(batch.x) - batch.y).abs().mean() / size)
        self.recent.insert(x=batch.x, y=batch.y)
        self.learned += 1
        seen = self.recent.seen
        if self.fits:
            due = self.refit.due(seen, error)
        else:
            due = self.learned >= self.updates if self.updates else seen >= self.first
            if due:
                self.refit.due(seen, 0.0)
        if not due or not self.recent.stored:
            return {}
        kept = self.recent.newest(self.recent.stored)
        windows = self._windows(kept["x"])
        mean, scale = window_scale(windows)
        self.x = (windows - mean) / scale
        self.y = (kept["y"].reshape(-1) - windows[:, -1]) / scale[:, 0]
        self.fits += 1
        self.restored()
        return {"fits": self.fits}

    def boundary(self, boundary: Boundary) -> None:
        """The policy alone says when to fit."""

    def restored(self) -> None:
        """Grow the trees of the last fit again."""
        if not self.fits:
            self._trees = None
            return
        from sklearn.ensemble import HistGradientBoostingRegressor

        seed = derive(self.seed, "boosted", self.fits) % 2**31
        trees = HistGradientBoostingRegressor(
            learning_rate=self.lr, max_iter=self.rounds, max_depth=self.depth, early_stopping=False, random_state=seed
        )
        self._trees = trees.fit(self.x.double().numpy(), self.y.double().numpy())

    def _forecast(self, x: X) -> Tensor:
        windows = self._windows(x)
        rows = len(series(x))
        if self._trees is None:
            return windows[:, -1].reshape(rows, -1).clone()
        mean, scale = window_scale(windows)
        found = self._trees.predict(((windows - mean) / scale).double().numpy()).astype(numpy.float32)
        return (windows[:, -1] + scale[:, 0] * torch.from_numpy(found)).reshape(rows, -1)

    def _windows(self, x: X) -> Tensor:
        """The targets' windows (rows * targets, window)."""
        found = series(x)
        chosen = found if self.columns is None else found[:, :, list(self.columns)]
        return chosen.transpose(1, 2).flatten(0, 1).float().contiguous()
