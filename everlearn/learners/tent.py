"""Tent: entropy minimisation at test time, by the weights of the norm layers.

    L = mean_i H_i,   H_i = - sum_c p_ic log p_ic;   batch norm by the batch's own statistics

Reference: Wang et al. (2021), Tent: fully test-time adaptation by entropy minimization, arXiv 2006.10726.
"""

from torch import Tensor, nn

from everlearn.core.errors import check_range
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.learner import Adapter
from everlearn.learners.adaptation import Adaptation, norm_weights, rows_of_scores
from everlearn.nn.batch_statistics import by_batch
from everlearn.nn.entropy import entropies, sure_below
from everlearn.optim.optimizers import SGD, Optimizer


class Tent(Adapter):
    """Trains on labelled rows, then makes its answers to rows without labels surer, by scale and shift of the norm layers.

    model: a network with norm layers (batch norm, or layer norm as in transformers); lr, method: of the steps, "adam" with 0.001 as
    published for small images, "sgd" (momentum 0.9) with 0.00025 for large ones; entropy_margin: leave out answers whose entropy is
    above this part of ln C (None: none are, as published; 0.4 is usual where they are); alpha: the part of the batch's statistics in
    batch norm; reset_at_boundaries: back to the source at each known change (continual otherwise); optimizer: of the training with
    labels. Scores may be maps (batch, classes, height, width), whose pixels are answers each.

    No label after the first rows without one is learned from. One row alone has no statistics: see `note`. Metrics: `loss`, and
    `learned_from`, the part of the answers that were used.

    >>> import torch
    >>> from everlearn import Batch, Tent
    >>> learner = Tent(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)), lr=0.01)
    >>> x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    >>> metrics = learner.update(Batch(x, torch.arange(16) % 3))
    >>> losses = [learner.update(Batch(x))["loss"] for _ in range(5)]
    >>> bool(losses[-1] < losses[0])
    True

    Reference: Wang et al. (2021), arXiv 2006.10726.
    Differs from the paper in: dropout is off while it adapts.
    """

    name = "tent"
    parts = ("adaptation",)
    needs_batch_norm = True

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 0.001,
        method: str = "adam",
        entropy_margin: float | None = None,
        alpha: float = 1.0,
        reset_at_boundaries: bool = False,
        optimizer: Optimizer = SGD(),
        seed: int = 0,
    ):
        if entropy_margin is not None:
            check_range(self.name, "entropy_margin", entropy_margin, 0.0, 1.0)
        check_range(self.name, "alpha", alpha, 0.0, 1.0)
        self.lr = lr
        self.method = method
        self.entropy_margin = entropy_margin
        self.alpha = alpha
        self.reset_at_boundaries = reset_at_boundaries
        self.optimizer = optimizer
        self.seed = seed
        weights = norm_weights(self.name, model)
        self.adaptation = Adaptation(
            self.name, model, optimizer, seed, weights, lr, method,
            statistics=alpha > 0, rule=by_batch(alpha), learn=self._learn, reset_at_boundaries=reset_at_boundaries,
        )  # fmt: skip

    def predict(self, x: X) -> Tensor:
        return self.adaptation.predict(x)

    def update(self, batch: Batch) -> Metrics:
        return self.adaptation.update(batch)

    def adapt(self, x: X) -> Tensor:
        """The scores of before this batch's step."""
        return self.adaptation.adapt(x)

    def boundary(self, boundary: Boundary) -> None:
        """A known change matters where adaptation begins anew with it."""
        self.adaptation.boundary(boundary)

    def reset(self) -> None:
        """Back to the source's weights."""
        self.adaptation.reset()

    def _learn(self, x: X) -> tuple[Tensor, Metrics]:
        scores = self.adaptation.scores(x)
        told = rows_of_scores(scores)
        unsure = entropies(told)
        if self.entropy_margin is not None:
            unsure = unsure[unsure.detach() < sure_below(told.shape[1], self.entropy_margin)]
        if not len(unsure):
            return scores.detach(), {"learned_from": 0.0}
        loss = unsure.mean()
        if not self.adaptation.step(loss):
            return scores.detach(), {"learned_from": 0.0, "not_finite": 1}
        return scores.detach(), {"loss": loss.detach(), "learned_from": len(unsure) / len(told)}
