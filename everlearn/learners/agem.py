"""A-GEM: a step may not raise the loss on remembered rows, to first order; where it would, it is turned until it does not.

    g = gradient on the batch      r = gradient on a draw from the memory
    step along g - min(0, <g, r>) / <r, r> * r

Reference: Chaudhry et al. (2019), Efficient lifelong learning with A-GEM, arXiv 1812.00420, equation 11.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import check_count
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.data.memory import Memory, Reservoir, Rule
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer

SMALLEST = torch.finfo(torch.float32).tiny  # squared length below which a reference gradient counts as zero


class AGEM(Learner):
    """Learns from each batch, in a direction that does not raise the loss on a draw from the memory.

    model: maps x to (batch, classes) scores; capacity: rows kept in all, 1,000, and replay_batch: rows of the draw, 10 beside
    batches of 10, both as in the comparison of Mai et al. (2022, arXiv 2101.10423); keep: which rows stay, `reservoir()` as there;
    optimizer: `sgd(lr=0.1)` as there, or `adam(...)`, which is given the turned gradient; passes: gradient steps per batch, each
    with a draw of its own.

    >>> import torch
    >>> from everlearn import AGEM, Batch
    >>> learner = AGEM(torch.nn.Linear(4, 3), capacity=10)
    >>> for _ in range(3):
    ...     metrics = learner.update(Batch(torch.ones(8, 4), torch.zeros(8, dtype=torch.int64)))
    >>> learner.memory.stored, learner.memory.replayed, sorted(metrics)
    (10, 18, ['conflict', 'loss'])

    The metric `conflict` is 1 where the step was turned, else 0.

    Reference: Chaudhry et al. (2019), arXiv 1812.00420.
    Differs from the paper in: rows of the present task are in the memory as soon as they came, and in the draw, so that no
    boundary is needed (the paper adds a task's rows at its end, equally many for each task, and draws from earlier tasks only);
    no task descriptors.
    """

    name = "agem"
    parts = ("descent", "guard", "memory")

    def __init__(
        self,
        model: nn.Module,
        *,
        capacity: int = 1000,
        replay_batch: int = 10,
        keep: Rule = Reservoir(),
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        check_count(self.name, "capacity", capacity, fix="Use fine_tune(model) to learn without replay.")
        check_count(self.name, "replay_batch", replay_batch, fix="Use fine_tune(model) to learn without replay.")
        check_count(self.name, "passes", passes)
        self.capacity = capacity
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
            metrics = self._step(batch.x, batch.y)
        self.memory.insert(x=batch.x, y=batch.y)
        return metrics

    def _step(self, x: X, y: Tensor) -> Metrics:
        model = self.descent.model
        loss, gradients = self.descent.gradients(lambda: cross_entropy(model(x), y))
        metrics = {"loss": loss}
        drawn = self.memory.draw(self.replay_batch)
        if drawn is not None:
            _, reference = self.descent.gradients(lambda: cross_entropy(model(drawn["x"]), drawn["y"]), "memory")
            gradients, product = projected(gradients, reference)
            metrics["conflict"] = (product < 0).to(loss.dtype)
        self.descent.follow(gradients)
        return metrics

    def boundary(self, boundary: Boundary) -> None:
        """The memory is filled as rows come, so A-GEM needs no word of changes."""


def projected(
    gradients: Sequence[Tensor | None], reference: Sequence[Tensor | None]
) -> tuple[Sequence[Tensor | None], Tensor]:
    """(gradients without their part against the reference, the product <g, r> before), tensor by tensor; None stands for zeros.

    Where the product is >= 0 the gradients come back with their values.

    >>> turned, product = projected([torch.tensor([1.0, -2.0])], [torch.tensor([0.0, 4.0])])
    >>> turned[0].tolist(), product.item()
    ([1.0, 0.0], -8.0)
    """
    turned, against = _filled(gradients, reference), _filled(reference, gradients)
    used = [place for place, tensor in enumerate(turned) if tensor is not None]
    own, other = [turned[place] for place in used], [against[place] for place in used]
    product, square = _dot(own, other), _dot(other, other)
    away = torch._foreach_mul(other, -product.clamp(max=0.0) / square.clamp(min=SMALLEST))
    for place, value in zip(used, torch._foreach_add(own, away), strict=True):
        turned[place] = value
    return turned, product


def _filled(tensors: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The tensors, with zeros where only the other side has one."""
    pairs = zip(tensors, others, strict=True)
    return [torch.zeros_like(other) if own is None and other is not None else own for own, other in pairs]


def _dot(first: list[Tensor], second: list[Tensor]) -> Tensor:
    products = [torch.dot(one.flatten(), other.flatten()) for one, other in zip(first, second, strict=True)]
    return torch.stack(products).sum()
