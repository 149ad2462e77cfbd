"""Fine-tuning whose rate walks at random, by the same steps as in homeostatic learning: its control.

    with probability 1/2:  lr <- clip(lr + s(y) step)        s: the effect of the class of the batch's first row

The walk is reflected at min_lr, so it drifts upwards, and cannot come down when the world is calm.
Reference: Man, Damasio & Neven (2022), arXiv 2205.08645 (their LRR).
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.optim.descent import Descent
from everlearn.optim.homeostatic import effects_of
from everlearn.optim.optimizers import SGD, Optimizer
from everlearn.optim.rate_rules import RandomLR


class RandomRate(Learner):
    """Learns from each batch with a rate that walks at random.

    model: maps x to (batch, classes) scores; optimizer: `sgd(...)` or `adam(...)`, 0.0058 being the authors' rate at the start; effect,
    step, every, probability, min_lr, max_lr (None: no ceiling, as published): as in `optim.rate_rules.RandomLR`.

    >>> import torch
    >>> from everlearn import Batch, RandomRate
    >>> learner = RandomRate(torch.nn.Linear(4, 2), probability=1.0)
    >>> metrics = learner.update(Batch(torch.ones(8, 4), torch.ones(8, dtype=torch.int64)))
    >>> round(learner.regulation.lr, 5)
    0.00638

    Reference: Man, Damasio & Neven (2022), arXiv 2205.08645.
    """

    name = "random_lr"
    parts = ("descent", "guard", "regulation")

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: Optimizer = SGD(lr=0.0058),
        effect: Sequence[int] | None = None,
        step: float | None = None,
        every: int = 1,
        probability: float = 0.5,
        min_lr: float = 1e-8,
        max_lr: float | None = None,
        seed: int = 0,
    ):
        self.optimizer, self.effect, self.step, self.every, self.probability = optimizer, effect, step, every, probability
        self.min_lr, self.max_lr, self.seed = min_lr, max_lr, seed
        self.descent = Descent(model, optimizer, seed)
        outputs = count_outputs(model)
        if outputs is not None:
            effects_of(self.name, effect, outputs)  # refused at once, not at the first batch
        self.guard = Guard(self.name, outputs, model=model)
        self.regulation = RandomLR(
            self.descent,
            effect=effect,
            step=step,
            every=every,
            probability=probability,
            min_lr=min_lr,
            max_lr=math.inf if max_lr is None else max_lr,
            seed=seed,
            owner=self.name,
        )

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        return self.regulation.step(self.descent.model, batch.x, batch.y).metrics()

    def boundary(self, boundary: Boundary) -> None:
        """The walk goes on."""
