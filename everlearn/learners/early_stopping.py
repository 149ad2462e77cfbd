"""Early stopping by task: many passes over the rows of each task, until rows set aside are no longer answered better.

Reference: Prechelt (1998), Early stopping - but when?; Lesort et al. (2023), Challenging common assumptions about catastrophic
forgetting, arXiv 2207.04543.
"""

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X, rows
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.core.random import generator
from everlearn.core.state import capture, restore
from everlearn.nn.criteria import Loss, Plain
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer


class EarlyStopping(Learner):
    """Trains on each task when it is announced, and keeps the weights that answered its rows set aside best. Needs boundaries.

    model: maps x to (batch, classes) scores; epochs: most passes over a task, 200; patience: passes without a better answer after
    which it ends, 5; validation: the part of the rows set aside, 0.1; batch: rows per step, 64; restart: whether the optimiser is
    made anew for each task; loss: `plain()` or `masked(scope="batch")`; optimizer: `sgd(...)` or `adam(...)`.

    A boundary must bring the task's rows and their labels. The batches that follow are the same rows, so nothing is learned from
    them; after a boundary without rows or labels (a budget of labels takes them away) they are learned from once, as they come.

    >>> import torch
    >>> from everlearn import Batch, Boundary, EarlyStopping
    >>> from everlearn.optim.optimizers import SGD
    >>> x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    >>> task = Batch(x, (x[:, 0] > 0).long())
    >>> learner = EarlyStopping(torch.nn.Linear(4, 2), patience=20, validation=0.3, optimizer=SGD(lr=1.0))
    >>> learner.boundary(Boundary(0, data=task))
    >>> (learner.predict(task.x).argmax(1) == task.y).float().mean().item() > 0.9
    True

    Reference: Lesort et al. (2023), arXiv 2207.04543.
    """

    name = "early_stopping"
    parts = ("descent", "guard", "criterion", "tasks", "trained", "ran")
    needs_boundaries = True

    def __init__(
        self,
        model: nn.Module,
        *,
        epochs: int = 200,
        patience: int = 5,
        validation: float = 0.1,
        batch: int = 64,
        restart: bool = False,
        loss: Loss = Plain(),
        optimizer: Optimizer = SGD(),
        seed: int = 0,
    ):
        for key, value in (("epochs", epochs), ("patience", patience), ("batch", batch)):
            check_count(self.name, key, value)
        check_range(self.name, "validation", validation, 0.0, 1.0)
        if validation in (0, 1):
            raise ArgumentError(
                f"{self.name}: validation must lie between 0 and 1, both left out, got {validation}. Use validation=0.1."
            )
        self.epochs = epochs
        self.patience = patience
        self.validation = validation
        self.batch = batch
        self.restart = restart
        self.loss = loss
        self.optimizer = optimizer
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.criterion = loss.make(self.name)
        self.tasks = 0
        self.trained = False  # whether the rows of the present task were learned at its boundary
        self.ran = 0  # passes made over it

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None or self.trained:
            return {}
        return {"loss": self.descent(lambda: self.criterion(self.descent.model(batch.x), batch.y))}

    def boundary(self, boundary: Boundary) -> None:
        """Learn the task that begins, where its rows are known."""
        data = boundary.data
        self.trained = data is not None and data.y is not None and len(data) > 1
        if self.trained:
            self.guard.batch(data)
        self.criterion.hear(boundary)
        if self.restart:
            self.descent.restart()
        self.ran = self._train(data) if self.trained else 0
        self.tasks += 1

    def _train(self, data: Batch) -> int:
        """The number of passes made."""
        random = generator(self.seed, "early stopping", self.tasks)
        order = torch.randperm(len(data), generator=random)
        aside = max(1, round(self.validation * len(data)))
        judged, learned = order[:aside], order[aside:]
        best, kept, since = -1.0, capture(self.descent.model), 0
        ran = 0
        while ran < self.epochs and since < self.patience:
            ran += 1
            for part in learned[torch.randperm(len(learned), generator=random)].split(self.batch):
                x, y = rows(data.x, part), data.y[part]
                self.descent(lambda x=x, y=y: self.criterion(self.descent.model(x), y))
            scores = self.descent.predict(rows(data.x, judged))
            accuracy = (scores.argmax(1) == data.y[judged]).float().mean().item()
            if accuracy > best:
                best, kept, since = accuracy, capture(self.descent.model), 0
            else:
                since += 1
        restore(self.descent.model, kept)
        return ran
