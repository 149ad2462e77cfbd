"""Plain fine-tuning: one gradient step on each batch as it comes. The baseline that forgets.

    loss = cross_entropy(model(x), y)

It is the learner that replay with an empty memory, or a penalty of strength zero, must equal to the bit.
"""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import check_count
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer


class FineTune(Learner):
    """Learns from each batch and keeps nothing.

    model: maps x to (batch, classes) scores; optimizer: `sgd(...)` or `adam(...)`; passes: gradient steps per batch.

    >>> import torch
    >>> from everlearn import Batch, FineTune
    >>> learner = FineTune(torch.nn.Linear(4, 3))
    >>> metrics = learner.update(Batch(torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64)))
    >>> learner.predict(torch.zeros(2, 4)).argmax(dim=1).tolist()
    [0, 0]
    """

    name = "fine_tune"
    parts = ("descent", "guard")

    def __init__(self, model: nn.Module, *, optimizer: Optimizer = SGD(), passes: int = 1, seed: int = 0):
        check_count(self.name, "passes", passes)
        self.optimizer = optimizer
        self.passes = passes
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        for _ in range(self.passes):
            loss = self.descent(lambda: cross_entropy(self.descent.model(batch.x), batch.y))
        return {"loss": loss}

    def boundary(self, boundary: Boundary) -> None:
        """A change is no occasion for fine-tuning to do anything."""
