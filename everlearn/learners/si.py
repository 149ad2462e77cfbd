"""Synaptic intelligence: each weight adds up, step by step, what its moves did for the loss; what mattered is then held.

    loss = cross_entropy(model(x), y) + strength * sum_i O_i (w_i - a_i)^2
    each step:            p_i <- p_i - g_i (move of w_i),   g: gradient of the cross-entropy alone
    each announced change:  O_i <- max(0, O_i + p_i / ((w_i - a_i)^2 + damping)),   then a <- w, p <- 0

Reference: Zenke et al. (2017), Continual learning through synaptic intelligence, arXiv 1703.04200, equations 3 to 5.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.flat import cut, flat
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.learners.importance import gathered
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer


class SI(Learner):
    """Fine-tuning under a quadratic penalty whose weights are gathered while learning, at the price of a few vector operations.

    model: maps x to (batch, classes) scores; strength: weight of the penalty (c of the paper), 0.1, and damping (xi), 0.1, as in
    its permuted MNIST; strength=0 is `fine_tune` to the bit, as is all before the first change; optimizer: `sgd(...)` or
    `adam(...)`; passes: gradient steps per batch. The loss reported is that of the batch, without the penalty.

    >>> import torch
    >>> from everlearn import SI, Batch, Boundary
    >>> learner = SI(torch.nn.Linear(4, 3))
    >>> metrics = learner.update(Batch(torch.ones(8, 4), torch.zeros(8, dtype=torch.int64)))
    >>> learner.boundary(Boundary(task=1))
    >>> learner.importance.shape, learner.tasks
    (torch.Size([15]), 1)

    Reference: Zenke et al. (2017), arXiv 1703.04200.
    Differs from the paper in: importances that would fall below 0 are 0, as in the authors' code; under sgd a spring's stiffness
    2 * strength * O_i is capped at 1 / lr, where one step takes the weight back to its anchor: beyond 2 / lr gradient steps
    would throw it ever further away; the penalty's gradient is counted in before a limit on the gradient's norm.
    """

    name = "si"
    parts = ("descent", "guard", "importance", "anchor", "path", "tasks", "consolidated")
    needs_boundaries = True

    def __init__(
        self,
        model: nn.Module,
        *,
        strength: float = 0.1,
        damping: float = 0.1,
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        check_range(self.name, "strength", strength, 0.0)
        check_range(self.name, "damping", damping, 0.0)
        if damping == 0:
            raise ArgumentError(
                f"{self.name}: damping must be above 0, got 0: weights that did not move divide by it. Use 0.1."
            )
        check_count(self.name, "passes", passes)
        self.strength = strength
        self.damping = damping
        steps = isinstance(optimizer, SGD) and optimizer.lr * strength > 0
        self.steepest = 0.5 / (optimizer.lr * strength) if steps else float("inf")  # the importance of the stiffest spring
        self.optimizer = optimizer
        self.passes = passes
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.anchor = flat(
            self.descent.parameters
        ).detach()  # (weights,) all trained weights in one row, as are the two below
        self.importance = torch.zeros_like(self.anchor)
        self.path = torch.zeros_like(self.anchor)
        self.tasks = 0  # changes at which something had been learned
        self.consolidated = 0  # steps taken by the last of them
        self._pieces: list[list[Tensor]] = []  # anchor, springs and path, cut into views in the shapes of the weights

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        for _ in range(self.passes):
            loss = self._step(batch.x, batch.y)
        return {"loss": loss}

    def _step(self, x: X, y: Tensor) -> Tensor:
        descent = self.descent
        loss, gradients = descent.gradients(lambda: cross_entropy(descent.model(x), y))
        if not self._pieces:
            self._cut()
        used = [place for place, gradient in enumerate(gradients) if gradient is not None]
        weights, slopes = _pick(descent.parameters, used), _pick(gradients, used)
        anchor, springs, path = (_pick(pieces, used) for pieces in self._pieces)
        direct = descent.rate is not None and self.optimizer.clip is None  # the move is -rate * pulled
        with torch.no_grad():
            pulled = slopes
            if self.tasks and self.strength:
                pulled = torch._foreach_sub(weights, anchor)
                torch._foreach_mul_(pulled, springs)
                torch._foreach_add_(pulled, slopes)
            before = None if direct else torch._foreach_mul(weights, 1.0)  # a copy
        whole = iter(pulled)
        descent.follow([None if gradient is None else next(whole) for gradient in gradients])
        with torch.no_grad():
            if before is None:
                torch._foreach_addcmul_(path, slopes, pulled, value=descent.rate * descent.factor)
            else:
                torch._foreach_sub_(before, weights)
                torch._foreach_addcmul_(path, slopes, before)
        return loss

    def boundary(self, boundary: Boundary) -> None:
        """Consolidate the task that ends. A change before anything was learned is no end of a task."""
        if self.descent.steps == self.consolidated:
            return
        present = flat(self.descent.parameters).detach()
        self.importance = gathered(self.importance, self.path, present, self.anchor, self.damping)
        self.anchor = present
        self.path = torch.zeros_like(present)
        self.tasks += 1
        self.consolidated = self.descent.steps
        self._pieces = []

    def restored(self) -> None:
        """Forget the views of what stood before."""
        self._pieces = []

    def _cut(self) -> None:
        """Cut the rows into views in the shapes of the weights, which a step can work on all at once."""
        springs = 2.0 * self.strength * self.importance.clamp(max=self.steepest)
        self._pieces = [cut(row, self.descent.parameters) for row in (self.anchor, springs, self.path)]


def _pick(values: Sequence, places: Sequence[int]) -> list:
    """The values at these places."""
    return [values[place] for place in places]
