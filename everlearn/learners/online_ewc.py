"""Online elastic weight consolidation: weights that mattered for earlier tasks are held by springs.

    loss = cross_entropy(model(x), y) + strength / 2 * sum_i F_i (w_i - a_i)^2

At each announced change a becomes the present weights and F becomes decay * F + F_task, where F_task is the diagonal of the
Fisher information: the mean over rows of the ending task of (d log p(label | x) / d w_i)^2.
Reference: Schwarz et al. (2018), Progress & compress, arXiv 1805.06370; Kirkpatrick et al. (2017), arXiv 1612.00796.
"""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.flat import flat
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.core.random import generator
from everlearn.learners.importance import rows_of_task
from everlearn.learners.pull import Pull
from everlearn.nn.fisher import fisher_diagonal
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer

KINDS = {"sampled": "sampled", "true": "empirical", "exact": "exact"}  # labels -> the Fisher taken over them


class OnlineEWC(Learner):
    """Fine-tuning under a quadratic penalty that grows with each announced change; needs boundaries.

    model: maps x to (batch, classes) scores; strength: weight of the penalty, 20 as in the online EWC baseline of Buzzega et al.
    (2020, arXiv 2004.07211) on sequential CIFAR-10 (their lambda of 10 stands without the half; 180 on sequential MNIST in the
    same form), 0 is `fine_tune` to the bit; decay: what remains of the old Fisher at a change, 1 in the same source (gamma of
    Schwarz et al.); fisher_samples: rows of the present task kept, by reservoir, for the Fisher, and forgotten at its end (they
    count as replay rows under a budget); labels: whose labels the Fisher is taken over: "sampled" draws one per row from the
    model, an unbiased estimate, "exact" takes the mean over all classes (one backward pass for each), "true" takes the data's own
    (the empirical Fisher); optimizer: `sgd(...)` or `adam(...)`; passes: gradient steps per batch.

    >>> import torch
    >>> from everlearn import Batch, Boundary, OnlineEWC
    >>> learner = OnlineEWC(torch.nn.Linear(4, 3), labels="exact")
    >>> metrics = learner.update(Batch(torch.ones(8, 4), torch.zeros(8, dtype=torch.int64)))
    >>> learner.boundary(Boundary(task=1))
    >>> learner.fisher.shape, learner.memory.stored, learner.tasks
    (torch.Size([15]), 0, 1)

    Reference: Schwarz et al. (2018), arXiv 1805.06370; Kirkpatrick et al. (2017), arXiv 1612.00796.
    Differs from the paper in: the Fisher of a task is not normalised; it stands on a sample of rows; the model is in evaluation
    mode while it is taken; under sgd a spring's stiffness strength * F_i is capped at 1 / lr, where one step takes the weight back to its
    anchor: beyond 2 / lr gradient steps would throw it ever further away.
    """

    name = "online_ewc"
    parts = ("descent", "guard", "memory", "fisher", "anchor", "tasks")
    needs_boundaries = True

    def __init__(
        self,
        model: nn.Module,
        *,
        strength: float = 20.0,
        decay: float = 1.0,
        fisher_samples: int = 200,
        labels: str = "sampled",
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        check_range(self.name, "strength", strength, 0.0)
        check_range(self.name, "decay", decay, 0.0, 1.0)
        check_count(self.name, "fisher_samples", fisher_samples)
        check_count(self.name, "passes", passes)
        if labels not in KINDS:
            raise ArgumentError(f"{self.name}: labels must be one of {', '.join(map(repr, KINDS))}, got {labels!r}.")
        self.strength = strength
        self.decay = decay
        self.fisher_samples = fisher_samples
        self.labels = labels
        steps = isinstance(optimizer, SGD) and optimizer.lr * strength > 0
        self.steepest = 1.0 / (optimizer.lr * strength) if steps else float("inf")  # the Fisher value of the stiffest spring
        self.optimizer = optimizer
        self.passes = passes
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, count_outputs(model), model=model)
        self.memory = rows_of_task(fisher_samples, seed, 0)
        self.fisher: Tensor | None = None  # (weights,) all trained weights in one row, as is the anchor
        self.anchor: Tensor | None = None
        self.tasks = 0  # changes at which something had been learned
        self._pull: Pull | None = None  # what a step needs of the Fisher and the anchor

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
        """One step. The springs' pull is added to the gradient, which spares autograd a walk over all weights."""
        descent = self.descent
        if self.fisher is None or self.strength == 0:
            return descent(lambda: cross_entropy(descent.model(x), y))
        if self._pull is None:
            self._pull = Pull(descent.parameters, self.anchor, self.strength * self.fisher.clamp(max=self.steepest))
        pull = self._pull
        if descent.ascent is not None:  # it climbs the whole loss, so the springs must be in it
            return descent(lambda: cross_entropy(descent.model(x), y) + pull.penalty())
        loss, gradients = descent.gradients(lambda: cross_entropy(descent.model(x), y))
        penalty, pulled = pull.added(gradients)
        descent.follow(pulled)
        return loss + penalty

    def boundary(self, boundary: Boundary) -> None:
        """Consolidate the task that ends. A change before anything was learned is no end of a task."""
        kept = self.memory.rows()
        if not kept:
            return
        random = generator(self.seed, "fisher", self.tasks)
        model, parameters = self.descent.model, self.descent.parameters
        fisher = fisher_diagonal(model, parameters, kept["x"], kept["y"], KINDS[self.labels], random)
        if self.fisher is not None:
            fisher += self.decay * self.fisher
        self.fisher = fisher
        self.anchor = flat(parameters).detach()
        self._pull = None
        self.tasks += 1
        self.memory = rows_of_task(self.fisher_samples, self.seed, self.tasks, self.memory)

    def restored(self) -> None:
        """Forget the springs of what stood before."""
        self._pull = None
