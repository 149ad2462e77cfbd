"""NOTE: adaptation where rows come one by one, or sorted by class.

    batch norm by running statistics, corrected by those of each row where they differ beyond chance   (nn.batch_statistics)
    memory of `capacity` rows, balanced over the classes that were predicted
    each `every` rows: one step down the mean entropy on the memory, running statistics moved to those of the memory

Reference: Gong et al. (2022), NOTE: robust continual test-time adaptation against temporal correlation, arXiv 2208.05117.
"""

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, InputError, check_count, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X, rows, size
from everlearn.core.learner import Adapter
from everlearn.data.keep import Balanced, Ring
from everlearn.data.memory import Memory
from everlearn.learners.adaptation import Adaptation, norm_weights
from everlearn.nn.batch_statistics import Rule, batch_norms, by_instance
from everlearn.nn.entropy import entropies
from everlearn.optim.optimizers import SGD, Optimizer


class NOTE(Adapter):
    """Trains on labelled rows, then answers each row by itself and learns from a memory balanced over its own answers.

    model: a network with batch norm; lr, method: of the steps, "adam" with 0.0001; capacity: rows remembered, 64; every: rows from
    step to step (None: as many as the capacity); width: how many deviations a row's own statistics must be from the running ones
    until they count, 4 (None: running statistics alone); momentum: part by which running statistics follow the memory's at each
    step, 0.01; balanced=False keeps the newest rows in place of the balanced ones; reset_at_boundaries, optimizer: as in `tent`.

    Answers do not depend on the batch, so a batch of one row is as good as any. All rows of a batch are answered before any is
    learned from. Metrics: `loss` and `learned_from` (rows of the memory) where a step was taken.

    >>> from everlearn import NOTE
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    >>> learner = NOTE(network, capacity=8)
    >>> x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> scores = [learner.adapt(row[None]) for row in x]
    >>> learner.memory.stored, learner.adaptation.steps
    (8, 2)

    Reference: Gong et al. (2022), arXiv 2208.05117.
    Differs from the paper in: the training with labels uses plain batch norm, so that any trained network can be taken.
    """

    name = "note"
    parts = ("adaptation", "memory", "waiting", "statistics")
    needs_batch_norm = True

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 0.0001,
        method: str = "adam",
        capacity: int = 64,
        every: int | None = None,
        width: float | None = 4.0,
        momentum: float = 0.01,
        balanced: bool = True,
        reset_at_boundaries: bool = False,
        optimizer: Optimizer = SGD(),
        seed: int = 0,
    ):
        if every is not None:
            check_count(self.name, "every", every)
        if width is not None:
            check_range(self.name, "width", width, 0.0)
        check_range(self.name, "momentum", momentum, 0.0, 1.0)
        if isinstance(model, nn.Module) and any(layer.running_mean is None for layer in batch_norms(model)):
            raise ArgumentError(f"{self.name}: batch norm must hold running statistics; track_running_stats is off.")
        self.lr = lr
        self.method = method
        self.capacity = capacity
        self.every = every
        self.width = width
        self.momentum = momentum
        self.balanced = balanced
        self.reset_at_boundaries = reset_at_boundaries
        self.optimizer = optimizer
        self.seed = seed
        weights = norm_weights(self.name, model)
        self.adaptation = Adaptation(
            self.name, model, optimizer, seed, weights, lr, method,
            statistics=False, rule=self._rule(), learn=self._learn, begin=self._begin, again=self._forget,
            reset_at_boundaries=reset_at_boundaries,
        )  # fmt: skip
        self.memory = Memory(capacity, keep=Balanced() if balanced else Ring(), seed=seed)
        self.waiting = 0  # rows since the last step
        self.statistics: list[Tensor] = []  # running ones of the source

    def predict(self, x: X) -> Tensor:
        return self.adaptation.predict(x)

    def update(self, batch: Batch) -> Metrics:
        return self.adaptation.update(batch)

    def adapt(self, x: X) -> Tensor:
        """The scores of before this batch's steps."""
        return self.adaptation.adapt(x)

    def boundary(self, boundary: Boundary) -> None:
        """A known change matters where adaptation begins anew with it."""
        self.adaptation.boundary(boundary)

    def reset(self) -> None:
        """Back to the source's weights and running statistics, with an empty memory."""
        self.adaptation.reset()

    def _forget(self) -> None:
        with torch.no_grad():
            for held, first in zip(self._running(), self.statistics, strict=True):
                held.copy_(first)
        self.memory.release()
        self.waiting = 0

    def _begin(self) -> None:
        self.statistics = [held.clone() for held in self._running()]

    def _running(self) -> list[Tensor]:
        layers = batch_norms(self.adaptation.model)
        return [held for layer in layers for held in (layer.running_mean, layer.running_var)]

    def _rule(self, momentum: float | None = None) -> Rule:
        return by_instance(float("inf") if self.width is None else self.width, momentum)

    def _learn(self, x: X) -> tuple[Tensor, Metrics]:
        scores = self.adaptation.by_statistics(x)
        if scores.ndim != 2:
            raise InputError(
                f"{self.name}: the memory is balanced over one answer a row, and the network gives scores {tuple(scores.shape)}. "
                "Use tent, eata, sar or cotta for maps."
            )
        kinds, start, metrics = scores.argmax(1), 0, {}
        period = self.every or self.capacity
        while start < size(x):
            some = slice(start, start + period - self.waiting)
            self.memory.insert(x=rows(x, some), y=kinds[some])
            taken = len(kinds[some])
            start, self.waiting = start + taken, self.waiting + taken
            if self.waiting == period:
                self.waiting = 0
                metrics = self._step() or metrics
        return scores, metrics

    def _step(self) -> Metrics:
        """One step on the memory; what is not finite changes nothing, statistics included."""
        held = self.memory.rows()
        if self.memory.stored < 2:
            return {}
        before = [value.clone() for value in self._running()]
        loss = entropies(self.adaptation.scores(held["x"], self._rule(self.momentum))).mean()
        if not self.adaptation.step(loss):
            for value, old in zip(self._running(), before, strict=True):
                value.copy_(old)
            return {"learned_from": 0, "not_finite": 1}
        return {"loss": loss.detach(), "learned_from": self.memory.stored}
