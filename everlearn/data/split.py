"""Scenarios in which classes come group by group: `split`, `tasks` (the group is told), `blurry` (the borders are blurred).

Group e brings its own classes; what was learned of earlier groups is judged to the end.

References: van de Ven et al. (2022), Three types of incremental learning, Nature Machine Intelligence 4; Bang et al. (2021),
Rainbow memory (blurry borders), arXiv 2103.17230.
"""

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, check_count, check_range
from everlearn.core.random import derive, generator
from everlearn.core.stream import Stream
from everlearn.data.dataset import Data
from everlearn.data.indexed import HeldOutSets, Indexed, Session, grouped
from everlearn.data.naming import check_data, check_sizes, named, present

SHOWN = 4  # labels in the name of a held-out set


@named
def split(
    data: Data,
    *,
    experiences: int = 5,
    batch: int = 10,
    epochs: int = 1,
    order: str = "seed",
    classes_first: int | None = None,
    boundaries: bool = True,
    test: float = 0.2,
    seed: int = 0,
) -> Stream:
    """Class-incremental: each experience brings classes of its own, and answers are among all classes.

    experiences: groups of classes, as equal as can be; classes_first: classes of the first group, where it is to be larger;
    order: "seed" draws the order of classes, "given" keeps that of the data set; boundaries: whether a Boundary with the new
    classes and all their rows opens each experience; batch: rows; epochs: passes over each experience; test: the part of each
    class held out (where the data set has no test part of its own). Deployed after the first experience.
    Raises ArgumentError, DataError.
    """
    return _classes("split", data, experiences, batch, epochs, order, classes_first, boundaries, test, seed, tasks=False)


@named
def tasks(
    data: Data,
    *,
    experiences: int = 5,
    batch: int = 10,
    epochs: int = 1,
    order: str = "seed",
    classes_first: int | None = None,
    boundaries: bool = True,
    test: float = 0.2,
    seed: int = 0,
) -> Stream:
    """Task-incremental: as `split`, and every batch and held-out set tells the number of its task. Labels stay as they are."""
    return _classes("tasks", data, experiences, batch, epochs, order, classes_first, boundaries, test, seed, tasks=True)


@named
def blurry(
    data: Data,
    *,
    experiences: int = 5,
    overlap: float = 0.1,
    batch: int = 10,
    epochs: int = 1,
    order: str = "seed",
    classes_first: int | None = None,
    test: float = 0.2,
    seed: int = 0,
) -> Stream:
    """Class-incremental with blurred borders: around each the old classes fade out while the new ones fade in; none is announced.

    overlap: the part of an experience, 0..0.5, that mixes with each neighbour. Inside it the share of old classes falls
    linearly from one to zero. The other arguments are those of `split`.
    """
    check_range("blurry", "overlap", overlap, 0.0, 0.5)
    train, held_out, sessions, rows = _groups(
        "blurry", data, experiences, batch, epochs, order, classes_first, test, seed, epochs
    )
    rows = rows[blur([session.count for session in sessions], overlap, seed)]
    return Indexed(train, sessions, batch=batch, order=rows, held_out=held_out)


def _classes(name, data, experiences, batch, epochs, order, classes_first, boundaries, test, seed, tasks) -> Stream:
    train, held_out, sessions, rows = _groups(
        name, data, experiences, batch, epochs, order, classes_first, test, seed, 1, tasks
    )
    return Indexed(
        train,
        sessions,
        batch=batch,
        order=rows,
        epochs=epochs,
        seed=seed,
        announced=bool(boundaries),
        tasks=tasks,
        held_out=held_out,
    )


def _groups(
    name, data, experiences, batch, epochs, order, classes_first, test, seed, copies, tasks=False
) -> tuple[Data, HeldOutSets, list[Session], Tensor]:
    """(training rows, held-out sets, sessions, order of rows): each experience's rows shuffled, `copies` times over."""
    check_data(name, data)
    check_sizes(name, batch=batch, epochs=epochs, test=test)
    train, judged = data.split(test, derive(seed, "test"))
    groups = class_groups(name, data, present(train), experiences, order, classes_first, seed)
    group_of = torch.full((len(data.classes),), -1)
    for number, classes in enumerate(groups):
        group_of[list(classes)] = number
    keys = torch.rand(copies, len(train), generator=generator(seed, "rows"), dtype=torch.float64)
    keys = ((keys + torch.arange(copies)[:, None]) / copies).flatten()  # every row once before any comes again
    rows, sessions = grouped(group_of[train.y].repeat(copies), experiences, keys)
    sessions = [replace(session, classes=classes) for session, classes in zip(sessions, groups, strict=True)]
    test_rows, test_sessions = grouped(group_of[judged.y], experiences)
    names = [f"{number}: {_labels(data, classes)}" for number, classes in enumerate(groups, start=1)]
    held_out = HeldOutSets(judged, test_sessions, names, order=test_rows, tasks=tasks)
    return train, held_out, sessions, rows % len(train)


def class_groups(
    name: str, data: Data, classes: list[int], experiences: int, order: str, classes_first: int | None, seed: int
) -> list[tuple[int, ...]]:
    """The classes of each experience. Where they do not divide, the earlier experiences have one more."""
    check_count(name, "experiences", experiences)
    if order not in ("seed", "given"):
        raise ArgumentError(f"{name}: order must be 'seed' or 'given', got {order!r}.")
    if experiences > len(classes):
        raise ArgumentError(
            f"{name}: {experiences} experiences need as many classes, and {data.name} has {len(classes)}. "
            f"Use experiences={len(classes)} or fewer."
        )
    if order == "seed":
        drawn = torch.randperm(len(classes), generator=generator(seed, "classes"))
        classes = [classes[position] for position in drawn.tolist()]
    groups: list[tuple[int, ...]] = []
    rest, left = classes, experiences
    if classes_first is not None:
        check_count(name, "classes_first", classes_first)
        most = len(classes) - experiences + 1
        if classes_first > most or (experiences == 1 and classes_first < most):
            raise ArgumentError(
                f"{name}: classes_first={classes_first} does not leave each of the other {experiences - 1} experiences a class "
                f"of the {len(classes)} in {data.name}; at most {most} can come first."
            )
        groups, rest, left = [tuple(classes[:classes_first])], classes[classes_first:], experiences - 1
    for number in range(left):
        size = len(rest) // left + (number < len(rest) % left)
        start = sum(map(len, groups)) - (len(classes) - len(rest))
        groups.append(tuple(rest[start : start + size]))
    return groups


def blur(counts: list[int], overlap: float, seed: int) -> Tensor:
    """The order of places in which the last part of each session is mixed into the first part of the next.

    A place in a window of width w around a border gets a new key: old ones with density 2 (1 - t), new ones with 2 t,
    t in 0..1 across the window, so that together they fill it evenly.
    """
    total = sum(counts)
    keys = torch.arange(total, dtype=torch.float64)
    draws = torch.rand(total, generator=generator(seed, "blur"), dtype=torch.float64).sqrt()
    border = 0
    for count, following in pairwise(counts):
        border += count
        low, high = border - round(overlap * count), border + round(overlap * following)
        keys[low:border] = low + (high - low) * (1.0 - draws[low:border])
        keys[border:high] = low + (high - low) * draws[border:high]
    return torch.sort(keys, stable=True).indices


def _labels(data: Data, classes: tuple[int, ...]) -> str:
    """The user's labels of some classes, cut short where they are many."""
    shown = ", ".join(data.classes[label] for label in classes[:SHOWN])
    return shown if len(classes) <= SHOWN else f"{shown} and {len(classes) - SHOWN} more"
