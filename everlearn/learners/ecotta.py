"""EcoTTA: a frozen network with small meta networks beside its parts, which alone learn from what comes without labels.

    L = mean of H_i over { i : H_i < H0 } + strength * sum_k R_k,   H0 = entropy_margin * ln C,   R_k = mean |x_{k+1} - o_k|

H_i is the entropy of the answer to row i, R_k how far part k's adapted output is from the frozen one (self-distillation).

Reference: Song et al. (2023), EcoTTA: memory-efficient continual test-time adaptation via self-distilled regularization,
arXiv 2303.01904.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Adapter
from everlearn.core.random import generator, isolated
from everlearn.core.state import capture
from everlearn.data.memory import Memory
from everlearn.data.photometric import Photometric
from everlearn.learners.adaptation import of_vectors, taught
from everlearn.learners.ecotta_warm_up import SCHEDULES, warm_up
from everlearn.nn.entropy import entropies, sure_below
from everlearn.nn.lean import GRADIENTS
from everlearn.nn.meta_network import Adapted
from everlearn.nn.partition import Blocks, partition
from everlearn.optim.descent import Descent, step_along
from everlearn.optim.optimizers import SGD, Optimizer

ORDERS = ("joint", "two_pass")


class EcoTTA(Adapter):
    """Trains on labelled rows, then adapts to unlabelled ones in little memory, held to what it was.

    Three phases. As long as batches have labels, the network is trained as `fine_tune` trains it, and a sample of the rows is kept.
    The first rows without labels deploy it: it is frozen for good, meta networks are warmed up on the rows kept, and these are
    given away. From then on each batch without labels makes one step of the meta networks; labels are not learned from. A ready
    network is warmed up by `warm_up(rows)`; without a warm-up its own answers by the batch's statistics are given, and nothing is
    learned.

    model: a network with batch norm that can be cut into a chain; partitions: parts of its encoder, a number (4 as published; 5 for
    a little more accuracy and memory), or the blocks of each; strength: of the self-distillation, 0.5, 0 switches it off;
    entropy_margin: answers above this part of ln C are left out, 0.4; lr, momentum: of the adaptation, by SGD; gradient: how the
    loss passes the frozen parts, "lean" (statistics constant, a fraction of the memory), "exact", or "cut" (not at all); order:
    "joint", one step on the sum, or "two_pass", a step on R_k and then one on the entropy, with the answers of between; meta:
    convolutions of "3x3", or "1x1" for networks of many channels; batch_stats=False: running statistics in the frozen network;
    capacity: source rows kept; warm_up_epochs, warm_up_lr, warm_up_batch, warm_up_schedule ("steps" or "cosine"), views: of the
    warm-up, with the published values; optimizer: of source training; reset_at_boundaries: back to the warmed-up state at each known
    change; blocks, shape: where the network's blocks, or the shape of a row, cannot be found out.

    One row alone has no statistics: it is answered by the source network, and nothing is learned. Where no answer is sure, or the
    loss is not finite, nothing is learned either.

    >>> from everlearn import Batch, EcoTTA
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    >>> learner = EcoTTA(net, warm_up_epochs=1)
    >>> x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    >>> metrics = learner.update(Batch(x, torch.arange(16) % 3))
    >>> learner.adapt(x).shape, learner.deployed, learner.memory.stored
    (torch.Size([16, 3]), True, 0)

    Reference: Song et al. (2023), arXiv 2303.01904.
    Differs from the paper in: `lean` gradients, without which most of the memory is not saved; rows of the source training serve the
    warm-up.
    """

    name = "ecotta"
    parts = ("source", "guard", "memory", "adapted", "optimizer_of_metas", "origin", "deployed", "warmed", "steps")
    needs_batch_norm = True

    def __init__(
        self,
        model: nn.Module,
        *,
        partitions: int | Sequence[int] = 4,
        strength: float = 0.5,
        entropy_margin: float = 0.4,
        lr: float = 0.005,
        momentum: float = 0.9,
        gradient: str = "lean",
        order: str = "joint",
        meta: str = "3x3",
        batch_stats: bool = True,
        capacity: int = 2000,
        warm_up_epochs: int = 10,
        warm_up_lr: float = 0.05,
        warm_up_batch: int = 64,
        warm_up_schedule: str = "steps",
        views: Photometric | None = Photometric(),
        optimizer: Optimizer = SGD(),
        reset_at_boundaries: bool = False,
        blocks: Blocks = None,
        shape: Sequence[int] | None = None,
        seed: int = 0,
    ):
        for argument, value in (("strength", strength), ("lr", lr), ("warm_up_lr", warm_up_lr)):
            check_range(self.name, argument, value, 0.0)
        for argument, value in (("entropy_margin", entropy_margin), ("momentum", momentum)):
            check_range(self.name, argument, value, 0.0, 1.0)
        check_count(self.name, "capacity", capacity, fix="Keep a few rows, or warm up a ready network with warm_up(rows).")
        check_count(self.name, "warm_up_epochs", warm_up_epochs, low=0)
        check_count(self.name, "warm_up_batch", warm_up_batch, low=2)
        for argument, value, allowed in (
            ("gradient", gradient, GRADIENTS),
            ("order", order, ORDERS),
            ("warm_up_schedule", warm_up_schedule, SCHEDULES),
        ):
            if value not in allowed:
                raise ArgumentError(f"ecotta: {argument} must be one of {', '.join(map(repr, allowed))}, got {value!r}.")
        if views is not None and not isinstance(views, Photometric):
            raise ArgumentError(f"ecotta: views must be photometric(...) or None, got {views!r}.")
        self.partitions = partitions
        self.strength = strength
        self.entropy_margin = entropy_margin
        self.lr = lr
        self.momentum = momentum
        self.gradient = gradient
        self.order = order
        self.meta = meta
        self.batch_stats = batch_stats
        self.capacity = capacity
        self.warm_up_epochs = warm_up_epochs
        self.warm_up_lr = warm_up_lr
        self.warm_up_batch = warm_up_batch
        self.warm_up_schedule = warm_up_schedule
        self.views = views
        self.optimizer = optimizer
        self.reset_at_boundaries = reset_at_boundaries
        self.blocks = blocks
        self.shape = shape
        self.seed = seed
        self.source = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.memory = Memory(capacity, seed=seed)
        training = model.training
        model.eval()
        with isolated(seed, "meta"):
            self.adapted = Adapted(self.name, partition(self.name, model, partitions, blocks), meta, shape)
        model.train(training)
        self.optimizer_of_metas = self._fresh_optimizer()
        self.origin = capture(self.adapted)
        self.deployed = False
        self.warmed = False
        self.steps = 0
        self._of_vectors = of_vectors(model)
        self._warned = False

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        if not self.deployed or len(x) < 2:
            return self.source.predict(x)
        if not self.warmed:
            return self.adapted.frozen_alone(x, self.batch_stats)
        with torch.no_grad():
            return self.adapted(x, "cut", self.batch_stats)[0]

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return self._adapt(batch.x)[1]
        if self.deployed:
            return {}
        self.memory.insert(x=batch.x, y=batch.y)
        return taught(self.source, batch, self._of_vectors)

    def adapt(self, x: X) -> Tensor:
        """The scores of before this batch's step (`order="two_pass"`: of before its second one)."""
        self.guard.batch(Batch(x))
        return self._adapt(x)[0]

    def warm_up(self, source: Batch | Iterable[Any], epochs: int | None = None) -> float | None:
        """Freeze the network and teach the meta networks on labelled source rows. Returns the mean loss of the last epoch.

        source: a Batch of all rows (shuffled here), or an iterable of Batch or pairs (x, y), such as a DataLoader; labels may be
        maps (batch, height, width), where the network's scores are. epochs: `warm_up_epochs` where None.
        """
        epochs = self.warm_up_epochs if epochs is None else epochs
        check_count(self.name, "epochs", epochs, low=0)
        self._freeze()
        loss = warm_up(
            self.adapted,
            source,
            epochs=epochs,
            lr=self.warm_up_lr,
            momentum=self.momentum,
            batch=self.warm_up_batch,
            schedule=self.warm_up_schedule,
            views=self.views,
            batch_stats=self.batch_stats,
            random=generator(self.seed, "warm_up"),
        )
        self.warmed = True
        self.origin = capture(self.adapted)
        self.reset()
        return loss

    def reset(self) -> None:
        """Back to the state after the warm-up."""
        self.adapted.load_state_dict(self.origin)
        self.optimizer_of_metas = self._fresh_optimizer()

    def boundary(self, boundary: Boundary) -> None:
        """A known change matters where the meta networks begin anew with it."""
        if self.reset_at_boundaries and self.deployed:
            self.reset()

    def restored(self) -> None:
        """What learns and what does not is told by the phase."""
        self._thaw_or_freeze()

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        return SGD(lr=self.lr, momentum=self.momentum).make(self.adapted.parameters())

    def _freeze(self) -> None:
        self.deployed = True
        self._thaw_or_freeze()

    def _thaw_or_freeze(self) -> None:
        for parameter in self.source.parameters:
            parameter.requires_grad_(not self.deployed)
        if self.deployed:
            self.source.model.eval()

    def _deploy(self) -> None:
        """Freeze the network, warm the meta networks up on the rows kept, and give these away."""
        self._freeze()
        if not self.warmed and self.memory.stored > 1:
            held = self.memory.rows()
            self.warm_up(Batch(held["x"], held["y"]))
        self.memory.release()

    def _adapt(self, x: X) -> tuple[Tensor, Metrics]:
        if not self.deployed:
            self._deploy()
        if len(x) < 2:
            return self.source.predict(x), {"learned_from": 0}
        if not self.warmed:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    "ecotta: no source rows were kept and warm_up was not called, so the network answers by the statistics of "
                    "each batch and does not adapt further. Call warm_up(rows) with labelled source rows.",
                    UserWarning,
                    stacklevel=3,
                )
            return self.adapted.frozen_alone(x, self.batch_stats), {"learned_from": 0}
        if self.order == "two_pass" and self.strength:
            self._step(
                [self.strength * gradient for gradient in self._held_gradients(self.adapted.apart(x, self.batch_stats))]
            )
        joint = self.order == "joint" and self.strength > 0
        logits, apart = self.adapted(x, self.gradient, self.batch_stats, apart=joint)
        uncertain = entropies(logits)
        sure = uncertain.detach() < sure_below(logits.shape[1], self.entropy_margin)
        count = int(sure.sum())
        if not count:
            return logits.detach(), {"learned_from": 0}
        loss = uncertain[sure].mean()
        total = loss.detach() + self.strength * sum(value.detach() for value in apart)
        if not torch.isfinite(total):
            return logits.detach(), {"learned_from": 0, "not_finite": 1}
        held = self._held_gradients(apart) if joint else []  # before the entropy's, which frees the graph
        gradients = torch.autograd.grad(loss, list(self.adapted.parameters()))
        if held:
            gradients = torch._foreach_add(gradients, held, alpha=self.strength)
        self._step(gradients)
        return logits.detach(), {"loss": total, "entropy": loss.detach(), "learned_from": count / sure.numel()}

    def _held_gradients(self, apart: Iterable[Tensor]) -> list[Tensor]:
        """The gradient of each R_k for the weights of its own meta network, and of no other."""
        found: list[Tensor] = []
        for value, meta in zip(apart, self.adapted.metas, strict=True):
            found += torch.autograd.grad(value, list(meta.parameters()), retain_graph=True)
        return found

    def _step(self, gradients: Sequence[Tensor]) -> None:
        self.steps += 1
        step_along(self.optimizer_of_metas, self.adapted.parameters(), gradients)
        for parameter in self.adapted.parameters():
            parameter.grad = None
