"""The thread that learns: when a step closes, what is set aside, what stops and starts it, and what it does by itself."""

import time

import pytest
import torch

from everlearn.core.errors import InputError, ServeError
from everlearn.core.learner import Learner
from everlearn.serve.alarm_limits import Alarms
from everlearn.serve.alarms import Watch
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.records import Alarm, Ask, Told

SPEC = InputSpec("classes", (1,), "float32", classes=("a", "b"))


class Parrot(Learner):
    """Answers every row by the last label it was told; counts what it learned; refuses or breaks where a row says so."""

    name, parts = "parrot", ("last", "told")

    def __init__(self):
        self.last = 0
        self.told = []

    def predict(self, x):
        return torch.nn.functional.one_hot(torch.full((len(x),), self.last), 2).float()

    def update(self, batch):
        if batch.y is None:
            return {}
        if bool((batch.x == 13).any()):
            raise InputError("parrot: thirteen")
        if bool((batch.x == 14).any()):
            raise ZeroDivisionError("fourteen")
        self.told += [float(value) for value in batch.x[:, 0]]
        self.last = int(batch.y[-1])
        return {}

    def boundary(self, boundary):
        pass


@pytest.fixture
def start(tmp_path):
    made = []

    def open_engine(watch=None, **options):
        options = {"batch": 4, "wait": None, "every": 2, "least": 4, **options}
        engine = LocalEngine(Parrot(), SPEC, tmp_path, Options(**options), watch=watch)
        made.append(engine)
        engine.wait_ready()
        return engine

    yield open_engine
    for engine in made:
        engine.close()


def feed(engine, values, y=lambda value: int(value) % 2, name="r"):
    for place, value in enumerate(values):
        engine.predict([Ask(f"{name}{place}", SPEC.row([value]))]).result()
        engine.feedback([Told(f"{name}{place}", y(value))]).result()


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def steps(engine):
    return [tuple(row) for row in engine.log.rows("SELECT first, last, reason FROM step ORDER BY branch, number")]


def test_a_step_closes_with_its_last_answer(start):
    engine = start()
    feed(engine, range(9))
    assert engine.learned()
    assert steps(engine) == [(1, 8, "full"), (9, 16, "full")]
    assert engine.learning.fold.learner.told == [float(value) for value in range(8)]


def test_a_few_answers_are_learned_from_after_the_wait(start):
    engine = start(wait=0.2)
    began = time.monotonic()
    feed(engine, range(3))
    until(lambda: engine.learning.fold.learner.told == [0.0, 1.0, 2.0])  # a step is logged first, then folded
    assert time.monotonic() - began >= 0.2
    found = steps(engine)  # one, where the machine is not so slow that the wait is over between two answers
    assert (found[0][0], found[-1][1]) == (1, 6) and {reason for _, _, reason in found} == {"time"}


def test_inputs_alone_are_folded_when_they_have_waited(start, monkeypatch):
    monkeypatch.setattr("everlearn.serve.learning.IDLE_WAIT", 0.2)
    engine = start(wait=0.1)
    engine.predict([Ask("a", SPEC.row([1]))]).result()
    until(lambda: steps(engine))
    assert steps(engine) == [(1, 1, "idle")]


@pytest.mark.parametrize(("value", "told"), [(13, "parrot: thirteen"), (14, "ZeroDivisionError: fourteen")])
def test_what_cannot_be_learned_from_is_set_aside_and_the_rest_goes_on(start, value, told):
    engine = start()
    feed(engine, [1, 2, 3, 4, 5, value, 6, 7, 8, 9, 10, 11])
    until(lambda: len(engine.learning.fold.learner.told) == 8)
    assert engine.learning.fold.learner.told == [1.0, 2.0, 3.0, 4.0, 8.0, 9.0, 10.0, 11.0]
    (alarm,) = engine.alarms()
    assert alarm["kind"] == "fault" and told in alarm["message"] and "9..16" in alarm["message"]
    assert engine.decisions()[-1]["action"] == "set_aside"
    assert engine.status()["learning"] == "running"


def test_learning_stops_after_three_faults_in_a_row_and_a_rollback_starts_it(start):
    engine = start()
    feed(engine, [13] * 12)
    until(lambda: engine.learning.state == "failed")
    assert "3 steps in a row" in engine.status()["fault"] and not engine.ready
    assert engine.predict([Ask("still", SPEC.row([1]))]).result()[0].version == 0
    engine.rollback(0, "begin again", "skip")
    until(lambda: engine.ready)
    feed(engine, range(4), name="again")
    until(lambda: engine.learning.fold.learner.told == [0.0, 1.0, 2.0, 3.0])


def test_a_pause_holds_over_a_restart(start):
    engine = start()
    engine.pause("looking")
    feed(engine, range(4))
    time.sleep(0.2)
    assert steps(engine) == []
    engine.close()
    engine = start()
    assert engine.status()["learning"] == "paused"
    engine.resume("looked")
    until(lambda: len(steps(engine)) == 1)
    assert [row["action"] for row in engine.decisions()] == ["resume", "pause"]


def test_an_alarm_that_freezes_stops_learning(start):
    engine = start(watch=Watch(Alarms(freeze=("lag",)), SPEC))
    engine.upkeep.tell = lambda alarm: True
    engine.learning._alarm(Alarm("queue", 1.0, 0.5, "full"))
    assert engine.learning.state == "running"
    engine.learning._alarm(Alarm("lag", 1.0, 0.5, "late"))
    assert engine.learning.state == "paused"
    assert engine.decisions()[0]["action"] == "freeze"


def test_a_version_that_answers_worse_gives_way_to_the_one_before_it(start):
    """The parrot learns "b" from eight rows, serves, and then everything is "a" again, as version 0 would have said."""
    engine = start(after="skip", every=2, window=8, margin=0.0)
    feed(engine, [1] * 8, name="b")
    until(lambda: engine.status()["version"] == 1)
    engine.learning.options = engine.learning.line.options = Options(
        batch=4, wait=None, every=1000, least=4, window=8, margin=0.0, after="skip"
    )
    feed(engine, [2] * 16, name="a")
    until(lambda: engine.decisions()[0]["action"] == "automatic_rollback" and engine.status()["version"] == 0)
    decision = engine.decisions()[0]
    assert (decision["before"], decision["after"], decision["who"]) == (1, 0, "guard")
    assert engine.status()["version"] == 0 and "95% confidence (later feedback is left out)" in decision["reason"]


def test_commands_wait_for_recovery_and_unknown_versions_are_refused(start):
    engine = start()
    for version, code in ((7, "unknown_version"),):
        with pytest.raises(ServeError) as caught:
            engine.rollback(version, "no")
        assert caught.value.code == code


def test_while_the_log_cannot_be_written_learning_waits_and_then_goes_on(start, monkeypatch):
    engine = start()
    write = engine.log.write

    def full(work, *, leading=False):
        raise ServeError("log_unavailable", "the disk is full", 503)

    monkeypatch.setattr(engine.log, "write", full)
    feed(engine, range(4))
    until(lambda: engine.learning.fault is not None)
    assert "the disk is full" in engine.learning.fault
    monkeypatch.setattr(engine.log, "write", write)
    until(lambda: engine.learning.state == "running" and len(engine.learning.fold.learner.told) == 4)
    assert engine.learning.fault is None
