"""Batch norm by the statistics of what is to be answered: adaptation without a gradient.

    mu = (1 - alpha) mu_source + alpha mu_batch,   variances the same

Half of what corruptions cost is often repaid by this alone, so it is the yardstick of every method that takes steps.
References: Nado et al. (2020), arXiv 2006.10963; Schneider et al. (2020), arXiv 2006.16971 (the mixture).
"""

from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.learner import Adapter
from everlearn.learners.adaptation import Adaptation
from everlearn.nn.batch_statistics import batch_norms, by_batch
from everlearn.optim.optimizers import SGD, Optimizer


class BNStats(Adapter):
    """Trains on labelled rows, then normalises each batch without labels by its own statistics; no weight ever changes.

    model: a network with batch norm; alpha: the part of the batch's statistics, 1 for them alone, 0 for the source network, 0.1 is
    usual where batches are small; optimizer: of the training with labels. One row alone is answered by the source's statistics.

    >>> import torch
    >>> from everlearn import BNStats
    >>> learner = BNStats(nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3)))
    >>> x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    >>> bool(torch.allclose(learner.adapt(5.0 + x), learner.adapt(x), atol=1e-5))
    True

    Reference: Nado et al. (2020), arXiv 2006.10963; Schneider et al. (2020), arXiv 2006.16971.
    Differs from the paper in: the variance of the batch is the biased one that batch norm divides by.
    """

    name = "bn_stats"
    parts = ("adaptation",)
    needs_batch_norm = True

    def __init__(self, model: nn.Module, *, alpha: float = 1.0, optimizer: Optimizer = SGD(), seed: int = 0):
        check_range(self.name, "alpha", alpha, 0.0, 1.0)
        if isinstance(model, nn.Module) and not batch_norms(model):
            raise ArgumentError(
                f"{self.name}: the network has no batch norm, so there are no statistics to replace. Use frozen(model), or a "
                "network with batch norm such as resnet18."
            )
        self.alpha = alpha
        self.optimizer = optimizer
        self.seed = seed
        self.adaptation = Adaptation(self.name, model, optimizer, seed, rule=by_batch(alpha))

    def predict(self, x: X) -> Tensor:
        return self.adaptation.predict(x)

    def update(self, batch: Batch) -> Metrics:
        return self.adaptation.update(batch)

    def adapt(self, x: X) -> Tensor:
        """The scores by this batch's statistics; nothing else is learned."""
        return self.adaptation.adapt(x)

    def boundary(self, boundary: Boundary) -> None:
        """Nothing is kept that a change could end."""
