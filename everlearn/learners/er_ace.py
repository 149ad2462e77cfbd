"""ER-ACE: what comes is learned among its own classes, what is remembered among all classes that came.

    loss = CE over the classes of the batch (model(x), y)  +  CE over the classes seen (model(x'), y'),   (x', y') drawn

New rows then do not push the scores of old classes down, which is what tears old representations apart when a class is new.
Reference: Caccia et al. (2022), New insights on reducing abrupt representation change in online continual learning, arXiv
2104.05025.
"""

import torch
from torch import Tensor, nn

from everlearn.core.errors import check_count
from everlearn.core.events import Batch, Boundary, Metrics, X, join
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.data.memory import Memory, Reservoir, Rule
from everlearn.nn.losses import counted_cross_entropy, present
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer


class ERACE(Learner):
    """Experience replay with an asymmetric cross-entropy: masked to their own classes for new rows, not for remembered ones.

    model: maps x to (batch, classes) scores; capacity: rows kept in all, 500; keep: which rows stay, `reservoir()` as published;
    replay_batch: rows drawn per step, 10 beside batches of 10 as published; merged=True sends batch and draw through the network
    together, as one batch-norm batch (a network without batch norm takes them together in any case: the scores are the same);
    optimizer: `sgd(lr=0.1)` as published, or `adam(...)`; passes: gradient steps per batch, each with a draw of its own.
    Without a memory it is `fine_tune(loss=masked(scope="batch"))`.

    >>> import torch
    >>> from everlearn import Batch, ERACE
    >>> learner = ERACE(torch.nn.Linear(4, 3), capacity=10)
    >>> for _ in range(3):
    ...     metrics = learner.update(Batch(torch.ones(8, 4), torch.arange(8) % 2))
    >>> learner.memory.stored, learner.memory.replayed, learner.seen.tolist()
    (10, 18, [1.0, 1.0, 0.0])

    Reference: Caccia et al. (2022), arXiv 2104.05025.
    Differs from the paper in: classes that have not come compete in neither loss, as in its equations; the authors' code lets
    them. No augmentation.
    """

    name = "er_ace"
    parts = ("descent", "guard", "memory", "seen")

    def __init__(
        self,
        model: nn.Module,
        *,
        capacity: int = 500,
        keep: Rule = Reservoir(),
        replay_batch: int = 10,
        merged: bool = False,
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        check_count(self.name, "capacity", capacity, fix="Use fine_tune(model, loss=masked()) to learn without replay.")
        check_count(
            self.name, "replay_batch", replay_batch, fix="Use fine_tune(model, loss=masked()) to learn without replay."
        )
        check_count(self.name, "passes", passes)
        self.capacity = capacity
        self.keep = keep
        self.replay_batch = replay_batch
        self.merged = merged
        self.optimizer = optimizer
        self.passes = passes
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.memory = Memory(capacity, keep=keep, seed=seed)
        self.seen = torch.zeros(0)  # (classes,) 1 for those that came; as wide as the scores once there are some
        self._together = merged or not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        for _ in range(self.passes):
            loss = self._step(batch.x, batch.y)
        self.memory.insert(x=batch.x, y=batch.y)
        return {"loss": loss}

    def _step(self, x: X, y: Tensor) -> Tensor:
        drawn = self.memory.draw(self.replay_batch)

        def loss() -> Tensor:
            own, old = self._scores(x, None if drawn is None else drawn["x"], len(y))
            came = present(y, own.shape[1])
            self.seen = torch.maximum(self.seen, came) if len(self.seen) else came
            value = counted_cross_entropy(own, y, came)
            return value if drawn is None else value + counted_cross_entropy(old, drawn["y"], self.seen)

        return self.descent(loss)

    def _scores(self, x: X, old: X | None, count: int) -> tuple[Tensor, Tensor | None]:
        """The scores of the batch and of the draw."""
        model = self.descent.model
        if old is None:
            return model(x), None
        if not self._together:
            return model(x), model(old)
        scores = model(join(x, old))
        return scores[:count], scores[count:]

    def boundary(self, boundary: Boundary) -> None:
        """ER-ACE needs no word of changes."""
