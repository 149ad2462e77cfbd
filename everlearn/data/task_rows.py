"""Which rows a task of a recurring stream has: drawn from (seed, task), so that none of the tasks before is needed.

A class has its rows in one or more environments; task t uses environment t modulo their number. Of a class's rows in a task an
equal part is set aside for validation, at least one is left to learn from.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError, check_count
from everlearn.core.random import generator
from everlearn.data.dataset import Data
from everlearn.data.known_sets import superclasses
from everlearn.data.naming import present
from everlearn.data.pictures import take

Groups = list[list[Tensor]]  # [class][environment] -> row numbers


class TaskRows:
    """The rows of each class in each environment, and how many of them a task takes.

    groups[c][e]: row numbers of class c in environment e; names: of the classes; used: (classes,) whether a class ever comes;
    per_class: rows of a class in a task, None for all; share: the part of these that is taken; validation: the part of what is
    taken that is set aside.
    """

    def __init__(
        self,
        groups: Groups,
        names: Sequence[str],
        used: Sequence[bool],
        *,
        per_class: int | None,
        replacement: bool,
        share: float,
        validation: float,
        seed: int,
    ):
        self._groups = groups
        self._replacement = replacement
        self._seed = seed
        self.environments = numpy.array([max(1, len(own)) for own in groups])
        self.kept = numpy.zeros(
            (len(groups), self.environments.max()), dtype=numpy.int64
        )  # trained on, of a class in a task
        self.aside = numpy.zeros_like(self.kept)
        for label in numpy.flatnonzero(used):
            for number, own in enumerate(groups[label]):
                wanted = len(own) if per_class is None else per_class
                if wanted > len(own) and not replacement:
                    raise ArgumentError(
                        f"recurring: samples_per_class={per_class} is more than the {len(own)} rows of class {names[label]!r}"
                        f"{' in one of its environments' if len(groups[label]) > 1 else ''}. "
                        f"Use samples_per_class={len(own)} or fewer, or replacement=True."
                    )
                taken = max(1, round(wanted * share))
                distinct = min(taken, len(own))
                aside = min(round(distinct * validation), distinct - 1)
                self.aside[label, number], self.kept[label, number] = aside, taken - aside

    def sizes(self, walk: numpy.ndarray) -> numpy.ndarray:
        """(tasks,) rows that the tasks of a walk of classes train on; walk: (tasks, classes per task) from task 0, -1 for none."""
        number = numpy.arange(len(walk))[:, None] % self.environments[walk]
        return (self.kept[walk, number] * (walk >= 0)).sum(1)

    def of(self, task: int, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(training rows, rows set aside) of a task, class by class."""
        random = generator(self._seed, "rows", task)
        train, aside = [], []
        for label in classes:
            number = task % len(self._groups[label])
            own = self._groups[label][number]
            drawn = own[torch.randperm(len(own), generator=random)]
            split, kept = int(self.aside[label, number]), int(self.kept[label, number])
            aside.append(drawn[:split])
            if self._replacement:
                rest = drawn[split:]
                train.append(rest[torch.randint(len(rest), (kept,), generator=random)])
            else:
                train.append(drawn[split : split + kept])
        return torch.cat(train), torch.cat(aside)


def keep_classes(data: Data, count: int, coarse: bool, seed: int) -> Data:
    """The rows of some classes, drawn by the seed and numbered anew in their order.

    count: how many; coarse: whether superclasses are meant, all classes of which stay.

    >>> data = Data("pets", torch.zeros(3, 1), torch.tensor([0, 1, 2]), ("cat", "dog", "trout"))
    >>> keep_classes(data, 2, False, seed=0).y.tolist()
    [0, 1]
    """
    check_count("recurring", "subset", count, low=2)
    above = torch.tensor(data.coarse) if coarse else torch.arange(len(data.classes))
    pool = torch.tensor(present(data))
    kinds = above[pool].unique()
    if count > len(kinds):
        raise ArgumentError(f"recurring: subset={count} is more than the {len(kinds)} classes of {data.name}. Leave it out.")
    chosen = kinds[torch.randperm(len(kinds), generator=generator(seed, "subset"))[:count]]
    kept = pool[torch.isin(above[pool], chosen)].sort().values
    number = torch.full((len(data.classes),), -1)
    number[kept] = torch.arange(len(kept))
    found = data.take(number[data.y] >= 0)
    found = replace(found, y=number[found.y], classes=tuple(data.classes[label] for label in kept.tolist()))
    if data.coarse:
        kinds, coarse_of = torch.tensor(data.coarse)[kept].unique(return_inverse=True)
        names = tuple(data.coarse_classes[kind] for kind in kinds.tolist())
        found = replace(found, coarse=tuple(coarse_of.tolist()), coarse_classes=names)
    if data.test_x is None or data.test_y is None:
        return found
    rows = number[data.test_y] >= 0
    return replace(found, test_x=take(data.test_x, rows), test_y=number[data.test_y[rows]])


def environments(train: Data, judged: Data, lifelong: bool) -> tuple[Data, Data, Groups]:
    """(training rows, test rows, row numbers of each class in each environment).

    lifelong: labels become those of the superclasses, and each class that has rows is an environment of its superclass.
    """
    own = [(train.y == label).nonzero().flatten() for label in range(len(train.classes))]
    if not lifelong:
        return train, judged, [[rows] if len(rows) else [] for rows in own]
    groups: Groups = [[] for _ in train.coarse_classes]
    for rows, above in zip(own, train.coarse, strict=True):
        if len(rows):
            groups[above].append(rows)
    return superclasses(train, train.name), superclasses(judged, judged.name), groups


def check_lifelong(data: Data) -> None:
    """Refuse a data set that does not know which classes its superclasses hold."""
    if not data.coarse:
        raise DataError(
            f"recurring: structure='lifelong' needs a data set whose classes have superclasses, and {data.name} has none. "
            "Use cifar100_12k or omniglot_small with labels='fine', or structure='random'."
        )
