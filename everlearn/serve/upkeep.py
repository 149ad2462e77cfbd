"""What is done beside learning: closing the horizon, giving up early answers, retention, lag, alarms, points over time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from everlearn.serve.database import Connection
from everlearn.serve.fold import ServedFold
from everlearn.serve.log import Log
from everlearn.serve.options import Options
from everlearn.serve.records import ANSWER, Alarm, Moment

MOST_EVENTS = 1024  # events in one step
TEND = 1.0  # seconds between rounds
SWEEP = 600.0  # seconds between looks for rows that are too old
POINTS = 20_000  # drawn over time before the older ones are thinned
RECENT = 500  # predictions looked at for missing answers


class Upkeep:
    """Keeps house for one log. raised: told of each alarm; waiting: requests that wait; default: what is stored where nobody answers."""

    def __init__(
        self,
        log: Log,
        options: Options,
        raised: Callable[[Alarm], None] = lambda alarm: None,
        waiting: Callable[[], int] = lambda: 0,
        default: Any = None,
    ):
        self.log = log
        self.default = default
        self.options = options
        self.raised = raised
        self.waiting = waiting
        self.lag: dict[str, Any] = {"events": 0, "answers": 0, "seconds": 0.0}
        self._tended = 0.0
        self._swept = -SWEEP
        self._drawn = 0.0

    def measure_lag(self, rows: Sequence[tuple[int, str, float]], applied_seq: int) -> None:
        """How far learning is behind: rows are the first events not folded (seq, kind, created)."""
        answers = [created for _, kind, created in rows if kind == ANSWER]
        waiting = self.log.newest() - applied_seq
        more = len(rows) == MOST_EVENTS
        self.lag = {
            "events": max(waiting, len(rows)) if more else len(rows),
            "answers": len(answers) if not more else max(len(answers), waiting // 2),
            "seconds": round(max(0.0, self.log.clock() - min(answers)), 3) if answers else 0.0,
        }

    def tend(self, fold: ServedFold, kept_seq: Callable[[], int]) -> list[Alarm]:
        """About once a second; gives the alarms that the clock brings. kept_seq: up to where no restart needs the rows."""
        now = time.monotonic()
        if now - self._tended < TEND:
            return []
        self._tended = now
        options, log, alarms = self.options, self.log, []
        if options.horizon is not None:
            log.write(lambda connection: log.close_open(connection, options.horizon, self.default), leading=True).result()
        expired = log.write(lambda connection: log.expire_early(connection, options.early), leading=True).result()
        if expired:
            told = f"{expired} answers were given up: their predictions did not come within {options.early:g} s."
            alarms.append(Alarm("label_loss", float(expired), 0.0, told))
        if now - self._swept > SWEEP:
            self._swept = now
            self._sweep(kept_seq)
        self.measure_lag(log.pending(fold.applied_seq, MOST_EVENTS), fold.applied_seq)
        return alarms if fold.watch is None else alarms + self._look(fold.watch)

    def _sweep(self, kept_seq: Callable[[], int]) -> None:
        """Remove rows that are too old, and every second point of the older half where there are many."""
        log, days = self.log, self.options.keep_days
        log.write(lambda connection: log.thin_points(connection, POINTS), leading=True).result()
        if days is not None:
            oldest, kept = log.clock() - days * 86_400, kept_seq()
            log.write(lambda connection: log.forget_before(connection, oldest, kept), leading=True).result()

    def _look(self, watch: Any) -> list[Alarm]:
        """What the watch says of lag, queue and answers that fail to come."""
        now, patience = self.log.clock(), watch.patience
        asked, unanswered = (0, 0) if patience is None else self.log.unanswered(now - patience, RECENT)
        return watch.look(
            now,
            self.lag,
            {"waiting": self.waiting(), "limit": self.options.queue},
            oldest_early=self.log.oldest_early(),
            asked=asked,
            unanswered=unanswered,
            seq=self.log.newest(),
        )

    def tell(self, alarm: Alarm) -> bool:
        """Write an alarm to the log and tell whoever listens; False where it was there before."""
        alarm = replace(alarm, time=alarm.time or self.log.clock(), seq=alarm.seq or self.log.newest())

        def write(connection: Connection) -> int:
            return connection.execute(
                "INSERT INTO alarm (time, seq, kind, value, limit_value, message) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (alarm.time, alarm.seq, alarm.kind, alarm.value, alarm.limit, alarm.message),
            ).rowcount

        new = self.log.write(write, leading=True).result() == 1
        if new:
            self.raised(alarm)
        return new

    def draw(self, fold: ServedFold, moment: Moment) -> None:
        """Add a point to what is drawn over time, at most one a second."""
        now = time.monotonic()
        if now - self._drawn < TEND or not moment.answers:
            return
        self._drawn = now
        log = self.log
        score = sum(fold.answered) / len(fold.answered) if fold.answered else None
        row = (moment.last, log.clock(), score, fold.service, self.lag["answers"], *log.totals())
        log.write(
            lambda connection: connection.execute(
                "INSERT INTO point (seq, time, score, version, lag, inputs, answers) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                row,
            ),
            leading=True,
        )
