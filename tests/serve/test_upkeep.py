"""What is done beside learning: horizon, early answers, retention, points, alarms told once."""

import pytest
import torch

from everlearn.core.stream import Schema
from everlearn.learners.fine_tune import FineTune
from everlearn.serve.database import SQLite
from everlearn.serve.fold import ServedFold
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.log import Log
from everlearn.serve.options import Options
from everlearn.serve.records import Alarm, Answer, Ask, Moment, Told
from everlearn.serve.upkeep import POINTS, Upkeep

SPEC = InputSpec("classes", (2,), "float32", classes=("a", "b"))


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(tmp_path, clock):
    made = Log(SQLite(tmp_path / "log.sqlite"), clock=clock)
    yield made
    made.close()


@pytest.fixture
def fold():
    learner = FineTune(torch.nn.Linear(2, 2))
    return ServedFold(learner, InputSpec.of(learner, Schema((2,), torch.float32, ("a", "b"))), Options())


def asked(log, *ids):
    log.keep([(Ask(id, SPEC.row([0, 1])), {"answer": "a"}, 0) for id in ids]).result()


def events(log):
    return log.rows("SELECT kind, id, y, source FROM event ORDER BY seq")


def round_of(upkeep, fold, kept=0):
    """One round of housekeeping, whatever the second."""
    upkeep._tended = upkeep._swept = -1e9
    return upkeep.tend(fold, lambda: kept)


def test_after_the_horizon_the_default_takes_the_answers_place(log, clock, fold):
    asked(log, "a", "b")
    log.tell([Told("a", 0)]).result()
    upkeep = Upkeep(log, Options(horizon=60.0), default=1)
    round_of(upkeep, fold)
    assert len(events(log)) == 3
    clock.now += 61
    round_of(upkeep, fold)
    round_of(upkeep, fold)  # once
    assert events(log)[3:] == [("answer", "b", "1", "default")]
    assert log.counts()["defaulted"] == 1 and log.counts()["answers"] == 2


def test_without_a_default_it_is_counted_that_nobody_answered(log, clock, fold):
    asked(log, "a")
    clock.now += 61
    round_of(Upkeep(log, Options(horizon=60.0)), fold)
    assert (log.counts()["unanswered"], len(events(log))) == (1, 1)


def test_without_a_horizon_answers_are_waited_for(log, clock, fold):
    asked(log, "a")
    clock.now += 1e9
    round_of(Upkeep(log, Options()), fold)
    assert log.tell([Told("a", 1)]).result()[0].joined


def test_an_early_answer_is_given_up_with_an_alarm(log, clock, fold):
    log.tell([Told("a", 1)]).result()
    upkeep = Upkeep(log, Options(early=30.0))
    assert round_of(upkeep, fold) == []
    clock.now += 31
    (alarm,) = round_of(upkeep, fold)
    assert (alarm.kind, alarm.value) == ("label_loss", 1.0)
    assert log.counts()["early_waiting"] == 0 and log.counts()["early_expired"] == 1


def test_rows_older_than_the_days_go_once_no_restart_needs_them(log, clock, fold):
    asked(log, "old", "used")
    log.tell([Told("used", 1)]).result()
    clock.now += 3 * 86_400
    asked(log, "new")
    upkeep = Upkeep(log, Options(keep_days=2.0))
    round_of(upkeep, fold, kept=1)
    assert [row[1] for row in events(log)] == ["used", "used", "new"]  # of `used` the answer is needed still
    round_of(upkeep, fold, kept=4)
    assert [row[1] for row in events(log)] == ["new"]
    assert (log.counts()["inputs"], log.counts()["answers"]) == (1, 0)


def test_many_points_are_thinned_and_the_newest_stay(log):
    def write(connection):
        for seq in range(1, 101):
            connection.execute(
                "INSERT INTO point (seq, time, score, version, lag, inputs, answers) VALUES (?, 0, 0, 0, 0, 0, 0)", (seq,)
            )

    log.write(write).result()
    assert log.write(lambda connection: log.thin_points(connection, POINTS)).result() == 0
    assert log.write(lambda connection: log.thin_points(connection, 99)).result() == 24
    left = [row[0] for row in log.rows("SELECT seq FROM point ORDER BY seq")]
    assert left[-51:] == list(range(50, 101)) and left[:4] == [1, 3, 5, 7]


def test_an_alarm_is_told_once_and_stands_in_the_log(log):
    heard = []
    upkeep = Upkeep(log, Options(), heard.append)
    assert upkeep.tell(Alarm("lag", 2.0, 1.0, "late", seq=7))
    assert not upkeep.tell(Alarm("lag", 2.0, 1.0, "late", seq=7))
    assert upkeep.tell(Alarm("lag", 2.0, 1.0, "late", seq=8))
    assert [(alarm.seq, alarm.time) for alarm in heard] == [(7, 1000.0), (8, 1000.0)]
    assert log.rows("SELECT count(*) FROM alarm")[0][0] == 2


def test_lag_is_what_came_and_was_not_folded(log, clock):
    asked(log, "a")
    log.tell([Told("a", 1)]).result()
    clock.now += 5
    upkeep = Upkeep(log, Options())
    upkeep.measure_lag(log.pending(0, 100), 0)
    assert upkeep.lag == {"events": 2, "answers": 1, "seconds": 5.0}
    upkeep.measure_lag(log.pending(2, 100), 2)
    assert upkeep.lag == {"events": 0, "answers": 0, "seconds": 0.0}


def test_points_are_drawn_at_most_once_a_second(log, fold):
    upkeep = Upkeep(log, Options())
    answer = Answer(4, "a", b"", {"answer": "a"}, 0, 1, 0, 0.0, 1.0)
    for last in (4, 5):
        upkeep.draw(fold, Moment(0, 1, 1, last, (), (answer,)))
    log.write(lambda connection: None).result()
    assert log.rows("SELECT seq FROM point") == [(4,)]


def test_the_clock_is_asked_about_queue_early_answers_and_missing_ones(log, clock, fold):
    class Watching:
        patience = 10.0

        def look(self, now, lag, queue, **given):
            self.seen = (now, lag, queue, given)
            return [Alarm("queue", 1.0, 0.5, "full")]

    asked(log, "a", "b")
    log.tell([Told("a", 1), Told("stranger", 1)]).result()
    clock.now += 20
    fold.watch = Watching()
    alarms = round_of(Upkeep(log, Options(queue=9), waiting=lambda: 4), fold)
    now, lag, queue, given = fold.watch.seen
    assert (now, lag["answers"], queue) == (1020.0, 1, {"waiting": 4, "limit": 9})
    assert given == {"oldest_early": 1000.0, "asked": 2, "unanswered": 1, "seq": 3}
    assert [alarm.kind for alarm in alarms] == ["queue"]
