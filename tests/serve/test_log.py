"""The log by itself: groups and their undoing, what is refused at the end, late and missing answers, erasure, steps as they are read."""

import sqlite3
import threading

import pytest

from everlearn.core.errors import ServeError, StateError
from everlearn.serve.database import SQLite
from everlearn.serve.log import Log
from everlearn.serve.records import Ask, Told


class Clock:
    """Seconds since 1970, as the test says."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.sqlite"


@pytest.fixture
def log(path, clock):
    log = Log(SQLite(path), clock=clock)
    yield log
    log.close()


def asked(*ids, x=b"x", version=0):
    return [(Ask(id, x), {"answer": id}, version) for id in ids]


def fill(log, *ids):
    """Predictions of some ids, asked one after the other."""
    return [log.keep(asked(id)).result()[0].seq for id in ids]


def told(log, id, y, revision=0, horizon=None):
    return log.tell([Told(id, y, revision)], horizon).result()[0]


def held(log):
    """Keep the writing thread busy until the returned event is set, so that what comes gathers in one group."""
    started, go = threading.Event(), threading.Event()
    log.write(lambda connection: (started.set(), go.wait(10)))
    started.wait(10)
    return go


def code_of(future):
    with pytest.raises(ServeError) as caught:
        future.result(10)
    return caught.value.code


# ---- groups ------------------------------------------------------------------------------------------------------------------


def test_what_waits_is_one_transaction(log):
    commits = []
    commit = log.commit
    log.commit = lambda: (commits.append(1), commit())
    go = held(log)
    futures = [log.keep(asked(f"r{number}")) for number in range(20)] + [log.tell([Told("r3", 1)])]
    go.set()
    assert [future.result(10)[0].seq for future in futures] == list(range(1, 22))
    assert len(commits) == 2  # the one that held the thread, and all the others


def test_a_piece_that_fails_takes_nothing_with_it(log):
    go = held(log)
    first = log.keep(asked("a"))

    def broken(connection):
        connection.execute("INSERT INTO setting VALUES ('half', 'done')")
        raise KeyError("broken")

    failing, refused, last = log.write(broken), log.write(refuse), log.keep(asked("b"))
    go.set()
    assert first.result(10)[0].seq == 1 and last.result(10)[0].seq == 2
    with pytest.raises(KeyError):
        failing.result(10)
    assert code_of(refused) == "conflict"
    assert log.setting("half") == "" and log.counts()["inputs"] == 2 and log.newest() == 2


def refuse(connection):
    raise ServeError("conflict", "no", 422)


@pytest.mark.parametrize(
    "fault", [sqlite3.OperationalError("database or disk is full"), sqlite3.OperationalError("disk I/O error")]
)
def test_a_commit_that_fails_leaves_nothing_behind(log, fault):
    fill(log, "a")
    commit, failing = log.commit, [True]

    def fails():
        if failing:
            raise fault
        commit()

    log.commit = fails
    futures = [log.keep(asked("b")), log.tell([Told("a", 1)]), log.tell([Told("unseen", 1)])]
    for future in futures:
        with pytest.raises(ServeError, match="nothing was stored") as caught:
            future.result(10)
        assert (caught.value.code, caught.value.status) == ("log_unavailable", 503) and caught.value.retry_after
    assert (log.newest(), log.last_row()) == (1, 1)
    assert (log.counts()["inputs"], log.counts()["answers"], log.counts()["early_waiting"]) == (1, 0, 0)
    failing.clear()
    assert log.keep(asked("b")).result(10)[0].seq == 2  # as if it had never been asked
    assert not told(log, "a", 1).duplicate


def test_a_fault_of_what_predicts_is_told_and_the_log_goes_on(log):
    with pytest.raises(StateError, match="nothing predicts"):
        log.ask([Ask("a", b"x")]).result(10)

    def broken(requests):
        raise ZeroDivisionError

    log.answering = broken
    with pytest.raises(ZeroDivisionError):
        log.ask([Ask("a", b"x")]).result(10)
    log.answering = lambda requests: [asked(*(ask.id for ask in asks), version=4) for asks in requests]
    assert log.ask([Ask("a", b"x")]).result(10)[0].version == 4


def test_what_waits_at_the_end_is_written_and_what_comes_later_refused(path):
    log = Log(SQLite(path))
    go = held(log)
    last = log.keep(asked("a"))
    closing = threading.Thread(target=log.close)
    closing.start()
    while not log._closed:
        pass
    late = [log.keep(asked("b")), log.tell([Told("a", 1)]), log.write(lambda connection: 1), log.ask([Ask("c", b"")])]
    go.set()
    closing.join()
    assert last.result(10)[0].seq == 1
    assert [code_of(future) for future in late] == ["not_ready"] * 4
    log.close()  # once more does no harm


def test_many_threads_write_and_read(log):
    found = []

    def client(part):
        for number in range(25):
            fill(log, f"{part}-{number}")
        found.append(len(log.rows("SELECT seq FROM event")))

    threads = [threading.Thread(target=client, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.counts()["inputs"] == log.newest() == 100 and max(found) == 100


def test_a_log_counts_what_was_there_before(path):
    log = Log(SQLite(path))
    fill(log, "a", "b")
    told(log, "a", 1)
    log.keep_setting("kept", "yes")
    log.close()
    log = Log(SQLite(path))
    assert (log.newest(), log.inputs, log.answers, log.setting("kept")) == (3, 2, 1, "yes")
    assert fill(log, "c") == [4]
    log.close()


# ---- late, early, missing ----------------------------------------------------------------------------------------------------


def test_an_answer_after_the_horizon_is_refused_and_one_at_it_taken(log, clock):
    fill(log, "a", "b")
    clock.now += 60.0
    assert told(log, "a", 1, horizon=60.0).seq == 3
    clock.now += 0.001
    assert code_of(log.tell([Told("b", 1)], 60.0)) == "horizon_passed"
    assert told(log, "a", 1, horizon=60.0).duplicate
    assert told(log, "b", 1).seq == 4  # without a horizon an answer may come whenever it likes


@pytest.mark.parametrize("default", [None, 0])
def test_open_predictions_are_closed_once_and_in_order(log, clock, default):
    fill(log, "a", "b", "c")
    told(log, "b", 1)
    clock.now += 10.0
    fill(log, "d")

    def close():
        return log.write(lambda connection: log.close_open(connection, 5.0, default)).result()

    assert close() == 3 and close() == 0
    counts = log.counts()
    assert (counts["unanswered"], counts["defaulted"]) == ((2, 0) if default is None else (0, 2))
    rows = log.rows("SELECT id, y, source FROM event WHERE kind = 'answer' ORDER BY seq")
    assert rows == [("b", "1", "")] + ([] if default is None else [("a", "0", "default"), ("c", "0", "default")])
    if default is not None:
        assert code_of(log.tell([Told("a", 0)], None)) == "horizon_passed"  # even what the default says
        moment = log.moment(0, 1, 1, 99)
        assert [(answer.id, answer.default) for answer in moment.answers] == [("b", False), ("a", True), ("c", True)]
    clock.now += 10.0
    assert close() == 1


def test_a_clock_that_was_set_back_leaves_nothing_open_for_ever(log, clock):
    fill(log, "a")
    clock.now -= 500.0
    fill(log, "b")  # looks older than it is, and than the one before it
    clock.now += 500.0

    def close():
        return log.write(lambda connection: log.close_open(connection, 100.0, 0)).result()

    assert close() == 0  # in order: b waits for a
    clock.now += 101.0
    assert close() == 2 and log.counts()["defaulted"] == 2


def test_many_open_predictions_are_closed_in_parts(log, clock, monkeypatch):
    monkeypatch.setattr("everlearn.serve.log.CLOSE_ROWS", 3)
    fill(log, *"abcde")
    clock.now += 10.0

    def close():
        return log.write(lambda connection: log.close_open(connection, 5.0, None)).result()

    assert [close(), close(), close()] == [3, 2, 0] and log.counts()["unanswered"] == 5


def test_an_early_answer_joins_within_its_window_and_is_given_up_after(log, clock):
    assert told(log, "a", 1).seq is None and told(log, "b", 2).seq is None
    clock.now += 50.0
    assert log.oldest_early() == 1000.0
    fill(log, "a")
    assert log.rows("SELECT seq, kind, source FROM event ORDER BY seq") == [(1, "input", ""), (2, "answer", "early")]
    assert log.write(lambda connection: log.expire_early(connection, 50.0)).result() == 0
    clock.now += 1.0
    assert log.write(lambda connection: log.expire_early(connection, 50.0)).result() == 1
    assert (log.counts()["early_waiting"], log.counts()["early_expired"]) == (0, 1)
    fill(log, "b")
    assert told(log, "b", 3).seq == 4  # given up for good: another answer may come


# ---- what goes ---------------------------------------------------------------------------------------------------------------


def test_an_erased_id_leaves_nothing_and_may_come_again(log, path):
    fill(log, "a", "b")
    told(log, "a", 1)
    told(log, "a", 2, revision=1)
    told(log, "unseen", 1)
    assert log.write(lambda connection: log.erase(connection, "a")).result() == (3, 1)
    assert log.write(lambda connection: log.erase(connection, "unseen")).result() == (1, 0)
    assert log.write(lambda connection: log.erase(connection, "nobody")).result() == (0, 0)
    assert (log.counts()["inputs"], log.counts()["answers"], log.counts()["early_waiting"]) == (1, 0, 0)
    assert log.rows("SELECT count(*) FROM event WHERE id = 'a'") == [(0,)]
    assert fill(log, "a") == [5]  # a number is never used twice


def test_old_rows_go_once_they_and_their_answers_were_folded(log, clock):
    fill(log, "a", "b", "c")
    told(log, "a", 1)
    clock.now += 100.0
    fill(log, "d")
    told(log, "b", 1)

    def forget(applied_seq):
        return log.write(lambda connection: log.forget_before(connection, clock.now - 50.0, applied_seq)).result()

    assert forget(2) == 0  # the answer of a is not folded, and that of b is neither folded nor old
    assert forget(4) == 3  # a with its answer, and c, which nobody answered
    assert log.rows("SELECT id, kind FROM event ORDER BY seq") == [("b", "input"), ("d", "input"), ("b", "answer")]
    assert (log.counts()["inputs"], log.counts()["answers"]) == (2, 1)


def test_removal_waits_for_late_answers(log, clock):
    fill(log, "a", "b")
    clock.now += 100.0
    told(log, "a", 1)
    forgotten = log.write(lambda connection: log.forget_before(connection, clock.now - 50.0, 3)).result()
    assert forgotten == 1  # b: nobody answered; a's answer is young
    assert log.rows("SELECT id, kind FROM event ORDER BY seq") == [("a", "input"), ("a", "answer")]
    assert (log.counts()["inputs"], log.counts()["answers"]) == (1, 1)


# ---- reading -----------------------------------------------------------------------------------------------------------------


def test_a_step_has_its_inputs_first_and_leaves_out_its_holes(log):
    fill(log, "a", "b")
    told(log, "a", 1)
    fill(log, "c")
    told(log, "b", 0)
    told(log, "a", 2, revision=1)
    moment = log.moment(3, 7, 2, 6)
    assert (moment.branch, moment.number, moment.first, moment.last) == (3, 7, 2, 6)
    assert [row.id for row in moment.inputs] == ["b", "c"]
    assert [(row.id, row.y, row.revision, row.x, row.asked) for row in moment.answers] == [
        ("a", 1, 0, b"x", 1000.0), ("b", 0, 0, b"x", 1000.0), ("a", 2, 1, b"x", 1000.0),
    ]  # fmt: skip
    assert [row.seq for row in log.moment(0, 1, 1, 6, [(2, 3), (6, 9)]).inputs] == [1, 4]
    assert [row.seq for row in log.moment(0, 1, 1, 6, [(2, 3), (6, 9)]).answers] == [5]
    log.write(lambda connection: log.erase(connection, "b")).result()
    assert [row.id for row in log.moment(0, 1, 1, 6).answers] == ["a", "a"]


def test_events_that_wait_are_given_in_order(log):
    fill(log, "a", "b")
    told(log, "a", 1)
    assert [(seq, kind) for seq, kind, _ in log.pending(1, 10)] == [(2, "input"), (3, "answer")]
    assert log.pending(0, 1) == [(1, "input", 1000.0)] and log.pending(3, 10) == []


def test_a_statement_that_fails_while_reading_is_a_refusal(log):
    assert code_of_call(lambda: log.rows("SELECT nothing FROM nowhere")) == "log_unavailable"


def code_of_call(call):
    with pytest.raises(ServeError) as caught:
        call()
    return caught.value.code


def test_two_logs_may_not_disagree_about_the_format(path):
    log = Log(SQLite(path))
    log.keep_setting("format", "2")
    log.close()
    with pytest.raises(StateError, match=r"format '2'.*reads format '1'"):
        Log(SQLite(path))
