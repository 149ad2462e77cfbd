"""Optimisers as values: `sgd(lr=0.1)` names one in a call string and makes it once the parameters are known."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from everlearn.core.errors import ArgumentError, check_range
from everlearn.core.spec import describe


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum; fused into one kernel per step.

    lr: 0.1, the rate of Chaudhry et al. (2019, arXiv 1902.10486) for replay on small images; momentum and weight_decay: 0;
    clip: the norm, over all weights, to which longer gradients are cut (None: not at all).

    Reference: Sutskever et al. (2013), On the importance of initialization and momentum in deep learning.
    """

    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = None
    name: ClassVar[str] = "sgd"

    def __post_init__(self) -> None:
        check_range("sgd", "lr", self.lr, 0.0)
        check_range("sgd", "momentum", self.momentum, 0.0, 1.0)
        check_range("sgd", "weight_decay", self.weight_decay, 0.0)
        _check_clip("sgd", self.clip)

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimiser over these parameters."""
        made = torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, fused=True)
        if (
            self.momentum
        ):  # the fused kernel takes no mixture of weights with and without: some get their first gradient late
            for parameter in made.param_groups[0]["params"]:
                made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return made

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True)
class Adam:
    """Adam with decoupled weight decay; betas: how long means of gradients and of their squares last; clip as in `sgd`.

    Reference: Loshchilov & Hutter (2019), arXiv 1711.05101.
    """

    lr: float = 0.001
    weight_decay: float = 0.0
    clip: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    name: ClassVar[str] = "adam"

    def __post_init__(self) -> None:
        check_range("adam", "lr", self.lr, 0.0)
        check_range("adam", "weight_decay", self.weight_decay, 0.0)
        _check_clip("adam", self.clip)
        if len(self.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ArgumentError(f"adam: betas must be two numbers from 0 to below 1, got {self.betas!r}.")

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimiser over these parameters."""
        return torch.optim.AdamW(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=True)

    def __repr__(self) -> str:
        return describe(self)


def _check_clip(owner: str, clip: float | None) -> None:
    if clip is not None:
        check_range(owner, "clip", clip, 0.0)
        if clip == 0:
            raise ArgumentError(f"{owner}: clip=0 leaves no step at all. Use clip=None for no limit, or clip=10.0.")


Optimizer = SGD | Adam
OPTIMIZERS = {"sgd": SGD, "adam": Adam}
