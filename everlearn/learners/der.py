"""Dark experience replay: remembered rows keep the scores that the model once gave them, and no labels are needed.

    loss = CE(model(x), y) + alpha * MSE(model(x'), z')

(x', z') is a draw from the memory; z are the scores at the time a row was stored.
Reference: Buzzega et al. (2020), Dark experience for general continual learning, arXiv 2004.07211, equation 4.
"""

from torch import Tensor, nn

from everlearn.core.errors import check_count, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.data.memory import Memory, Reservoir, Rule
from everlearn.learners.derpp import dark_step
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer


class DER(Learner):
    """Learns from each batch and from remembered scores (weight alpha).

    model: maps x to (batch, classes) scores; capacity: rows kept in all; alpha=0.3, capacity=500 and replay_batch=32 are the
    authors' values for sequential CIFAR-10 with 500 rows; alpha=0 is `fine_tune` to the bit, and `derpp(beta=0)` is the same
    learner; keep: which rows stay, `reservoir()` as published; optimizer: `sgd(...)` or `adam(...)`; passes: gradient steps per
    batch, each with a draw of its own.

    >>> import torch
    >>> from everlearn import DER, Batch
    >>> learner = DER(torch.nn.Linear(4, 3), capacity=10)
    >>> for _ in range(3):
    ...     metrics = learner.update(Batch(torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64)))
    >>> learner.memory.stored, learner.memory.replayed
    (10, 18)

    Reference: Buzzega et al. (2020), arXiv 2004.07211.
    Differs from the paper in: what `DERpp` does, and labels are kept beside the scores for rules that need them.
    """

    name = "der"
    parts = ("descent", "guard", "memory")

    def __init__(
        self,
        model: nn.Module,
        *,
        capacity: int = 500,
        alpha: float = 0.3,
        replay_batch: int = 32,
        keep: Rule = Reservoir(),
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        check_count(self.name, "capacity", capacity, fix="Use fine_tune(model) to learn without replay.")
        check_range(self.name, "alpha", alpha, 0.0)
        check_count(self.name, "replay_batch", replay_batch, fix="Use fine_tune(model) to learn without replay.")
        check_count(self.name, "passes", passes)
        self.capacity = capacity
        self.alpha = alpha
        self.replay_batch = replay_batch
        self.keep = keep
        self.optimizer = optimizer
        self.passes = passes
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.memory = Memory(capacity, keep=keep, seed=seed)

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        for _ in range(self.passes):
            loss, logits = dark_step(self.descent, self.memory, batch.x, batch.y, self.replay_batch, self.alpha, 0.0)
        self.memory.insert(x=batch.x, y=batch.y, logits=logits)
        return {"loss": loss}

    def boundary(self, boundary: Boundary) -> None:
        """Dark experience replay needs no word of changes."""
