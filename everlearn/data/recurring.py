"""Streams of many small tasks in which classes come back: `recurring`.

Task t has n of the N classes, all rows of these (or some), and opens with a Boundary; learners are judged every few tasks on the
test rows of all N classes. Which classes come is a `Schedule` in class_schedule.py, how often they come back is told in
occurrence.py. The walk of the classes is made once, (tasks, n) integers; which rows of a class a task uses, and their order, is
drawn from (seed, task, pass) when the task is asked for, and no row is copied before a batch is.

Reference: Lesort et al. (2023), Challenging common assumptions about catastrophic forgetting, arXiv 2207.04543.
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.events import Batch, Boundary, Event
from everlearn.core.random import derive, generator
from everlearn.core.stream import HeldOut, Stream
from everlearn.data.class_schedule import Drawn, Imbalanced, Schedule
from everlearn.data.corruption import Corrupted, check_corruptible
from everlearn.data.dataset import Data
from everlearn.data.indexed import HeldOutSets, Session, place
from everlearn.data.naming import check_data, check_sizes, named
from everlearn.data.occurrence import CoOccurrence, Recurrence, expected_coverage
from everlearn.data.task_rows import TaskRows, check_lifelong, environments, keep_classes
from everlearn.data.task_structure import check_structure, class_weights, make_schedule


@named
def recurring(
    data: Data,
    *,
    tasks: int = 500,
    classes_per_task: int = 2,
    batch: int = 64,
    epochs: int = 1,
    class_prob: str | tuple[float, ...] | Imbalanced = "uniform",
    structure: str = "random",
    mix: float | None = None,
    prob_reduction: float = 1.0,
    samples_per_class: int | None = None,
    replacement: bool = False,
    transform: Corrupted | None = None,
    drop_after: tuple[int, tuple[int, ...]] | None = None,
    subset: int | None = None,
    boundaries: bool = True,
    validation: float = 0.1,
    evaluate_every: int = 10,
    test: float = 0.2,
    seed: int = 0,
) -> Stream:
    """Many small tasks whose classes come back, judged on all classes whether they have come or not.

    class_prob: "uniform", a tuple with the probability of each class, or imbalanced(exponent=2), shuffled over the classes;
    prob_reduction: what the probability of a class is divided by after each task that had it; structure:

    - "random": classes drawn without replacement, anew for each task;
    - "cycle": all combinations in lexicographic order and again, each class replaced by a drawn one with probability mix (0);
    - "pairs": tasks drawn from a fixed part mix (0.1) of all combinations, so that most classes never meet;
    - "partition": the same disjoint tasks in the same order, again and again;
    - "periods": the first half of the classes in the first half of the run, the others in the second;
    - "iid": all classes in every task, and as many rows as a task of classes_per_task classes has: the reference;
    - "lifelong": classes are the superclasses of the data set; task t has one fine class of each, number t mod their count.

    samples_per_class: rows of each class in a task, all unless given; replacement: rows may come twice in a task;
    validation: the part of each class's rows in a task that is set aside and not trained on, drawn anew for each task (over a
    long run every row is trained on: never tune by it); transform: corrupted(severity=1), one corruption per task, test rows
    stay clean; drop_after: (task, classes) that never come from that task on; subset: a number of classes, drawn by the seed,
    instead of all; boundaries: whether a Boundary with the classes and rows opens each task; evaluate_every: tasks between two
    checkpoints; batch: rows; epochs: passes over each task; test: the part of each class held out (where the data set has no
    test part of its own). Deployed after the first task. Raises ArgumentError, DataError.

    >>> from everlearn import load
    >>> stream = recurring(load("digits"), tasks=100)
    >>> stream.classes_of(17), stream.recurrence.connected, stream.expected_gap()[0].item()
    ((2, 7), True, 5.0)

    Reference: Lesort et al. (2023), arXiv 2207.04543.
    Differs from the paper in: "iid" takes no more rows per task than the other structures; rows set aside are an equal part of
    each class; learners are judged every evaluate_every tasks instead of after every epoch.
    """
    check_data("recurring", data)
    check_sizes("recurring", batch=batch, epochs=epochs, test=test)
    mix = check_structure(tasks, classes_per_task, structure, mix, class_prob, prob_reduction)
    check_count("recurring", "evaluate_every", evaluate_every)
    check_range("recurring", "validation", validation, 0.0, 1.0)
    if validation == 1:
        raise ArgumentError("recurring: validation=1 leaves nothing to learn from. Use validation=0.1.")
    if samples_per_class is not None:
        check_count("recurring", "samples_per_class", samples_per_class)
    if transform is not None:
        check_corruptible("recurring", data, transform)
    lifelong = structure == "lifelong"
    if lifelong:
        check_lifelong(data)
    if subset is not None:
        data = keep_classes(data, subset, lifelong, seed)
    train, judged, groups = environments(*data.split(test, derive(seed, "test")), lifelong)
    weights = class_weights(class_prob, [len(own) > 0 for own in groups], train.classes, seed)
    schedule = make_schedule(structure, weights, tasks, classes_per_task, mix, prob_reduction, drop_after, seed)
    rows = TaskRows(
        groups,
        train.classes,
        weights > 0,
        per_class=samples_per_class,
        replacement=replacement,
        share=classes_per_task / int((weights > 0).sum()) if structure == "iid" else 1.0,
        validation=validation,
        seed=seed,
    )
    return Recurring(
        train,
        HeldOutSets(judged, [Session(0, len(judged))], ["all classes"]),
        schedule,
        rows,
        tasks=tasks,
        batch=batch,
        epochs=epochs,
        announced=bool(boundaries),
        transform=transform,
        evaluate_every=evaluate_every,
        seed=seed,
    )


class Recurring(Stream):
    """The stream behind `recurring`. Tasks are numbered from 0; `rows` and `classes_of` need none of those before."""

    def __init__(
        self,
        data: Data,
        held_out: Sequence[HeldOut],
        schedule: Schedule,
        rows: TaskRows,
        *,
        tasks: int,
        batch: int,
        epochs: int,
        announced: bool,
        transform: Corrupted | None,
        evaluate_every: int,
        seed: int,
    ):
        self.name = data.name
        self.schema = data.schema
        self.held_out = held_out
        self.boundaries = announced
        self.tasks = tasks
        self.batch = batch
        self.epochs = epochs
        self.transform = transform
        self._data, self._schedule, self._rows, self._seed = data, schedule, rows, seed
        self._walk = schedule.walk(0, tasks)
        self._sizes = rows.sizes(self._walk)
        batches = announced + epochs * -(-self._sizes // batch)
        self._ends = batches.cumsum().tolist()
        every = range(evaluate_every, tasks, evaluate_every)
        self.checkpoints = tuple(self._ends[number - 1] for number in sorted({*every, tasks}))
        self.deployed = self._ends[0]
        self._latest: tuple[int, int, Tensor] | None = None  # (task, pass, rows): kept until another is asked for

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Event:
        index = place(index, len(self))
        task = bisect_right(self._ends, index)
        step = index - (self._ends[task - 1] if task else 0) - self.boundaries
        if step < 0:
            return Boundary(task, self.classes_of(task), self._batch(self.rows(task), task, step))
        turn, number = divmod(step, -(-int(self._sizes[task]) // self.batch))
        rows = self.rows(task, turn)[number * self.batch : (number + 1) * self.batch]
        return self._batch(rows, task, step)

    def _batch(self, rows: Tensor, task: int, step: int) -> Batch:
        x, time = self._data.x.index_select(0, rows), self._data.time
        if self.transform is not None:
            x = self.transform(x, self._seed, task, step)
        return Batch(x, self._data.y.index_select(0, rows), time=None if time is None else time.index_select(0, rows))

    def sizes(self) -> list[int]:
        """The number of rows of each event, 0 for a boundary, without making the events."""
        counts: list[int] = []
        for size in self._sizes.tolist():
            whole, rest = divmod(size, self.batch)
            counts += [0] * self.boundaries + ([self.batch] * whole + [rest] * (rest > 0)) * self.epochs
        return counts

    def classes_of(self, task: int) -> tuple[int, ...]:
        """The classes of a task, rising."""
        return tuple(label for label in self._walk[place(task, self.tasks)].tolist() if label >= 0)

    def rows(self, task: int, turn: int = 0) -> Tensor:
        """(rows,) int64: the training rows of a task in the order of a pass, as numbers of the training part. Copies no row."""
        task = place(task, self.tasks)
        if self._latest is None or self._latest[:2] != (task, turn):
            train, _ = self._rows.of(task, self.classes_of(task))
            order = torch.randperm(len(train), generator=generator(self._seed, "pass", task, turn))
            self._latest = (task, turn, train[order])
        return self._latest[2]

    def validation_rows(self, task: int) -> Tensor:
        """(rows,) int64: the rows of a task that are set aside, as numbers of the training part."""
        task = place(task, self.tasks)
        return self._rows.of(task, self.classes_of(task))[1]

    def validation(self, task: int) -> Batch:
        """The rows of a task that are set aside, uncorrupted. In other tasks they are trained on: never tune by them."""
        rows = self.validation_rows(task)
        return Batch(self._data.x.index_select(0, rows), self._data.y.index_select(0, rows))

    def occurrences(self) -> Tensor:
        """(tasks, classes) bool: which classes each task has."""
        found = numpy.zeros((self.tasks, self.schema.outputs + 1), dtype=bool)  # the last column takes the -1 of the walk
        found[numpy.arange(self.tasks)[:, None], self._walk] = True
        return torch.from_numpy(found[:, :-1].copy())

    def expected_gap(self) -> Tensor:
        """(classes,) float64: mean number of tasks from one occurrence of a class to the next, infinite where it never comes.

        N / n where classes are equally likely. Exact inclusion probabilities stand behind it otherwise, which are not n p_c;
        where probabilities depend on what has come before it is counted in the stream.
        """
        shares = self._schedule.shares(self.tasks)
        if shares is None:
            shares = self.occurrences().double().mean(0).numpy()
        return 1.0 / torch.from_numpy(numpy.ascontiguousarray(shares, dtype=numpy.float64))

    def co_occurrence(self) -> CoOccurrence:
        """The graph of classes that were in one task."""
        return CoOccurrence.of(self.occurrences())

    @cached_property
    def recurrence(self) -> Recurrence:
        """What is known of how classes come back, for reports."""
        graph, gaps = self.co_occurrence(), self.expected_gap().tolist()
        per_task = float((self._walk >= 0).sum()) / self.tasks
        return Recurrence(
            tasks=self.tasks,
            classes=self.schema.outputs,
            classes_per_task=per_task,
            expected_gaps=tuple(None if gap == float("inf") else gap for gap in gaps),
            connected=graph.connected,
            components=graph.components,
            coverage=self._coverage(),
        )

    def _coverage(self) -> float | None:
        """Expected tasks until every class has come, where draws are equal and independent."""
        schedule = self._schedule
        if not isinstance(schedule, Drawn) or schedule.reduction != 1.0 or len(schedule.spans) > 1:
            return None
        weights = schedule.spans[0][1]
        positive = weights[weights > 0]
        return None if numpy.ptp(positive) > 0 else expected_coverage(len(positive), schedule.per_task)
