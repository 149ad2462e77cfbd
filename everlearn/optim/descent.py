"""One gradient step, the same for every learner that takes gradient steps.

Model, optimiser and step counter are state. Where the model draws random numbers while it trains (dropout), they come from
(seed, step number), so a resumed run draws the same.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError
from everlearn.core.events import X
from everlearn.core.random import isolated
from everlearn.optim.optimizers import SGD, Optimizer

STOCHASTIC = (nn.modules.dropout._DropoutNd, nn.RReLU, nn.FractionalMaxPool2d)


class Descent:
    """Steps a model down a loss. `descent(lambda: loss)` makes one step and returns the loss, detached.

    A method that puts a step together itself asks for `gradients(...)` and takes the step by `follow(...)`.
    """

    parts = ("model", "optimizer", "steps")

    def __init__(self, model: nn.Module, optimizer: Optimizer, seed: int = 0):
        if not isinstance(model, nn.Module):
            raise ArgumentError(
                f"a learner trains a torch.nn.Module, got {model!r}. Pass the network first: Replay(network, ...)."
            )
        self.model = model
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = optimizer.make(self.parameters)
        self.seed = seed
        self.steps = 0
        self.rate = (
            optimizer.lr if optimizer == SGD(lr=optimizer.lr) else None
        )  # of plain descent, without momentum or decay
        self._stochastic = any(isinstance(module, STOCHASTIC) for module in model.modules())

    def __call__(self, loss: Callable[[], Tensor]) -> Tensor:
        """One step: the loss is evaluated in training mode, differentiated, and followed downhill."""
        value, gradients = self.gradients(loss)
        self.follow(gradients)
        return value

    def gradients(self, loss: Callable[[], Tensor], *labels: object) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """(loss, its gradient by parameter) in training mode, without a step; None for parameters that play no part.

        labels: tell apart the losses of one step, so that each draws random numbers (dropout) of its own.
        """
        if not self.model.training:
            self.model.train()
        with isolated(self.seed, "descent", self.steps, *labels) if self._stochastic else nullcontext():
            value = loss()
            gradients = torch.autograd.grad(value, self.parameters, allow_unused=True)
        return value.detach(), gradients

    def follow(self, gradients: Sequence[Tensor | None]) -> None:
        """Take the step: w - rate * gradient at once where that is all the optimiser does, else through the optimiser."""
        self.steps += 1
        complete = all(gradient is not None for gradient in gradients)  # `None in` would compare tensors, 20 us for each
        if self.rate is not None and complete:
            with torch.no_grad():
                torch._foreach_add_(self.parameters, gradients, alpha=-self.rate)
            return
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()

    def predict(self, x: X) -> Tensor:
        """The model's answer in evaluation mode, without gradients. Changes nothing."""
        return evaluate(self.model, x)


def evaluate(model: nn.Module, x: X) -> Tensor:
    """model(x) in evaluation mode, without gradients."""
    if model.training:
        model.eval()
    with torch.no_grad():
        return model(x)
