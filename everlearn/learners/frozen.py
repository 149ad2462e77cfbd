"""The deployed model that never learns again. The baseline that every adaptation must beat.

    loss = cross_entropy(model(x), y)      during its first training, nothing afterwards

What adapting gains is measured against it; its own figures say how much the world changed.
"""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import check_count
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer


class Frozen(Learner):
    """Learns as `fine_tune` does until it is deployed, then stays as it is.

    model: maps x to (batch, classes) scores; updates: labelled batches that it learns from (0 deploys the model as given); None
    means until the first announced change after something was learned, so a boundary that opens the stream does not count, and
    without boundaries it never freezes; optimizer: `sgd(...)` or `adam(...)`; passes: gradient steps per batch.

    >>> import torch
    >>> from everlearn import Batch, Frozen
    >>> learner = Frozen(torch.nn.Linear(4, 3), updates=1)
    >>> batch = Batch(torch.ones(8, 4), torch.zeros(8, dtype=torch.int64))
    >>> [list(learner.update(batch)) for _ in range(3)]
    [['loss'], [], []]
    """

    name = "frozen"
    parts = ("descent", "guard", "learned", "deployed")

    def __init__(
        self,
        model: nn.Module,
        *,
        updates: int | None = None,
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        if updates is not None:
            check_count(self.name, "updates", updates, low=0)
        check_count(self.name, "passes", passes)
        self.updates = updates
        self.optimizer = optimizer
        self.passes = passes
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.learned = 0  # labelled batches learned from
        self.deployed = updates == 0

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None or self.deployed:
            return {}
        for _ in range(self.passes):
            loss = self.descent(lambda: cross_entropy(self.descent.model(batch.x), batch.y))
        self.learned += 1
        self.deployed = self.learned == self.updates
        return {"loss": loss}

    def boundary(self, boundary: Boundary) -> None:
        """Where the number of updates is not given, the first change after some learning deploys the model."""
        if self.updates is None and self.learned:
            self.deployed = True
