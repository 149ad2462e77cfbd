"""Pre-training that goes on: domain after domain on one main line, and an annealed copy whenever a model is wanted.

    main line   warm-up, cool-down, constant rate, for as long as data come
    deliver     fork the main line, anneal the fork, hand it out; the main line stands as it was

The next domain starts from the main line and never from the annealed copy, whose rate would have to rise again: that is what undoes what
was learned. With a schedule of known length (`repeated_cosine`, say) the main line itself is what is delivered.

State is a function of (arguments, seed, domains, steps): rows, masks and dropout of update n come from (seed, n) alone, so a run that is
killed goes on with the same bits, in every phase and within an annealing. Processes begun by torchrun share each batch, row by row, and
follow the mean of their gradients.

Reference: Singh et al. (2025), Beyond cosine decay: on the effectiveness of infinite learning rate schedule for continual pre-training,
CoLLAs, arXiv 2503.02844.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn

from everlearn.core.errors import ArgumentError, StateError, check_count
from everlearn.core.random import generator, isolated
from everlearn.core.state import capture, load
from everlearn.data.pretraining import Domain
from everlearn.data.replay_mix import ReplayMix
from everlearn.learners.pretraining_penalties import Penalty
from everlearn.nn.pretext import NextToken, Pretext
from everlearn.optim.optimizers import Adam, Optimizer
from everlearn.optim.rates import InfiniteLR, ScheduledLR
from everlearn.optim.schedules import Infinite, Schedule

PRECISIONS = ("float32", "bfloat16")
USUAL = Adam(lr=1e-3, weight_decay=0.005, betas=(0.9, 0.95))


class ContinualPretrainer:
    """A model, its optimiser and its schedule, led through domains.

    model: scored by `objective`; optimizer: `adam(...)`, `sgd(...)`, or a torch optimiser over the model's parameters, with any groups
    (`lr_scale` of a group is honoured); schedule: a value such as `Infinite(1e-3, warmup=50, cooldown_end=400)`; replay: a `ReplayMix`, or
    None; penalty: what holds the model to past domains (`learners.pretraining_penalties`), or None; batch: rows of an update;
    accumulate: parts in which they are taken, to save memory; precision: float32 or bfloat16 (weights stay float32); compile: let torch
    compile the loss; seed: of rows, masks and dropout.

    >>> from everlearn.data.pretraining import TextDomain
    >>> from everlearn.nn.tiny_gpt import TinyGPT
    >>> text = TextDomain("counting", torch.arange(2000) % 10, window=8)
    >>> line = ContinualPretrainer(TinyGPT(10, dim=16, depth=1, length=8), schedule=Infinite(0.01, 5, 20), batch=8)
    >>> losses = line.phase(text, steps=60)
    >>> model = line.deliver(anneal_steps=20)
    >>> line.steps, line.lr, bool(losses[-1] < 0.2 * losses[0])
    (60, 0.005, True)
    """

    parts: ClassVar[tuple[str, ...]] = (
        "model",
        "optimizer",
        "clock",
        "replay",
        "penalty",
        "steps",
        "draws",
        "names",
        "began",
    )

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: Optimizer | torch.optim.Optimizer = USUAL,
        schedule: Schedule,
        objective: Pretext = NextToken(),
        replay: ReplayMix | None = None,
        penalty: Penalty | None = None,
        batch: int = 64,
        accumulate: int = 1,
        precision: str = "float32",
        compile: bool = False,
        seed: int = 0,
    ):
        check_count("pretrainer", "batch", batch)
        check_count("pretrainer", "accumulate", accumulate)
        if precision not in PRECISIONS:
            raise ArgumentError(f"pretrainer: precision must be float32 or bfloat16, got {precision!r}.")
        self.rank, self.world = _place()
        if batch % (self.world * accumulate):
            raise ArgumentError(
                f"pretrainer: batch must be a multiple of processes times accumulate, got batch={batch}, {self.world} processes and "
                f"accumulate={accumulate}."
            )
        self.model, self.objective, self.replay, self.penalty = model, objective, replay, penalty
        self.batch, self.accumulate, self.precision, self.seed = batch, accumulate, precision, seed
        made = isinstance(optimizer, torch.optim.Optimizer)
        if not made and not isinstance(optimizer, Optimizer):
            raise ArgumentError(
                f"pretrainer: optimizer must be adam(...), sgd(...) or a torch optimiser, got {optimizer!r}."
            )
        self.optimizer = optimizer if made else optimizer.make(model.parameters())
        self.clip = None if made else optimizer.clip
        self.scheduler = scheduler(self.optimizer, schedule)
        self.steps = self.draws = 0  # updates made; rows learned
        self.names: list[str] = []  # of the domains, in order
        self.began: list[int] = []  # the update with which each began
        self.domain: Domain | None = None
        self.rate = self.lr  # of the last update
        self._loss: nn.Module = _Loss(model, objective, penalty)
        if compile:
            self._loss.compile()
        self._shared = nn.parallel.DistributedDataParallel(self._loss) if self.world > 1 else self._loss

    @property
    def clock(self) -> dict[str, Any]:
        """Where the schedule stands."""
        return self.scheduler.state_dict()

    @clock.setter
    def clock(self, state: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state)

    @property
    def lr(self) -> float:
        """The rate of the next update, of the first group."""
        return float(self.scheduler.get_last_lr()[0])

    @property
    def annealing(self) -> bool:
        """Whether this is a fork that was annealed, in part or wholly, and not the main line."""
        return getattr(self.scheduler, "fork", None) is not None

    def phase(
        self,
        domain: Domain,
        steps: int,
        *,
        watch: Callable[["ContinualPretrainer", float], None] | None = None,
        allow_rewarm: bool = False,
    ) -> Tensor:
        """Learn a domain for so many updates; (steps,) the loss of each before it.

        A domain of another name than the last one begins a phase: what replay and penalty need of the last one is kept. watch: is told
        this pre-trainer and the loss after each update. Raises ArgumentError where this is an annealed copy, unless allow_rewarm=True, and
        where a loss is no number: at once if there is a watch, else when all steps are made.
        """
        check_count("phase", "steps", steps, low=0)
        if self.annealing:
            self.scheduler.resume_constant(allow_rewarm=allow_rewarm)
        self.enter(domain)
        return self._train(steps, watch)

    def enter(self, domain: Domain) -> None:
        """Begin with a domain, or go on with it after a state was loaded."""
        if self.names and self.names[-1] != domain.name:
            if self.domain is None:
                raise StateError(
                    f"pretrainer: the state was saved within {self.names[-1]!r}; enter that domain first, then {domain.name!r}."
                )
            if self.replay is not None:
                self.replay.add(self.domain)
            if self.penalty is not None:
                self.penalty.after(self.model, self.objective, self.domain, len(self.names) - 1)
        if not self.names or self.names[-1] != domain.name:
            self.names.append(domain.name)
            self.began.append(self.steps)
        self.domain = domain

    def anneal(self, steps: int, *, watch: Callable[["ContinualPretrainer", float], None] | None = None) -> Tensor:
        """Anneal this very model, on the present domain, or go on with an annealing that was cut short; (steps,) losses.

        `deliver` does so on a fork. To anneal in place, save the state first and load it again before going on. steps: of the whole
        annealing. Raises ArgumentError for a schedule that has none, and during warm-up.
        """
        if self.domain is None:
            raise ArgumentError("pretrainer: no domain was entered; call phase(...) first.")
        if not isinstance(self.scheduler, InfiniteLR):
            raise ArgumentError(
                f"pretrainer: {self.scheduler.schedule!r} has no annealing to start; deliver(0) hands out the main line itself."
            )
        if not self.annealing:
            self.scheduler.start_anneal(steps)
        return self._train(self.scheduler.fork + self.scheduler.steps - self.scheduler.last_epoch, watch)

    def deliver(
        self, anneal_steps: int, *, watch: Callable[["ContinualPretrainer", float], None] | None = None
    ) -> nn.Module:
        """An annealed copy of the model, in evaluation mode; the main line stands as it was: weights, moments, counters.

        anneal_steps: updates of the annealing, made on the present domain; 0 copies the main line as it is.
        """
        check_count("deliver", "anneal_steps", anneal_steps, low=0)
        if not anneal_steps:
            return deepcopy(self.model).eval()  # which leaves gradients behind
        before = self.state_dict()
        try:
            self.anneal(anneal_steps, watch=watch)
            return deepcopy(self.model).eval()
        finally:
            self.load_state_dict(before)

    def state_dict(self) -> dict[str, Any]:
        """All state, as a tree of tensors and JSON scalars."""
        return capture(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; call `enter(domain)`, or `phase`, with the domain it stands in. Raises StateError where it does not fit."""
        load(self, state)

    def rows(self) -> Tensor:
        """The rows of the next update, of all processes."""
        present = self.domain.draw(self.batch, generator(self.seed, "rows", self.steps))
        if self.replay is None:
            return present
        return self.replay.mix(present, self.draws, generator(self.seed, "past", self.steps))

    def _train(self, steps: int, watch: Callable[["ContinualPretrainer", float], None] | None) -> Tensor:
        self.model.train()
        losses = torch.zeros(
            steps, device=next(self.model.parameters()).device
        )  # where processes share: nccl takes no other
        for number in range(steps):
            losses[number] = self._update()
            if watch is not None:
                if self.world > 1:
                    _mean_over_processes(losses[number], self.world)
                loss = float(losses[number])
                self._check_finite(loss, 1)
                watch(self, loss)
        if self.world > 1 and watch is None:
            _mean_over_processes(losses, self.world)
        for number, loss in enumerate(losses.tolist()):
            self._check_finite(loss, steps - number)
        return losses.cpu()

    def _check_finite(self, loss: float, ago: int) -> None:
        """Refuse to go on from a loss, so many updates ago, that is no number."""
        if not math.isfinite(loss):
            raise ArgumentError(
                f"pretrainer: the loss of update {self.steps - ago + 1} is {loss}, on {self.domain.name}; lower the highest rate, or cut "
                "long gradients: adam(clip=1.0)."
            )

    def _update(self) -> Tensor:
        device = next(self.model.parameters()).device
        rows = self.rows().to(device)
        drawn = self.objective.draw(self.model, rows, generator(self.seed, "objective", self.steps))
        own = [value[self.rank :: self.world] for value in drawn]
        self.rate = self.lr
        total = torch.zeros((), device=device)
        self.optimizer.zero_grad()
        with isolated(self.seed, "dropout", self.steps, self.rank):
            for part in range(self.accumulate):
                inputs = [value[part :: self.accumulate] for value in own]
                last = part == self.accumulate - 1
                with nullcontext() if last or self.world == 1 else self._shared.no_sync():
                    with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                        loss = self._shared(*inputs) / self.accumulate
                    loss.backward()
                total += loss.detach()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.scheduler.step()
        self.steps += 1
        self.draws += len(rows)
        return total


def scheduler(optimizer: torch.optim.Optimizer, schedule: Schedule) -> InfiniteLR | ScheduledLR:
    """What sets the rates: an infinite schedule without a set annealing anneals on demand, any other follows its steps."""
    if isinstance(schedule, Infinite) and schedule.anneal_start is None:
        given = asdict(schedule)
        del given["anneal_start"], given["anneal_end"]
        return InfiniteLR(optimizer, **given)
    return ScheduledLR(optimizer, schedule)


@torch.no_grad()
def held_out_loss(
    model: nn.Module, objective: Pretext, domain: Domain, *, rows: int = 256, most: int | None = None, seed: int = 0
) -> float:
    """The mean loss over the rows of a domain that are held out, in evaluation mode; the same masks each time.

    rows: of a batch; most: rows at most. Changes nothing. Raises ArgumentError where no row is held out.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    total, count = 0.0, 0
    for number, x in enumerate(domain.held_out(rows)):
        x = x if most is None else x[: most - count]
        if not len(x):
            break
        drawn = objective.draw(model, x.to(device), generator(seed, "held out", number))
        total += float(objective.loss(model, *drawn)) * len(x)
        count += len(x)
    model.train(training)
    if not count:
        raise ArgumentError(f"held_out_loss: {domain.name} holds no row out.")
    return total / count


class _Loss(nn.Module):
    """Loss of rows as a module, which is what torch shares among processes and compiles."""

    def __init__(self, model: nn.Module, objective: Pretext, penalty: Penalty | None):
        super().__init__()
        self.model, self.objective, self.penalty = model, objective, penalty

    def forward(self, *inputs: Tensor) -> Tensor:
        loss = self.objective.loss(self.model, *inputs)
        return loss if self.penalty is None else loss + self.penalty(self.model, *inputs)


def _place() -> tuple[int, int]:
    """(rank, number of processes)."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _mean_over_processes(values: Tensor, world: int) -> None:
    distributed.all_reduce(values)
    values /= world
