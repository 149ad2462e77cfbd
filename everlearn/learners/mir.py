"""Maximally interfered retrieval: replay the remembered rows that the coming step would harm most.

    w' = w - lr * g,  g the gradient on the batch            a virtual step
    harm_j = CE(model_{w'}(x_j), y_j) - CE(model_w(x_j), y_j)     for candidates j drawn from the memory
    step along g + gradient on the replay_batch candidates of the greatest harm

Reference: Aljundi et al. (2019), Online continual learning with maximally interfered retrieval, arXiv 1908.04742.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.events import Batch, Boundary, Metrics, X, rows
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.data.memory import Memory, Reservoir, Rule
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer


class MIR(Learner):
    """Experience replay of the rows, among a draw of candidates, whose loss a step on the batch alone would raise most.

    model: maps x to (batch, classes) scores; capacity: rows kept in all, 1,000 as in the comparison of Mai et al. (2022, arXiv
    2101.10423); keep: which rows stay, `reservoir()` as published; replay_batch: rows replayed per step, 10 beside batches of 10;
    candidates: rows drawn to choose them from, 50, the authors' value; with as many candidates as replayed rows it is replay of
    a plain draw; optimizer: `sgd(lr=0.1)`, or `adam(...)`, whose lr is also that of the virtual step; passes: gradient steps
    per batch, each with a draw of its own. memory.replayed counts candidates.

    >>> import torch
    >>> from everlearn import Batch, MIR
    >>> learner = MIR(torch.nn.Linear(4, 3), capacity=20, replay_batch=2, candidates=10)
    >>> for _ in range(3):
    ...     metrics = learner.update(Batch(torch.ones(8, 4), torch.zeros(8, dtype=torch.int64)))
    >>> learner.memory.stored, learner.memory.replayed
    (20, 18)

    Reference: Aljundi et al. (2019), arXiv 1908.04742.
    Differs from the paper in: candidates are scored in evaluation mode, so that scoring neither moves batch-norm statistics
    nor draws dropout (the authors' code scores in training mode); candidates come from the whole memory, for which no boundary
    is needed, where that code leaves out the rows of the present task. Batch and replayed rows each have the mean of their
    losses, as in that code.
    """

    name = "mir"
    parts = ("descent", "guard", "memory")

    def __init__(
        self,
        model: nn.Module,
        *,
        capacity: int = 1000,
        keep: Rule = Reservoir(),
        replay_batch: int = 10,
        candidates: int = 50,
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        check_count(self.name, "capacity", capacity, fix="Use fine_tune(model) to learn without replay.")
        check_count(self.name, "replay_batch", replay_batch, fix="Use fine_tune(model) to learn without replay.")
        check_count(self.name, "candidates", candidates)
        check_count(self.name, "passes", passes)
        if candidates < replay_batch:
            raise ArgumentError(
                f"{self.name}: candidates must be at least replay_batch={replay_batch}, got {candidates}. "
                f"Use candidates={5 * replay_batch}, five for each row replayed, as published."
            )
        self.capacity = capacity
        self.keep = keep
        self.replay_batch = replay_batch
        self.candidates = candidates
        self.optimizer = optimizer
        self.passes = passes
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.memory = Memory(capacity, keep=keep, seed=seed)
        self._names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]

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
        descent, model = self.descent, self.descent.model
        loss, gradients = descent.gradients(lambda: cross_entropy(model(x), y))
        drawn = self.memory.draw(self.candidates)
        if drawn is not None:
            old, labels = self._most_interfered(drawn, gradients)
            _, further = descent.gradients(lambda: cross_entropy(model(old), labels), "memory")
            gradients = added(gradients, further)
        descent.follow(gradients)
        return loss

    def _most_interfered(self, drawn: dict[str, Any], gradients: tuple[Tensor | None, ...]) -> tuple[X, Tensor]:
        """(x, y) of the candidates to replay."""
        x, y = drawn["x"], drawn["y"]
        if len(y) <= self.replay_batch:
            return x, y
        chosen = self.interference(x, y, gradients).topk(self.replay_batch).indices
        return rows(x, chosen), y[chosen]

    def interference(self, x: X, y: Tensor, gradients: tuple[Tensor | None, ...]) -> Tensor:
        """(rows,): how much a step of plain descent along the gradients would raise the loss of each row. Changes nothing."""
        model, lr = self.descent.model, self.optimizer.lr
        triples = zip(self._names, self.descent.parameters, gradients, strict=True)
        moved = [(name, weight, gradient) for name, weight, gradient in triples if gradient is not None]
        model.eval()
        with torch.no_grad():
            weights = torch._foreach_add([weight for _, weight, _ in moved], [item[2] for item in moved], alpha=-lr)
            virtual = dict(zip((item[0] for item in moved), weights, strict=True))
            after = cross_entropy(functional_call(model, virtual, (x,)), y, reduction="none")
            return after - cross_entropy(model(x), y, reduction="none")

    def boundary(self, boundary: Boundary) -> None:
        """Retrieval needs no word of changes."""


def added(first: tuple[Tensor | None, ...], second: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """The sum of two gradients, tensor by tensor; None stands for zeros."""
    pairs = zip(first, second, strict=True)
    return [one if other is None else other if one is None else one + other for one, other in pairs]
