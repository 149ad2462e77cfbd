"""A learning rate that regulates itself as a living thing regulates a need: homeostatic learning.

Each class would raise (+1) or lower (-1) the rate, if an object of it were taken. g: class as recognised, y: as it was, s: effect.
    leave     w - lr d                       take     w - clip(lr + s(g) step) d          two futures, imagined
    taken where the future with it is better on what was seen;  then   lr <- clip(lr + s(y) step, min_lr, max_lr)

So what is imagined comes true only as far as the model recognises what it sees.
Reference: Man, Damasio & Neven (2022), Need is all you need: Homeostatic neural networks adapt to concept shift, arXiv 2205.08645.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, InputError, check_count, check_range
from everlearn.core.events import X, join, map_x, rows, size
from everlearn.core.random import generator
from everlearn.core.state import capture, load
from everlearn.optim.descent import Descent
from everlearn.optim.imagined import Imagination
from everlearn.optim.regulated import Look, RegulationEvent, Steps

EVALUATE_ON = ("next_batch", "memory")
SIGNALS = ("loss", "accuracy")
GRADIENTS = ("batch", "first_sample")
SUFFERS = ("true", "predicted", "random")
BALANCED_AFTER, UNBALANCED = (
    1000,
    0.2,
)  # rows after which, and mean effect from which on, the rate is said to be pushed one way
Effect = Callable[[int], float] | Sequence[float] | None
Futures = tuple[float, float]  # the signal without the change, and with it


def upper_half(classes: int) -> tuple[int, ...]:
    """The published effects: the upper half of the classes raises the rate, the lower half lowers it.

    >>> upper_half(4)
    (-1, -1, 1, 1)
    """
    return tuple(1 if label >= classes // 2 else -1 for label in range(classes))


def effects_of(owner: str, effect: Effect, classes: int) -> tuple[int, ...]:
    """+1 or -1 for each class. Raises ArgumentError where a class has none; warns where all have the same."""
    if effect is None:
        found: Sequence[Any] = upper_half(classes)
    else:
        found = [effect(label) for label in range(classes)] if callable(effect) else list(effect)
    if len(found) < classes or any(value not in (1, -1) for value in found):
        raise ArgumentError(
            f"{owner}: effect must give +1 or -1 for each of the {classes} classes, got {list(found)}. Use effect=None for halves."
        )
    if len(set(found[:classes])) == 1:
        warnings.warn(f"{owner}: effect is {found[0]:+} for every class, so the rate can only go one way.", stacklevel=3)
    return tuple(int(value) for value in found[:classes])


class HomeostaticLR:
    """Regulates the rate of a torch optimiser (or of a `Descent`), in a learner or in a training loop of one's own.

    effect: +1 or -1 by class, a sequence or a function of the class number (None: `upper_half`); step: added or taken off at a
    time, a tenth of the rate at the start unless given; every: batches between two decisions (inf: none).
    evaluate_on: "next_batch" holds the last step against one with the other rate on rows that neither has learned from;
    "memory" (published) holds two steps to come against each other on the last `memory` rows, already learned from. signal: "loss"
    or "accuracy" (published). gradient: of the imagined steps on "memory", of the whole "batch", or of its "first_sample" over the
    size of the batch (published). min_lr, max_lr: the rate stays between.
    relabel: whether `announce` relabels the remembered rows, a leak in the published code; epoch: rows after which memory and count
    begin anew, as that code does at each epoch. suffers: whose effect is felt, that of the "true" class, of the "predicted" one (no
    mistake is ever felt), or a "random" one; shuffle: hold the futures against shuffled labels, a control. seed: of the last two.

    >>> model = nn.Linear(4, 2)
    >>> model.load_state_dict({"weight": torch.zeros(2, 4), "bias": torch.tensor([0.0, 0.1])})
    <All keys matched successfully>
    >>> regulated = HomeostaticLR(torch.optim.SGD(model.parameters(), lr=0.1))
    >>> x, y = torch.ones(8, 4), torch.ones(8, dtype=torch.int64)
    >>> events = [regulated.step(model, x, y) for _ in range(12)]
    >>> [round(event.lr, 2) for event in events[::4]], sum(event.taken for event in events)
    ([0.1, 0.14, 0.18], 11)

    Reference: Man, Damasio & Neven (2022), arXiv 2205.08645; `HomeostaticLR.paper(...)` has all of their settings.
    Differs from the paper in: "next_batch", a ceiling, labels that are remembered as they were shown.
    """

    name = "homeostatic_lr"
    parts = ("lr", "batches", "rows", "remembered_x", "remembered_y", "last", "item", "effects", "felt", "counted")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | Descent,
        *,
        effect: Effect = None,
        step: float | None = None,
        memory: int = 20,
        every: float = 1,
        evaluate_on: str = "next_batch",
        signal: str = "loss",
        gradient: str = "batch",
        min_lr: float = 1e-8,
        max_lr: float = 0.5,
        relabel: bool = False,
        epoch: int | None = None,
        suffers: str = "true",
        shuffle: bool = False,
        seed: int = 0,
        owner: str = "HomeostaticLR",
    ):
        self.owner = owner
        self._steps = Steps(owner, optimizer)
        start = self._steps.start
        self.by = start / 10.0 if step is None else step
        check_range(owner, "step", self.by, 0.0, fix="Use every=inf to leave the rate alone.")
        if self.by == 0:
            raise ArgumentError(f"{owner}: step must be above 0, got {step!r}. Use every=inf to leave the rate alone.")
        check_count(owner, "memory", memory)
        if every != math.inf:
            check_count(owner, "every", every)
        if epoch is not None:
            check_count(owner, "epoch", epoch)
        check_range(owner, "min_lr", min_lr, 0.0)
        if not isinstance(max_lr, (int, float)) or not min_lr < max_lr:
            raise ArgumentError(f"{owner}: max_lr must be above min_lr={min_lr:g}, got {max_lr!r}.")
        if not min_lr <= start <= max_lr:
            raise ArgumentError(
                f"{owner}: the optimiser's lr={start:g} must lie within min_lr={min_lr:g} and max_lr={max_lr:g}."
            )
        choices = {"evaluate_on": EVALUATE_ON, "signal": SIGNALS, "gradient": GRADIENTS, "suffers": SUFFERS}
        given = {"evaluate_on": evaluate_on, "signal": signal, "gradient": gradient, "suffers": suffers}
        for argument, allowed in choices.items():
            if given[argument] not in allowed:
                told = ", ".join(map(repr, allowed))
                raise ArgumentError(f"{owner}: {argument} must be one of {told}, got {given[argument]!r}.")
        self.effect, self.memory, self.every, self.min_lr, self.max_lr = effect, memory, every, min_lr, max_lr
        self.evaluate_on, self.signal, self.gradient = evaluate_on, signal, gradient
        self.relabel, self.epoch, self.suffers, self.shuffle, self.seed = bool(relabel), epoch, suffers, bool(shuffle), seed
        self.effects: list[int] = []  # by class, [] until the first batch tells how many there are
        self._imagination: Imagination | None = None
        self.lr = start
        self.batches = 0
        self.rows = 0  # of the epoch, or of all
        self.remembered_x: X | None = None  # the last rows, with labels as they were shown
        self.remembered_y: Tensor | None = None
        self.last: list[Tensor | None] = []  # direction of the last step, [] where it is not needed
        self.item: list[int] = []  # [recognised, true] class of the last row of the last batch
        self.felt = 0  # sum of effects over labelled rows
        self.counted = 0

    @classmethod
    def paper(cls, optimizer: torch.optim.Optimizer | Descent, *, epoch: int | None = None, **others: Any) -> Self:
        """The published rule: 20 remembered rows, accuracy, the first sample's gradient, no ceiling. epoch: rows of one."""
        published = {"evaluate_on": "memory", "signal": "accuracy", "gradient": "first_sample", "max_lr": math.inf}
        return cls(optimizer, **(published | {"relabel": True, "epoch": epoch} | others))

    def step(self, model: nn.Module, x: X, y: Tensor) -> RegulationEvent:
        """Decide on the rate, then take one step of cross-entropy on the batch. Where the loss is not finite nothing is done.

        Raises InputError for an empty batch or a label without an effect, ArgumentError for another model than the optimiser's.
        """
        labels = self._steps.check(model, x, y)
        if self.effects and max(labels) >= len(self.effects):
            raise InputError(f"{self.owner}: label {max(labels)} has no effect; allowed: 0..{len(self.effects) - 1}.")
        if self._imagination is None or self._imagination.model is not model:
            self._imagination = Imagination(model)
        unseen = None  # compared before normalisation layers see the batch; other networks need not be asked twice
        if not self._imagination.steady and self.item and self._due and self.evaluate_on == "next_batch":
            unseen = self._unseen(self._imagination, x, y, None)
        look = self._steps.look(model, x, y, labels)
        if not look.finite:
            return RegulationEvent(self.lr, look.loss, finite=False)
        if not self.effects:
            self.effects = list(effects_of(self.owner, self.effect, look.logits.shape[1]))
        if self.epoch is not None and self.rows >= self.epoch:
            self.restart()
        event = self._decide(self._imagination, x, y, look, unseen)
        self.lr = event.lr
        self._steps.set(self.lr)
        self._learn(x, y, look, labels)
        return event

    def restart(self) -> None:
        """An epoch begins: nothing is decided until the memory is full again."""
        self.rows, self.remembered_x, self.remembered_y = 0, None, None

    def announce(self, mapping: Sequence[int]) -> None:
        """Labels change their meaning: class c is called mapping[c] from now on. Rewrites the memory where relabel=True."""
        if self.relabel and self.remembered_y is not None:
            self.remembered_y = torch.as_tensor(mapping, dtype=torch.int64)[self.remembered_y]

    @property
    def balance(self) -> float:
        """Mean effect of the labels seen; far from 0 the rate is pushed one way, whatever is learned."""
        return self.felt / self.counted if self.counted else 0.0

    def state_dict(self) -> dict[str, Any]:
        """All state but the optimiser's: rate, memory, last direction, counts."""
        return capture(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from such a state. Raises StateError where it does not fit."""
        load(self, state)
        self._steps.set(self.lr)

    # ---- the decision ------------------------------------------------------------------------------------------------------

    @property
    def _due(self) -> bool:
        return self.every != math.inf and self.batches % self.every == 0

    def _other(self, recognised: int) -> float:
        """The rate after the effect that is imagined."""
        return self._clipped(self.lr + self.effects[recognised] * self.by)

    def _decide(self, imagination: Imagination, x: X, y: Tensor, look: Look, futures: Futures | None) -> RegulationEvent:
        """What happens to the rate at this batch; futures: the two signals where they are known already."""
        if not self._due:
            return RegulationEvent(self.lr, look.loss)
        on_memory = self.evaluate_on == "memory"
        if on_memory:
            if self.remembered_y is None or self.rows <= self.memory or len(self.remembered_y) < self.memory:
                return RegulationEvent(self.lr, look.loss)
            item = [int(look.logits[0].argmax()), int(y[0])]
        else:
            if not self.item:
                return RegulationEvent(self.lr, look.loss)
            item = self.item
        effects = self.effects
        if futures is None:
            futures = self._remembered(imagination, x, y, look) if on_memory else self._unseen(imagination, x, y, look)
        if futures is None:
            return RegulationEvent(self.lr, look.loss)
        leave, take = futures
        better = take < leave if self.signal == "loss" else take > leave
        wrong = effects[item[0]] != effects[item[1]]
        lr, aim = self.lr, self.lr
        if better:
            aim = self.lr + self._suffered(item) * self.by
            lr = self._clipped(aim)
        return RegulationEvent(lr, look.loss, (leave, take), better, *item, wrong=better and wrong, clipped=lr != aim)

    def _unseen(self, imagination: Imagination, x: X, y: Tensor, look: Look | None) -> Futures:
        """Signals on a batch that nothing was learned from: of the weights as they are, and had the last step used the other rate."""
        labels, other = self._shuffled(y), self._other(self.item[0])
        if look is not None and self.signal == "loss" and not self.shuffle:
            leave = float(look.loss)
        else:
            leave = self._signal(imagination.scores(x) if look is None else look.logits, labels)
        if other == self.lr:  # at the floor or the ceiling both futures are one
            return leave, leave
        return leave, self._signal(imagination.scores(x, self.last, other - self.lr), labels)

    def _remembered(self, imagination: Imagination, x: X, y: Tensor, look: Look) -> Futures | None:
        """Signals on the memory of two steps to come, with the rate as it is and with the other."""
        seen, labels, other = self.remembered_x, self._shuffled(self.remembered_y), self._other(int(look.logits[0].argmax()))
        count, first = len(y), self.gradient == "first_sample"
        chain = imagination.chain
        if first and chain is not None and self._steps.plain and isinstance(x, Tensor):
            with torch.no_grad():
                inputs, errors = chain.slopes(x[:1], y[:1])
                both = chain.moved(seen, inputs, errors, [self.lr / count, other / count])
            if self.signal == "accuracy":
                leave, take = (both.argmax(2) == labels).sum(1).tolist()
                return leave / len(labels), take / len(labels)
            return self._signal(both[0], labels), self._signal(both[1], labels)
        gradients = look.gradients
        if first:
            one = slice(0, 1)
            gradients = [part if part is None else part / count for part in imagination.gradient(rows(x, one), y[one])]
        shift = self._steps.ahead(gradients) or self.last
        if not shift:
            return None
        leave = self._signal(imagination.scores(seen, shift, self.lr), labels)
        return leave, self._signal(imagination.scores(seen, shift, other), labels)

    def _signal(self, logits: Tensor, labels: Tensor) -> float:
        if self.signal == "loss":
            return float(cross_entropy(logits, labels))
        return int((logits.argmax(1) == labels).sum()) / len(labels)

    def _suffered(self, item: Sequence[int]) -> int:
        """The effect that is felt once the object is taken."""
        if self.suffers == "random":
            return 2 * int(torch.randint(2, (1,), generator=generator(self.seed, "suffers", self.batches))) - 1
        return self.effects[item[0] if self.suffers == "predicted" else item[1]]

    def _shuffled(self, labels: Tensor) -> Tensor:
        if not self.shuffle:
            return labels
        return labels[torch.randperm(len(labels), generator=generator(self.seed, "shuffle", self.batches))]

    def _clipped(self, lr: float) -> float:
        return min(max(lr, self.min_lr), self.max_lr)

    # ---- the step and what is kept of it -------------------------------------------------------------------------------------

    def _learn(self, x: X, y: Tensor, look: Look, labels: Sequence[int]) -> None:
        """Take the step, and remember what the next decision needs."""
        deciding, on_memory = self.every != math.inf, self.evaluate_on == "memory"
        if deciding and (not on_memory or not self._steps.foresees):
            self.last = self._steps.follow_and_tell(look.gradients, self.lr)
        else:
            self._steps.follow(look.gradients)
        if deciding and on_memory:
            self._remember(x, y)
        elif deciding:
            self.item = [int(look.logits[-1].argmax()), labels[-1]]
        self.batches += 1
        self.rows += len(y)
        before = self.counted
        self.counted += len(y)
        self.felt += sum([self.effects[label] for label in labels])
        if before < BALANCED_AFTER <= self.counted and abs(self.balance) > UNBALANCED:
            warnings.warn(
                f"{self.owner}: the mean effect of {self.counted} labels is {self.balance:+.2f}, so the rate is pushed one way. "
                "Give effects that frequent classes share evenly.",
                stacklevel=3,
            )

    def _remember(self, x: X, y: Tensor) -> None:
        """Keep the last rows, with their labels as they were shown."""
        if self.remembered_y is None or self.remembered_x is None:
            seen, labels = x, y
        else:
            seen, labels = join(self.remembered_x, x), torch.cat([self.remembered_y, y])
        newest = slice(max(0, size(seen) - self.memory), size(seen))
        self.remembered_x = map_x(Tensor.clone, rows(seen, newest))
        self.remembered_y = labels[newest].clone()
