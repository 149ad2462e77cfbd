"""Homeostatic learning: fine-tuning whose rate regulates itself, so that nobody needs to know how fast the world changes.

    w <- w - lr * gradient of cross_entropy(model(x), y),      lr as `optim.homeostatic` has it

Reference: Man, Damasio & Neven (2022), Need is all you need: Homeostatic neural networks adapt to concept shift, arXiv 2205.08645.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from everlearn.core.errors import ArgumentError
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.optim.descent import Descent
from everlearn.optim.homeostatic import HomeostaticLR, effects_of
from everlearn.optim.optimizers import SGD, Optimizer

RULES = {
    "next_batch": {},
    "paper": {"evaluate_on": "memory", "signal": "accuracy", "gradient": "first_sample", "max_lr": math.inf},
}


class Homeostatic(Learner):
    """Learns from each batch and keeps nothing but the last rows; its rate goes up and down as the world changes.

    model: maps x to (batch, classes) scores; rule: "next_batch", the default, or "paper", which sets evaluate_on, signal, gradient and
    max_lr as published; a value other than None goes before the rule's. optimizer: `sgd(...)` or `adam(...)`, 0.0058 being the
    authors' rate at the start. effect, step, memory, every (None: no decision), evaluate_on, signal, gradient, min_lr, max_lr, epoch,
    suffers, shuffle: as in `optim.homeostatic.HomeostaticLR`.

    >>> import torch
    >>> from everlearn import Batch, Homeostatic
    >>> learner = Homeostatic(torch.nn.Linear(4, 2))
    >>> for _ in range(10):
    ...     metrics = learner.update(Batch(torch.ones(8, 4), torch.ones(8, dtype=torch.int64)))
    >>> learner.regulation.lr > 0.0058
    True

    Reference: Man, Damasio & Neven (2022), arXiv 2205.08645.
    Differs from the paper in: what `HomeostaticLR` does, unless rule="paper".
    """

    name = "homeostatic"
    parts = ("descent", "guard", "regulation")

    def __init__(
        self,
        model: nn.Module,
        *,
        rule: str = "next_batch",
        optimizer: Optimizer = SGD(lr=0.0058),
        effect: Sequence[int] | None = None,
        step: float | None = None,
        memory: int = 20,
        every: int | None = 1,
        evaluate_on: str | None = None,
        signal: str | None = None,
        gradient: str | None = None,
        min_lr: float = 1e-8,
        max_lr: float | None = None,
        epoch: int | None = None,
        suffers: str = "true",
        shuffle: bool = False,
        seed: int = 0,
    ):
        if rule not in RULES:
            raise ArgumentError(f"homeostatic: rule must be one of {', '.join(map(repr, RULES))}, got {rule!r}.")
        given = {"evaluate_on": evaluate_on, "signal": signal, "gradient": gradient, "max_lr": max_lr}
        self.rule, self.optimizer, self.effect, self.step, self.memory, self.every = (
            rule,
            optimizer,
            effect,
            step,
            memory,
            every,
        )
        self.evaluate_on, self.signal, self.gradient, self.min_lr, self.max_lr = (
            evaluate_on,
            signal,
            gradient,
            min_lr,
            max_lr,
        )
        self.epoch, self.suffers, self.shuffle, self.seed = epoch, suffers, shuffle, seed
        self.descent = Descent(model, optimizer, seed)
        outputs = count_outputs(model)
        if outputs is not None:
            effects_of(self.name, effect, outputs)  # refused at once, not at the first batch
        self.guard = Guard(self.name, outputs, model=model)
        self.regulation = HomeostaticLR(
            self.descent,
            effect=effect,
            step=step,
            memory=memory,
            every=math.inf if every is None else every,
            min_lr=min_lr,
            epoch=epoch,
            suffers=suffers,
            shuffle=shuffle,
            seed=seed,
            owner=self.name,
            **(RULES[rule] | {name: value for name, value in given.items() if value is not None}),
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
        """A change that is announced tells the rate nothing that it does not find by itself."""
