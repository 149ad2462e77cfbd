"""The step that PCR and HPCR share: rows of the batch and of the memory, two views each, contrasted with class proxies.

    S = [x_m, aug(x_m), x, aug(x)]
    loss = factor(i) * contrast(S) + [t > 0] ( pcd * (scores_new - scores_old)^2 + scd * relations(old -> new) )

The contrast is over the proxies of the classes in S, so a class that is absent gets no gradient. The memory holds, beside x and
y, the scores and features that a row had when it came. The batch and the draw go through the network separately, each with
batch-norm statistics of its own.

Reference: Lin et al. (2023), PCR, arXiv 2304.04408; Lin et al. (2023), HPCR, arXiv 2309.15038.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, InputError, check_count, check_range, closest
from everlearn.core.events import Batch, Boundary, Metrics, X, join, rows, size
from everlearn.core.guard import Guard
from everlearn.core.random import generator, isolated
from everlearn.data.memory import Memory, Rule
from everlearn.data.views import Viewer, Views
from everlearn.nn.heads import check_temperature, with_proxies
from everlearn.nn.losses import (
    ANCHORS,
    counted_cross_entropy,
    counts_of,
    logit_distillation,
    normalised,
    present,
    proxy_contrastive_loss,
    relation_distillation,
    with_samples,
)
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import Optimizer
from everlearn.optim.schedules import CosineCycle

CONTRASTS = ("auto", *ANCHORS)
COMPETING = ("present", "all")
UNSEEN = -1e9  # the score of a class that has not come


@dataclass(frozen=True)
class Extras:
    """What HPCR adds to PCR, or takes away from it; as it stands, nothing.

    competing: "present", or "all": a softmax over all classes, which is replay with a cosine head;
    contrast: "proxy", "proxy+sample", "all", or "auto": "proxy+sample" for batches of contrast_min_batch rows and more;
    factor: what the contrast is multiplied by at the i-th batch of a task, None for 1; pcd, scd: weights of the distillations.
    """

    competing: str = "present"
    contrast: str = "proxy"
    contrast_min_batch: int = 32
    factor: CosineCycle | None = None
    pcd: float = 0.0
    scd: float = 0.0


class ProxyContrast:
    """The state and the step of a proxy-based contrastive learner."""

    parts = ("descent", "guard", "memory", "viewer", "seen", "tasks", "index", "filled")

    def __init__(
        self,
        owner: str,
        model: nn.Module,
        *,
        capacity: int,
        replay_batch: int,
        keep: Rule,
        temperature: float,
        views: Views | None,
        merged: bool,
        mask_unseen: bool,
        optimizer: Optimizer,
        passes: int,
        seed: int,
        extras: Extras = Extras(),
    ):
        check_count(owner, "capacity", capacity, fix="Use fine_tune(model) to learn without replay.")
        check_count(owner, "replay_batch", replay_batch)
        check_count(owner, "passes", passes)
        check_temperature(owner, temperature)
        check_count(owner, "contrast_min_batch", extras.contrast_min_batch)
        check_range(owner, "pcd", extras.pcd, 0.0)
        check_range(owner, "scd", extras.scd, 0.0)
        if extras.contrast not in CONTRASTS:
            raise ArgumentError(closest(f"{owner}: contrast", str(extras.contrast), CONTRASTS))
        if extras.competing not in COMPETING:
            raise ArgumentError(closest(f"{owner}: competing", str(extras.competing), COMPETING))
        if replay_batch > capacity:
            raise ArgumentError(
                f"{owner}: replay_batch={replay_batch} rows cannot be drawn from a memory of capacity={capacity}. "
                f"Use capacity={replay_batch} or more."
            )
        self.owner = owner
        self.temperature = temperature
        self.merged = merged
        self.mask_unseen = mask_unseen
        self.passes = passes
        self.replay_batch = replay_batch
        self.seed = seed
        self.extras = extras
        self.distils = extras.pcd > 0 or extras.scd > 0
        self.model = with_proxies(owner, model, temperature)
        self.head = self.model.head
        self.descent = Descent(self.model, optimizer, seed)
        self.guard = Guard(owner, self.head.out_features, model=self.model)
        self.memory = Memory(capacity, keep=keep, seed=seed)
        self.viewer = Viewer(owner, views, generator(seed, "views"))
        self.seen = torch.zeros(self.head.out_features)  # 1 for classes that came or were announced
        self.tasks = 0  # boundaries heard
        self.index = 0  # batches of the present task
        self.filled = False  # whether the memory was full once

    def predict(self, x: X) -> Tensor:
        """Cosine scores (batch, classes), those of classes that have not come pushed out of the way."""
        self.guard.inputs(x)
        scores = self.descent.predict(x)
        if not self.mask_unseen or not bool(self.seen.any()):
            return scores
        return scores.masked_fill(self.seen.to(scores.device) == 0, UNSEEN)

    def update(self, batch: Batch) -> Metrics:
        """Learn from one batch."""
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        for _ in range(self.passes):
            found, scores, features = self._step(batch.x, batch.y)
        self.seen = torch.maximum(self.seen, present(batch.y, len(self.seen)).to(self.seen.device))
        fields = {"logits": scores, "features": features} if self.distils else {}
        self.memory.insert(x=batch.x, y=batch.y, **fields)
        self.filled = self.filled or self.memory.stored == self.memory.capacity
        self.index += 1
        return found

    def boundary(self, boundary: Boundary) -> None:
        """A task begins: the factor starts its cycle anew, and from the second task on old answers are distilled."""
        self.tasks += 1
        self.index = 0
        if boundary.classes:
            self.seen[list(boundary.classes)] = 1.0

    @property
    def distilling(self) -> bool:
        """Whether old answers are distilled now: after the first task; where none are told, once the memory has been full."""
        return self.distils and (self.tasks > 1 if self.tasks else self.filled)

    def _step(self, x: X, y: Tensor) -> tuple[Metrics, Tensor, Tensor]:
        """(metrics, scores and features of the batch before the step)."""
        drawn = self.memory.draw(self.replay_batch)
        if drawn is None:
            return self._first(x, y)
        count = len(y)
        views = self.viewer(join(x, drawn["x"]))
        own = join(x, rows(views, slice(0, count)))
        old = join(drawn["x"], rows(views, slice(count, None)))
        labels = torch.cat([drawn["y"], drawn["y"], y, y])
        past = size(old)
        kept: list[Tensor] = []
        found: dict[str, Any] = {}

        def loss() -> Tensor:
            features = self._features(old, own)
            scores = self.model.head(features)
            kept[:] = scores[past : past + count].detach(), features[past : past + count].detach()
            found["contrast"] = self._contrast(scores, features, labels, count)
            value = found["contrast"]
            if self.extras.factor is not None:
                value = value * self.extras.factor(self.index)
            if self.distilling and self.extras.pcd:
                found["pcd"] = logit_distillation(scores[:past], drawn["logits"].repeat(2, 1), labels)
                value = torch.add(value, found["pcd"], alpha=self.extras.pcd)
            if self.distilling and self.extras.scd:
                found["scd"] = relation_distillation(features[:past], drawn["features"].repeat(2, 1), self.temperature)
                value = torch.add(value, found["scd"], alpha=self.extras.scd)
            if not torch.isfinite(value):
                self._refuse(found)
            return value

        total = self.descent(loss)
        return {"loss": total, **{key: value.detach() for key, value in found.items()}}, kept[0], kept[1]

    def _features(self, old: X, own: X) -> Tensor:
        """(rows, d): of the remembered rows, then of those that come."""
        if self.merged:
            return self.model.features(join(old, own))
        coming = self.model.features(own)  # first: batch norm's running statistics follow the order
        return torch.cat([self.model.features(old), coming])

    def _contrast(self, scores: Tensor, features: Tensor, labels: Tensor, count: int) -> Tensor:
        mode = self.extras.contrast
        if mode == "auto":
            mode = "proxy+sample" if count >= self.extras.contrast_min_batch else "proxy"
        if self.extras.competing == "all":
            return cross_entropy(scores, labels)
        if mode == "proxy":
            return counted_cross_entropy(scores, labels, counts_of(labels, scores.shape[1]))
        if mode == "proxy+sample":
            return with_samples(scores, normalised(features), labels, self.temperature)
        return proxy_contrastive_loss(features, labels, self.head.weight, self.temperature, anchors="all")

    def _first(self, x: X, y: Tensor) -> tuple[Metrics, Tensor, Tensor]:
        """Before the memory holds a row nothing is learned: a forward pass, for the scores to keep and batch-norm statistics."""
        model, count = self.model.train(), len(y)
        with isolated(self.seed, "first", self.index), torch.no_grad():
            features = model.features(join(x, self.viewer(x)))[:count]
            scores = model.head(features)
        return {"loss": scores.new_zeros(())}, scores, features

    def _refuse(self, found: dict[str, Tensor]) -> None:
        wrong = [key for key, value in found.items() if not torch.isfinite(value)] or ["their sum"]
        raise InputError(
            f"{self.owner}: the loss is not finite, because of: {', '.join(wrong)}. Nothing was learned from this batch; "
            "lower the learning rate or clip gradients."
        )
