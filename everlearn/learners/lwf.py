"""Learning without forgetting: what the model said before a task, it should go on saying about the rows of the task.

    loss = loss(model(x), y) + strength * mean over rows of - sum_c p_c(old) log p_c(new),   p(s) = softmax(s / temperature)

old are the scores of the model as it stood at the last announced change, c runs over the classes it had learned by then.
Reference: Li & Hoiem (2017), Learning without forgetting, arXiv 1606.09282.
"""

import copy

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.nn.criteria import Loss, Plain
from everlearn.nn.losses import present, soft_distillation
from everlearn.optim.descent import Descent, evaluate
from everlearn.optim.optimizers import SGD, Optimizer


class Former:
    """The model as it stood at the last announced change, and the classes that had come by then. It never learns.

    >>> former = Former(torch.nn.Linear(2, 3))
    >>> former.hear(torch.tensor([2, 0, 2]))
    >>> former.ready, former.keep(torch.nn.Linear(2, 3), learned=1), former.ready
    (False, None, True)
    >>> former.columns.tolist(), former(torch.ones(1, 2)).requires_grad
    ([0, 2], False)
    """

    parts = ("model", "seen", "known", "learned")

    def __init__(self, model: nn.Module):
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.seen = torch.zeros(0)  # (classes,) 1 for those that came, as wide as the largest label needs
        self.known = torch.zeros(0)  # (classes,) the same, as it was at the change
        self.learned = 0  # gradient steps taken when the model was kept
        self._columns: Tensor | None = None

    @property
    def ready(self) -> bool:
        """Whether a model was kept."""
        return self.learned > 0

    @property
    def columns(self) -> Tensor:
        """(count,) int64: the classes that the kept model had seen."""
        if self._columns is None:
            self._columns = self.known.nonzero().flatten()
        return self._columns

    def hear(self, labels: Tensor) -> None:
        """Take note of labels (rows,) that come."""
        if labels.device == self.seen.device and len(labels) and int(labels.max()) < len(self.seen):
            self.seen.index_fill_(0, labels, 1.0)
            return
        came = present(labels, len(self.seen))
        came[: len(self.seen)] = torch.maximum(came[: len(self.seen)], self.seen.to(came.device))
        self.seen = came

    def keep(self, model: nn.Module, learned: int) -> None:
        """Keep the model as it is now, if it took a step since it was last kept. learned: the steps it took in all."""
        if learned == self.learned:
            return
        self.model.load_state_dict(model.state_dict())
        self.learned = learned
        self.known = self.seen.clone()
        self._columns = None

    def restored(self) -> None:
        """Forget the columns of what stood before."""
        self._columns = None

    def __call__(self, x: X) -> Tensor:
        """The scores (rows, classes) that the kept model gives, in evaluation mode and without gradients."""
        return evaluate(self.model, x)


class LwF(Learner):
    """Fine-tuning in which a frozen copy of the model, taken at each announced change, teaches old answers on new rows.

    model: maps x to (batch, classes) scores; strength: weight of the old answers, 1, and temperature 2 as published; 0 is
    `fine_tune` to the bit, as is all before the first change; loss: `plain()`, or `masked(scope="task")`, in which a task's rows
    are learned among the task's classes only, as in the heads of the paper; optimizer: `sgd(...)` or `adam(...)`; passes:
    gradient steps per batch.

    >>> import torch
    >>> from everlearn import Batch, Boundary, LwF
    >>> learner = LwF(torch.nn.Linear(4, 3))
    >>> for label in (0, 1):
    ...     metrics = learner.update(Batch(torch.ones(8, 4), torch.full((8,), label)))
    >>> learner.boundary(Boundary(task=1))
    >>> learner.former.ready, learner.former.columns.tolist()
    (True, [0, 1])

    Reference: Li & Hoiem (2017), arXiv 1606.09282.
    Differs from the paper in: one head over all classes, whose outputs for the classes known at the change are distilled; old
    scores are computed for each batch as it comes, the same numbers as those recorded beforehand; no warm-up of a new head.
    """

    name = "lwf"
    parts = ("descent", "guard", "criterion", "former")
    needs_boundaries = True

    def __init__(
        self,
        model: nn.Module,
        *,
        strength: float = 1.0,
        temperature: float = 2.0,
        loss: Loss = Plain(),
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        check_range(self.name, "strength", strength, 0.0)
        check_count(self.name, "passes", passes)
        if not isinstance(temperature, (int, float)) or not temperature > 0:
            raise ArgumentError(f"{self.name}: temperature must be above 0, got {temperature!r}. The published value is 2.")
        self.strength = strength
        self.temperature = temperature
        self.loss = loss
        self.optimizer = optimizer
        self.passes = passes
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.criterion = loss.make(self.name)
        self.former = Former(model)

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        x, y = batch.x, batch.y
        taught = self.strength > 0 and self.former.ready
        if taught:
            answers = self.former(x)
            columns = self.former.columns.to(answers.device)
            old = answers.index_select(1, columns)

        def loss() -> Tensor:
            scores = self.descent.model(x)
            value = self.criterion(scores, y)
            if not taught:
                return value
            return value + self.strength * soft_distillation(scores.index_select(1, columns), old, self.temperature)

        for _ in range(self.passes):
            result = self.descent(loss)
        self.former.hear(y)
        return {"loss": result}

    def boundary(self, boundary: Boundary) -> None:
        """A task ends: the model as it is now is the teacher of the next one."""
        self.criterion.hear(boundary)
        self.former.keep(self.descent.model, self.descent.steps)
