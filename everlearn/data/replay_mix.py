"""Replay for pre-training: a part of each past domain is kept, and takes its turn in every later batch.

    draw d = 0, 1, 2, ... of all rows that are learned      past where floor((d + 1) ratio) > floor(d ratio), else present

A ratio of 0.5 alternates strictly; 0 draws nothing, and leaves the rows of the present domain as they are without replay. Which past domain
a row comes from is drawn evenly.

References: Singh et al. (2025), Beyond cosine decay, CoLLAs, arXiv 2503.02844. Ibrahim et al. (2024), Simple and scalable strategies to
continually pre-train large language models, TMLR, arXiv 2403.08763 (5 % for weak shifts, 25 to 50 % for strong ones).
"""

from typing import ClassVar

import torch
from torch import Tensor

from everlearn.core.errors import check_range
from everlearn.core.random import generator
from everlearn.core.spec import describe
from everlearn.core.store import Store
from everlearn.data.pretraining import Domain


class ReplayMix(Store):
    """Keeps a share of each domain that ends.

    ratio: share of the rows learned that come from past domains; keep: share of the rows of a domain that is kept; seed: which.

    >>> mix = ReplayMix(0.5)
    >>> mix.past(0, 6).tolist()
    [False, True, False, True, False, True]
    """

    name: ClassVar[str] = "replay_mix"
    parts: ClassVar[tuple[str, ...]] = ("kept", "seen", "replayed", "capacity")

    def __init__(self, ratio: float = 0.5, keep: float = 1.0, *, seed: int = 0):
        check_range(self.name, "ratio", ratio, 0.0, 1.0)
        check_range(self.name, "keep", keep, 0.0, 1.0)
        self.ratio, self.keep, self.seed = ratio, keep, seed
        self.kept: list[Tensor] = []  # of each past domain, in order
        self.seen = self.replayed = 0
        self.capacity: int | None = None

    def __repr__(self) -> str:
        return describe(self)

    @property
    def stored(self) -> int:
        """Rows kept."""
        return sum(map(len, self.kept))

    @property
    def nbytes(self) -> int:
        """Bytes of the rows kept."""
        return sum(rows.numel() * rows.element_size() for rows in self.kept)

    def limit(self, samples: int | None, nbytes: int | None) -> None:
        """Lower the number of rows kept in all to these limits."""
        limits = [value for value in (self.capacity, samples) if value is not None]
        if nbytes is not None and self.stored:
            limits.append(nbytes * self.stored // self.nbytes)
        self.capacity = min(limits, default=None)
        self._shrink()

    def add(self, domain: Domain) -> None:
        """Keep a share of a domain that is over: at least one row where there is a share at all, drawn once and for all."""
        rows = len(domain)
        self.seen += rows
        if self.ratio and self.keep:
            random = generator(self.seed, "kept", len(self.kept))
            self.kept.append(domain.sample(max(1, round(self.keep * rows)), random))
            self._shrink()

    def past(self, draws: int, rows: int) -> Tensor:
        """(rows,) bool: which of the next rows, after `draws` of them, are of the past."""
        d = torch.arange(draws, draws + rows, dtype=torch.float64)
        return ((d + 1) * self.ratio).floor() > (d * self.ratio).floor()

    def mix(self, present: Tensor, draws: int, random: torch.Generator) -> Tensor:
        """Rows of the present in which those whose turn it is are of the past."""
        place = self.past(draws, len(present)).nonzero().flatten() if self.kept else torch.empty(0, dtype=torch.int64)
        if not len(place):
            return present
        mixed = present.clone()
        which = torch.randint(len(self.kept), (len(place),), generator=random)
        share = torch.rand(len(place), generator=random, dtype=torch.float64)
        for number, rows in enumerate(self.kept):
            own = which == number
            mixed[place[own]] = rows[(share[own] * len(rows)).long()]
        self.replayed += len(place)
        return mixed

    def _shrink(self) -> None:
        """Even shares for all domains where there is a limit."""
        if self.capacity is not None and self.stored > self.capacity:
            each, more = divmod(self.capacity, len(self.kept))
            self.kept = [rows[: each + (number < more)].clone() for number, rows in enumerate(self.kept)]
            self.kept = [rows for rows in self.kept if len(rows)]
