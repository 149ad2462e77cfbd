"""Forecasts by a small network that sees one series at a time, fitted once, and again when a policy says so.

    z = (x - center) / scale,    f = offset + scale network(z),    loss = mean ((f - y) / scale)^2

    normalizer   center, scale                           offset
    "window"     mean and spread of the window itself    its last value (the network answers with the increment)
    "global"     mean and deviation of the training data the same mean
    "none"       0, 1                                    0

A network whose state follows its input (`cfc`, `ltc`, `ncp`) may adapt without being fitted again; one that is fitted on every n new
rows (`dense` with `refit=every(n)`) is incremental learning. Weights are shared by all targets.
References: Ayoub et al. (2024), arXiv 2404.05304; Kim et al. (2022), Reversible instance normalization, ICLR.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard
from everlearn.core.learner import Learner
from everlearn.core.random import generator, isolated
from everlearn.data.recent import Recent
from everlearn.data.windows import series
from everlearn.learners.persistence import check_windows
from everlearn.nn.liquid import times
from everlearn.nn.series import Dense, SeriesNetwork
from everlearn.nn.window import window_scale
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import Adam, Optimizer
from everlearn.optim.refit import Every, Never, Refit

NORMALIZERS = ("window", "global", "none")
FLOOR = 1e-6  # least deviation of the training data


class Forecaster(Learner):
    """Fits a network on the first windows, forecasts with it, and fits it again as `refit` says, from where it stands.

    network: `cfc(...)`, `ltc(...)`, `ncp(...)` or `dense(...)`; refit: `never()`, `every(n)` (on the n newest rows), or
    `on_drift(detector)` (told the absolute error as a share of the training data's mean size; on the rows since the alarm, once
    `least` have come); normalizer: "window", "global" or "none"; epochs, optimizer: of the first fit, None takes the network's own;
    refit_epochs: passes of each later one; batch: rows per step; capacity: the newest rows that are kept for a fit; updates: labelled
    batches before the first fit, None means that `first` rows must have come (what is asked before gets the newest value, as
    persistence gives it); window: steps in x, None takes 24; columns: the places of the targets among x's columns, None for all.

    x: (rows, window, columns) float, or a dict of such windows and of "dt" (rows, window), times since the sample before, in samples,
    which networks of liquid cells heed. y: (rows, targets) float32. Raises ArgumentError, InputError.

    >>> learner = Forecaster(window=3, first=8)
    >>> waves = torch.sin(torch.arange(20.0))
    >>> for start in range(0, 16):
    ...     metrics = learner.update(Batch(waves[None, start : start + 3, None], waves[None, start + 3 : start + 4]))
    >>> learner.fits, learner.predict(waves[None, 16:19, None]).shape
    (1, torch.Size([1, 1]))

    Differs from the paper in: networks see windows in units of their own unless told otherwise, without which a sudden change leaves
    them in saturation.
    """

    name = "forecaster"
    parts = ("descent", "guard", "recent", "refit", "learned", "fits", "fitted", "alarmed", "center", "spread")
    gives = ("values",)

    def __init__(
        self,
        network: SeriesNetwork = Dense(),
        *,
        refit: Refit = Never(),
        normalizer: str = "window",
        epochs: int | None = None,
        refit_epochs: int = 50,
        optimizer: Optimizer | None = None,
        batch: int = 64,
        capacity: int = 5000,
        first: int = 288,
        least: int = 12,
        updates: int | None = None,
        window: int | None = None,
        columns: Sequence[int] | None = None,
        seed: int = 0,
    ):
        for argument, count in (("refit_epochs", refit_epochs), ("batch", batch), ("first", first), ("least", least)):
            check_count(self.name, argument, count)
        check_count(self.name, "capacity", capacity, low=0)
        if normalizer not in NORMALIZERS:
            raise ArgumentError(f"{self.name}: normalizer must be one of {', '.join(NORMALIZERS)}, got {normalizer!r}.")
        if epochs is not None:
            check_count(self.name, "epochs", epochs)
        if window is not None:
            check_count(self.name, "window", window)
        self.network = network
        self.normalizer = normalizer
        self.epochs = epochs
        self.refit_epochs = refit_epochs
        self.optimizer = optimizer
        self.batch = batch
        self.capacity = capacity
        self.first = first
        self.least = least
        self.updates = updates
        self.window = window
        self.columns = None if columns is None else tuple(columns)
        self.seed = seed
        with isolated(seed, "network"):
            model = network.make(window or 24)
        self.descent = Descent(model, optimizer or Adam(lr=network.lr), seed)
        self.guard = Guard(self.name, targets=0 if self.columns is None else len(self.columns))
        self.recent = Recent(capacity)
        self.refit = refit.fresh()
        self.learned = 0  # labelled batches
        self.fits = 0
        self.fitted = 0  # rows that had come at the last fit
        self.alarmed = -1  # rows that had come at an alarm that waits for more of them
        self.center = torch.zeros(0)  # of each target in the data of the first fit
        self.spread = torch.zeros(0)

    def predict(self, x: X) -> Tensor:
        self._check(x)
        self.guard.inputs(x)
        return self._forecast(x)

    def update(self, batch: Batch) -> Metrics:
        if isinstance(batch, Batch):
            self._check(batch.x, batch.y)
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        error = None
        if self.refit.needs_error and self.fits:
            error = float((self._forecast(batch.x) - batch.y).abs().mean() / self.center.abs().mean().clamp(min=FLOOR))
        self.recent.insert(x=batch.x, y=batch.y)
        self.learned += 1
        count = self._due(error)
        return {"loss": self._fit(count), "fits": self.fits} if count and self.recent.stored else {}

    def boundary(self, boundary: Boundary) -> None:
        """The policy alone says when to fit."""

    def _due(self, error: float | None) -> int:
        """The number of newest rows to fit on now, 0 for none."""
        seen = self.recent.seen
        if not self.fits:
            ready = self.learned >= self.updates if self.updates else seen >= self.first
            if ready:
                self.refit.due(seen, 0.0)  # this fit is the policy's first
            return seen if ready else 0
        if self.alarmed < 0 and self.refit.due(seen, error):
            self.alarmed = seen if self.refit.needs_error else self.fitted
        waiting = self.least if self.refit.needs_error else 1
        if self.alarmed < 0 or seen - self.alarmed < waiting:
            return 0
        count, self.alarmed = seen - self.alarmed, -1
        return count

    def _fit(self, count: int) -> Tensor:
        """Passes over the newest rows, in an order that (seed, number of this fit) gives; the loss of the last step."""
        kept = self.recent.newest(count)
        windows, dt = self._windows(kept["x"])
        if not self.fits:
            self.center = windows.mean(dim=(0, 2))
            self.spread = windows.std(dim=(0, 2), correction=0).clamp(min=FLOOR)
            epochs = self.epochs or self.network.epochs
        else:
            epochs = self.refit_epochs
        center, scale, offset = self._units(windows)
        z, wanted = ((windows - center) / scale).flatten(0, 1), ((kept["y"].unsqueeze(2) - offset) / scale).flatten(0, 1)
        random = generator(self.seed, "fit", self.fits)
        for _ in range(epochs):
            for index in torch.randperm(len(z), generator=random).split(self.batch):
                loss = self.descent(lambda index=index: ((self._network(z, dt, index) - wanted[index]) ** 2).mean())
        if not self.fits:  # from here on only as many rows are kept as a later fit may need
            n = self.refit.n if isinstance(self.refit, Every) else 0 if isinstance(self.refit, Never) else self.capacity
            self.recent.shrink(min(n, self.recent.capacity))
        self.fits += 1
        self.fitted = self.recent.seen
        return loss

    def _network(self, z: Tensor, dt: Tensor | None, index: Tensor | slice = slice(None)) -> Tensor:
        return self.descent.model(z[index].unsqueeze(2), None if dt is None else dt[index])

    def _forecast(self, x: X) -> Tensor:
        windows, dt = self._windows(x)
        if not self.fits:
            return windows[:, :, -1].clone()
        center, scale, offset = self._units(windows)
        self.descent.model.eval()
        with torch.no_grad():
            answer = self._network(((windows - center) / scale).flatten(0, 1), dt)
        return (offset + scale * answer.view(*windows.shape[:2], 1)).squeeze(2)

    def _units(self, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """center, scale and offset of windows (rows, targets, window), each to be broadcast with them."""
        if self.normalizer == "window":
            mean, scale = (part.view(*windows.shape[:2], 1) for part in window_scale(windows.flatten(0, 1)))
            return mean, scale, windows[:, :, -1:]
        if self.normalizer == "global":
            center = self.center.view(1, -1, 1)
            return center, self.spread.view(1, -1, 1), center
        return (zero := windows.new_zeros(1, 1, 1)), windows.new_ones(1, 1, 1), zero

    def _windows(self, x: X) -> tuple[Tensor, Tensor | None]:
        """The targets' windows (rows, targets, window), and dt (rows * targets, window) where it is told."""
        found = series(x)
        chosen = found if self.columns is None else found[:, :, list(self.columns)]
        dt = x["dt"].float().repeat_interleave(chosen.shape[2], dim=0) if isinstance(x, Mapping) and "dt" in x else None
        return chosen.transpose(1, 2).float().contiguous(), dt

    def _check(self, x: Any, y: Tensor | None = None) -> None:
        steps = self.window or 24
        check_windows(self.name, x, self.columns, y, steps)
        if isinstance(x, Mapping) and isinstance(x.get("dt"), Tensor):
            times(x["dt"], len(x["dt"]), steps)
