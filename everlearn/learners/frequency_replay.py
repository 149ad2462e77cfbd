"""Frequency replay: on a stream of tasks that come back, replay the classes that come too rarely, and no others.

Before a task, classes whose frequency lies in a band are chosen, at most as many as the task has itself; their stored rows are
mixed into the task's. A masked loss then lets them compete with the task's classes.

Reference: Lesort et al. (2023), Challenging common assumptions about catastrophic forgetting and knowledge accumulation, arXiv
2207.04543.
"""

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, check_count, check_range, closest
from everlearn.core.events import Batch, Boundary, Metrics, X, join, rows
from everlearn.core.guard import Guard, count_outputs
from everlearn.core.learner import Learner
from everlearn.core.random import generator
from everlearn.data.frequency import Frequencies, Refreshed, RefreshedKeeper
from everlearn.data.memory import Memory, Ring
from everlearn.nn.criteria import Loss, Plain
from everlearn.optim.descent import Descent
from everlearn.optim.optimizers import SGD, Optimizer

WEIGHTS = ("count", "accuracy")
SELECTIONS = ("frequency", "random")


class FrequencyReplay(Learner):
    """Learns from each batch; in tasks before which rare classes were chosen, their rows are mixed in. Needs boundaries.

    model: maps x to (batch, classes) scores; per_class: rows kept of each class, 200; low, high: the band of frequencies, above
    0.01 and up to 0.1; min_occurrences: tasks with a class before it is chosen, 3; weight: "count", or "accuracy": a task counts
    for a class by its accuracy at the task's end on rows set aside, so that badly learned classes look rarer (1 where it has
    none); validation: the part of the rows, and of those to replay, that is set aside for it, 0.1; select: "frequency", or
    "random": a number of classes ~ Binomial(classes of the task, replay_budget), any of those seen: the baseline; loss: `plain()`
    or `masked(scope="batch")`; optimizer: `sgd(...)` or `adam(...)`; passes: gradient steps per batch, each with the rows to
    replay. Values are the published ones.

    Boundaries tell the classes of a task (or bring its rows); where one tells neither, nothing is replayed in its task. With its
    rows it also tells their number, over which the stored rows are spread; without, each batch takes as many as it has itself.
    Replay at most doubles the rows looked at where tasks have at least per_class rows of each of their classes.

    >>> import torch
    >>> from everlearn import Batch, Boundary, FrequencyReplay
    >>> learner = FrequencyReplay(torch.nn.Linear(4, 20), per_class=5)
    >>> for task in range(40):
    ...     label = 0 if task % 13 == 5 else 1 + task % 2
    ...     learner.boundary(Boundary(task, classes=(label,)))
    ...     metrics = learner.update(Batch(torch.rand(8, 4), torch.full((8,), label)))
    >>> learner.memory.stored, learner.frequencies.occurrences[0], learner.memory.replayed
    (15, 4, 5)

    Reference: Lesort et al. (2023), arXiv 2207.04543.
    Differs from the paper in: rows to replay are mixed batch by batch, in steps no larger than the batch, instead of over the
    whole task; rows set aside are the newest of a task, as many as validation * per_class for each class of the model, and a
    budget counts them as kept.
    """

    name = "frequency_replay"
    parts = ("descent", "guard", "criterion", "memory", "aside", "frequencies", "random", "learned", "queue", "judged")
    parts += ("rows", "came", "withheld", "taken", "begun")
    needs_boundaries = True

    def __init__(
        self,
        model: nn.Module,
        *,
        per_class: int = 200,
        low: float = 0.01,
        high: float = 0.1,
        min_occurrences: int = 3,
        weight: str = "count",
        validation: float = 0.1,
        select: str = "frequency",
        replay_budget: float = 0.1,
        loss: Loss = Plain(),
        optimizer: Optimizer = SGD(),
        passes: int = 1,
        seed: int = 0,
    ):
        check_count(self.name, "per_class", per_class, fix="Use fine_tune(model) to learn without replay.")
        check_count(self.name, "min_occurrences", min_occurrences)
        check_count(self.name, "passes", passes)
        for key, value in (("low", low), ("high", high), ("validation", validation), ("replay_budget", replay_budget)):
            check_range(self.name, key, value, 0.0, 1.0)
        if low > high:
            raise ArgumentError(f"{self.name}: low must be at most high, got low={low} and high={high}.")
        for key, value, known in (("weight", weight, WEIGHTS), ("select", select, SELECTIONS)):
            if value not in known:
                raise ArgumentError(closest(f"{self.name}: {key}", str(value), known))
        if weight == "accuracy" and not 0 < validation < 1:
            raise ArgumentError(
                f"{self.name}: weight='accuracy' needs validation between 0 and 1, both left out, got {validation}. "
                "Use validation=0.1, or weight='count'."
            )
        classes = count_outputs(model)
        self.per_class = per_class
        self.low = low
        self.high = high
        self.min_occurrences = min_occurrences
        self.weight = weight
        self.validation = validation
        self.select = select
        self.replay_budget = replay_budget
        self.loss = loss
        self.optimizer = optimizer
        self.passes = passes
        self.seed = seed
        self.descent = Descent(model, optimizer, seed)
        self.guard = Guard(self.name, classes, model=model)
        self.criterion = loss.make(self.name)
        self.memory = Memory(per_class * (classes or 1), keep=Refreshed(per_class), seed=seed)
        self.aside: Memory | None = None  # rows never learned from, by which a task is judged at its end
        if weight == "accuracy":
            self.aside = Memory(max(1, round(validation * self.memory.capacity)), keep=Ring(), seed=seed)
        self.frequencies = Frequencies(low, high, min_occurrences)
        self.random = generator(seed, "frequency")
        self.learned: list[int] = []  # classes learned in the present task, replayed ones included
        self.queue: list[int] = []  # slots to replay in it
        self.judged: list[int] = []  # slots of the chosen classes that are set aside in it
        self.rows = 0  # rows of it, where they are told
        self.came = 0  # rows of it that came
        self.withheld = 0  # of these, set aside
        self.taken = 0  # rows replayed in it
        self.begun = False

    @property
    def keeper(self) -> RefreshedKeeper:
        """What says which rows of each class stay."""
        return self.memory.keeper

    def predict(self, x: X) -> Tensor:
        self.guard.inputs(x)
        return self.descent.predict(x)

    def update(self, batch: Batch) -> Metrics:
        self.guard.batch(batch)
        if batch.y is None:
            return {}
        x, y = self._withhold(batch.x, batch.y)
        slots = self._due(len(batch))
        if not len(y):
            return {}
        self._note(y)
        for _ in range(self.passes):
            loss = self._learn(x, y, slots)
        self.memory.insert(x=x, y=y)
        return {"loss": loss}

    def boundary(self, boundary: Boundary) -> None:
        """The task so far is counted, and the rare classes of the next are chosen."""
        self.criterion.hear(boundary)
        if self.begun:
            self.frequencies.record(self._weights())
        data = boundary.data
        current = list(boundary.classes)
        if not current and data is not None and data.y is not None:
            current = data.y.unique().tolist()
        self.begun = True
        self.learned, self.rows = [], 0 if data is None else len(data)
        self.came, self.withheld, self.taken = 0, 0, 0
        chosen = self.frequencies.select(current) if self.select == "frequency" else self._any(len(current))
        slots = self.keeper.slots(chosen)
        mixed = [slots[place] for place in torch.randperm(len(slots), generator=self.random).tolist()]
        aside = 0 if self.aside is None else round(self.validation * len(mixed))
        self.judged, self.queue = mixed[:aside], mixed[aside:]
        self.keeper.begin()

    def _any(self, count: int) -> list[int]:
        """Classes at random: how many is binomial, which of those seen is uniform."""
        seen = sorted(self.frequencies.counts)
        wanted = int((torch.rand(count, generator=self.random) < self.replay_budget).sum())
        return [seen[place] for place in torch.randperm(len(seen), generator=self.random).tolist()[:wanted]]

    def _withhold(self, x: X, y: Tensor) -> tuple[X, Tensor]:
        """The rows to learn from. Where accuracy counts, the last ones are set aside, so that of each task a fixed part is."""
        self.came += len(y)
        if self.aside is None:
            return x, y
        aside = min(int(self.validation * self.came) - self.withheld, len(y))
        if not aside:
            return x, y
        self.withheld += aside
        self.aside.insert(x=rows(x, slice(-aside, None)), y=y[-aside:])
        return rows(x, slice(None, -aside)), y[:-aside]

    def _due(self, count: int) -> list[int]:
        """The slots to replay beside `count` rows that come: an equal part of the queue for each part of the task."""
        if not self.queue:
            return []
        upto = round(len(self.queue) * self.came / self.rows) if self.rows else self.taken + count
        places = dict.fromkeys(place % len(self.queue) for place in range(self.taken, upto))
        self.taken = upto
        return [self.queue[place] for place in places]

    def _note(self, y: Tensor) -> None:
        self.learned = sorted({*self.learned, *y.tolist()})

    def _learn(self, x: X, y: Tensor, slots: list[int]) -> Tensor:
        """One step, or as many of the batch's size as the mixed rows take. Returns the mean loss."""
        if not slots:
            return self.descent(lambda: self.criterion(self.descent.model(x), y))
        drawn = self.memory.pick(slots)
        self._note(drawn["y"])
        mixed, labels = join(x, drawn["x"]), torch.cat([y, drawn["y"]])
        order = torch.randperm(len(labels), generator=self.random).to(labels.device)
        steps = -(-len(labels) // len(y))
        losses = []
        for part in order.tensor_split(steps):
            inputs, targets = rows(mixed, part), labels[part]
            losses.append(
                self.descent(lambda inputs=inputs, targets=targets: self.criterion(self.descent.model(inputs), targets))
            )
        return torch.stack(losses).mean()

    def _weights(self) -> dict[int, float]:
        """What the task that ends counts for each class learned in it."""
        found: dict[int, list[bool]] = {}
        if self.aside is not None:
            newest = range(min(self.withheld, self.aside.stored))
            self._score(self.aside, [(self.aside.seen - 1 - back) % self.aside.stored for back in newest], found)
            self._score(self.memory, self.judged, found)
        return {label: sum(found[label]) / len(found[label]) if label in found else 1.0 for label in self.learned}

    def _score(self, memory: Memory, slots: list[int], found: dict[int, list[bool]]) -> None:
        """Note for each class which of its rows in these slots are answered rightly."""
        if not slots:
            return
        held, index = memory.rows(), torch.tensor(slots, device=memory.device)
        y = held["y"][index]
        hits = self.descent.predict(rows(held["x"], index)).argmax(1) == y
        for label, hit in zip(y.tolist(), hits.tolist(), strict=True):
            found.setdefault(label, []).append(hit)
