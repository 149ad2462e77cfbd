"""Forgetting on purpose: parameters that are made anew every so many updates, and what the optimiser knew of them with it.

    after update t = 1, 2, ...      w <- init  where t mod every = 0 and t < stop          moments of w <- 0

Active forgetting does so without end: the rest of the network must learn to work with whatever embeddings it is given. Temporary
forgetting stops after `stop` updates, and what is frequent is then learned by heart again. Everything is a function of (seed, t): a run
that is killed and resumed forgets the same. A rule of scope "batch" makes rows anew for one update alone, by `optim.fresh_rows`.

References: Chen et al. (2023), Improving language plasticity via pretraining with active forgetting, NeurIPS, arXiv 2307.01163.
Anand et al. (2025), Dual process learning, ICLR, arXiv 2406.00053. Ash & Adams (2020), On warm-starting neural network training,
NeurIPS, arXiv 1910.08475 (shrink and perturb).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from everlearn.core.errors import ArgumentError, StateError, check_count, check_range, closest
from everlearn.core.random import generator
from everlearn.core.spec import Described
from everlearn.optim.composed import Restarted, Schedule


@dataclass(frozen=True, repr=False)
class Normal(Described):
    """New values drawn from a normal law. std 1 is what `nn.Embedding` begins with; BERT's is 0.02."""

    std: float = 1.0
    mean: float = 0.0
    name: ClassVar[str] = "normal"

    def __post_init__(self) -> None:
        check_range(self.name, "std", self.std, 0.0)

    def new(self, old: Tensor, random: torch.Generator) -> Tensor:
        """Values of the shape of `old`."""
        return self.mean + self.std * torch.randn(old.shape, generator=random, dtype=old.dtype)


@dataclass(frozen=True, repr=False)
class UniformLaw(Described):
    """New values drawn evenly from low..high."""

    low: float = 0.0
    high: float = 1.0
    name: ClassVar[str] = "uniform_law"

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ArgumentError(f"uniform_law: low must be at most high, got low={self.low!r} and high={self.high!r}.")

    def new(self, old: Tensor, random: torch.Generator) -> Tensor:
        """Values of the shape of `old`."""
        return self.low + (self.high - self.low) * torch.rand(old.shape, generator=random, dtype=old.dtype)


@dataclass(frozen=True, repr=False)
class ShrinkPerturb(Described):
    """Not wholly new: a share of the old values, and normal noise. shrink=1, noise=0 changes nothing."""

    shrink: float = 0.5
    noise: float = 0.01
    name: ClassVar[str] = "shrink_perturb"

    def __post_init__(self) -> None:
        check_range(self.name, "shrink", self.shrink, 0.0, 1.0)
        check_range(self.name, "noise", self.noise, 0.0)

    def new(self, old: Tensor, random: torch.Generator) -> Tensor:
        """shrink * old + noise * N(0, 1)."""
        return self.shrink * old + self.noise * torch.randn(old.shape, generator=random, dtype=old.dtype)


@dataclass(frozen=True, repr=False)
class FanIn(Described):
    """What `nn.Linear` begins with: weights even in -1/sqrt(inputs)..1/sqrt(inputs). What has one axis only, a bias, becomes 0."""

    name: ClassVar[str] = "fan_in"

    def new(self, old: Tensor, random: torch.Generator) -> Tensor:
        """Values of the shape of `old`; inputs: the product of all axes but the first."""
        if old.dim() < 2:
            return torch.zeros_like(old)
        reach = old[0].numel() ** -0.5
        return reach * (2.0 * torch.rand(old.shape, generator=random, dtype=old.dtype) - 1.0)


SCOPES = ("rows", "batch")
Law = Normal | UniformLaw | ShrinkPerturb | FanIn


@dataclass(frozen=True, repr=False)
class Reset(Described):
    """When parameters are made anew, from what, and how much of them.

    every: after each update whose number is a multiple of it; stop: only before update `stop` (None: without end); init: the law of new
    values; exclude_rows: rows of each parameter that stay, special tokens say; probability: of each row to be made anew, drawn for each
    reset; clear_optimizer: also clear what the optimiser knows of them; scope: "rows" of the parameter, for good, or "batch": rows of the
    tokens that a batch holds, in the update of that number and for it alone (`fresh_rows`; there is nothing to clear).

    >>> rule = Reset(every=10, stop=25)
    >>> [t for t in range(1, 41) if rule.due(t)], Reset(every=10, stop=20).due(20)
    ([10, 20], False)
    """

    every: int
    stop: int | None = None
    init: Law = Normal()
    exclude_rows: tuple[int, ...] = ()
    probability: float = 1.0
    clear_optimizer: bool = True
    scope: str = "rows"
    name: ClassVar[str] = "reset"

    def __post_init__(self) -> None:
        check_count(self.name, "every", self.every)
        if self.stop is not None:
            check_count(self.name, "stop", self.stop, low=0)
        check_range(self.name, "probability", self.probability, 0.0, 1.0)
        if not hasattr(self.init, "new"):
            raise ArgumentError(f"reset: init must be a law such as normal(std=1.0), got {self.init!r}.")
        if self.scope not in SCOPES:
            raise ArgumentError(f"reset: {closest('scope', str(self.scope), SCOPES)}")

    def due(self, t: int) -> bool:
        """Whether update number t, counted from 1, is followed by a reset."""
        return t > 0 and t % self.every == 0 and (self.stop is None or t < self.stop)

    def restarted(self, schedule: Schedule, steps: int) -> Restarted:
        """The rate of what is made anew: all of a schedule of `steps` updates, warm-up and decay, in every interval.

        >>> from everlearn.optim.schedules import Warmup
        >>> Reset(every=10, stop=25).restarted(Warmup(0.1, steps=50), steps=100)
        restarted(warmup(0.1, steps=50), steps=100, every=10, stop=25)
        """
        return Restarted(schedule, steps, self.every, self.stop)


def active_forgetting(every: int, **options: object) -> Reset:
    """Make anew after every so many updates, without end."""
    return Reset(every, **options)


def temporary_forgetting(every: int, stop: int, **options: object) -> Reset:
    """Make anew after every so many updates, but only before update `stop`."""
    return Reset(every, stop, **options)


FORGETTING = {
    "reset": Reset,
    "active_forgetting": active_forgetting,
    "temporary_forgetting": temporary_forgetting,
    **{law.name: law for law in (Normal, UniformLaw, ShrinkPerturb, FanIn)},
}


@dataclass(frozen=True)
class ResetReport:
    """What one reset did: the update after which it was, and how many rows of each parameter were made anew."""

    update: int
    rows: dict[str, int]


class Forgetting:
    """Applies a `Reset` to chosen parameters of any model and its optimiser; call `after(t)` after update number t.

    model: any module, a Hugging Face model too; select: names of parameters, or patterns ("*embeddings.word*"); optimizer: the one that
    trains them, any whose state is tensors. A parameter that is tied to another one (the output layer of a language model, say) is
    reset only with tied="together". It holds no state: what happens after update t is a function of (seed, t).

    Raises ArgumentError where nothing or something unknown is selected, a parameter is not in the optimiser, rows are out of range, or a
    tie is not allowed; StateError, before anything changes, where the optimiser holds what cannot be cleared.

    >>> model = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 5))
    >>> optimizer = torch.optim.AdamW(model.parameters())
    >>> forgetting = Forgetting(model, ["0.weight"], optimizer, Reset(every=10, exclude_rows=(0,)))
    >>> forgetting.after(9), forgetting.after(10)
    (None, ResetReport(update=10, rows={'0.weight': 4}))
    """

    def __init__(
        self,
        model: nn.Module,
        select: Sequence[str],
        optimizer: Optimizer,
        rule: Reset,
        *,
        tied: str | None = None,
        seed: int = 0,
    ):
        if rule.scope == "batch":
            raise ArgumentError(
                "forgetting: scope='batch' makes nothing anew between updates; use FreshRows of everlearn.optim.fresh_rows around each, or "
                "wrap a learner: forgetting(LEARNER, reset=...)."
            )
        self.rule, self.optimizer, self.seed = rule, optimizer, seed
        self.chosen = select_parameters(model, select, tied=tied)
        trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for name, parameter in self.chosen.items():
            if id(parameter) not in trained:
                raise ArgumentError(f"forgetting: {name} is not among the parameters of the optimiser.")
            check_rows(rule, name, parameter)

    @torch.no_grad()
    def after(self, t: int) -> ResetReport | None:
        """Reset if update t is followed by a reset; what was done, or None. Measure before, never right after it."""
        if not self.rule.due(t):
            return None
        if self.rule.clear_optimizer:
            for name, parameter in self.chosen.items():
                _check_clearable(self.optimizer, name, parameter)
        rows = {}
        for name, parameter in self.chosen.items():
            random = generator(self.seed, "reset", t, name)
            anew = torch.rand(len(parameter), generator=random) < self.rule.probability
            anew[list(self.rule.exclude_rows)] = False
            fresh = self.rule.init.new(parameter.cpu(), random).to(parameter.device)
            mask = anew.to(parameter.device).view(-1, *[1] * (parameter.dim() - 1))
            parameter.copy_(torch.where(mask, fresh, parameter))
            rows[name] = int(anew.sum())
            if self.rule.clear_optimizer and rows[name]:
                self._clear(parameter, mask)
        return ResetReport(t, rows)

    def _clear(self, parameter: nn.Parameter, mask: Tensor) -> None:
        """Moments to 0. Where all rows are asked for, of the whole parameter, and the count of steps with them, so that the correction
        of their bias begins again; else of the rows made anew only, since the count is one for all rows."""
        state = self.optimizer.state.get(parameter, {})
        whole = self.rule.probability == 1.0
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value.zero_() if whole else value.masked_fill_(mask, 0)
            elif key == "step" and whole:
                state[key] = torch.zeros_like(value) if isinstance(value, Tensor) else type(value)(0)


class StopWhen:
    """Tells when temporary forgetting may end: once a measure has exceeded a level so many times in a row.

    level, patience: of the measure, and of looks in a row. Its state is one number, `above`; once `reached` it stays so.

    >>> enough = StopWhen(0.9, patience=2)
    >>> [enough(unseen) for unseen in (0.95, 0.5, 0.92, 0.93, 0.1)], enough.reached
    ([False, False, False, True, True], True)
    """

    parts: ClassVar[tuple[str, ...]] = ("above",)

    def __init__(self, level: float, patience: int = 3):
        check_range("stop_when", "level", level, -math.inf)
        check_count("stop_when", "patience", patience)
        self.level, self.patience = level, patience
        self.above = 0  # looks in a row

    @property
    def reached(self) -> bool:
        """Whether it may end."""
        return self.above >= self.patience

    def __call__(self, value: float) -> bool:
        """Look at the measure; whether forgetting may end."""
        if not self.reached:
            self.above = self.above + 1 if value > self.level else 0
        return self.reached


def select_parameters(model: nn.Module, select: Iterable[str], *, tied: str | None = None) -> dict[str, nn.Parameter]:
    """The parameters of a model that names or patterns choose, each once.

    Raises ArgumentError for a name that fits none, and for a parameter that is shared with one outside the selection unless
    tied="together".
    """
    if tied not in (None, "together"):
        raise ArgumentError(f"forgetting: tied must be None or 'together', got {tied!r}.")
    names = dict(model.named_parameters(remove_duplicate=False))
    chosen: dict[str, nn.Parameter] = {}
    patterns = [select] if isinstance(select, str) else list(select)
    for pattern in patterns:
        found = {name: value for name, value in names.items() if fnmatch(name, pattern)}
        if not found:
            raise ArgumentError(f"forgetting: {pattern!r} fits no parameter; there are {', '.join(names)}.")
        chosen |= found
    if not chosen:
        raise ArgumentError("forgetting: no parameter is selected; name at least one.")
    for name, value in names.items():
        shared = next((other for other, parameter in chosen.items() if parameter is value), None)
        if shared is not None and name not in chosen and tied != "together":
            raise ArgumentError(
                f"forgetting: {shared} is tied to {name}, which is not selected; select both, or pass tied='together'."
            )
    once = {id(value): name for name, value in reversed(chosen.items())}
    return {name: value for name, value in chosen.items() if once[id(value)] == name}


def own_group(model: nn.Module, select: Iterable[str], *, tied: str | None = None, **options: Any) -> list[dict[str, Any]]:
    """Two groups of an optimiser: all other parameters that are trained, and the chosen ones, so that their rate can be their own.

    select, tied: as of `Forgetting`; options: of the chosen group (weight_decay, betas, ...).

    >>> from everlearn.optim.rates import ScheduledLR
    >>> from everlearn.optim.schedules import Warmup
    >>> model = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 5))
    >>> optimizer = torch.optim.AdamW(own_group(model, ["0.weight"], weight_decay=0.0))
    >>> rate = Warmup(0.1, steps=40)
    >>> scheduler = ScheduledLR(optimizer, [rate, Reset(every=10).restarted(rate, steps=80)])
    >>> [len(group["params"]) for group in optimizer.param_groups], scheduler.get_last_lr()
    ([2, 1], [0.0, 0.0])
    """
    chosen = list(select_parameters(model, select, tied=tied).values())
    own = {id(parameter) for parameter in chosen}
    others = [parameter for parameter in model.parameters() if id(parameter) not in own and parameter.requires_grad]
    return [{"params": others}, {"params": chosen, **options}]


def check_rows(rule: Reset, name: str, parameter: nn.Parameter) -> None:
    """Refuse rows to be left that the parameter does not have."""
    wrong = [row for row in rule.exclude_rows if not 0 <= row < len(parameter)]
    if wrong:
        raise ArgumentError(f"forgetting: exclude_rows holds {wrong[0]}, and {name} has rows 0..{len(parameter) - 1}.")


def _check_clearable(optimizer: Optimizer, name: str, parameter: nn.Parameter) -> None:
    for key, value in optimizer.state.get(parameter, {}).items():
        fits = value is None or key == "step" or (isinstance(value, Tensor) and value.shape == parameter.shape)
        if not fits:
            raise StateError(
                f"forgetting: {type(optimizer).__name__} keeps {key!r} for {name}, which cannot be cleared; "
                "pass clear_optimizer=False, or use SGD, Adam or AdamW."
            )
