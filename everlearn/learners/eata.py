"""EATA: entropy minimisation on answers that are sure and new, with weights held where the source needed them.

    S = { i : H_i < E0 and |cos(p_i, m)| < redundancy },   E0 = entropy_margin * ln C
    L = mean_S exp(E0 - H_i) H_i + strength * sum_j F_j (w_j - w_j0)^2

m: moving mean of the answers used; F: mean over source rows of the squared gradient of -log p(own answer).
Reference: Niu et al. (2022), Efficient test-time model adaptation without forgetting, arXiv 2204.02610.
"""

import warnings

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from everlearn.core.errors import check_count, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.flat import cut
from everlearn.core.learner import Adapter
from everlearn.data.memory import Memory
from everlearn.learners.adaptation import Adaptation, norm_weights, rows_of_scores
from everlearn.nn.entropy import entropies, sure_below
from everlearn.nn.fisher import fisher_diagonal
from everlearn.optim.descent import evaluate
from everlearn.optim.optimizers import SGD, Optimizer

DECAY = 0.9  # of the moving mean of answers


class EATA(Adapter):
    """Trains on labelled rows, then adapts norm layers by answers that are sure and unlike those before, without leaving the source.

    model: a network with norm layers; lr, method: as in `tent`; entropy_margin: answers above this part of ln C are left out, 0.4;
    redundancy: answers whose cosine with the moving mean of answers reaches this are left out (None: none are), 0.4 for ten
    classes, 0.1 for a hundred, 0.05 for a thousand; fisher: hold weights to the source by Fisher information (False is the
    published ETA); strength: of that hold, 1, on ImageNet 2000; fisher_samples: source rows kept for it until deployment;
    reset_at_boundaries, optimizer: as in `tent`.

    The rows come from the time with labels; a ready network is told by `estimate_fisher(x)`, without labels. Without either the
    hold is missing, with a warning. Metrics: `loss`, `penalty`, and `learned_from`, the part of the answers that were used.

    >>> from everlearn import EATA, Batch
    >>> learner = EATA(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)), fisher_samples=100)
    >>> x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    >>> metrics = learner.update(Batch(x, torch.arange(16) % 3))
    >>> learner.adapt(x).shape, learner.importance.shape, learner.memory.stored
    (torch.Size([16, 3]), torch.Size([16]), 0)

    Reference: Niu et al. (2022), arXiv 2204.02610.
    Differs from the paper in: the Fisher information is taken row by row, in the source network with its running statistics (their
    code squares the gradients of batches of 64); dropout is off while it adapts.
    """

    name = "eata"
    parts = ("adaptation", "memory", "importance", "mean")
    needs_batch_norm = True

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 0.001,
        method: str = "adam",
        entropy_margin: float = 0.4,
        redundancy: float | None = 0.4,
        fisher: bool = True,
        strength: float = 1.0,
        fisher_samples: int = 2000,
        reset_at_boundaries: bool = False,
        optimizer: Optimizer = SGD(),
        seed: int = 0,
    ):
        check_range(self.name, "entropy_margin", entropy_margin, 0.0, 1.0)
        if redundancy is not None:
            check_range(self.name, "redundancy", redundancy, 0.0, 1.0)
        check_range(self.name, "strength", strength, 0.0)
        check_count(self.name, "fisher_samples", fisher_samples)
        self.lr = lr
        self.method = method
        self.entropy_margin = entropy_margin
        self.redundancy = redundancy
        self.fisher = fisher
        self.strength = strength
        self.fisher_samples = fisher_samples
        self.reset_at_boundaries = reset_at_boundaries
        self.optimizer = optimizer
        self.seed = seed
        weights = norm_weights(self.name, model)
        self.adaptation = Adaptation(
            self.name, model, optimizer, seed, weights, lr, method,
            learn=self._learn, begin=self._begin, again=self._forget, reset_at_boundaries=reset_at_boundaries,
        )  # fmt: skip
        self.memory: Memory | None = Memory(fisher_samples, seed=seed) if fisher and strength else None
        self.importance: Tensor | None = None  # (weights,) Fisher information of the norm layers' weights, in one row
        self.mean: Tensor | None = None  # (classes,) the moving mean of the answers used

    def predict(self, x: X) -> Tensor:
        return self.adaptation.predict(x)

    def update(self, batch: Batch) -> Metrics:
        learned = self.adaptation.update(batch)
        if self.memory is not None and batch.y is not None and not self.adaptation.deployed:
            self.memory.insert(x=batch.x)
        return learned

    def adapt(self, x: X) -> Tensor:
        """The scores of before this batch's step."""
        return self.adaptation.adapt(x)

    def boundary(self, boundary: Boundary) -> None:
        """A known change matters where adaptation begins anew with it."""
        self.adaptation.boundary(boundary)

    def reset(self) -> None:
        """Back to the source's weights; what was answered before is forgotten."""
        self.adaptation.reset()

    def estimate_fisher(self, x: X) -> Tensor:
        """(weights,) the Fisher information of the norm layers on source rows, by the network's own answers; it holds from now on."""
        self.adaptation.guard.inputs(x)
        model, weights = self.adaptation.model, self.adaptation.weights
        own = evaluate(model, x).argmax(1)
        with torch.enable_grad():
            self.importance = fisher_diagonal(model, weights, x, own, "empirical")
        return self.importance

    def _begin(self) -> None:
        """Take the Fisher information of the rows kept, and give them away."""
        if self.memory is None or self.importance is not None:
            return
        if self.memory.stored:
            self.estimate_fisher(self.memory.rows()["x"])
            self.memory.release()
        elif self.memory.capacity != 0:
            warnings.warn(
                "eata: no source rows were seen, so weights are not held to the source. Call estimate_fisher(x) with some, or use "
                "fisher=False.",
                UserWarning,
                stacklevel=2,
            )

    def _forget(self) -> None:
        self.mean = None

    def _learn(self, x: X) -> tuple[Tensor, Metrics]:
        scores = self.adaptation.scores(x)
        told = rows_of_scores(scores)
        unsure = entropies(told)
        limit = sure_below(told.shape[1], self.entropy_margin)
        used = (unsure.detach() < limit).nonzero().flatten()
        answers = told.detach().softmax(1)
        if self.redundancy is not None and self.mean is not None:
            alike = cosine_similarity(answers[used], self.mean[None], dim=1).abs()
            used = used[alike < self.redundancy]
        if not len(used):
            return scores.detach(), {"learned_from": 0.0}
        kept = unsure[used]
        loss = ((limit - kept.detach()).exp() * kept).mean()
        penalty = self._penalty()
        if not self.adaptation.step(loss + penalty):
            return scores.detach(), {"learned_from": 0.0, "not_finite": 1}
        now = answers[used].mean(0)
        self.mean = now if self.mean is None else DECAY * self.mean + (1.0 - DECAY) * now
        return scores.detach(), {
            "loss": (loss + penalty).detach(),
            "penalty": penalty.detach(),
            "learned_from": len(used) / len(told),
        }

    def _penalty(self) -> Tensor:
        weights, origin = self.adaptation.weights, self.adaptation.origin
        if self.importance is None or not self.fisher or not self.strength:
            return torch.zeros((), device=weights[0].device)
        pieces = cut(self.importance, weights)
        terms = [
            (hold * (weight - first).square()).sum() for hold, weight, first in zip(pieces, weights, origin, strict=True)
        ]
        return self.strength * torch.stack(terms).sum()
