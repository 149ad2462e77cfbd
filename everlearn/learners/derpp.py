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
    (rows in each of the two draws) are the authors' values for sequential CIFAR-10 with 500 rows; beta=0 is `der`, alpha=0
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
            loss, logits = dark_step(self.descent, self.memory, batch.x, batch.y, self.replay_batch, self.alpha, self.beta)
        self.memory.insert(x=batch.x, y=batch.y, logits=logits)
        return {"loss": loss}

    def boundary(self, boundary: Boundary) -> None:
        """Dark experience replay needs no word of changes."""


def dark_step(
    descent: Descent, memory: Memory, x: X, y: Tensor, replay_batch: int, alpha: float, beta: float
) -> tuple[Tensor, Tensor]:
    """One step of dark experience replay: (loss, the scores of the batch before the step).

    x, y: the batch; memory: rows with the fields y and logits; replay_batch: rows in each draw; alpha, beta: weights of remembered
    scores and of remembered labels. A weight of 0 draws nothing. Everything goes through the model in one forward pass.
    """
    times = (alpha > 0) + (beta > 0)
    drawn = memory.draw(replay_batch, times) if times else None
    inputs = x if drawn is None else join(x, drawn["x"])
    count = len(y)
    half = 0 if drawn is None else len(drawn["y"]) // times
    kept: list[Tensor] = []

    def loss() -> Tensor:
        own, *replayed = descent.model(inputs).split([count] + [half] * (times if half else 0))
        kept.append(own.detach())
        value = cross_entropy(own, y)
        if half and alpha:
            value = torch.add(value, mse_loss(replayed[0], drawn["logits"][:half]), alpha=alpha)
        if half and beta:
            value = torch.add(value, cross_entropy(replayed[-1], drawn["y"][-half:]), alpha=beta)
        return value

    return descent(loss), kept[-1]
