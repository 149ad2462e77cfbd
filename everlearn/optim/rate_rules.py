"""Rules for the learning rate that homeostatic learning is compared with, each in the same form: `rule.step(model, x, y)`.

    ConstantLR       lr
    RandomLR         with probability 1/2 at each decision: lr <- clip(lr + s(y) step), s: effect of the first row's class
    DriftLR          factor * lr for so many rows after an alarm on the errors made, lr otherwise
    HypergradientLR  lr <- clip(lr (1 + rate * cos(g_t, d_{t-1}))),  g: gradient, d: direction of the last step

References: Man, Damasio & Neven (2022), arXiv 2205.08645 (random); Baydin et al. (2018), Online learning rate adaptation with
hypergradient descent, arXiv 1703.04782 (in its multiplicative form, normed).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.events import X
from everlearn.core.random import generator
from everlearn.optim.descent import Descent
from everlearn.optim.homeostatic import Effect, effects_of
from everlearn.optim.regulated import Look, RegulationEvent, Steps


class ConstantLR:
    """Leaves the rate as it is.

    >>> model = nn.Linear(2, 2)
    >>> rule = ConstantLR(torch.optim.SGD(model.parameters(), lr=0.1))
    >>> rule.step(model, torch.ones(1, 2), torch.tensor([1])).lr
    0.1
    """

    name = "constant_lr"
    parts = ("lr",)

    def __init__(self, optimizer: torch.optim.Optimizer | Descent, *, owner: str = "ConstantLR"):
        self._steps = Steps(owner, optimizer)
        self.lr = self._steps.start

    def step(self, model: nn.Module, x: X, y: Tensor) -> RegulationEvent:
        """One step on the batch; none where the loss is not finite."""
        look = self._steps.look(model, x, y, self._steps.check(model, x, y))
        return _taken(self._steps, look, RegulationEvent(self.lr, look.loss))


class RandomLR:
    """Changes the rate by the true class of the batch's first row, or not, by a coin: the control of homeostatic learning.

    effect, step, every, min_lr, max_lr, seed: as in `HomeostaticLR`; probability: of a change at each decision, a half as published.

    >>> model = nn.Linear(2, 2)
    >>> rule = RandomLR(torch.optim.SGD(model.parameters(), lr=0.1), probability=1.0)
    >>> [round(rule.step(model, torch.ones(1, 2), torch.tensor([1])).lr, 2) for _ in range(3)]
    [0.11, 0.12, 0.13]
    """

    name = "random_lr"
    parts = ("lr", "batches")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | Descent,
        *,
        effect: Effect = None,
        step: float | None = None,
        every: int = 1,
        probability: float = 0.5,
        min_lr: float = 1e-8,
        max_lr: float = math.inf,
        seed: int = 0,
        owner: str = "RandomLR",
    ):
        self.owner = owner
        self._steps = Steps(owner, optimizer)
        self.by = self._steps.start / 10.0 if step is None else step
        check_range(owner, "step", self.by, 0.0)
        check_count(owner, "every", every)
        check_range(owner, "probability", probability, 0.0, 1.0)
        _check_span(owner, min_lr, max_lr)
        self.effect, self.every, self.probability = effect, every, probability
        self.min_lr, self.max_lr, self.seed = min_lr, max_lr, seed
        self._effects: tuple[int, ...] | None = None
        self.lr = self._steps.start
        self.batches = 0

    def step(self, model: nn.Module, x: X, y: Tensor) -> RegulationEvent:
        """Toss, then take one step on the batch; nothing where the loss is not finite."""
        look = self._steps.look(model, x, y, self._steps.check(model, x, y))
        if not look.finite:
            return RegulationEvent(self.lr, look.loss, finite=False)
        if self._effects is None:
            self._effects = effects_of(self.owner, self.effect, look.logits.shape[1])
        random = generator(self.seed, "toss", self.batches)
        event = RegulationEvent(self.lr, look.loss)
        if self.batches % self.every == 0 and float(torch.rand((), generator=random)) < self.probability:
            aim = self.lr + self._effects[int(y[0])] * self.by
            lr = min(max(aim, self.min_lr), self.max_lr)
            event = RegulationEvent(lr, look.loss, taken=True, true=int(y[0]), clipped=lr != aim)
        self.lr = event.lr
        self.batches += 1
        return _taken(self._steps, look, event)


class DriftLR:
    """Raises the rate for a while after a drift alarm on the errors made, row by row.

    detector: an object with `update(error) -> bool` and `parts`, such as `adwin()`; factor: by which the rate is raised, ten; span:
    rows for which it is, 500. Alarms while it is raised begin the span anew.

    >>> class Always:
    ...     parts = ()
    ...     def update(self, error):
    ...         return True
    >>> model = nn.Linear(2, 2)
    >>> rule = DriftLR(torch.optim.SGD(model.parameters(), lr=0.01), Always())
    >>> rule.step(model, torch.ones(1, 2), torch.tensor([1])).lr
    0.1
    """

    name = "drift_lr"
    parts = ("lr", "detector", "left")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | Descent,
        detector: Any,
        *,
        factor: float = 10.0,
        span: int = 500,
        owner: str = "DriftLR",
    ):
        self._steps = Steps(owner, optimizer)
        if not callable(getattr(detector, "update", None)) or not isinstance(getattr(detector, "parts", None), tuple):
            raise ArgumentError(
                f"{owner}: detector must have update(error) -> bool and parts, got {type(detector).__name__}. Use adwin()."
            )
        check_range(owner, "factor", factor, 1.0)
        check_count(owner, "span", span)
        self.detector, self.factor, self.span = detector, factor, span
        self.lr = self._steps.start
        self.left = 0  # rows for which the rate is still raised

    def step(self, model: nn.Module, x: X, y: Tensor) -> RegulationEvent:
        """Tell the detector the errors, then take one step on the batch; nothing where the loss is not finite."""
        look = self._steps.look(model, x, y, self._steps.check(model, x, y))
        if not look.finite:
            return RegulationEvent(self.lr, look.loss, finite=False)
        self.left = max(0, self.left - len(y))
        alarms = [self.detector.update(error) for error in (look.logits.argmax(1) != y).double().tolist()]
        if any(alarms):
            self.left = self.span
        self.lr = self._steps.start * (self.factor if self.left else 1.0)
        return _taken(self._steps, look, RegulationEvent(self.lr, look.loss, taken=any(alarms)))


class HypergradientLR:
    """Follows the rate's own gradient: higher while steps go on in one direction, lower where they turn back.

    rate: relative change of lr at a cosine of 1, 0.02, the published scale for normed multiplicative updates; min_lr, max_lr: the
    rate stays between.

    >>> model = nn.Linear(2, 2)
    >>> rule = HypergradientLR(torch.optim.SGD(model.parameters(), lr=0.1), rate=0.02)
    >>> [round(rule.step(model, torch.ones(1, 2), torch.tensor([1])).lr, 4) for _ in range(3)]
    [0.1, 0.102, 0.104]
    """

    name = "hypergradient_lr"
    parts = ("lr", "last")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | Descent,
        *,
        rate: float = 0.02,
        min_lr: float = 1e-8,
        max_lr: float = 0.5,
        owner: str = "HypergradientLR",
    ):
        self._steps = Steps(owner, optimizer)
        check_range(owner, "rate", rate, 0.0, 1.0)
        _check_span(owner, min_lr, max_lr)
        self.rate, self.min_lr, self.max_lr = rate, min_lr, max_lr
        self.lr = self._steps.start
        self.last: list[Tensor | None] = []

    def step(self, model: nn.Module, x: X, y: Tensor) -> RegulationEvent:
        """Change the rate by the cosine, then take one step on the batch; nothing where the loss is not finite."""
        look = self._steps.look(model, x, y, self._steps.check(model, x, y))
        if not look.finite:
            return RegulationEvent(self.lr, look.loss, finite=False)
        aim = self.lr * (1.0 + self.rate * cosine(look.gradients, self.last))
        lr = min(max(aim, self.min_lr), self.max_lr)
        event = RegulationEvent(lr, look.loss, taken=lr != self.lr, clipped=lr != aim)
        self.lr = lr
        self._steps.set(lr)
        directions = self._steps.follow_and_tell(look.gradients, lr)
        # in one order of memory, as a state that is loaded has it: sums in another order end in other bits
        self.last = [None if part is None else part.contiguous() for part in directions]
        return event


def cosine(first: Any, second: Any) -> float:
    """Of the angle between two lists of tensors, None counting as 0; 0 where either is 0 or empty.

    >>> round(cosine([torch.tensor([1.0, 0.0]), None], [torch.tensor([2.0, 0.0]), torch.tensor([3.0])]), 6)
    0.5547
    """
    if not first or not second:
        return 0.0
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    product = sum(float((a * b).sum()) for a, b in pairs)
    squares = [sum(float(part.square().sum()) for part in side if part is not None) for side in (first, second)]
    length = math.sqrt(squares[0] * squares[1])
    return product / length if length else 0.0


def _taken(steps: Steps, look: Look, event: RegulationEvent) -> RegulationEvent:
    """The event, once its step has been taken; none is where the loss is not finite."""
    if not look.finite:
        return RegulationEvent(event.lr, look.loss, finite=False)
    steps.set(event.lr)
    steps.follow(look.gradients)
    return event


def _check_span(owner: str, min_lr: float, max_lr: float) -> None:
    check_range(owner, "min_lr", min_lr, 0.0)
    if not isinstance(max_lr, (int, float)) or not min_lr < max_lr:
        raise ArgumentError(f"{owner}: max_lr must be above min_lr={min_lr:g}, got {max_lr!r}.")
