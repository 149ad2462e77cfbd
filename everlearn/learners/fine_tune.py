"""Plain fine-tuning: one gradient step on each batch as it comes. The baseline that forgets.

    loss = cross_entropy(model(x), y)

It is the learner that replay with an empty memory, or a penalty of strength zero, must equal to the bit.
"""

from torch import Tensor, nn

from everlearn.core.errors import check_count
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.nn.criteria import Loss, Plain
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer
from everlearn.optim.pace import TaskPace


class FineTune(Learner):
    """Learns from each batch and keeps nothing.

    model: maps x to (batch, classes) scores; loss: `plain()`, or `masked(scope="batch")`, in which absent classes do not
    compete; optimizer: `sgd(...)` or `adam(...)`; passes: gradient steps per batch; restart: make the optimiser anew at each
    boundary; anneal: also let the rate fall along half a cosine over each pass of a task's rows.

    >>> import torch
    >>> from everlearn import Batch, FineTune
    >>> learner = FineTune(torch.nn.Linear(4, 3))
    >>> metrics = learner.update(Batch(torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64)))
    >>> learner.predict(torch.zeros(2, 4)).argmax(dim=1).tolist()
    [0, 0]
    """

    name = "fine_tune"
    parts = ("descent", "guard", "criterion", "pace")

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: Loss = Plain(),
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        restart: bool = False,
        anneal: bool = False,
        seed: int = 0,
    ):
        check_count(self.name, "passes", passes)
        self.loss = loss
        self.optimizer = optimizer
        self.passes = passes
        self.restart = restart
        self.anneal = anneal
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.criterion = loss.make(self.name)
        self.pace = TaskPace(self.name, restart, anneal)
        self.needs_boundaries = self.criterion.needs_boundaries or self.pace.needs_boundaries

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        self.pace.step(len(batch), self.descent)
        for _ in range(self.passes):
            loss = self.descent(lambda: self.criterion(self.descent.model(batch.x), batch.y))
        return {"loss": loss}

    def boundary(self, boundary: Boundary) -> None:
        """A change matters to a loss masked by task, and where the optimiser begins anew."""
        self.criterion.hear(boundary)
        self.pace.hear(boundary, self.descent)
