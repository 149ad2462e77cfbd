"""Sequences in which a word's role can be read from its context, or remembered from its identity.

    context (positions 0..2)   COP a n   or   n COP a          a: an adjective, n: a noun, COP: the copula
    query (position 3)         q = a     or   q = n
    targets (positions 4..6)   q = a -> a a a     q = n -> a n n          inputs there: MASK

Tokens 0..V/2-1 are nouns and V/2..V-1 adjectives, both by rank of frequency, P(rank r) ~ r^-alpha; then COP = V, MASK = V + 1, and V // 10
tokens that training never shows. A few ambiguous tokens of every frequency take either role, so that identity alone does not do.

Reference: Anand, Lepori, Merullo & Pavlick (2025), Dual process learning: controlling use of in-context vs. in-weights strategies with
weight forgetting, ICLR, arXiv 2406.00053.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, InputError, check_count, check_range, closest
from everlearn.core.events import Batch
from everlearn.core.random import generator

LENGTH = 7
ASKED = slice(4, 7)  # the positions that are answered
IGNORED = -100  # the label of a position that is not
BINS = 5  # of frequency, in each class
HEAD = 20  # tokens that count as frequent, in each class
TAIL = 0.1  # of each class that counts as rare
SWITCHED = ("switch", "head_switch", "tail_switch")
PROBES = ("val", "head", "tail", *SWITCHED, "unseen", "amb", "non_amb", *(f"bin{number}" for number in range(BINS)))


@dataclass(frozen=True)
class RoleProbe:
    """Sequences to judge by: x and y (n, length) int64, y by the roles of the context and -100 elsewhere; `by_identity` the same by those
    of the tokens themselves, where the two disagree (switched sets), else None."""

    x: Tensor
    y: Tensor
    by_identity: Tensor | None = None


class RoleStream:
    """Batches of such sequences without end, each a function of (seed, number), and sets to judge by.

    vocabulary: V, even and at least 20; alpha: skew of the frequencies, 0 for none; ambiguous: share 0..0.5 of the tokens of every
    frequency bin that take either role; unseen: how many tokens never occur (V // 10 by default); batch: rows of a batch.

    >>> stream = RoleStream(vocabulary=400, alpha=1.5)
    >>> stream.size, stream.copula, stream.mask, int(stream.ids("unseen")[0])
    (442, 400, 401, 402)
    >>> stream[0].x.shape, int((stream[0].y != -100).sum(1).max())
    (torch.Size([128, 7]), 3)
    """

    asked: ClassVar[slice] = ASKED

    def __init__(
        self,
        vocabulary: int = 10_000,
        alpha: float = 1.5,
        ambiguous: float = 0.1,
        unseen: int | None = None,
        *,
        batch: int = 128,
        seed: int = 0,
    ):
        check_count("roles", "vocabulary", vocabulary, low=20)
        if vocabulary % 2:
            raise ArgumentError(f"roles: vocabulary must be even (half nouns, half adjectives), got {vocabulary}.")
        check_range("roles", "alpha", alpha, 0.0)
        check_range("roles", "ambiguous", ambiguous, 0.0, 0.5)
        check_count("roles", "batch", batch)
        self.vocabulary, self.alpha, self.ambiguous, self.batch, self.seed = vocabulary, alpha, ambiguous, batch, seed
        self.unseen = vocabulary // 10 if unseen is None else unseen
        check_count("roles", "unseen", self.unseen, low=2)
        self.half = vocabulary // 2
        self.copula, self.mask = vocabulary, vocabulary + 1
        self.size = vocabulary + 2 + self.unseen
        self._law = _cumulative(self.half, alpha)
        chosen = self._choose_ambiguous()
        self._ambiguous = chosen, chosen + self.half  # (nouns, adjectives), by rank
        self._list_law = _cumulative(len(chosen), alpha) if len(chosen) else None
        self._is_ambiguous = torch.zeros(self.half, dtype=torch.bool)
        self._is_ambiguous[chosen] = True

    def __getitem__(self, index: int) -> Batch:
        """Batch number `index`: x and y (batch, 7) int64."""
        x, y = self.draw(self.batch, generator(self.seed, "roles", index))
        return Batch(x, y)

    def draw(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """(x, y) of as many sequences, by the law of training."""
        nouns, adjectives = self._pair(count, random)
        return self._sequences(adjectives, nouns, random)

    def ids(self, kind: str) -> Tensor:
        """The tokens of a kind: nouns, adjectives, head, tail, amb, non_amb, bin0..bin4 (of both classes) or unseen."""
        if kind == "unseen":
            return torch.arange(self.vocabulary + 2, self.size)
        if kind == "nouns":
            return torch.arange(self.half)
        if kind == "adjectives":
            return torch.arange(self.half, self.vocabulary)
        nouns = self._ranks(kind)
        return torch.cat([nouns, nouns + self.half])

    def probe(self, kind: str, count: int = 10_000) -> RoleProbe:
        """Sequences of a kind (see PROBES), the same for the same seed."""
        if kind not in PROBES:
            raise ArgumentError(closest("probe", kind, PROBES))
        check_count("roles", "count", count)
        random = generator(self.seed, "probe", kind)
        if kind == "val":
            nouns, adjectives = self._pair(count, random)
        elif kind == "unseen":
            held = self.ids("unseen")
            first = torch.randint(len(held), (count,), generator=random)
            second = (first + torch.randint(1, len(held), (count,), generator=random)) % len(held)  # another one
            nouns, adjectives = held[first], held[second]
        elif kind == "switch":  # what stands where a noun does is an adjective, and the other way round
            nouns, adjectives = self._rank(count, random) + self.half, self._rank(count, random)
        else:
            ranks = self._ranks(kind.removesuffix("_switch"))
            nouns, adjectives = (
                ranks[torch.randint(len(ranks), (count,), generator=random)] + shift
                for shift in ((self.half, 0) if kind in SWITCHED else (0, self.half))
            )
        x, y = self._sequences(adjectives, nouns, random)
        return RoleProbe(x, y, by_identity(x, y, adjectives, nouns) if kind in SWITCHED else None)

    def check(self, x: Tensor) -> None:
        """Refuse tokens outside 0..size-1, and name the first one."""
        wrong = x[(x < 0) | (x >= self.size)]
        if len(wrong):
            raise InputError(f"roles: token {int(wrong[0])} is outside 0..{self.size - 1}.")

    def _choose_ambiguous(self) -> Tensor:
        random = generator(self.seed, "ambiguous")
        chosen = [
            part[torch.randperm(len(part), generator=random)[: math.ceil(len(part) * self.ambiguous)]]
            for part in torch.arange(self.half).tensor_split(BINS)
        ]
        return torch.cat(chosen).sort().values

    def _ranks(self, kind: str) -> Tensor:
        ranks = torch.arange(self.half)
        if kind == "head":
            return ranks[:HEAD]
        if kind == "tail":
            return ranks[self.half - math.ceil(TAIL * self.half) :]
        if kind in ("amb", "non_amb"):
            found = ranks[self._is_ambiguous == (kind == "amb")]
            if not len(found):
                raise ArgumentError(f"roles: there are no tokens of kind {kind!r} with ambiguous={self.ambiguous}.")
            return found
        if kind.startswith("bin"):
            return ranks.tensor_split(BINS)[int(kind[3:])]
        raise ArgumentError(
            closest("kind of token", kind, ("nouns", "adjectives", "unseen", "head", "tail", "amb", "non_amb"))
        )

    def _rank(self, count: int, random: torch.Generator) -> Tensor:
        return _sample(self._law, count, random)

    def _pair(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """(nouns, adjectives) by the law of training: ambiguous ones take the other role half of the time."""
        pair = []
        for shift, others in ((0, self._ambiguous[1]), (self.half, self._ambiguous[0])):
            rank = self._rank(count, random)
            token = rank + shift
            if self._list_law is not None:
                swapped = self._is_ambiguous[rank] & (torch.rand(count, generator=random) < 0.5)
                other = others[_sample(self._list_law, count, random)]
                token = torch.where(swapped, other, token)
            pair.append(token)
        return pair[0], pair[1]

    def _sequences(self, adjectives: Tensor, nouns: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        count = len(nouns)
        copula = torch.full_like(nouns, self.copula)
        first, asks_noun = torch.rand(2, count, generator=random) < 0.5
        context = torch.where(
            first[:, None], torch.stack([copula, adjectives, nouns], 1), torch.stack([nouns, copula, adjectives], 1)
        )
        query = torch.where(asks_noun, nouns, adjectives)
        x = torch.cat([context, query[:, None], torch.full((count, 3), self.mask)], 1)
        y = torch.full((count, LENGTH), IGNORED)
        y[:, 4], y[:, 5], y[:, 6] = adjectives, query, query
        return x, y


def by_identity(x: Tensor, y: Tensor, adjectives: Tensor, nouns: Tensor) -> Tensor:
    """Targets by what the tokens are, where `adjectives` are nouns by identity and `nouns` adjectives: a noun queried gets (the token
    that is an adjective, itself, itself), an adjective itself three times."""
    query = x[:, 3]
    targets = torch.full_like(y, IGNORED)
    targets[:, 4], targets[:, 5], targets[:, 6] = nouns, query, query
    return targets


def _cumulative(count: int, alpha: float) -> Tensor:
    """The distribution function of the truncated law P(r) ~ r^-alpha over ranks 1..count."""
    weights = torch.arange(1, count + 1, dtype=torch.float64).pow(-alpha)
    law = weights.cumsum(0) / weights.sum()
    law[-1] = 1.0
    return law


def _sample(law: Tensor, count: int, random: torch.Generator) -> Tensor:
    return torch.searchsorted(law, torch.rand(count, generator=random, dtype=torch.float64), right=True)
