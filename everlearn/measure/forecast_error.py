"""How far forecasts are off, before their answers are learned from, and how soon that is so again after the world has changed.

    RMSE = sqrt(mean (f - y)^2)    MAE = mean |f - y|    MAPE = mean |f - y| / max(|y|, floor)    sMAPE = mean 2 |f - y| / (|f| + |y|)
    skill = 1 - RMSE / RMSE of persistence      0: as good as the newest value, 1: never off, below 0: worse than doing nothing

    floored = share of the answers with |y| < floor       their percentages are of the floor; 1: MAPE is MAE / floor, no percentage

Each row counts once, with the forecast of the time of its input. After a change that the stream knows of, the time to recover is the
number of rows until the trailing mean of the absolute percentage error is at most theta and stays there. The whole state is sums by
segment and target, one short window, and the forecasts that wait.
References: Dawid (1984), Statistical theory: the prequential approach; Ayoub et al. (2024), arXiv 2404.05304 (time to convergence);
Hyndman & Koehler (2006), Another look at measures of forecast accuracy.
"""

import math
from typing import Any

import torch
from torch import Tensor

from everlearn.core.errors import check_count, check_range
from everlearn.core.events import Batch, Event
from everlearn.core.learner import Learner
from everlearn.core.monitor import Monitor, Step
from everlearn.core.stream import HeldOut, Stream
from everlearn.data.windows import newest, target_columns
from everlearn.measure.answers import Answers

TINY = 1e-12  # below which |f| + |y| counts as nothing, and their difference as no error
MEASURES = ("squared", "absolute", "percentage", "symmetric", "persistence", "floored")  # the columns of the sums


class ForecastError(Monitor):
    """Errors of forecasts beside those of persistence, by target and by segment between the known changes of the stream.

    floor: the least |y| that a percentage is taken of, in units of y; span: rows after a change that are also told apart;
    theta: the error that counts as recovered, a share (0.15 is 15 %), or, with `relative`, a multiple of the error before the change;
    trailing: rows of the mean that must be at most theta, and rows for which it must stay there.

    Figures: rmse, mae, mape, floored, smape, skill and scored from deployment on; all: the same from the first event; by_target;
    segments, one for each known change and one before, with `early`, those of the first `span` rows, `recovered`, rows until recovery,
    and `recovered_events`, the same in events (None: never), and `refits`; refits: events from deployment on at which the learner told
    of a fit, the first one included where it comes that late; held_out: rmse and skill of each held-out set at the last checkpoint;
    pending. Percentages are shares. Curve: rmse, mape and skill of the rows since the point before. Where x has no column of a
    target, its last known answer stands for persistence.
    """

    name = "forecast"
    parts = (
        "answers", "sums", "counts", "early", "early_counts", "fits", "tracks", "recent", "asked", "last", "held_out", "shown",
    )  # fmt: skip

    def __init__(
        self,
        *,
        floor: float = 1.0,
        span: int = 36,
        theta: float = 0.15,
        relative: bool = False,
        trailing: int = 12,
    ):
        check_range(self.name, "floor", floor, 1e-300)
        check_count(self.name, "span", span)
        check_range(self.name, "theta", theta, 0.0)
        check_count(self.name, "trailing", trailing)
        self.floor = floor
        self.span = span
        self.theta = theta
        self.relative = relative
        self.trailing = trailing
        self._begin((), None, (), 0)

    def start(self, learner: Learner, stream: Stream) -> None:
        self._begin(stream.schema.targets, target_columns(stream.schema), stream.changes, stream.deployed)

    def _begin(
        self, targets: tuple[str, ...], columns: tuple[int, ...] | None, changes: tuple[int, ...], deployed: int
    ) -> None:
        self.targets = targets
        self.columns = columns
        self.changes = changes
        self.deployed = deployed
        # segment 0 is what comes before deployment, where there is such a time; each change after it begins another
        self.starts = sorted({deployed, *(change for change in changes if change > deployed)})
        segments, width = len(self.starts) + 1, len(targets)
        self.answers = Answers(values=True)
        self.sums = torch.zeros(segments, width, len(MEASURES), dtype=torch.float64)
        self.counts = torch.zeros(segments, dtype=torch.int64)
        self.early = torch.zeros_like(self.sums)
        self.early_counts = torch.zeros_like(self.counts)
        self.fits = [0] * segments  # events at which the learner was fitted
        # by segment: [rows so far, rows in a row that were at most theta, rows until recovery, the theta that counts, the event of
        # recovery]; -1 stands for not yet
        self.tracks: list[list[float]] = [[0, 0, -1, math.nan, -1] for _ in range(segments)]
        self.recent: list[float] = []  # the newest absolute percentage errors, at most `trailing`
        self.asked: list[int] = []  # the events at which they were forecast
        self.last = torch.zeros(width)  # the newest answers
        self.held_out: list[list[Any]] = []  # [name, rmse, persistence's] by set, at the newest checkpoint
        self.shown: list[Any] = [0, [0.0] * len(MEASURES)]  # rows and sums at the last point of the curve

    def wants_prediction(self, event: Event) -> bool:
        return isinstance(event, Batch) and self.answers.wants(event)

    def observe(self, step: Step, learner: Learner) -> None:
        event = step.event
        if step.metrics and "fits" in step.metrics:
            self.fits[int(self._segments(torch.tensor(step.position)))] += 1
        if isinstance(event, Batch) and step.prediction is not None:
            simple = self._persistence(event.x, len(event))
            both = torch.cat([step.prediction.float().cpu(), simple], dim=1)
            step = Step(step.position, event, both, step.metrics, step.predict_seconds, step.update_seconds)
        scored = self.answers.match(step)
        if scored is None:
            return
        if len(scored.labels):
            asked = scored.asked if scored.asked is not None else torch.full((len(scored.labels),), step.position)
            forecasts, simple = scored.guesses.split(len(self.targets), dim=1)
            self._add(forecasts, simple, scored.labels, asked)
            self.last = scored.labels[-1].clone()
        for both, before, now, event_asked in scored.revised:
            self._revise(torch.tensor(both), torch.tensor(before), torch.tensor(now), int(event_asked))

    def _persistence(self, x: Any, rows: int) -> Tensor:
        return self.last.expand(rows, -1) if self.columns is None else newest(x, self.columns).float().cpu()

    def _errors(self, forecasts: Tensor, simple: Tensor, y: Tensor) -> Tensor:
        """(rows, targets, measures) float64."""
        f, p, y = forecasts.double(), simple.double(), y.double()
        off = (f - y).abs()
        both = f.abs() + y.abs()
        symmetric = torch.where(both > TINY, 2 * off / both.clamp(min=TINY), 0.0)
        size = y.abs()
        share, small = off / size.clamp(min=self.floor), (size < self.floor).double()
        return torch.stack([off * off, off, share, symmetric, (p - y) ** 2, small], dim=2)

    def _segments(self, asked: Tensor) -> Tensor:
        return torch.searchsorted(torch.tensor(self.starts), asked, side="right")

    def _add(self, forecasts: Tensor, simple: Tensor, y: Tensor, asked: Tensor) -> None:
        errors = self._errors(forecasts, simple, y)
        segments = self._segments(asked)
        self.sums.index_add_(0, segments, errors)
        self.counts += torch.bincount(segments, minlength=len(self.counts))
        told = zip(segments.tolist(), errors[:, :, 2].mean(dim=1).tolist(), asked.tolist(), strict=True)
        for row, (segment, share, event) in enumerate(told):
            if self.tracks[segment][0] < self.span:
                self.early[segment] += errors[row]
                self.early_counts[segment] += 1
            self._track(segment, share, event)

    def _track(self, segment: int, share: float, event: int) -> None:
        """Count a row of a segment, and whether the trailing mean of percentage errors was at most theta with it."""
        self.recent = [*self.recent, share][-self.trailing :]
        self.asked = [*self.asked, event][-self.trailing :]
        track = self.tracks[segment]
        if not track[0]:
            track[3] = self._theta(segment)
        track[0] += 1
        low = sum(self.recent) / len(self.recent) <= track[3]
        track[1] = track[1] + 1 if low else 0
        if track[2] < 0 and track[1] == self.trailing:
            track[2] = track[0] - self.trailing
            track[4] = self.asked[0]  # of the first of the rows that stayed low

    def _theta(self, segment: int) -> float:
        """What counts as recovered in a segment: theta, or theta times the mean error of the segment before."""
        if not self.relative:
            return self.theta
        before = segment - 1
        if before < 0 or not self.counts[before]:
            return math.nan
        return self.theta * float(self.sums[before, :, 2].mean() / self.counts[before])

    def _revise(self, both: Tensor, before: Tensor, now: Tensor, asked: int) -> None:
        """Count a row again whose answer turned out to be another; when it recovered is left as it was told then."""
        forecasts, simple = both[None].split(len(self.targets), dim=1)
        change = self._errors(forecasts, simple, now[None]) - self._errors(forecasts, simple, before[None])
        self.sums.index_add_(0, self._segments(torch.tensor([asked])), change)

    def judge(self, checkpoint: int, index: int, held_out: HeldOut, scores: Tensor) -> None:
        if index == 0:
            self.held_out = []
        y = held_out.y.double()
        simple = self.last.expand_as(y) if self.columns is None else newest(held_out.x, self.columns)
        pair = [float(((f.double() - y) ** 2).mean().sqrt()) for f in (scores, simple)]
        self.held_out.append([held_out.name, *pair])

    def record(self, learner: Learner) -> dict[str, Any]:
        rows, sums = int(self.counts.sum()), self.sums.sum(dim=(0, 1))
        new, since = rows - self.shown[0], sums - torch.tensor(self.shown[1], dtype=torch.float64)
        self.shown = [rows, sums.tolist()]
        if not new:
            return {}
        found = self._figures(since[None] / max(1, len(self.targets)), new)
        return {key: found[key] for key in ("rmse", "mape", "skill")}

    def figures(self) -> dict[str, Any]:
        sums, rows = self.sums[1:].sum(dim=0), int(self.counts[1:].sum())
        return {
            **self._figures(sums, rows),
            "all": self._figures(self.sums.sum(dim=0), int(self.counts.sum())),
            "by_target": {name: self._figures(sums[place : place + 1], rows) for place, name in enumerate(self.targets)},
            "segments": [self._segment(number) for number in range(1, len(self.counts))],
            "held_out": {
                name: {"rmse": rmse, "skill": _skill(rmse, simple)} for name, rmse, simple in self.held_out
            },
            "refits": sum(self.fits[1:]),
            "pending": self.answers.waiting,
        }  # fmt: skip

    def _segment(self, number: int) -> dict[str, Any]:
        """Figures between one change and the next; `from`: the event at which the segment begins."""
        begins = self.starts[number - 1]
        found = {"from": begins, "change": begins in self.changes}
        found |= self._figures(self.sums[number], int(self.counts[number]))
        found["early"] = self._figures(self.early[number], int(self.early_counts[number]))
        rows, event = int(self.tracks[number][2]), int(self.tracks[number][4])
        back = found["change"] and rows >= 0
        found |= {"recovered": rows if back else None, "recovered_events": event - begins if back else None}
        return found | {"refits": self.fits[number]}

    def _figures(self, sums: Tensor, rows: int) -> dict[str, Any]:
        """sums: (targets, measures) over so many rows. All None where there is no row."""
        if not rows:
            return {**dict.fromkeys(("rmse", "mae", "mape", "floored", "smape", "skill")), "scored": 0}
        squared, absolute, percentage, symmetric, simple, floored = (sums.mean(dim=0) / rows).tolist()
        rmse = math.sqrt(squared)
        return {
            "rmse": rmse, "mae": absolute, "mape": percentage, "floored": floored, "smape": symmetric,
            "skill": _skill(rmse, math.sqrt(simple)), "scored": rows,
        }  # fmt: skip


def _skill(rmse: float, simple: float) -> float | None:
    """1 - rmse / that of persistence; None where persistence is never off."""
    return 1 - rmse / simple if simple > 0 else None
