"""Experience replay: every step learns from the batch and from rows remembered.

    loss = mean of cross_entropy(model(x), y) over the rows of batch and draw together

Reference: Chaudhry et al. (2019), On tiny episodic memories in continual learning, arXiv 1902.10486.
"""

import torch
from torch import Tensor, nn

from everlearn.core.errors import check_count
from everlearn.core.events import Batch, Boundary, Metrics, X, join
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.data.memory import Memory, Reservoir, Rule
from everlearn.nn.criteria import Loss, Plain
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer
from everlearn.optim.pace import TaskPace


class Replay(Learner):
    """Learns from each batch together with a draw from a memory of `capacity` rows, then offers the batch to the memory.

    model: maps x to (batch, classes) scores; capacity: rows kept in all; keep: which rows stay, `reservoir()` as published;
    replay_batch: rows drawn per step, 32 beside batches of 32 in the replay baseline of Buzzega et al. (2020, arXiv 2004.07211),
    whose memories hold 200, 500 or 5,120 rows; loss: `plain()` or `masked(scope="batch")`; optimizer: `sgd(...)` or `adam(...)`;
    passes: gradient steps per batch, each with a draw of its own; restart, anneal: as in `fine_tune`.

    >>> import torch
    >>> from everlearn import Batch, Replay
    >>> learner = Replay(torch.nn.Linear(4, 3), capacity=10)
    >>> for _ in range(3):
    ...     metrics = learner.update(Batch(torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64)))
    >>> learner.memory.seen, learner.memory.stored, learner.memory.replayed
    (24, 10, 18)

    Reference: Chaudhry et al. (2019), arXiv 1902.10486; Rolnick et al. (2019), Experience replay for continual learning, arXiv
    1811.11682.
    Differs from the paper in: nothing in the loss, which is the mean over batch and draw joined (algorithm 1 of Chaudhry et al.),
    so a smaller draw weighs less; the draw is without repetition.
    """

    name = "replay"
    parts = ("descent", "guard", "memory", "criterion", "pace")

    def __init__(
        self,
        model: nn.Module,
        *,
        capacity: int = 500,
        keep: Rule = Reservoir(),
        replay_batch: int = 32,
        loss: Loss = Plain(),
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        restart: bool = False,
        anneal: bool = False,
        seed: int = 0,
    ):
        check_count(self.name, "capacity", capacity, fix="Use fine_tune(model) to learn without replay.")
        check_count(self.name, "replay_batch", replay_batch, fix="Use fine_tune(model) to learn without replay.")
        check_count(self.name, "passes", passes)
        self.capacity = capacity
        self.keep = keep
        self.replay_batch = replay_batch
        self.loss = loss
        self.optimizer = optimizer
        self.passes = passes
        self.restart = restart
        self.anneal = anneal
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.memory = Memory(capacity, keep=keep, seed=seed)
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
            loss = self._step(batch.x, batch.y)
        self.memory.insert(x=batch.x, y=batch.y)
        return {"loss": loss}

    def _step(self, x: X, y: Tensor) -> Tensor:
        drawn = self.memory.draw(self.replay_batch)
        if drawn is not None:
            x, y = join(x, drawn["x"]), torch.cat([y, drawn["y"]])
        return self.descent(lambda: self.criterion(self.descent.model(x), y))

    def boundary(self, boundary: Boundary) -> None:
        """A change matters to a loss masked by task, and where the optimiser begins anew."""
        self.criterion.hear(boundary)
        self.pace.hear(boundary, self.descent)
