"""Streams of rows, features or answers that are held against how they used to be, window by window.

Columns and features are held against the first rows after a (re)start, the reference. Answers change as a model learns, slowly, so
they are held against earlier windows of answers, the newest but one among them: a fault shows, learning does not. How far apart
windows usually are counts too, since a model that learns in large steps trembles; and a shift towards the answers that rows turned
out to have is learning, not a fault.
A limit is the least distance that matters, or what chance alone reaches with probability `level` over all columns, if that is more.
Windows do not overlap. State is tensors and JSON scalars; what is kept does not grow.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from statistics import median

import torch
from torch import Tensor

from everlearn.measure import distribution
from everlearn.measure.reading import Reading, above

PER_BIN = 20  # rows of a window that a bin should hold for the limit of chance to be right
HISTORY = 5  # windows of answers kept: the newest, and four before it
BINS = 10
TINY = 1e-12  # the least limit
USUAL = 20  # distances between windows that tell what is usual
TREMBLE = 4.0  # times the usual distance
KINDS = 20  # shares told apart among answers; labels beyond share them in turn


class ColumnShift:
    """Columns of a table: PSI of each, and its Kolmogorov-Smirnov distance, each where a least distance that matters is given.

    names: of the columns, for the sentence; reference, window: rows; level: chance of a false alarm in one test of all columns; dtype: in
    which columns are kept.
    """

    parts = ("rows", "filled", "edges", "counts", "kept", "bins")

    def __init__(
        self, names: Sequence[str], *, psi: float | None = 0.25, ks: float | None = None, level: float = 1e-4,
        reference: int = 1000, window: int = 250, dtype: torch.dtype = torch.float64,
    ):  # fmt: skip
        self.names = tuple(names)
        self.dtype = dtype
        self.psi = psi
        self.ks = ks
        self.level = level
        self.reference = reference
        self.window = window
        self.renew()

    def renew(self) -> None:
        """Take the next rows as the reference."""
        self.rows = torch.zeros(self.reference, len(self.names), dtype=self.dtype)
        self.filled = 0
        self.edges = torch.zeros(0)
        self.counts = torch.zeros(0)  # of the reference, by column and bin
        self.bins: list[int] = []
        self.kept = torch.zeros(0)  # the reference itself, which only Kolmogorov-Smirnov needs

    def add(self, x: Tensor) -> list[Reading]:
        """Take (rows, columns). Readings come with each full window."""
        readings: list[Reading] = []
        while len(x):
            taken = x[: len(self.rows) - self.filled]
            self.rows[self.filled : self.filled + len(taken)] = taken
            self.filled += len(taken)
            x = x[len(taken) :]
            if self.filled == len(self.rows):
                self.filled = 0
                if self.bins:
                    readings += self._compare()
                else:
                    self._refer()
        return readings

    def _refer(self) -> None:
        self.edges = distribution.bin_edges(self.rows, max(2, min(BINS, self.window // PER_BIN)))
        self.counts = distribution.bin_counts(self.rows, self.edges)
        self.bins = [len(edges.unique()) + 1 for edges in self.edges]
        self.kept = torch.zeros(0) if self.ks is None else self.rows
        self.rows = torch.zeros(self.window, len(self.names), dtype=self.dtype)

    def _compare(self) -> list[Reading]:
        n, m, level = self.reference, self.window, self.level / len(self.names)
        readings = []
        if self.psi is not None:
            far = distribution.psi(self.counts, distribution.bin_counts(self.rows, self.edges))
            limits = {bins: max(self.psi, distribution.psi_limit(n, m, bins, level)) for bins in set(self.bins)}
            readings.append(self._reading("PSI", far, torch.tensor([limits[bins] for bins in self.bins])))
        if self.ks is not None:
            far = distribution.ks(self.kept, self.rows)
            readings.append(
                self._reading(
                    "Kolmogorov-Smirnov", far, torch.full_like(far, max(self.ks, distribution.ks_limit(n, m, level)))
                )
            )
        return readings

    def _reading(self, name: str, far: Tensor, limits: Tensor) -> Reading:
        limits = limits.clamp(min=TINY)
        worst = int((far / limits).argmax())
        value, limit, beyond = float(far[worst]), float(limits[worst]), int((far > limits).sum())
        others = f"{beyond} of {len(self.names)} columns are beyond their limits" if beyond != 1 else "it alone is"
        return above(
            value,
            limit,
            f"Inputs have shifted: the newest {self.window} values of {self.names[worst]} differ from the {self.reference} of "
            f"the reference ({name} {value:.3g}, limit {limit:.3g}; {others}). Look at where they come from: units, missing "
            "values, a new source.",
        )


class KernelShift:
    """Rows of features, all at once: the maximum mean discrepancy under a Gaussian kernel.

    shape, dtype: of what is kept of a row; least: the MMD^2 that matters; reference, window: rows kept of each, of every `stride` rows
    that come one. What is kept goes through `embed` at each test, so that features of a network that learns can be compared.
    """

    parts = ("kept", "rows", "filled", "referred", "skipped")

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype, *, least: float = 0.02, level: float = 1e-4, reference: int = 250,
        window: int = 250, stride: int = 1, what: str = "features",
    ):  # fmt: skip
        self.shape = shape
        self.dtype = dtype
        self.least = least
        self.level = level
        self.reference = reference
        self.window = window
        self.stride = stride
        self.what = what
        self.renew()

    def renew(self) -> None:
        """Take the next rows as the reference."""
        self.kept = torch.zeros(self.reference, *self.shape, dtype=self.dtype)
        self.rows = torch.zeros(self.window, *self.shape, dtype=self.dtype)
        self.filled = 0
        self.referred = False
        self.skipped = 0  # rows since the last that was kept

    def add(self, x: Tensor, embed: Callable[[Tensor], Tensor]) -> list[Reading]:
        """Take rows (rows, *shape). A reading comes with each full window."""
        first = -self.skipped % self.stride
        self.skipped = (self.skipped + len(x)) % self.stride
        x = x[first :: self.stride]
        readings = []
        while len(x):
            target = self.rows if self.referred else self.kept
            taken = x[: len(target) - self.filled]
            target[self.filled : self.filled + len(taken)] = taken
            self.filled += len(taken)
            x = x[len(taken) :]
            if self.filled == len(target):
                readings += [self._compare(embed)] if self.referred else []
                self.referred, self.filled = True, 0
        return readings

    def _compare(self, embed: Callable[[Tensor], Tensor]) -> Reading:
        both = embed(torch.cat([self.kept, self.rows])).flatten(1).double()
        kept, rows = both[: self.reference], both[self.reference :]
        scale = distribution.median_scale(kept)
        value, chance = distribution.mmd(kept, rows, scale), distribution.mmd_limit(kept, self.window, scale, self.level)
        limit = max(self.least, chance)
        return above(
            value,
            limit,
            f"Inputs have shifted: the {self.what} of {self.window} of the newest rows differ from those of the reference "
            f"(MMD^2 {value:.3g}, limit {limit:.3g}). Look at some of these inputs: another sensor, camera, unit or kind of case.",
        )


class AnswerShift:
    """What is answered: how often each answer is given (PSI), and how sure the probabilities are (their mean entropy).

    columns: numbers answered per row, 1 for labels; shares: the least PSI that matters; entropy: the rise of the mean entropy that
    matters, as a part of the entropy of a guess among all classes. `count` takes labels that were answered, `measure` values; `tell` and
    `tell_values` take what the right answers turned out to be.
    """

    parts = (
        "edges",
        "values",
        "filled",
        "current",
        "truth",
        "history",
        "distances",
        "entropies",
        "entropy_history",
        "rises",
    )

    def __init__(
        self, *, columns: int = 1, shares: float | None = 0.25, entropy: float | None = 0.15, level: float = 1e-4,
        window: int = 250, values: bool = False,
    ):  # fmt: skip
        self.columns = columns
        self.shares = shares
        self.entropy = entropy
        self.level = level
        self.window = window
        self.by_value = values
        self.renew()

    def renew(self) -> None:
        """Forget how answers used to be."""
        self.edges = torch.zeros(0)
        self.values = torch.zeros(self.window * (HISTORY - 1) if self.by_value else 0, self.columns)
        self.filled = 0  # values kept of those that edges are made from
        self.current: list[list[int]] = [[] for _ in range(self.columns)]  # bins of the newest answers
        self.truth: list[list[int]] = [[] for _ in range(self.columns)]  # bins of the newest right answers
        self.history: list[list[list[int]]] = []  # counts of each window, the oldest first
        self.distances: list[float] = []  # the newest distances between windows
        self.entropies: list[float] = []
        self.entropy_history: list[list[float]] = []  # (mean, variance, count) of each window
        self.rises: list[float] = []  # the newest rises, and falls, of the mean entropy

    def count(self, labels: Sequence[int], entropies: Sequence[float], frozen: bool = False) -> list[Reading]:
        """Take numbers of labels, and entropies 0..1 of as many or fewer rows. frozen: earlier windows stay what they are."""
        return self._add([[label % KINDS for label in labels]], entropies, KINDS, frozen)

    def tell(self, labels: Sequence[int]) -> None:
        """Take numbers of labels that were right."""
        self._tell([[label % KINDS for label in labels]])

    def tell_values(self, values: Tensor) -> None:
        """Take (rows, columns) of values that were right."""
        if len(self.edges):
            self._tell(torch.searchsorted(self.edges, values.T.contiguous()).tolist())

    def _tell(self, places: list[list[int]]) -> None:
        most = self.window * (HISTORY - 1)
        self.truth = [(known + new)[-most:] for known, new in zip(self.truth, places, strict=True)]

    def measure(self, values: Tensor, frozen: bool = False) -> list[Reading]:
        """Take (rows, columns) of values."""
        if not len(self.edges):
            taken = values[: len(self.values) - self.filled]
            self.values[self.filled : self.filled + len(taken)] = taken
            self.filled += len(taken)
            if self.filled == len(self.values):
                self.edges = distribution.bin_edges(self.values, max(2, min(BINS, self.window // PER_BIN)))
            return []
        places = torch.searchsorted(self.edges, values.T.contiguous()).tolist()
        return self._add(places, (), self.edges.shape[1] + 1, frozen)

    def _add(self, places: list[list[int]], entropies: Sequence[float], bins: int, frozen: bool) -> list[Reading]:
        for column, added in zip(self.current, places, strict=True):
            column += added
        self.entropies += entropies
        readings: list[Reading] = []
        while len(self.current[0]) >= self.window:
            full = [torch.tensor(column[: self.window]) for column in self.current]
            self.current = [column[self.window :] for column in self.current]
            counts = [torch.bincount(column, minlength=bins).tolist() for column in full]
            told, self.entropies = _moments(self.entropies), []
            counted, weighed = self._compare_counts(counts), self._compare_entropies(told)
            found = counted + weighed
            readings += found
            if not (frozen or any(reading.over for reading in found)):
                self.rises = [*self.rises, *(abs(reading.value) for reading in weighed)][-USUAL:]
                self.history = [*self.history, counts][-HISTORY:]
                self.entropy_history = [*self.entropy_history, told][-HISTORY:]
        return readings

    def _compare_counts(self, counts: list[list[int]]) -> list[Reading]:
        earlier = self.history[:-1]
        if self.shares is None or not earlier:
            return []
        now, before = torch.tensor(counts), torch.tensor(earlier).sum(dim=0)
        used = ((now + before) > 0).sum(dim=1).tolist()
        if len(self.truth[0]) < self.window:
            far = distribution.psi(before, now)
            distance = float(far.max())
        else:
            right = torch.stack([torch.bincount(torch.tensor(column), minlength=now.shape[1]) for column in self.truth])
            one, other = torch.stack([before, right, right]), torch.stack([now, now, before])
            far, ahead, behind = distribution.psi(one, other)
            distance = float(far.max())
            far = far * (ahead >= behind)
        rows = self.window * len(earlier)
        least, level = max(self.shares, _tremble(self.distances)), self.level / self.columns
        limits = torch.tensor([max(least, distribution.psi_limit(rows, self.window, bins, level)) for bins in used])
        worst = int((far / limits.clamp(min=TINY)).argmax())
        value, limit = float(far[worst]), float(limits[worst])
        if value <= limit:
            self.distances = [*self.distances, distance][-USUAL:]
        return [
            above(
                value,
                limit,
                f"Answers have shifted: the shares of what is answered in the newest {self.window} predictions differ from "
                f"before (PSI {value:.3g}, limit {limit:.3g}). Look at whether the inputs changed or the model now favours an answer.",
            )
        ]

    def _compare_entropies(self, told: list[float]) -> list[Reading]:
        earlier = [window for window in self.entropy_history[:-1] if window]
        if self.entropy is None or not earlier or not told:
            return []
        from scipy.special import ndtri

        before = sum(window[0] for window in earlier) / len(earlier)
        spread = sum(window[1] for window in earlier) / len(earlier)
        error = sqrt(spread / (earlier[0][2] * len(earlier)) + told[1] / told[2])
        value, limit = told[0] - before, max(self.entropy, _tremble(self.rises), -float(ndtri(self.level)) * error)
        return [
            above(
                value,
                limit,
                f"Answers have become less sure: the mean entropy of the newest probabilities is {told[0]:.3g} of a blind guess's, "
                f"{before:.3g} before (rise {value:.3g}, limit {limit:.3g}). Look for inputs of a kind the model has not seen.",
            )
        ]


def _moments(values: Sequence[float]) -> list[float]:
    """[mean, variance, count] of numbers, [] of none."""
    if not values:
        return []
    mean = sum(values) / len(values)
    return [mean, sum((value - mean) ** 2 for value in values) / len(values), float(len(values))]


def _tremble(distances: Sequence[float]) -> float:
    """The distance that is much for windows usually so far apart; 0 while too few are known."""
    return TREMBLE * median(distances) if len(distances) >= HISTORY - 1 else 0.0
