"""Dark experience replay++: remembered rows keep their labels, and the scores that the model once gave them.

    loss = CE(model(x), y) + alpha * MSE(model(x'), z') + beta * CE(model(x''), y'')

(x', z') and (x'', y'') are two independent draws from the memory; z are the scores at the time a row was stored.
Reference: Buzzega et al. (2020), Dark experience for general continual learning, arXiv 2004.07211, equation 6.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from everlearn.core.errors import check_count, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X, join
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.data.memory import Memory, Reservoir, Rule
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer


class DERpp(Learner):
    """Learns from each batch, from remembered scores (weight alpha) and from remembered labels (weight beta).

    model: maps x to (batch, classes) scores; capacity: rows kept in all; alpha=0.2, beta=0.5, capacity=500 and replay_batch=32
    (rows in each of the two draws) are the authors' values for sequential CIFAR-10 with 500 rows; beta=0 is their DER, alpha=0
    and beta=0 is `fine_tune` to the bit; keep: which rows stay, `reservoir()` as published; optimizer: `sgd(...)` or `adam(...)`;
    passes: gradient steps per batch, each with draws of its own.

    >>> import torch
    >>> from everlearn import Batch, DERpp
    >>> learner = DERpp(torch.nn.Linear(4, 3), capacity=10)
    >>> for _ in range(3):
    ...     metrics = learner.update(Batch(torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64)))
    >>> learner.memory.stored, learner.memory.rows()["logits"].shape
    (10, torch.Size([10, 3]))

    Reference: Buzzega et al. (2020), arXiv 2004.07211.
    Differs from the paper in: the squared error is averaged over classes as well as rows, as in the authors' code, where the
    equation sums it; the three parts share one forward pass, so that batch normalisation would see them together; no
    augmentation; draws are without repetition. With passes > 1 the scores stored are those before the last step.
    """

    name = "derpp"
    parts = ("descent", "guard", "memory")

    def __init__(
        self,
        model: nn.Module,
        *,
        capacity: int = 500,
        alpha: float = 0.2,
        beta: float = 0.5,
        replay_batch: int = 32,
        keep: Rule = Reservoir(),
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        check_count(self.name, "capacity", capacity, fix="Use fine_tune(model) to learn without replay.")
        check_range(self.name, "alpha", alpha, 0.0)
        check_range(self.name, "beta", beta, 0.0)
        check_count(self.name, "replay_batch", replay_batch, fix="Use fine_tune(model) to learn without replay.")
        check_count(self.name, "passes", passes)
        self.capacity = capacity
        self.alpha = alpha
        self.beta = beta
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
            loss, logits = self._step(batch.x, batch.y)
        self.memory.insert(x=batch.x, y=batch.y, logits=logits)
        return {"loss": loss}

    def _step(self, x: X, y: Tensor) -> tuple[Tensor, Tensor]:
        """(loss, the scores of the batch before the step)."""
        times = (self.alpha > 0) + (self.beta > 0)
        drawn = self.memory.draw(self.replay_batch, times) if times else None
        inputs = x if drawn is None else join(x, drawn["x"])
        count = len(y)
        half = 0 if drawn is None else len(drawn["y"]) // times
        kept: list[Tensor] = []

        def loss() -> Tensor:
            own, *replayed = self.descent.model(inputs).split([count] + [half] * (times if half else 0))
            kept.append(own.detach())
            value = cross_entropy(own, y)
            if half and self.alpha:
                value = torch.add(value, mse_loss(replayed[0], drawn["logits"][:half]), alpha=self.alpha)
            if half and self.beta:
                value = torch.add(value, cross_entropy(replayed[-1], drawn["y"][-half:]), alpha=self.beta)
            return value

        return self.descent(loss), kept[0]

    def boundary(self, boundary: Boundary) -> None:
        """Dark experience replay needs no word of changes."""


def _stack(inputs: list[X]) -> X:
    """The rows of several inputs, one after the other, in one copy."""
    first = inputs[0]
    if isinstance(first, Tensor):
        return torch.cat(inputs)
    return {key: torch.cat([item[key] for item in inputs]) for key in first}
