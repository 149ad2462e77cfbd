"""Where learning stands: what a branch leaves out, what is released, what of it stays over a restart."""

import pytest
import torch

from everlearn.core.errors import ServeError
from everlearn.core.learner import Learner
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.records import Ask, State, Told

SPEC = InputSpec("classes", (1,), "float32", classes=("a", "b"))
BATCH = 2


class Notebook(Learner):
    """Writes down what it is told."""

    name, parts = "notebook", ("told",)

    def __init__(self):
        self.told = []

    def predict(self, x):
        return torch.zeros(len(x), 2)

    def update(self, batch):
        if batch.y is not None:
            self.told += [int(value) for value in batch.x[:, 0]]
        return {}

    def boundary(self, boundary):
        pass


def opened(folder):
    engine = LocalEngine(Notebook(), SPEC, folder, Options(batch=BATCH, wait=None, every=1, least=1, keep=3))
    engine.wait_ready()
    return engine


@pytest.fixture
def engine(tmp_path):
    with opened(tmp_path / "served") as made:
        feed(made, 1, 8)
        yield made


def feed(engine, first, last):
    """Row n has number 2n - 1 and its answer 2n; every two answers are a step and a version."""
    for row in range(first, last + 1):
        engine.predict([Ask(str(row), SPEC.row([row]))]).result()
        engine.feedback([Told(str(row), 0)]).result()
    assert engine.learned()


def told(engine):
    assert engine.learned()
    return engine.learning.fold.learner.told


def refused(code, call, *given):
    with pytest.raises(ServeError) as caught:
        call(*given)
    assert caught.value.code == code


def test_replay_learns_the_same_again(engine):
    engine.rollback(1, "test", "replay")
    assert told(engine) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert engine.status()["branch"] == 1


@pytest.mark.parametrize("after", ["skip", "quarantine"])
def test_what_is_left_out_stays_out_and_new_rows_come_in(engine, after):
    engine.rollback(1, "test", after)
    feed(engine, 9, 10)
    assert told(engine) == [1, 2, 9, 10]


def test_what_is_set_aside_can_be_released_once_in_parts(engine):
    engine.rollback(1, "test", "quarantine")
    assert engine.learning.line.set_aside() == ((5, 16),)
    engine.release(9, 12, "these were right")
    assert told(engine) == [1, 2, 5, 6]
    assert engine.learning.line.set_aside() == ((5, 8), (13, 16))
    refused("nothing_set_aside", engine.release, 9, 12, "again")
    engine.release(1, 99, "all")
    assert told(engine) == [1, 2, 5, 6, 3, 4, 7, 8]


def test_what_is_skipped_is_final(engine):
    engine.rollback(1, "test", "skip")
    refused("nothing_set_aside", engine.release, 1, 99, "no")


def test_a_range_may_be_named(engine):
    engine.rollback(1, "test", "skip", first=9, last=12)
    assert told(engine) == [1, 2, 3, 4, 7, 8]


def test_branches_and_releases_stand_over_a_restart(engine, tmp_path):
    engine.rollback(2, "test", "quarantine")
    engine.release(9, 12, "these")
    expected = told(engine)
    engine.close()
    with opened(tmp_path / "served") as again:
        assert told(again) == expected == [1, 2, 3, 4, 5, 6]
        assert again.learning.line.set_aside() == ((13, 16),)
        again.release(13, 16, "and these")
        assert told(again) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_second_rollback_keeps_what_was_left_out_before(engine):
    engine.rollback(2, "test", "quarantine")
    feed(engine, 9, 12)
    engine.rollback(1, "test", "replay")
    assert told(engine) == [1, 2, 3, 4, 9, 10, 11, 12]  # 9..16 stay set aside


def test_versions_after_a_rollback_are_withdrawn_and_one_is_active(engine):
    engine.rollback(2, "test", "skip")
    states = {row.version: row.state for row in engine.history.versions()}
    assert states[2] == State.ACTIVE and states[3] == states[4] == State.WITHDRAWN
    assert list(states.values()).count(State.ACTIVE) == 1


def test_old_snapshots_are_removed_and_those_in_use_stay(engine):
    feed(engine, 9, 20)
    versions = engine.history.versions()
    pruned = {row.version for row in versions if row.state == State.PRUNED}
    there = {int(path.stem) for path in (engine.folder / "versions").glob("*.json")}
    assert pruned and there == {row.version for row in versions} - pruned
    assert {0, engine.status()["version"]} <= there
    refused("version_pruned", engine.rollback, min(pruned), "too late")


def test_an_erased_row_is_unlearned_by_learning_without_it(engine):
    engine.erase("3", relearn=True, reason="asked for")
    assert told(engine) == [1, 2, 4, 5, 6, 7]  # one answer is left over until its step is full
    assert engine.log.rows("SELECT count(*) FROM event WHERE id = '3'")[0][0] == 0
