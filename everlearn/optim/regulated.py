"""The step that a learning-rate rule regulates: loss and gradients of a batch, the rate, the step, and the direction it took.

    w <- w - lr * d        d = gradient for plain descent, momentum buffer for momentum, m / (sqrt(v) + eps) for Adam,
                           (w before - w after) / lr for any other optimiser

A rule (`optim.homeostatic`, `optim.rate_rules`) sets lr between the gradients and the step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import X, size
from everlearn.optim.descent import Descent, clipped, step_along

Gradients = Sequence[Tensor | None]


@dataclass(frozen=True, slots=True)
class RegulationEvent:
    """What a rule did at one batch.

    lr: the rate of this step; loss: of the batch, before the step; imagined: the signal without and with the change, where two
    futures were compared; taken: whether the rate was changed; predicted, true: class of the object that was decided on, as
    recognised and as it was; wrong: it was taken for one of the other effect; clipped: the change ran into min_lr or max_lr;
    finite: False where the loss was not, and nothing was learned.
    """

    lr: float
    loss: Tensor
    imagined: tuple[float, float] | None = None
    taken: bool = False
    predicted: int | None = None
    true: int | None = None
    wrong: bool = False
    clipped: bool = False
    finite: bool = True

    def metrics(self) -> dict[str, object]:
        """What a learner's update returns, and the monitor `regulation` reads."""
        return {
            "loss": self.loss,
            "lr": self.lr,
            "decided": self.imagined is not None,
            "taken": self.taken,
            "wrong": self.wrong,
            "clipped": self.clipped,
            "finite": self.finite,
        }


@dataclass(frozen=True, slots=True)
class Look:
    """A batch before its step: scores (rows, classes) detached, mean loss detached, gradients by trained parameter."""

    logits: Tensor
    loss: Tensor
    gradients: Gradients
    finite: bool


class Steps:
    """One way to look, to set the rate and to step, for a torch optimiser and for the house's `Descent`.

    optimizer: over all trained parameters of the model that `look` is given. Groups keep the ratios of their rates.
    """

    def __init__(self, owner: str, optimizer: torch.optim.Optimizer | Descent):
        if not isinstance(optimizer, (torch.optim.Optimizer, Descent)):
            raise ArgumentError(
                f"{owner}: optimizer must be a torch optimiser such as torch.optim.SGD(...), got {type(optimizer).__name__}."
            )
        self.owner = owner
        self.descent = optimizer if isinstance(optimizer, Descent) else None
        self._given = None if isinstance(optimizer, Descent) else optimizer
        groups = self.optimizer.param_groups
        self.start = self.descent.given.lr if self.descent is not None else float(groups[0]["lr"])
        if not 0.0 < self.start < math.inf:
            raise ArgumentError(f"{owner}: the optimiser's lr must be above 0, got {self.start!r}. Use lr=0.0058.")
        self._ratios = [float(group["lr"]) / self.start for group in groups]
        self.foresees = type(self.optimizer) is torch.optim.SGD and not any(
            group["nesterov"] or group["maximize"] for group in groups
        )  # whether the direction of a step can be told before it is taken
        self.plain = self.foresees and not any(group["momentum"] or group["weight_decay"] for group in groups)
        self._adam = isinstance(self.optimizer, torch.optim.Adam) and not any(group["amsgrad"] for group in groups)
        self._known: nn.Module | None = None  # the model that was found to be the optimiser's
        self._weights: list[nn.Parameter] = []
        self._buffers: list[Tensor] = []

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The torch optimiser."""
        return self._given if self.descent is None else self.descent.optimizer

    def check(self, model: nn.Module, x: X, y: Tensor) -> list[int]:
        """The labels of a batch. Refuses an empty one, labels that do not fit its rows, and a model other than the optimiser's."""
        rows = size(x)
        if rows == 0 or y.shape != (rows,):
            raise InputError(
                f"{self.owner}: y must hold one label for each of 1 or more rows, got {tuple(y.shape)} for {rows}."
            )
        labels = y.tolist()
        if y.dtype != torch.int64 or min(labels) < 0:
            raise InputError(f"{self.owner}: y must be int64 class numbers >= 0, got {y.dtype}, least {min(labels)}.")
        if model is not self._known:
            self._meet(model)
        return labels

    def _meet(self, model: nn.Module) -> None:
        """Hold a model against the optimiser, once."""
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        held = {id(weight) for group in self.optimizer.param_groups for weight in group["params"]}
        if held != {id(weight) for weight in weights}:
            raise ArgumentError(f"{self.owner}: the optimiser must hold the trained parameters of the model, all of them.")
        self._known, self._weights, self._buffers = model, weights, list(model.buffers())

    def look(self, model: nn.Module, x: X, y: Tensor, labels: Sequence[int]) -> Look:
        """Scores, cross-entropy and gradients in training mode, without a step. Where the loss is not finite, buffers stay too."""
        kept: list[Tensor] = []
        before = [buffer.clone() for buffer in self._buffers]

        def loss() -> Tensor:
            logits = model(x)
            kept.append(logits.detach())
            if max(labels) >= logits.shape[1]:
                raise InputError(f"{self.owner}: label {max(labels)} is out of range; allowed: 0..{logits.shape[1] - 1}.")
            return cross_entropy(logits, y)

        if self.descent is not None:
            value, gradients = self.descent.gradients(loss)
        else:
            if not model.training:
                model.train()
            with torch.enable_grad():
                found = loss()
                gradients = torch.autograd.grad(found, self._weights, allow_unused=True)
            value = found.detach()
        finite = math.isfinite(value)
        if not finite:
            for buffer, old in zip(self._buffers, before, strict=True):
                buffer.copy_(old)
        return Look(kept[-1], value, gradients, finite)

    def set(self, lr: float) -> None:
        """The rate of the steps to come."""
        if self.descent is not None:
            self.descent.scale(lr / self.start)
            return
        for group, ratio in zip(self.optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = lr * ratio

    def follow(self, gradients: Gradients) -> None:
        """Take the step."""
        if self.descent is not None:
            self.descent.follow(gradients)
            return
        step_along(self.optimizer, self._weights, gradients)

    def follow_and_tell(self, gradients: Gradients, lr: float) -> list[Tensor | None]:
        """Take the step and give back its direction d, by trained parameter: the step was w <- w - lr * d."""
        clip = None if self.descent is None else self.descent.given.clip
        adam = isinstance(self.optimizer, torch.optim.Adam) and not any(
            group["amsgrad"] for group in self.optimizer.param_groups
        )
        if self.foresees or adam:
            self.follow(gradients)
            used = gradients if clip is None else clipped(gradients, clip)
            if self.plain:
                return list(used)
            groups = {id(weight): group for group in self.optimizer.param_groups for weight in group["params"]}
            tell = self._of_adam if self._adam else self._of_sgd
            pairs = zip(self._weights, used, strict=True)
            return [None if part is None else tell(weight, part, groups[id(weight)]) for weight, part in pairs]
        before = [weight.detach().clone() for weight in self._weights]
        self.follow(gradients)
        return [(old - new.detach()) / lr for old, new in zip(before, self._weights, strict=True)]

    def ahead(self, gradients: Gradients) -> list[Tensor | None] | None:
        """The direction of a step that is still to come, where SGD tells it from the gradients; None for other optimisers."""
        if not self.foresees:
            return None
        if self.plain:
            return list(gradients)
        groups = {id(weight): group for group in self.optimizer.param_groups for weight in group["params"]}
        found: list[Tensor | None] = []
        for weight, part in zip(self._weights, gradients, strict=True):
            if part is not None:
                group, buffer = groups[id(weight)], self.optimizer.state[weight].get("momentum_buffer")
                part = part + group["weight_decay"] * weight.detach()
                if buffer is not None:
                    part = group["momentum"] * buffer + (1.0 - group["dampening"]) * part
            found.append(part)
        return found

    def _of_sgd(self, weight: Tensor, gradient: Tensor, group: dict) -> Tensor:
        buffer = self.optimizer.state[weight].get("momentum_buffer")
        if buffer is not None:
            return buffer.clone()
        lr, decay = group["lr"], group["weight_decay"]
        return gradient + decay * (weight.detach() + lr * gradient) / (1.0 - lr * decay)  # the weight before the step

    def _of_adam(self, weight: Tensor, gradient: Tensor, group: dict) -> Tensor:
        state, (first, second) = self.optimizer.state[weight], group["betas"]
        steps = float(state["step"])
        spread = (state["exp_avg_sq"] / (1.0 - second**steps)).sqrt() + group["eps"]
        found = state["exp_avg"] / (1.0 - first**steps) / spread
        decay = group["weight_decay"] if group.get("decoupled_weight_decay") else 0.0
        if decay:
            found = found + decay * (weight.detach() + group["lr"] * found) / (1.0 - group["lr"] * decay)
        return found
