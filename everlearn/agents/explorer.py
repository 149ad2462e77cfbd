"""How a bandit spreads its choices over the actions on offer, given what it expects of each: the contract of explorers.

    scores (rows, actions), offered (rows, actions)  ->  probabilities (rows, actions), zero where an action is not on offer

An explorer is a value without state, so its probabilities are a function of its arguments, and a log that holds them can be replayed.
Ties go to the action of the lowest number. Inside, arrays lie actions first: every step is then one pass over long rows, whose bits
do not hang on how many rows there are. Reference: Bietti, Agarwal, Langford (2021), "A contextual bandit bake-off", arXiv 1802.04064.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import InputError, check_range
from everlearn.core.spec import Described

Array = numpy.ndarray
NAMED = 5  # rows named in a message


@dataclass(frozen=True)
class Progress:
    """What an explorer may know beside the scores.

    learned: examples learned so far; fitted: rows on which the model that gives the scores was fitted; widths: (actions, rows), how
    uncertain each score is, the square root of x' A^-1 x; votes: (members, actions, rows) scores of the members of a committee.
    """

    learned: int = 0
    fitted: int = 0
    widths: Array | None = None
    votes: Array | None = None


@dataclass(frozen=True, repr=False)
class Explorer(Described, ABC):
    """A rule from scores to probabilities.

    floor: every action on offer gets at least floor / (number on offer), taken from the others in proportion; share: the part of
    the choices that is drawn uniformly, p <- (1 - share) p + share / (number on offer).
    """

    name: ClassVar[str]
    members: ClassVar[int] = 0  # of the committee that it asks
    uniform: ClassVar[float] = 0.0  # the part of its own choices that is uniform, whatever the scores
    floor: float = field(default=0.0, kw_only=True)
    share: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        check_range(self.name, "floor", self.floor, 0.0, 1.0)
        check_range(self.name, "share", self.share, 0.0, 1.0)
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Refuse arguments of its own that are out of range."""

    @abstractmethod
    def spread(self, scores: Array, offered: Array, count: Array, progress: Progress) -> Array:
        """The rule itself on arrays (actions, rows): scores are -inf where nothing is offered, count (rows,) actions are on offer."""

    @property
    def needs_widths(self) -> bool:
        """Whether it asks how uncertain each score is."""
        return False

    @property
    def uniform_part(self) -> float:
        """The part of the choices that is uniform whatever the scores: p = uniform_part / k + the rest."""
        return max(self.floor, self.share + (1.0 - self.share) * self.uniform)

    def settled(self, scores: Array, offered: Array) -> "Explorer":
        """The explorer for a period whose rows have these scores (actions, rows): itself, unless a target is to be met on them."""
        return self

    def probabilities(
        self,
        scores: Tensor,
        offered: Tensor | None = None,
        learned: "int | Progress" = 0,
        *,
        widths: Tensor | None = None,
        votes: Tensor | None = None,
    ) -> Tensor:
        """Probabilities (rows, actions) float64 that sum to 1 in each row.

        scores: (rows, actions) float; offered: (rows, actions) bool, all where it is None; learned: examples learned so far (what
        schedules grow with), or Progress(learned, fitted); widths: (rows, actions); votes: (members, rows, actions).
        Raises InputError that names the rows with NaN or infinite scores, or without an action on offer.
        """
        values = _matrix(self.name, "scores", scores)
        allowed = numpy.ones(values.shape, bool) if offered is None else _mask(self.name, offered, values.shape)
        seen = learned if isinstance(learned, Progress) else Progress(learned, learned)
        progress = Progress(
            seen.learned,
            seen.fitted,
            None if widths is None else numpy.ascontiguousarray(_matrix(self.name, "widths", widths).T),
            None if votes is None else numpy.ascontiguousarray(votes.double().numpy().transpose(0, 2, 1)),
        )
        spread = self.distribution(numpy.ascontiguousarray(values.T), numpy.ascontiguousarray(allowed.T), progress)
        return torch.from_numpy(numpy.ascontiguousarray(spread.T))

    def distribution(self, scores: Array, offered: Array, progress: Progress) -> Array:
        """The same on arrays (actions, rows)."""
        self._refuse(scores, offered, progress)
        count = offered.sum(axis=0, dtype=numpy.float64)
        spread = self.spread(numpy.where(offered, scores, -numpy.inf), offered, count, progress)
        if self.share:
            spread = (1.0 - self.share) * spread + offered * (self.share / count)
        return raised(spread, offered, self.floor / count) if self.floor else spread

    def _refuse(self, scores: Array, offered: Array, progress: Progress) -> None:
        empty = ~offered.any(axis=0)
        if empty.any():
            raise InputError(f"{self.name}: no action is on offer in {_rows(empty)}; each row needs 1..{len(offered)}.")
        if not numpy.isfinite(scores.sum()):  # one pass proves all finite
            wrong = (~numpy.isfinite(scores) & offered).any(axis=0)
            if wrong.any():
                raise InputError(f"{self.name}: scores are NaN or infinite in {_rows(wrong)}; every score must be finite.")
        if self.needs_widths and progress.widths is None:
            raise InputError(
                f"{self.name}: it asks how uncertain each score is; give widths=, or take an oracle with them: ridge(), logistic()."
            )
        if self.members and progress.votes is None:
            raise InputError(f"{self.name}: it counts the votes of a committee; give votes=(members, rows, actions).")


def leader(scores: Array) -> tuple[Array, Array]:
    """(index of the greatest score, that score) of arrays (actions, rows); the lowest index among equals."""
    best = scores.max(axis=0)
    return numpy.argmax(scores == best, axis=0), best


def led(others: Array, first: Array, count: Array) -> Array:
    """Give the leader what the others leave: at least 1 / k, whatever the rounding, and a sum of one. Changes `others`."""
    columns = numpy.arange(others.shape[1])
    others[first, columns] = 0.0
    others[first, columns] = numpy.maximum(1.0 - others.sum(axis=0), 1.0 / count)
    others /= others.sum(axis=0)
    return others


def only(first: Array, shape: tuple[int, ...]) -> Array:
    """All the mass on the leader."""
    spread = numpy.zeros(shape)
    spread[first, numpy.arange(shape[1])] = 1.0
    return spread


def raised(spread: Array, offered: Array, least: Array) -> Array:
    """Every action on offer gets at least `least` (rows,); those above give in proportion, until none lies below."""
    held = numpy.zeros(spread.shape, bool)
    lifted = spread
    for _ in range(len(spread)):
        below = offered & ~held & (lifted < least)
        if not below.any():
            break
        held |= below
        free = numpy.where(held, 0.0, spread)
        left = (1.0 - least * held.sum(axis=0)) / numpy.maximum(free.sum(axis=0), numpy.finfo(numpy.float64).tiny)
        lifted = numpy.where(held, least, free * left)
    return lifted


def _matrix(owner: str, what: str, values: Tensor) -> Array:
    if not isinstance(values, Tensor) or values.ndim != 2 or 0 in values.shape or not values.dtype.is_floating_point:
        got = f"{values.dtype} of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise InputError(f"{owner}: {what} must be a float tensor (rows, actions), got {got}.")
    return values.detach().double().cpu().numpy()


def _mask(owner: str, offered: Tensor, shape: tuple[int, ...]) -> Array:
    if not isinstance(offered, Tensor) or offered.dtype != torch.bool or tuple(offered.shape) != shape:
        got = f"{offered.dtype} of shape {tuple(offered.shape)}" if isinstance(offered, Tensor) else type(offered).__name__
        raise InputError(f"{owner}: offered must be a bool tensor of shape {shape}, got {got}.")
    return offered.cpu().numpy()


def _rows(wrong: Array) -> str:
    """'row 3' or 'rows 3, 8, 9 (120 in all)'."""
    found = numpy.flatnonzero(wrong)
    shown = ", ".join(map(str, found[:NAMED]))
    return f"row{'s' if len(found) > 1 else ''} {shown}{f' ({len(found)} in all)' if len(found) > NAMED else ''}"
