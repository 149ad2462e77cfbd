"""Fine-tuning whose rate follows its own gradient: higher while steps agree, lower where they turn back.

    lr <- clip(lr (1 + rate * cos(g_t, d_{t-1})))        g: gradient of the batch, d: direction of the last step

Reference: Baydin et al. (2018), Online learning rate adaptation with hypergradient descent, arXiv 1703.04782.
"""

from torch import Tensor, nn

from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer
from everlearn.optim.rate_rules import HypergradientLR


class HypergradientRate(Learner):
    """Learns from each batch, with a rate that rises by at most `rate` of itself at each.

    model: maps x to (batch, classes) scores; rate: 0.02; min_lr, max_lr: the rate stays between; optimizer: `sgd(...)` or `adam(...)`.

    >>> import torch
    >>> from everlearn import Batch, HypergradientRate
    >>> learner = HypergradientRate(torch.nn.Linear(4, 2))
    >>> for _ in range(3):
    ...     metrics = learner.update(Batch(torch.ones(8, 4), torch.ones(8, dtype=torch.int64)))
    >>> round(learner.regulation.lr / 0.0058, 2)
    1.04

    Reference: Baydin et al. (2018), arXiv 1703.04782.
    Differs from the paper in: gradients are normed, so `rate` has no unit.
    """

    name = "hypergradient"
    parts = ("descent", "guard", "regulation")

    def __init__(
        self,
        model: nn.Module,
        *,
        rate: float = 0.02,
        min_lr: float = 1e-8,
        max_lr: float = 0.5,
        optimizer: Optimizer = SGD(lr=0.0058),
        seed: int = 0,
    ):
        self.rate, self.min_lr, self.max_lr, self.optimizer, self.seed = rate, min_lr, max_lr, optimizer, seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.regulation = HypergradientLR(self.descent, rate=rate, min_lr=min_lr, max_lr=max_lr, owner=self.name)

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        return self.regulation.step(self.descent.model, batch.x, batch.y).metrics()

    def boundary(self, boundary: Boundary) -> None:
        """An announced change says nothing of the slope."""
