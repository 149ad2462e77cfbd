"""Unlearn, then relearn: before a step the weights are moved uphill on the loss, and the step starts from there.

    v_0 = w,   v_j = v_{j-1} + rate * P g(v_{j-1}) + noise * sqrt(2 rate) P^(1/2) e      j = 1..steps,   e ~ N(0, 1)
    w  <- v - lr * g(v)             or, with return_to_start,   w <- w - lr * g(v)       (sharpness-aware for one plain step)

g: gradient; P: 1, or 1 / (F + damping) for a diagonal F. With scale="weight_norm" each tensor moves by a share of its own length,
v = w + rate * (|w| / |g| * g + noise * e) / (1 + F / damping), whatever the size of the gradient.
References: Wang et al. (2024), A unified and general framework for continual learning, arXiv 2403.13249 (scale="weight_norm" is the
form of their code); Foret et al. (2021), Sharpness-aware minimization, arXiv 2010.01412.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, InputError, check_count, check_range
from everlearn.core.flat import cut
from everlearn.core.random import generator

SCALES = ("weight_norm", "gradient")
DAMPING = {"weight_norm": 1000.0, "gradient": 1.0}  # as in the authors' code; with F = 0 a gradient is left as it is
Loss = Callable[[], Tensor]
Gradients = tuple[Tensor | None, ...]
Differentiate = Callable[[Loss], tuple[Tensor, Gradients]]


class Ascent:
    """Moves a model's weights uphill before each step, in a learner or in a training loop of one's own.

    model: the network, whose trained parameters are moved; rate: the size of a move; steps: moves before each step; scale, noise,
    return_to_start: see the equations above; damping: what is added to a Fisher diagonal (None: 1000 for "weight_norm" as
    published, 1 for "gradient"); seed: of the noise. rate=0 does nothing at all. Normalisation layers keep their running statistics
    while the loss uphill is looked for, so each batch counts once.

    >>> from torch.nn.functional import cross_entropy
    >>> model = nn.Linear(4, 3)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> ascent = Ascent(model, rate=1e-3)
    >>> x, y = torch.ones(8, 4), torch.zeros(8, dtype=torch.int64)
    >>> losses = [float(ascent.step(optimizer, lambda: cross_entropy(model(x), y))) for _ in range(5)]
    >>> losses[-1] < losses[0]
    True

    A rule of thumb for the limit of "weight_norm": a step descends by lr * |g| and ascends by rate * |w| in each tensor, so the
    ascent takes over where |g| falls below rate * |w| / lr.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        rate: float,
        steps: int = 1,
        scale: str = "weight_norm",
        damping: float | None = None,
        noise: float = 0.0,
        return_to_start: bool = False,
        seed: int = 0,
        owner: str = "Ascent",
    ):
        check_range(owner, "rate", rate, 0.0, fix="A negative rate would descend twice.")
        check_count(owner, "steps", steps)
        check_range(owner, "noise", noise, 0.0)
        if scale not in SCALES:
            raise ArgumentError(f"{owner}: scale must be one of {', '.join(map(repr, SCALES))}, got {scale!r}.")
        if damping is not None:
            check_range(owner, "damping", damping, 0.0)
            if damping == 0 and scale == "weight_norm":
                raise ArgumentError(f"{owner}: damping must be above 0 with scale='weight_norm', got 0. Use damping=1000.")
        self.owner = owner
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.rate = rate
        self.turns = steps
        self.scale = scale
        self.damping = DAMPING[scale] if damping is None else damping
        self.noise = noise
        self.return_to_start = return_to_start
        self.seed = seed
        self._instead: Loss | None = None  # a loss to climb instead of that of the step
        self._before: Tensor | None = None  # the loss that was climbed last, where the climb began
        self.taken = 0  # steps taken by `step`
        self._norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
        self._factors: list[Tensor] | None = None  # P by parameter, None where it is 1

    @contextmanager
    def climbing(self, loss: Loss | None) -> Iterator[None]:
        """Inside, moves climb this loss instead of that of the step (None: that of the step)."""
        self._instead, self._before = loss, None
        try:
            yield
        finally:
            self._instead = None

    @property
    def before(self) -> Tensor | None:
        """The loss that was climbed last, where the climb began; None where there was none since `climbing` began."""
        return self._before

    def precondition(self, fisher: Tensor | None) -> None:
        """Divide moves by a diagonal from now on: (weights,) in the order of the parameters, None for no division."""
        if fisher is None:
            self._factors = None
            return
        factors = 1.0 / (fisher + self.damping) if self.scale == "gradient" else 1.0 / (1.0 + fisher / self.damping)
        if not bool(torch.isfinite(factors).all()):
            raise ArgumentError(
                f"{self.owner}: damping={self.damping:g} leaves a division by zero where the Fisher diagonal is 0. Use damping=1.0."
            )
        self._factors = cut(factors, self.parameters)

    def around(self, differentiate: Differentiate, loss: Loss, *place: object) -> tuple[Tensor, Gradients]:
        """(loss, gradients) at the point uphill, at which the weights stay, unless they are to return to where they were.

        differentiate: gives a loss and its gradients by parameter, the same random numbers each time; place: what tells this
        step's noise from that of others. Raises InputError where a loss is not finite, with the number of the step.
        """
        start = [parameter.detach().clone() for parameter in self.parameters] if self.return_to_start else None
        for turn in range(self.turns):
            with self._statistics_kept():
                value, gradients = differentiate(self._instead or loss)
            self._finite(value, place, "before the weights were moved")
            if turn == 0:
                self._before = value
            self.move(gradients, *place, turn)
        value, gradients = differentiate(loss)
        if start is not None:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, start)
        self._finite(value, place, f"after the weights were moved uphill by rate={self.rate:g}")
        return value, gradients

    def move(self, gradients: Sequence[Tensor | None], *place: object) -> None:
        """Move the weights uphill along gradients (None: a parameter that plays no part, which stays where it is)."""
        used = [number for number, gradient in enumerate(gradients) if gradient is not None]
        if not used:
            return
        weights = [self.parameters[number] for number in used]
        uphill = [gradients[number] for number in used]
        factors = None if self._factors is None else [self._factors[number] for number in used]
        noise = self._drawn(used, place) if self.noise else None
        with torch.no_grad():
            if self.scale == "weight_norm":
                moves = relative(weights, uphill)
                if noise is not None:
                    torch._foreach_add_(moves, noise, alpha=self.noise)
                if factors is not None:
                    torch._foreach_mul_(moves, factors)
                torch._foreach_add_(weights, moves, alpha=self.rate)
                return
            moves = uphill if factors is None else torch._foreach_mul(uphill, factors)
            torch._foreach_add_(weights, moves, alpha=self.rate)
            if noise is not None:
                if factors is not None:
                    torch._foreach_mul_(noise, torch._foreach_sqrt(factors))
                torch._foreach_add_(weights, noise, alpha=self.noise * (2.0 * self.rate) ** 0.5)

    def step(self, optimizer: torch.optim.Optimizer, loss: Loss) -> Tensor:
        """One step of a torch optimiser from the point uphill; returns the loss there, detached.

        loss: gives the loss of the batch, with its graph; it is called steps + 1 times and draws the same random numbers each time.
        """
        state = torch.get_rng_state()

        def differentiate(some: Loss) -> tuple[Tensor, Gradients]:
            torch.set_rng_state(state)
            value = some()
            return value.detach(), torch.autograd.grad(value, self.parameters, allow_unused=True)

        found = differentiate(loss) if self.rate == 0 else self.around(differentiate, loss, self.taken)
        self.taken += 1
        for parameter, gradient in zip(self.parameters, found[1], strict=True):
            parameter.grad = gradient
        optimizer.step()
        return found[0]

    def _drawn(self, used: Sequence[int], place: tuple[object, ...]) -> list[Tensor]:
        """Standard normal numbers in the shapes of the weights, a function of (seed, place)."""
        count = sum(parameter.numel() for parameter in self.parameters)
        like = self.parameters[0]
        row = torch.randn(count, generator=generator(self.seed, "ascent", *place)).to(like.device, like.dtype)
        pieces = cut(row, self.parameters)
        return [pieces[number] for number in used]

    @contextmanager
    def _statistics_kept(self) -> Iterator[None]:
        """Inside, normalisation layers normalise by the batch, as ever in training, and leave their running statistics alone."""
        tracking = [module for module in self._norms if module.track_running_stats]
        for module in tracking:
            module.track_running_stats = False
        try:
            yield
        finally:
            for module in tracking:
                module.track_running_stats = True

    def _finite(self, value: Tensor, place: tuple[object, ...], when: str) -> None:
        if not bool(torch.isfinite(value)):
            step = f" at step {place[0] + 1}" if place else ""
            raise InputError(
                f"{self.owner}: the loss is {float(value)}{step}, {when}. Lower rate, or the learning rate of the optimizer."
            )


def relative(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """Each gradient, brought to the length of its weights; one that is zero stays zero.

    >>> relative([torch.tensor([3.0, 4.0])], [torch.tensor([0.0, 2000.0])])
    [tensor([0., 5.])]
    """
    lengths = torch.stack(torch._foreach_norm(weights))
    slopes = torch.stack(torch._foreach_norm(gradients))
    ratios = torch.where(slopes > 0, lengths / slopes, 0.0)
    return list(torch._foreach_mul(gradients, ratios.unbind()))
