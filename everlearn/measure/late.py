"""Answers that come late, and answers that do not come.

    delay      the 0.9 quantile of created - asked over the newest answers, held against the first ones
    missing    of predictions older than `patience` = 2 x (0.95 quantile of the first delays), the share without an answer

Predictions that wait are kept by a 32-bit hash of their id, at most `KEPT`; where more wait, every second hash is dropped, again and
again, so that a fair sample is kept however long answers take. Nothing here reads a clock: the newest row tells the time.
"""

import zlib
from collections.abc import Iterable, Sequence
from math import ceil, sqrt

from everlearn.measure.reading import Reading, above

QUANTILE, SLOW = 0.9, 0.95
PATIENCE = 2.0
LEAST = 1.0  # second; no delay below is worth an alarm
KEPT = 1024
ERRORS = 4.0  # standard errors that a share may differ by chance


class LabelDelay:
    """The delay of answers. times: how many times the usual delay is too long; seconds: a limit of its own (None for none).

    >>> delays = LabelDelay(window=4)
    >>> delays.add([2.0] * 4), [reading.over for reading in delays.add([7.0] * 4)], delays.patience
    ([], [True], 4.0)
    """

    parts = ("delays", "usual", "patience")

    def __init__(self, *, times: float | None = 3.0, seconds: float | None = None, window: int = 250):
        self.times = times
        self.seconds = seconds
        self.window = window
        self.patience: float | None = None  # seconds after which an answer is missing; None until that is known
        self.renew()

    def renew(self) -> None:
        """Take the next answers as usual. Patience stays what it was, until they are known."""
        self.delays: list[float] = []
        self.usual: float | None = None

    def add(self, delays: Iterable[float]) -> list[Reading]:
        """Take seconds from predictions to their answers. A reading comes with each full window."""
        self.delays += [max(0.0, delay) for delay in delays]
        readings: list[Reading] = []
        while len(self.delays) >= self.window:
            newest, self.delays = sorted(self.delays[: self.window]), self.delays[self.window :]
            value = quantile(newest, QUANTILE)
            if self.usual is None:
                self.usual = value
                self.patience = max(LEAST, PATIENCE * quantile(newest, SLOW))
                readings += self._read(value, None) if self.seconds is not None else []
            else:
                readings += self._read(value, self.usual)
        return readings

    def _read(self, value: float, usual: float | None) -> list[Reading]:
        limits = [] if self.seconds is None else [self.seconds]
        if self.times is not None and usual is not None:
            limits.append(max(LEAST, self.times * usual))
        if not limits:
            return []
        limit = min(limits)
        used = "" if usual is None else f", {usual:.3g} s at first"
        return [
            above(
                value,
                limit,
                f"Answers come late: one in ten of the newest {self.window} took more than {value:.3g} s (limit {limit:.3g} s{used})."
                " Look at who or what labels, and at the path of feedback to this server.",
            )
        ]


class MissingLabels:
    """The share of predictions whose answer did not come. lost: the part of the answers that used to come whose loss matters."""

    parts = ("hashes", "times", "told", "thinning", "outcomes", "usual", "now")

    def __init__(self, *, lost: float = 0.3, window: int = 250):
        self.lost = lost
        self.window = window
        self.hashes: list[int] = []  # predictions that are not old enough to judge, the oldest first
        self.times: list[float] = []
        self.told: list[bool] = []
        self.thinning = 1  # hashes divisible by it are kept
        self.now = 0.0
        self.renew()
        self.restored()

    def renew(self) -> None:
        """Take what comes next as usual."""
        self.outcomes: list[bool] = []  # whether the answer had come, of those that became old enough
        self.usual: float | None = None  # share without an answer

    def restored(self) -> None:
        """Find the places again."""
        self._place = {number: place for place, number in enumerate(self.hashes)}
        self._gone = 0

    def ask(self, rows: Iterable[tuple[str, float]]) -> None:
        """Take (id, time) of predictions."""
        place, thinning, gone = self._place, self.thinning, self._gone
        for id, time in rows:
            if time > self.now:
                self.now = time
            number = zlib.crc32(id.encode())
            if number % thinning == 0 and number not in place:
                place[number] = gone + len(self.hashes)
                self.hashes.append(number)
                self.times.append(time)
                self.told.append(False)
        while len(self.hashes) > KEPT:
            self._thin()

    def tell(self, rows: Iterable[tuple[str, float]]) -> None:
        """Take (id, time) of answers."""
        place, told, gone = self._place, self.told, self._gone
        for id, time in rows:
            if time > self.now:
                self.now = time
            found = place.get(zlib.crc32(id.encode()))
            if found is not None:
                told[found - gone] = True

    def judge(self, patience: float | None) -> list[Reading]:
        """Judge predictions older than so many seconds. A reading comes with each full window of them."""
        if patience is None:
            return []
        old = 0
        while old < len(self.times) and self.times[old] <= self.now - patience:
            old += 1
        if old:
            self._forget(old)
        readings: list[Reading] = []
        while len(self.outcomes) >= self.window:
            newest, self.outcomes = self.outcomes[: self.window], self.outcomes[self.window :]
            share = 1.0 - sum(newest) / self.window
            if self.usual is None:
                self.usual = share
            else:
                readings.append(self.read(share, self.window, patience))
        return readings

    def read(self, share: float, rows: int, patience: float) -> Reading:
        """The reading of a share without an answer among `rows` predictions that are old enough."""
        usual = 0.0 if self.usual is None else self.usual
        limit = 1.0 - (1.0 - usual) * (1.0 - self.lost)
        limit = max(limit, usual + ERRORS * sqrt(usual * (1.0 - usual) * (1.0 / rows + 1.0 / self.window)))
        reading = above(
            share,
            limit,
            f"Answers are missing: {share:.0%} of {rows} predictions older than {patience:.3g} s have none (limit {limit:.0%}, usually "
            f"{usual:.0%}). Look at whether feedback reaches this server, and whether it carries the ids of predictions.",
        )
        return Reading(share, limit, reading.message, reading.over, share <= (usual + limit) / 2)

    def _forget(self, old: int) -> None:
        """Count the outcome of the oldest predictions and drop them."""
        self.outcomes += self.told[:old]
        for number in self.hashes[:old]:
            del self._place[number]
        del self.hashes[:old], self.times[:old], self.told[:old]
        self._gone += old

    def _thin(self) -> None:
        self.thinning *= 2
        kept = [place for place, number in enumerate(self.hashes) if number % self.thinning == 0]
        self.hashes, self.times, self.told = (
            [values[place] for place in kept] for values in (self.hashes, self.times, self.told)
        )
        self.restored()


def quantile(ordered: Sequence[float], share: float) -> float:
    """The least of the rising numbers that at least `share` of them do not exceed.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5), quantile([1.0, 2.0, 3.0, 4.0], 0.9)
    (2.0, 4.0)
    """
    return ordered[max(0, ceil(share * len(ordered)) - 1)]
