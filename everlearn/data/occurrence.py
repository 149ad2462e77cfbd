"""How often classes come back, and which of them ever meet: the facts of a stream of many small tasks.

    a task has n of N equally likely classes:   expected gap N / n tasks,   P(a class unseen after T tasks) = (1 - n/N)^T
    tasks until every class has come, E_0:      E_k = (1 + sum_{m >= 1} h_k(m) E_{k+m}) / (1 - h_k(0)),   E_N = 0,
                                                h_k(m) = C(N-k, m) C(k, n-m) / C(N, n): m of n classes are new after k came

The co-occurrence graph has an edge between two classes that were in one task. A loss that masks the classes absent from a batch
never compares classes of different components, so that the head cannot rank them.

Reference: Lesort et al. (2023), Challenging common assumptions about catastrophic forgetting, arXiv 2207.04543.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, check_count
from everlearn.core.stream import Stream

SHOWN = 5  # groups, and classes of each, that a warning names


@dataclass(frozen=True, eq=False)
class CoOccurrence:
    """Which classes were in one task.

    meetings: (classes, classes) int64, the tasks that had both; on the diagonal those that had the class at all.

    >>> tasks = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]], dtype=torch.bool)
    >>> graph = CoOccurrence.of(tasks)
    >>> graph.components, graph.connected
    (((0, 1, 2), (3, 4)), False)
    """

    meetings: Tensor

    @classmethod
    def of(cls, occurrences: Tensor) -> "CoOccurrence":
        """The graph of some tasks; occurrences: (tasks, classes), whether a task had a class."""
        present = occurrences.to(torch.float64)  # exact, and quick to multiply
        return cls((present.T @ present).to(torch.int64))

    @cached_property
    def components(self) -> tuple[tuple[int, ...], ...]:
        """Classes linked through shared tasks, the largest group first. Classes that no task had are left out."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        _, labels = connected_components(csr_array(self.meetings.numpy() > 0), directed=False)
        groups: dict[int, list[int]] = {}
        for label in self.meetings.diagonal().nonzero().flatten().tolist():
            groups.setdefault(int(labels[label]), []).append(label)
        return tuple(sorted(map(tuple, groups.values()), key=lambda group: (-len(group), group)))

    @property
    def connected(self) -> bool:
        """Whether every two classes that came are linked, directly or through others."""
        return len(self.components) <= 1

    @property
    def edges(self) -> frozenset[tuple[int, int]]:
        """The pairs of classes that met, the smaller number first."""
        return frozenset(map(tuple, self.meetings.triu(1).nonzero().tolist()))


@dataclass(frozen=True)
class Recurrence:
    """What is known of how classes come back in a stream of tasks.

    tasks, classes: their numbers; classes_per_task: mean number; expected_gaps: tasks from one occurrence of each class to the
    next, None for a class that never comes; connected, components: of the co-occurrence graph, see `CoOccurrence`;
    coverage: expected tasks until every class has come, where draws are equal and independent.
    """

    tasks: int
    classes: int
    classes_per_task: float
    expected_gaps: tuple[float | None, ...]
    connected: bool
    components: tuple[tuple[int, ...], ...]
    coverage: float | None = None


def unseen_probability(classes: int, per_task: int, tasks: int) -> float:
    """(1 - n/N)^T: the probability that a class was in none of T tasks of n of N equally likely classes.

    >>> round(unseen_probability(10, 2, 50), 8)
    1.427e-05
    """
    _check(classes, per_task)
    check_count("unseen_probability", "tasks", tasks, low=0)
    return (1.0 - per_task / classes) ** tasks


def expected_coverage(classes: int, per_task: int = 1) -> float:
    """Expected number of tasks of n of N equally likely classes until every class has come.

    The sum sum_j (-1)^{j+1} C(N, j) / (1 - C(N-j, n) / C(N, n)) gives the same, and loses all digits in floating point for
    many classes; the recursion has positive terms only.

    >>> round(expected_coverage(10, 2), 6)
    14.123362
    """
    _check(classes, per_task)
    total = comb(classes, per_task)
    left = [0.0] * (classes + 1)  # expected tasks still to come once that many classes have
    for came in range(classes - 1, -1, -1):
        new = range(max(1, per_task - came), min(per_task, classes - came) + 1)
        chances = {count: comb(classes - came, count) * comb(came, per_task - count) / total for count in new}
        stay = comb(came, per_task) / total
        left[came] = (1.0 + sum(chance * left[came + count] for count, chance in chances.items())) / (1.0 - stay)
    return left[0]


def mask_warning(stream: Stream) -> str | None:
    """A sentence for those who train on a stream with a loss masked by batch, where its tasks never let some classes meet.

    None where every class is linked to every other, and for streams that know nothing of how their classes come back.
    """
    facts = getattr(stream, "recurrence", None)
    if facts is None or facts.connected:
        return None
    if facts.classes_per_task == 1:
        return (
            f"{stream.name}: every task has one class, and a loss masked by batch is 0 there: nothing is learned. "
            "Use loss=plain(), or classes_per_task=2 or more."
        )
    names = stream.schema.classes
    groups = " | ".join(_listed([names[label] for label in group], ", ") for group in facts.components[:SHOWN])
    more = len(facts.components) - SHOWN
    return (
        f"{stream.name}: its classes fall into {len(facts.components)} groups that never share a task "
        f"({groups}{f' | and {more} more' if more > 0 else ''}). A loss masked by batch never compares classes of different "
        "groups, so the head cannot rank them. Use loss=plain(), or a stream in which classes meet, such as structure='random'."
    )


def _listed(names: Sequence[str], between: str) -> str:
    rest = len(names) - SHOWN
    return between.join(names[:SHOWN]) + (f"{between}and {rest} more" if rest > 0 else "")


def _check(classes: int, per_task: int) -> None:
    check_count("recurrence", "classes", classes)
    check_count("recurrence", "classes_per_task", per_task)
    if per_task > classes:
        raise ArgumentError(
            f"recurrence: classes_per_task={per_task} is more than the {classes} classes. Use {classes} or fewer."
        )
