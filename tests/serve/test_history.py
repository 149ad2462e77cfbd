"""Versions, branches and steps as the log has them; and states made again from the steps."""

import pytest
import torch

from everlearn.core.errors import StateError
from everlearn.core.random import isolated
from everlearn.core.state import digest
from everlearn.learners.replay import Replay
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.records import Ask, State, Told

SPEC = InputSpec("classes", (2,), "float32", classes=("a", "b"))


@pytest.fixture
def engine(tmp_path):
    with isolated(0, "network"):
        learner = Replay(torch.nn.Linear(2, 2), capacity=16)
    with LocalEngine(learner, SPEC, tmp_path, Options(batch=4, wait=None, every=2, least=4)) as made:
        made.wait_ready()
        yield made


def feed(engine, first, last):
    for row in range(first, last):
        engine.predict([Ask(str(row), SPEC.row([row % 3 - 1, 1.0]))]).result()
        engine.feedback([Told(str(row), row % 2)]).result()
    assert engine.learned()


def harm(engine, version):
    (engine.folder / "versions" / f"{version:09d}.safetensors").write_bytes(b"garbled")


def test_versions_stand_at_their_steps(engine):
    feed(engine, 0, 24)
    versions = engine.history.versions()
    assert [(row.version, row.branch, row.number) for row in versions] == [(0, 0, 0), (1, 0, 2), (2, 0, 4), (3, 0, 6)]
    assert engine.history.version(2) == versions[2] and engine.history.version(9) is None
    assert sum(row.state == State.ACTIVE for row in versions) == 1
    assert set(engine.history.kept_at(0)) == {0, 2, 4, 6}


def test_a_garbled_version_is_made_again_and_written_anew(engine):
    feed(engine, 0, 24)
    for version in (3, 2, 0):
        harm(engine, version)
        assert engine.history.snapshots.load(version) is None
        state = engine.history.learner_state(version)
        assert digest(state) == engine.history.version(version).sha256
        assert engine.history.snapshots.load(version) is not None


def test_several_garbled_ones_are_made_again_from_what_is_before_them(engine):
    feed(engine, 0, 24)
    for version in (1, 2, 3):
        harm(engine, version)
    assert digest(engine.history.learner_state(3)) == engine.history.version(3).sha256


def test_a_version_whose_rows_went_cannot_be_made_again_and_says_so(engine):
    feed(engine, 0, 24)
    engine.log.write(lambda connection: connection.execute("DELETE FROM event WHERE id = '3'")).result()
    harm(engine, 2)
    for version in (1, 0):
        harm(engine, version)
    with pytest.raises(StateError, match=r"version \d is garbled"):
        engine.history.state(2)


def test_the_lineage_leads_over_branches(engine):
    feed(engine, 0, 24)
    engine.rollback(1, "test", "skip")
    feed(engine, 24, 32)
    steps = [(moment.branch, moment.number) for moment in engine.history.lineage()]
    assert steps[:2] == [(0, 1), (0, 2)] and {branch for branch, _ in steps[2:]} == {1}
    told = [answer.id for moment in engine.history.lineage() for answer in moment.answers]
    assert told == [str(row) for row in (*range(8), *range(24, 32))]
    assert [answer.id for moment in engine.history.lineage(1) for answer in moment.answers] == [str(row) for row in range(8)]


def test_a_version_that_never_was_is_refused(engine):
    with pytest.raises(StateError, match="no version 9"):
        list(engine.history.lineage(9))
    with pytest.raises(StateError, match="no version 9"):
        engine.history.state(9)


def test_the_line_names_the_versions_behind_the_learner_newest_first(engine):
    feed(engine, 0, 24)
    engine.rollback(2, "test", "replay")
    feed(engine, 24, 32)
    line = [(version.branch, version.version) for version, _ in engine.history.line()]
    assert (0, 3) not in line and line[-3:] == [(0, 2), (0, 1), (0, 0)]
    assert all(branch == 1 for branch, _ in line[:-3]) and len(line) > 3
