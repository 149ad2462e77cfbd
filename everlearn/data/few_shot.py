"""Few-shot class-incremental streams: `few_shot`. One session of many rows, then sessions of a few new classes with a few rows each.

Session 0 has all training rows of the base classes. Session s has `shot` rows of each of `way` classes that are new, and no row of
an earlier session. After each session learners are judged on the test rows of every class so far, among all of these classes.

Reference: Tao et al. (2020), Few-shot class-incremental learning, arXiv 2004.10956 (the setting and its published index lists).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, InputError, check_count
from everlearn.core.events import Batch, Event, rows
from everlearn.core.random import derive, generator
from everlearn.core.stream import Stream
from everlearn.data.dataset import Data
from everlearn.data.index_lists import listed, listed_classes
from everlearn.data.indexed import HeldOutSets, Indexed, Session, grouped
from everlearn.data.naming import check_data, check_sizes, named, present


@named
def few_shot(
    data: Data,
    *,
    base_classes: int = 60,
    way: int = 5,
    shot: int = 5,
    sessions: int = 8,
    epochs: int = 1,
    batch: int = 64,
    order: str = "seed",
    index: str | None = None,
    extra_test: bool = False,
    test: float = 0.2,
    seed: int = 0,
) -> Stream:
    """A base session of many rows, then sessions that bring a few classes with a few rows each; answers are among all classes so far.

    base_classes: classes of the base session; way, shot: new classes of each later session, and rows of each of them; sessions:
    how many follow the base session (classes beyond are left out); epochs: shuffled passes over the base session, later ones are
    passed once; batch: rows; order: "seed" draws the order of classes, "given" keeps that of the data set; which rows of a class
    come is drawn by the seed either way. index: a folder of session_1.txt (the base session; all rows of the classes that no other
    list has where it is missing), session_2.txt, ... with row numbers of the training part, from 0, which decide on classes and
    rows instead; they must agree with base_classes, way, shot and sessions, and the data set must have a test part of its own.
    extra_test: training rows of new classes that are not used join the test rows: then count each class alike, as the monitor
    `measure.sessions.Sessions` does; test: the part of each class held out (where the data set has no test part of its own).

    Each session opens with a Boundary that has its number, classes and all its rows. One held-out set per session, with the test
    rows of its classes; learners are judged after each session. Deployed after the base session. `stream.session(s)` is what a
    learner may see in session s. Raises ArgumentError, DataError.

    >>> from everlearn import load
    >>> stream = few_shot(load("digits"), base_classes=4, way=2, shot=5, sessions=3, order="given")
    >>> session = stream.session(1)
    >>> session.classes, len(session.train), session.seen_classes
    ((4, 5), 10, (0, 1, 2, 3, 4, 5))
    """
    check_data("few_shot", data)
    check_sizes("few_shot", batch=batch, epochs=epochs, test=test)
    for argument, value in (("base_classes", base_classes), ("way", way), ("shot", shot), ("sessions", sessions)):
        check_count("few_shot", argument, value)
    if order not in ("seed", "given"):
        raise ArgumentError(f"few_shot: order must be 'seed' or 'given', got {order!r}.")
    if not isinstance(extra_test, bool):
        raise ArgumentError(f"few_shot: extra_test must be True or False, got {extra_test!r}.")
    train, judged = data.split(test, derive(seed, "test"))
    if index is None:
        groups = _class_groups(train, base_classes, way, sessions, order, seed)
        chosen = _chosen(train, groups, shot, seed)
    else:
        if data.test_x is None:
            raise ArgumentError(
                f"few_shot: index has row numbers of a training part, and {data.name} has no test part of its own. "
                "Use a data set that has one, or leave index out."
            )
        chosen = listed(train, Path(index))
        groups = listed_classes(train, chosen, base_classes, way, shot, sessions, index)
    if extra_test:
        unused = chosen < 0
        unused &= torch.isin(train.y, torch.tensor([label for group in groups[1:] for label in group]))
        judged = replace(
            judged, x=torch.cat([judged.x, train.x[unused]]), y=torch.cat([judged.y, train.y[unused]]), time=None
        )
    keys = torch.rand(len(train), generator=generator(seed, "rows"), dtype=torch.float64)
    places, spans = grouped(chosen, len(groups), keys)
    spans = [replace(span, classes=group) for span, group in zip(spans, groups, strict=True)]
    test_places, test_spans = grouped(_session_of(judged, groups)[judged.y], len(groups))
    names = [f"{number}: {len(group)} {'new' if number else 'base'} classes" for number, group in enumerate(groups)]
    held_out = HeldOutSets(judged, test_spans, names, order=test_places)
    passes = [epochs] + [1] * sessions
    return FewShotStream(train, spans, places, held_out, batch=batch, epochs=passes, seed=seed)


class FewShotStream(Stream):
    """Sessions that open with a boundary; the base session comes in shuffled passes, a later one once.

    train: the training rows; spans: one for each session, with its classes, over `order`, (places,) row numbers; held_out: one set
    per session; epochs: passes over each session.
    """

    def __init__(
        self,
        train: Data,
        spans: list[Session],
        order: Tensor,
        held_out: HeldOutSets,
        *,
        batch: int,
        epochs: list[int],
        seed: int,
    ):
        self._events = Indexed(
            train, spans, batch=batch, order=order, epochs=epochs, seed=seed, announced=True, held_out=held_out
        )
        self._openings = (0, *self._events.checkpoints[:-1])
        self._classes = [span.classes for span in spans]
        self.name = train.name
        self.schema = train.schema
        self.held_out = held_out
        self.boundaries = True
        self.checkpoints = self._events.checkpoints
        self.changes = self._events.changes
        self.deployed = self._events.deployed
        self.base_classes = self._classes[0]

    def __len__(self) -> int:
        return len(self._events)

    def __getitem__(self, index: int) -> Event:
        return self._events[index]

    def classes_of(self, number: int) -> tuple[int, ...]:
        """The classes that session `number` brings, 0 for the base session. Raises ArgumentError."""
        return self._classes[self._session(number)]

    def session(self, number: int) -> "FewShotSession":
        """What a learner may see in session `number`, 0 for the base session. Raises ArgumentError."""
        opening = self._events[self._openings[self._session(number)]]
        seen = tuple(label for classes in self._classes[: number + 1] for label in classes)
        sets = [self.held_out[earlier] for earlier in range(number + 1)]
        judged = Batch(torch.cat([item.x for item in sets]), torch.cat([item.y for item in sets]))
        return FewShotSession(number, opening.classes, seen, opening.data, judged)

    def _session(self, number: int) -> int:
        check_count("few_shot", "session", number, low=0)
        if number >= len(self._openings):
            raise ArgumentError(f"few_shot: session must be 0..{len(self._openings) - 1}, got {number}.")
        return number


@dataclass(frozen=True, slots=True)
class FewShotSession:
    """One session, sealed: its own rows to learn from and the test rows of the classes so far, copied. Nothing else is within reach.

    number: 0 for the base session; classes: those that it brings; seen_classes: those and all before them; train: its rows;
    judged: the test rows of the seen classes.
    """

    number: int
    classes: tuple[int, ...]
    seen_classes: tuple[int, ...]
    train: Batch
    judged: Batch

    def rows_of(self, label: int) -> Batch:
        """The rows of one class to learn from. Raises InputError where this session does not bring the class."""
        if label not in self.classes:
            when = "an earlier session had them, and they are gone" if label in self.seen_classes else "none has come yet"
            raise InputError(
                f"session {self.number} has no rows of class {label!r} to learn from ({when}). {self._allowed()}"
            )
        return _of(self.train, (label,))

    def test(self, seen: Iterable[int] | None = None) -> Batch:
        """The test rows of the seen classes, or of some of them. Raises InputError for a class that has not come."""
        if seen is None:
            return self.judged
        wanted = tuple(seen)
        for label in wanted:
            if label not in self.seen_classes:
                raise InputError(
                    f"class {label!r} has not come by session {self.number}, so it cannot be tested. "
                    f"Seen so far: {', '.join(map(str, self.seen_classes))}."
                )
        return _of(self.judged, wanted)

    def _allowed(self) -> str:
        return f"Its classes are {', '.join(map(str, self.classes))}."


def _of(batch: Batch, labels: tuple[int, ...]) -> Batch:
    """The rows of some classes."""
    found = torch.isin(batch.y, torch.tensor(labels, dtype=torch.int64))
    return Batch(rows(batch.x, found), batch.y[found])


def _class_groups(train: Data, base_classes: int, way: int, sessions: int, order: str, seed: int) -> list[tuple[int, ...]]:
    """The classes of each session."""
    classes = present(train)
    needed = base_classes + way * sessions
    if needed > len(classes):
        raise ArgumentError(
            f"few_shot: base_classes={base_classes} and sessions={sessions} of way={way} need {needed} classes, and {train.name} "
            f"has {len(classes)}. {_nearest(len(classes), base_classes, way)}"
        )
    if order == "seed":
        drawn = torch.randperm(len(classes), generator=generator(seed, "classes"))
        classes = [classes[position] for position in drawn.tolist()]
    starts = range(base_classes, needed, way)
    return [tuple(classes[:base_classes]), *(tuple(classes[start : start + way]) for start in starts)]


def _nearest(classes: int, base_classes: int, way: int) -> str:
    """What to ask for instead, given so many classes."""
    fit = (classes - base_classes) // way
    return f"Use sessions={fit}." if fit > 0 else f"Use base_classes={max(1, classes // 2)}, or a smaller way."


def _session_of(data: Data, groups: list[tuple[int, ...]]) -> Tensor:
    """(classes,) the number of the session that brings a class, -1 for none."""
    session_of = torch.full((len(data.classes),), -1)
    for number, group in enumerate(groups):
        session_of[list(group)] = number
    return session_of


def _chosen(train: Data, groups: list[tuple[int, ...]], shot: int, seed: int) -> Tensor:
    """(rows,) the session in which a row comes, -1 for none: all rows of base classes, `shot` drawn ones of each other class."""
    counts = torch.bincount(train.y, minlength=len(train.classes))
    for label in (label for group in groups[1:] for label in group):
        if counts[label] < shot:
            raise ArgumentError(
                f"few_shot: shot={shot} asks for more rows of class {train.classes[label]!r} than the {int(counts[label])} "
                f"of {train.name} to learn from. Use shot={int(counts[label])}."
            )
    keys = torch.rand(len(train), generator=generator(seed, "shots"), dtype=torch.float64)
    drawn = torch.sort(train.y + keys, stable=True).indices
    rank = torch.empty_like(drawn)
    rank[drawn] = torch.arange(len(train)) - (torch.cumsum(counts, 0) - counts)[train.y[drawn]]
    session = _session_of(train, groups)[train.y]
    return torch.where((session > 0) & (rank >= shot), -1, session)
