"""Refresh learning: any learner that takes gradient steps first unlearns a little of each batch, then learns it from there.

    v  = w + rate * (|w| / |g| * g + noise * e) / (1 + F / damping)      g: gradient at w, tensor by tensor; e ~ N(0, 1)
    w <- the learner's own step from v, on the same rows with the same draws

scale="gradient" is the paper's form, v = w + rate * g / (F + damping) + noise * sqrt(2 rate / (F + damping)) * e. F is the diagonal
Fisher information of the tasks that have ended. See `everlearn.optim.ascent` for the equations in full.
Reference: Wang et al. (2024), A unified and general framework for continual learning, arXiv 2403.13249.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.learner import Learner, TaskLearner
from everlearn.core.random import derive, generator
from everlearn.data.memory import Memory
from everlearn.learners.fine_tune import FineTune
from everlearn.nn.fisher import KINDS, fisher_diagonal
from everlearn.optim.ascent import Ascent
from everlearn.optim.descent import Descent, descents, evaluate

LOSSES = ("objective", "current")
PRECONDITIONERS = ("none", "fisher")
ABLE = ("fine_tune", "replay", "er_ace", "der", "derpp", "mir", "agem", "pcr", "hpcr", "icarl", "online_ewc", "si", "lwf")


class Refresh(Learner):
    """Another learner, whose every gradient step starts from a point a little uphill, so that it holds less tightly to what it saw.

    learner: any that takes gradient steps (a network stands for `fine_tune` of it); rate: how far uphill, a share of each tensor's
    length (scale="weight_norm", 1e-5 in the authors' code) or of its gradient (scale="gradient"), 0 is the learner itself to the
    bit; steps: moves uphill before each step; loss: what is climbed, the learner's own "objective", or "current", the cross-entropy
    of the batch alone; return_to_start: take the step from where the weights were, with the gradient found uphill (sharpness-aware
    minimisation). preconditioner="fisher" divides moves by the Fisher information of past tasks and needs boundaries: fisher_kind,
    fisher_decay (what remains of the old one at a change) and damping (None: 1000, or 1 for "gradient") as published; fisher_samples:
    rows of the present task kept for it (they count as replay rows under a budget). noise: of the move, 0.001 in the authors' code.

    As published: `refresh(derpp(), scale='weight_norm', loss='current', rate=1e-5, preconditioner='fisher', noise=0.001)`.
    Metrics are the learner's, with `before`: the climbed loss before the weights were moved; `loss` is that of the moved weights.

    >>> import torch
    >>> from everlearn import Batch, DERpp, Refresh
    >>> learner = Refresh(DERpp(torch.nn.Linear(4, 3)), rate=1e-3)
    >>> metrics = learner.update(Batch(torch.ones(8, 4), torch.zeros(8, dtype=torch.int64)))
    >>> bool(metrics["loss"] > metrics["before"]), learner
    (True, refresh(derpp(), rate=0.001))

    Reference: Wang et al. (2024), arXiv 2403.13249.
    Differs from the paper in: by default the loss climbed is the learner's whole objective, and nothing is divided or drawn; the
    Fisher information is taken in evaluation mode, on a sample of rows; dropout and draws are the same uphill and down. A step of a
    learner that differentiates several losses (`agem`, `mir`) climbs each where it is differentiated.
    """

    name = "refresh"
    parts = ("learner", "memory", "fisher", "tasks")

    def __init__(
        self,
        learner: Learner | nn.Module,
        *,
        rate: float = 1e-5,
        steps: int = 1,
        scale: str = "weight_norm",
        preconditioner: str = "none",
        fisher_kind: str = "released",
        fisher_samples: int = 200,
        fisher_decay: float = 1e-5,
        damping: float | None = None,
        noise: float = 0.0,
        loss: str = "objective",
        return_to_start: bool = False,
        seed: int = 0,
    ):
        if isinstance(learner, nn.Module):
            learner = FineTune(learner, seed=seed)
        for argument, value, allowed in (
            ("loss", loss, LOSSES),
            ("preconditioner", preconditioner, PRECONDITIONERS),
            ("fisher_kind", fisher_kind, KINDS),
        ):
            if value not in allowed:
                raise ArgumentError(
                    f"{self.name}: {argument} must be one of {', '.join(map(repr, allowed))}, got {value!r}."
                )
        check_count(self.name, "fisher_samples", fisher_samples)
        check_range(self.name, "fisher_decay", fisher_decay, 0.0, 1.0)
        self.learner = learner
        self.rate = rate
        self.steps = steps
        self.scale = scale
        self.preconditioner = preconditioner
        self.fisher_kind = fisher_kind
        self.fisher_samples = fisher_samples
        self.fisher_decay = fisher_decay
        self.damping = damping
        self.noise = noise
        self.loss = loss
        self.return_to_start = return_to_start
        self.seed = seed
        self.descent = _descent_of(learner)
        self.ascent = Ascent(
            self.descent.model,
            rate=rate,
            steps=steps,
            scale=scale,
            damping=damping,
            noise=noise,
            return_to_start=return_to_start,
            seed=seed,
            owner=f"refresh({learner.name})",
        )
        if rate > 0:
            self.descent.start_uphill(self.ascent)
        divides = rate > 0 and preconditioner == "fisher"
        self.needs_boundaries = learner.needs_boundaries or divides
        self.reference = learner.reference
        self.memory: Memory | None = Memory(fisher_samples, seed=derive(seed, self.name, 0)) if divides else None
        self.fisher: Tensor | None = None  # (weights,) all trained weights in one row
        self.tasks = 0  # changes at which something had been learned
        self._asked = False  # whether the network was seen to score classes

    def predict(self, x: X) -> Tensor:
        return self.learner.predict(x)

    def update(self, batch: Batch) -> Metrics:
        current = self.loss == "current" and isinstance(batch, Batch) and batch.y is not None and self.rate > 0
        if (current or self.memory is not None) and not self._asked and isinstance(batch, Batch):
            self._scores_classes(batch.x)
        climbed = (lambda: cross_entropy(self.descent.model(batch.x), batch.y)) if current else None
        with self.ascent.climbing(climbed):
            found = self.learner.update(batch)
        if self.memory is not None and batch.y is not None:
            self.memory.insert(x=batch.x, y=batch.y)
        before = self.ascent.before
        return found if before is None else {**found, "before": before}

    def boundary(self, boundary: Boundary) -> None:
        """A task ends: its Fisher information joins that of the tasks before it. Then the learner hears of the change."""
        kept = {} if self.memory is None else self.memory.rows()
        if not kept:
            self.learner.boundary(boundary)
            return
        fisher = self._fisher_of(kept)
        self.ascent.precondition(fisher)
        try:
            self.learner.boundary(boundary)
        except BaseException:
            self.ascent.precondition(self.fisher)
            raise
        self.fisher = fisher
        self.tasks += 1
        limits = self.memory.capacity, self.memory.bytes
        self.memory = Memory(self.fisher_samples, seed=derive(self.seed, self.name, self.tasks))
        self.memory.limit(*limits)

    def restored(self) -> None:
        """Divide by the Fisher information that was put back."""
        self.ascent.precondition(self.fisher)

    def _fisher_of(self, kept: dict[str, Any]) -> Tensor:
        random = generator(self.seed, "refresh", self.tasks)
        descent = self.descent
        fisher = fisher_diagonal(descent.model, descent.parameters, kept["x"], kept["y"], self.fisher_kind, random)
        return fisher if self.fisher is None else fisher + self.fisher_decay * self.fisher

    def _scores_classes(self, x: X) -> None:
        """Refuse a network whose outputs are no scores of classes: there is no cross-entropy of them to climb or to weigh by."""
        classes = self.learner.predict(x).shape[1]  # which refuses rows that no network can take
        outputs = evaluate(self.descent.model, x).shape[1]
        if outputs != classes:
            raise ArgumentError(
                f"{self.name}: the network of {self.learner.name} gives {outputs} numbers, which are no scores of the {classes} classes. "
                "Use loss='objective' and preconditioner='none'."
            )
        self._asked = True


def _descent_of(learner: Any) -> Descent:
    """The one part of a learner that takes its gradient steps; refuse learners without, and those that climb already."""
    able = f"Use one that does, such as {', '.join(ABLE)}."
    if not isinstance(learner, Learner):
        raise ArgumentError(f"refresh: the first argument must be a learner or a network, got {learner!r}.")
    if isinstance(learner, TaskLearner):
        raise ArgumentError(
            f"refresh: {learner.name} must be told the task of what it predicts, which is not passed on. {able}"
        )
    found = descents(learner)
    if len(found) != 1:
        raise ArgumentError(f"refresh: {learner.name} takes no gradient steps that could start uphill. {able}")
    if found[0].ascent is not None:
        raise ArgumentError(f"refresh: {learner.name} is refreshed already. Use steps=2 for two moves before each step.")
    return found[0]
