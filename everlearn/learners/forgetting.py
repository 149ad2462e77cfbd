"""A learner that forgets on purpose: chosen weights of its network are made anew every so many gradient steps.

    after gradient step t with t mod every = 0 and t < stop, before the next one:      w <- init,      moments of w <- 0
    or, with scope="batch", in gradient step t itself and for it alone:                 w of some tokens of its batch = init

Of the embeddings this is active or temporary forgetting; of the last layer, or as shrink and perturb of all weights, it keeps a network
able to learn. See `everlearn.optim.forgetting` for the rules and laws, `everlearn.optim.fresh_rows` for new rows of one batch.
References: Anand et al. (2025), Dual process learning, ICLR, arXiv 2406.00053. Nikishin et al. (2022), The primacy bias in deep
reinforcement learning, ICML, arXiv 2205.07802 (last layers). Ash & Adams (2020), On warm-starting neural network training, NeurIPS, arXiv
1910.08475 (shrink and perturb).
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from everlearn.core.errors import ArgumentError
from everlearn.core.events import Batch, Boundary, Metrics, X
from everlearn.core.learner import Learner, TaskLearner
from everlearn.core.state import capture, restore
from everlearn.learners.fine_tune import FineTune
from everlearn.nn.features import last_linear
from everlearn.optim.descent import descents
from everlearn.optim.forgetting import Forgetting, Reset
from everlearn.optim.fresh_rows import FreshRows

ABLE = ("fine_tune", "replay", "er_ace", "der", "derpp", "mir", "agem", "pcr", "hpcr", "icarl", "online_ewc", "si", "lwf")


class Forgetful(Learner):
    """Another learner, of whose network chosen weights are made anew every so many gradient steps.

    learner: any that takes gradient steps (a network stands for `fine_tune` of it). reset: when, from what law and how much, by default
    after every 1,000 steps, from N(0, 1), as published for embeddings. select: names of parameters or patterns such as '*2.weight', one
    or several; None: the tables of all `nn.Embedding`, and where there is none the last linear layer, weight and bias, for which
    `reset(every=..., init=fan_in())` draws what it began with. tied="together": also a parameter that is tied to one outside the selection.

    A reset that falls due waits until the learner is about to learn from the next labels, so that what is measured, saved or served
    between two updates is never a network just reset; of several that fall due within one update (`fine_tune(passes=10)`) the last one is
    made. Metrics are the learner's, with `reset`, the rows made anew, where an update began with one.

    With `reset=reset(1, stop=1000, probability=0.1, scope="batch")` each token of the rows learned has a new row with that probability,
    replayed ones too, in that step alone; tables of `nn.Embedding` only. `reset` then counts these rows.

    >>> import torch
    >>> from everlearn import Batch, FineTune, Forgetful
    >>> from everlearn.optim.forgetting import FanIn, Reset
    >>> learner = Forgetful(FineTune(torch.nn.Linear(4, 3)), reset=Reset(every=2, init=FanIn()))
    >>> batch = Batch(torch.ones(8, 4), torch.zeros(8, dtype=torch.int64))
    >>> [learner.update(batch).get("reset") for _ in range(5)], learner
    ([None, None, 6, None, 6], forgetting(fine_tune(), reset=reset(2, init=fan_in())))

    Reference: Anand et al. (2025), arXiv 2406.00053; Nikishin et al. (2022), arXiv 2205.07802; Ash & Adams (2020), arXiv 1910.08475.
    Differs from the paper in: a reset is made just before the next step, not just after its own; the steps are the same.
    """

    name = "forgetting"
    parts = ("learner", "seen")

    def __init__(
        self,
        learner: Learner | nn.Module,
        *,
        reset: Reset = Reset(every=1000),
        select: str | Sequence[str] | None = None,
        tied: str | None = None,
        seed: int = 0,
    ):
        if isinstance(learner, nn.Module):
            learner = FineTune(learner, seed=seed)
        if not isinstance(reset, Reset):
            raise ArgumentError(f"{self.name}: reset must be a rule such as reset(every=50), got {reset!r}.")
        _check(learner)
        self.learner = learner
        self.reset = reset
        self.select = select
        self.tied = tied
        self.seed = seed
        self.needs_boundaries = learner.needs_boundaries
        self.reference = learner.reference
        self.seen = 0  # the gradient step of the last reset
        self._bound()  # which refuses what cannot be selected or reset

    def predict(self, x: X) -> Tensor:
        return self.learner.predict(x)

    def update(self, batch: Batch) -> Metrics:
        if self.reset.scope == "batch":
            descent = descents(self.learner)[0]
            with self._bound().during(lambda: descent.steps + 1) as rows:
                found = self.learner.update(batch)
            return {**found, "reset": sum(rows)} if rows else found
        due = self._due() if isinstance(batch, Batch) and batch.y is not None else None
        if due is None:
            return self.learner.update(batch)
        descent = descents(self.learner)[0]
        before = capture(descent)
        report = self._bound().after(due)
        try:
            found = self.learner.update(batch)
        except BaseException:
            restore(descent, before)  # a batch that is refused changes nothing
            raise
        self.seen = due
        return {**found, "reset": sum(report.rows.values())}

    def boundary(self, boundary: Boundary) -> None:
        """The learner hears of the change; what is due waits for the next update."""
        self.learner.boundary(boundary)

    def _due(self) -> int | None:
        """The last of the steps since it was last looked that is followed by a reset."""
        steps = descents(self.learner)[0].steps
        return next((t for t in range(steps, self.seen, -1) if self.reset.due(t)), None)

    def _bound(self) -> Forgetting | FreshRows:
        """Made for each reset, since a learner may begin its optimiser anew."""
        descent = descents(self.learner)[0]
        chosen = default_selection(descent.model) if self.select is None else self.select
        if self.reset.scope == "batch":
            return FreshRows(descent.model, chosen, self.reset, tied=self.tied, seed=self.seed)
        return Forgetting(descent.model, chosen, descent.optimizer, self.reset, tied=self.tied, seed=self.seed)


def default_selection(model: nn.Module) -> list[str]:
    """The tables of all `nn.Embedding` of a model; of a model without, the parameters of its last linear layer.

    Raises ArgumentError where a model has neither.

    >>> default_selection(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    ['2.weight', '2.bias']
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    last = last_linear(model)
    if not layers and last is not None:
        layers = [last]
    wanted = {id(parameter) for layer in layers for parameter in layer.parameters() if parameter.requires_grad}
    if not wanted:
        raise ArgumentError(
            "forgetting: the network has no embedding and no linear layer that is trained; name what is made anew by select=..."
        )
    return [name for name, parameter in model.named_parameters() if id(parameter) in wanted]


def _check(learner: Any) -> None:
    """Refuse what takes no gradient steps, or more than one kind of them."""
    able = f"Use one that does, such as {', '.join(ABLE)}."
    if not isinstance(learner, Learner):
        raise ArgumentError(f"forgetting: the first argument must be a learner or a network, got {learner!r}.")
    if isinstance(learner, TaskLearner):
        raise ArgumentError(
            f"forgetting: {learner.name} must be told the task of what it predicts, which is not passed on. {able}"
        )
    if len(descents(learner)) != 1:
        raise ArgumentError(f"forgetting: {learner.name} does not take the gradient steps of one network. {able}")
