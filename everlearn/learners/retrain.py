"""Retraining on everything seen so far: what adapting would give if memory and time cost nothing. A yardstick.

    weights = argmin over `epochs` of mean cross_entropy(model(x), y) on all rows so far, from the initial weights

It keeps every row and pays for every epoch; both show in its figures. Reference: Prabhu et al. (2020), GDumb, ECCV.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import check_count
from everlearn.core.events import Batch, Boundary, Metrics, X, join, rows
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.core.random import generator
from everlearn.core.state import capture
from everlearn.data.memory import Memory
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer
from everlearn.optim.refit import Grown, Refit


class Retrain(Learner):
    """Keeps all rows and trains anew on them whenever `when` says so.

    model: maps x to (batch, classes) scores; when: `grown(1.5)` (each time the data has grown by half: 3 trainings' worth of rows
    in all), `every(n)`, `on_drift(detector)` or `never()`; epochs: passes over all rows at each training; batch: rows per step;
    warm: False starts each training from the initial weights and a new optimiser, True from where the model stands;
    follow: True takes one step per batch between trainings, on the batch and as many rows drawn from all the others, so that the
    newest rows are never unknown to the model (at the end of a stream too); False leaves the model as last trained, which is how
    a model re-trained on a schedule behaves between its dates; optimizer: `sgd(...)` or `adam(...)`.

    >>> import torch
    >>> from everlearn import Batch, Retrain
    >>> learner = Retrain(torch.nn.Linear(4, 3), epochs=2)
    >>> for _ in range(4):
    ...     metrics = learner.update(Batch(torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64)))
    >>> learner.trainings, learner.memory.stored
    (3, 32)
    """

    name = "retrain"
    parts = ("descent", "guard", "memory", "when", "initial", "trainings")
    reference = True

    def __init__(
        self,
        model: nn.Module,
        *,
        when: Refit = Grown(1.5),
        epochs: int = 10,
        batch: int = 32,
        warm: bool = False,
        follow: bool = True,
        optimizer: Optimizer = SGD(),
        seed: int = 0,
    ):
        check_count(self.name, "epochs", epochs)
        check_count(self.name, "batch", batch)
        self.when = when.fresh()
        self.epochs = epochs
        self.batch = batch
        self.warm = warm
        self.follow = follow
        self.optimizer = optimizer
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.memory = Memory(None, seed=seed)
        self.initial = capture(model)  # the weights that a cold start begins from
        self.trainings = 0

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        error = None
        if self.when.needs_error:
            error = float((self.descent.predict(batch.x).argmax(1) != batch.y).double().mean())
        due = self.when.due(self.memory.seen + len(batch), error)
        drawn = self.memory.draw(len(batch)) if self.follow and not due else None
        self.memory.insert(x=batch.x, y=batch.y)
        if due:
            return {"loss": self._train()}
        if not self.follow:
            return {}
        if drawn is None:
            return {"loss": self._step(batch.x, batch.y)}
        return {"loss": self._step(join(batch.x, drawn["x"]), torch.cat([batch.y, drawn["y"]]))}

    def _train(self) -> Tensor:
        """Train on all rows; the order of rows comes from (seed, number of this training)."""
        if not self.warm:
            self.descent.model.load_state_dict(self.initial)
            self.descent.optimizer = self.optimizer.make(self.descent.parameters)
        kept = self.memory.rows()
        x, y = kept["x"], kept["y"]
        random = generator(self.seed, "retrain", self.trainings)
        for _ in range(self.epochs):
            for index in torch.randperm(len(y), generator=random).to(y.device).split(self.batch):
                loss = self._step(rows(x, index), y[index])
        self.trainings += 1
        return loss

    def _step(self, x: X, y: Tensor) -> Tensor:
        return self.descent(lambda: cross_entropy(self.descent.model(x), y))

    def boundary(self, boundary: Boundary) -> None:
        """The policy alone says when to train; a word of change is not among what it is told."""
