"""The engine of one process: what it has beyond the contract of every engine."""

import sqlite3

import pytest

from everlearn.core.errors import ArgumentError, StateError
from everlearn.serve.local_engine import LocalEngine, default_answer, fsync_ms
from everlearn.serve.options import Options
from everlearn.serve.records import Ask

from .engine_bench import MODELS, Bench, ask, classifier, folded, go, local_opener, refused, row


def test_a_folder_of_another_model_is_refused_and_let_go(tmp_path):
    with Bench(local_opener, tmp_path) as bench:
        bench.shut(bench.open("classes"))
        for _ in range(2):
            with pytest.raises(StateError, match=r"log of another model \(model: 'replay.*'slope.*Choose another folder"):
                local_opener("values", tmp_path / "one", Options())
        bench.open("classes")  # a refusal lets go of the folder


def test_one_engine_at_a_time_serves_a_folder(tmp_path):
    with Bench(local_opener, tmp_path) as bench:
        first = bench.open()
        with pytest.raises(StateError, match="another process serves"):
            local_opener("classes", tmp_path / "one", Options())
        assert ask(first, 1).seq == 1
        bench.shut(first)
        assert ask(bench.open(), 2).seq == 2


def test_the_weights_given_at_first_stay_the_beginning(tmp_path):
    """A restart with a learner of other weights goes on from those in the folder."""
    with Bench(local_opener, tmp_path) as bench:
        go(bench.open(), range(8))
        first = bench.opened[0].versions()
        bench.shut(bench.opened[0])
        other = classifier()
        other.descent.model[0].weight.data.mul_(2.0)
        engine = LocalEngine(
            other, MODELS["classes"].spec, tmp_path / "one", Options(batch=4, every=2, wait=None, guard=False)
        )
        bench.opened.append(engine)
        engine.wait_ready()
        go(engine, range(8, 24))
        assert engine.learning.fold.sha256() == folded("classes", range(24))
        assert engine.versions()[-1]["sha256"] == first[-1]["sha256"]


@pytest.mark.parametrize(
    ("model", "default", "stored"), [("classes", "bee", 1), ("values", 1.5, [1.5]), ("actions", -2, -2.0)]
)
def test_a_default_is_an_answer_in_the_users_words(model, default, stored):
    assert default_answer(MODELS[model].spec, Options(default=default)) == stored
    assert default_answer(MODELS[model].spec, Options()) is None


@pytest.mark.parametrize(
    ("model", "default"), [("classes", "wasp"), ("classes", 0.5), ("values", "tall"), ("actions", (1.0, 2.0))]
)
def test_a_default_that_is_no_answer_is_refused_before_anything_is_made(model, default, tmp_path):
    with pytest.raises(ArgumentError, match="options: default="):
        local_opener(model, tmp_path / "one", Options(default=default))
    assert not (tmp_path / "one").exists()


def test_waiting_for_a_server_that_cannot_recover_tells_why(tmp_path):
    with Bench(local_opener, tmp_path) as bench:
        engine = bench.open()
        go(engine, range(8))
        bench.shut(engine)
        with sqlite3.connect(tmp_path / "one" / "log.sqlite") as connection:
            connection.execute("UPDATE version SET state = 'retired'")
        connection.close()
        engine = local_opener("classes", tmp_path / "one", Options())
        bench.opened.append(engine)
        with pytest.raises(StateError, match="no version in service"):
            engine.wait_ready()
        refused("not_ready", 503, engine.predict, [Ask("a", row(1)[0])])
        refused("not_ready", 503, engine.release, 1, 2, "x")
        refused("not_ready", 503, engine.pause, "x")
        refused("not_ready", 503, engine.erase, "r1")
        assert engine.status()["learning"] == "failed" and not engine.learned(1)
        engine.rollback(1, "the one before")
        engine.wait_ready()
        assert ask(engine, 99).version == 1


def test_commands_after_the_end_are_refused_and_do_not_hang(tmp_path):
    with Bench(local_opener, tmp_path) as bench:
        engine = bench.open()
        go(engine, range(8))
        engine.close()
        refused("not_ready", 503, engine.pause, "x")
        refused("not_ready", 503, engine.rollback, 0, "x")


def test_the_series_is_thinned_and_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("everlearn.serve.upkeep.TEND", 0.0)
    with Bench(local_opener, tmp_path) as bench:
        engine = bench.open()
        go(engine, range(80))
        points = engine.series()
        assert [point["seq"] for point in points] == list(range(8, 161, 8))
        assert points[-1]["inputs"] == points[-1]["answers"] == 80
        few = engine.series(limit=5)
        assert [point["seq"] for point in few] == [32, 64, 96, 128, 160]


def test_a_disk_is_timed_and_left_clean(tmp_path):
    assert fsync_ms(tmp_path) > 0.0 and not list(tmp_path.iterdir())
