"""One gradient step, the same for every learner that takes gradient steps.

Model, optimiser and step counter are state. Where the model draws random numbers while it trains (dropout), they come from
(seed, step number), so a resumed run draws the same.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError
from everlearn.core.events import X
from everlearn.core.random import isolated
from everlearn.optim.ascent import Ascent
from everlearn.optim.optimizers import SGD, Optimizer

CLIP_EPSILON = 1e-6  # added to a norm before it divides, as torch.nn.utils.clip_grad_norm_ does
STOCHASTIC = (nn.modules.dropout._DropoutNd, nn.RReLU, nn.FractionalMaxPool2d)


class Descent:
    """Steps a model down a loss. `descent(lambda: loss)` makes one step and returns the loss, detached.

    A method that puts a step together itself asks for `gradients(...)` and takes the step by `follow(...)`.
    """

    parts = ("model", "optimizer", "steps", "factor")

    def __init__(self, model: nn.Module, optimizer: Optimizer, seed: int = 0):
        if not isinstance(model, nn.Module):
            raise ArgumentError(
                f"a learner trains a torch.nn.Module, got {model!r}. Pass the network first: Replay(network, ...)."
            )
        self.model = model
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.given = optimizer
        self.optimizer = optimizer.make(self.parameters)
        self.seed = seed
        self.steps = 0
        plain = replace(optimizer, clip=None) == SGD(lr=optimizer.lr)
        self.rate = optimizer.lr if plain else None  # of plain descent, without momentum or decay
        self.factor = 1.0  # of the rate
        self._ascent: Ascent | None = None  # moves the weights uphill before each gradient is taken
        self._stochastic = any(isinstance(module, STOCHASTIC) for module in model.modules())

    def __call__(self, loss: Callable[[], Tensor]) -> Tensor:
        """One step: the loss is evaluated in training mode, differentiated, and followed downhill."""
        value, gradients = self.gradients(loss)
        self.follow(gradients)
        return value

    def gradients(self, loss: Callable[[], Tensor], *labels: object) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """(loss, its gradient by parameter) in training mode, without a step; None for parameters that play no part.

        labels: tell apart the losses of one step, so that each draws random numbers (dropout) of its own. With an ascent the loss is
        evaluated more than once, the last time at the weights from which the step is taken.
        """
        if not self.model.training:
            self.model.train()
        if self._ascent is not None:
            return self._ascent.around(lambda some: self._differentiated(some, labels), loss, self.steps, *labels)
        return self._differentiated(loss, labels)

    def _differentiated(
        self, loss: Callable[[], Tensor], labels: tuple[object, ...]
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        with isolated(self.seed, "descent", self.steps, *labels) if self._stochastic else nullcontext():
            value = loss()
            gradients = torch.autograd.grad(value, self.parameters, allow_unused=True)
        return value.detach(), gradients

    def follow(self, gradients: Sequence[Tensor | None]) -> None:
        """Take the step: w - rate * gradient at once where that is all the optimiser does, else through the optimiser."""
        self.steps += 1
        if self.given.clip is not None:
            gradients = clipped(gradients, self.given.clip)
        complete = all(gradient is not None for gradient in gradients)  # `None in` would compare tensors, 20 us for each
        if self.rate is not None and complete:
            with torch.no_grad():
                torch._foreach_add_(self.parameters, gradients, alpha=-self.rate * self.factor)
            return
        step_along(self.optimizer, self.parameters, gradients)

    @property
    def ascent(self) -> Ascent | None:
        """What moves the weights uphill before each gradient is taken; None where nothing does."""
        return self._ascent

    def start_uphill(self, ascent: Ascent) -> None:
        """From now on move the weights uphill before each gradient is taken."""
        self._ascent = ascent

    def scale(self, factor: float) -> None:
        """From now on take steps of this part of the rate."""
        self.factor = factor
        for group in self.optimizer.param_groups:
            group["lr"] = self.given.lr * factor

    def restart(self) -> None:
        """Make the optimiser anew, without what it remembers of past gradients."""
        self.factor = 1.0
        self.optimizer = self.given.make(self.parameters)

    def predict(self, x: X) -> Tensor:
        """The model's answer in evaluation mode, without gradients. Changes nothing."""
        return evaluate(self.model, x)


def descents(value: object) -> list[Descent]:
    """Every descent among an object's parts, and among theirs: what takes a learner's gradient steps."""
    if isinstance(value, Descent):
        return [value]
    return [found for part in getattr(value, "parts", ()) for found in descents(getattr(value, part))]


def clipped(gradients: Sequence[Tensor | None], most: float) -> list[Tensor | None]:
    """The same gradients, shortened to norm `most` over all of them where they are longer.

    >>> clipped([torch.tensor([3.0]), None, torch.tensor([4.0])], 1.0)
    [tensor([0.6000]), None, tensor([0.8000])]
    """
    known = [gradient for gradient in gradients if gradient is not None]
    norm = torch.stack(torch._foreach_norm(known)).norm()
    shorter = iter(torch._foreach_mul(known, (most / (norm + CLIP_EPSILON)).clamp(max=1.0)))
    return [None if gradient is None else next(shorter) for gradient in gradients]


def step_along(
    optimizer: torch.optim.Optimizer, weights: Iterable[nn.Parameter], gradients: Sequence[Tensor | None]
) -> None:
    """Let an optimiser follow gradients, one for each of its weights; they stay with the weights.

    >>> weight = nn.Parameter(torch.ones(2))
    >>> step_along(torch.optim.SGD([weight], lr=0.5), [weight], [torch.tensor([1.0, 2.0])])
    >>> weight.tolist()
    [0.5, 0.0]
    """
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = aligned(gradient, weight)
    optimizer.step()


def aligned(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    """The gradient with its numbers in the parameter's order in memory, which fused optimisers take for granted.

    Networks whose images lie pixel by pixel give gradients in another order; a fused step would add them to the wrong weights.

    >>> gradient = torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)
    >>> aligned(gradient, torch.zeros(2, 3, 4, 4)).is_contiguous()
    True
    """
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def evaluate(model: nn.Module, x: X) -> Tensor:
    """model(x) in evaluation mode, without gradients."""
    if model.training:
        model.eval()
    with torch.no_grad():
        return model(x)
