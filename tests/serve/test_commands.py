"""Commands go through the log once: marked before they begin, answered with what they gave or raised, taken back where nobody learns."""

import threading
import time

import pytest

from everlearn.core.errors import ServeError, StateError
from everlearn.serve import commands
from everlearn.serve.commands import Commands
from everlearn.serve.database import SQLite
from everlearn.serve.log import Log


@pytest.fixture
def log(tmp_path):
    made = Log(SQLite(tmp_path / "log.sqlite"))
    yield made
    made.close()


def sent(log, kind, body, **named):
    """Send a command from a thread: (thread, what came of it)."""
    came = []

    def send():
        try:
            came.append(Commands(log, **named).send(kind, body))
        except Exception as error:
            came.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    return thread, came


def carried(log, run, count=1):
    done = 0
    end = time.monotonic() + 5
    while done < count and time.monotonic() < end:
        done += Commands(log).carry_out(run)


def test_what_a_command_gave_comes_back_and_its_row_goes(log):
    thread, came = sent(log, "pause", {"paused": True, "reason": "lunch"})
    ran = []
    carried(log, lambda kind, body: ran.append((kind, body)) or {"action": "pause", "after": 3})
    thread.join()
    assert came == [{"action": "pause", "after": 3}]
    assert ran == [("pause", {"paused": True, "reason": "lunch"})]
    assert log.rows("SELECT count(*) FROM command")[0][0] == 0


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        (ServeError("version_pruned", "version 3 was removed.", 409, retry_after=2.0), ServeError, "version 3 was removed."),
        (StateError("the snapshot is garbled."), StateError, "the snapshot is garbled."),
        (KeyError("reason"), StateError, "KeyError: 'reason'"),
    ],
)
def test_what_a_command_raised_is_raised_again(log, raised, kind, said):
    def run(*_):
        raise raised

    thread, came = sent(log, "rollback", {})
    carried(log, run)
    thread.join()
    assert type(came[0]) is kind and str(came[0]) == said
    if kind is ServeError:
        assert (came[0].code, came[0].status, came[0].retry_after) == ("version_pruned", 409, 2.0)


def test_only_known_commands_are_run(log):
    thread, came = sent(log, "close", {})
    carried(log, lambda *_: pytest.fail("it ran"))
    thread.join()
    assert str(came[0]) == "there is no command 'close'; commands: rollback, release, pause, erase."


def test_what_nobody_takes_up_is_taken_back_and_never_run(log):
    thread, came = sent(log, "pause", {}, patience=0.05)
    thread.join(5)
    assert (came[0].code, came[0].status) == ("not_ready", 503) and "nothing was done" in str(came[0])
    assert Commands(log).carry_out(lambda *_: pytest.fail("it ran")) == 0


def test_what_was_begun_waits_longer_than_the_patience(log):
    thread, came = sent(log, "pause", {}, patience=0.05)
    carried(log, lambda *_: time.sleep(0.2) or {"slow": True})
    thread.join(5)
    assert came == [{"slow": True}]


def test_a_command_that_is_being_stopped_for_is_taken_back(log):
    with pytest.raises(ServeError, match="nothing was done"):
        Commands(log).send("pause", {}, stopping=lambda: True)


def test_what_a_process_had_begun_when_it_ended_is_not_begun_again(log):
    class Killed(BaseException):
        pass

    def run(*_):
        raise Killed

    thread, came = sent(log, "rollback", {"version": 1})
    with pytest.raises(Killed):
        carried(log, run)
    assert Commands(log).carry_out(lambda *_: pytest.fail("it ran")) == 0
    Commands(log).settle()
    thread.join(5)
    assert came[0].code == "not_ready" and "look at the decisions" in str(came[0])
    assert Commands(log).carry_out(lambda *_: pytest.fail("it ran")) == 0


def test_commands_of_processes_that_went_are_removed_after_a_day(log):
    now = log.clock()
    for created in (now - commands.KEPT - 1, now - commands.KEPT + 60):
        row = ("pause", "{}", created, "{}")
        sql = "INSERT INTO command (kind, body, created, result) VALUES (?, ?, ?, ?)"
        log.write(lambda connection, row=row, sql=sql: connection.execute(sql, row)).result()
    Commands(log).settle()
    assert [row[0] for row in log.rows("SELECT created FROM command")] == [now - commands.KEPT + 60]
