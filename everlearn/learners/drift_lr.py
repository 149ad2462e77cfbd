"""Fine-tuning whose rate is raised for a while after each drift alarm on the learner's own errors.

    lr = factor * lr_0 for `span` rows after an alarm,  lr_0 otherwise

The usual answer to drift: a detector, and a larger step once it has spoken.
Reference: Bifet & Gavalda (2007), Learning from time-changing data with adaptive windowing, SDM (the detector).
"""

from copy import deepcopy

from torch import Tensor, nn

from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.measure.drift import ADWIN, Detector
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer
from everlearn.optim.rate_rules import DriftLR


class DriftRate(Learner):
    """Learns from each batch, `factor` times as fast for `span` rows after an alarm.

    model: maps x to (batch, classes) scores; detector: `adwin()`, `page_hinkley()` or another, told the errors made before learning;
    factor: 10; span: rows, 500; optimizer: `sgd(...)` or `adam(...)`.

    >>> import torch
    >>> from everlearn import Batch, DriftRate
    >>> from everlearn.measure.drift import Every
    >>> learner = DriftRate(torch.nn.Linear(4, 2), detector=Every(8))
    >>> metrics = learner.update(Batch(torch.ones(8, 4), torch.ones(8, dtype=torch.int64)))
    >>> round(learner.regulation.lr, 5)
    0.058

    Reference: Bifet & Gavalda (2007), SDM.
    """

    name = "drift_lr"
    parts = ("descent", "guard", "regulation")

    def __init__(
        self,
        model: nn.Module,
        *,
        detector: Detector = ADWIN(),
        factor: float = 10.0,
        span: int = 500,
        optimizer: Optimizer = SGD(lr=0.0058),
        seed: int = 0,
    ):
        self.detector, self.factor, self.span, self.optimizer, self.seed = detector, factor, span, optimizer, seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.regulation = DriftLR(self.descent, deepcopy(detector), factor=factor, span=span, owner=self.name)

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        return self.regulation.step(self.descent.model, batch.x, batch.y).metrics()

    def boundary(self, boundary: Boundary) -> None:
        """The detector finds changes by itself."""
