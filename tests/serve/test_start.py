"""From a name to an engine: folders, engines, databases, webhooks; and the log of a folder as a stream."""

import pytest

from everlearn import run
from everlearn.core.errors import ArgumentError, SpecError, StateError
from everlearn.core.state import digest
from everlearn.data.served import served
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.records import Alarm, Ask, Told
from everlearn.serve.source import settle, source_of
from everlearn.serve.start import (
    alarms_of,
    back_up,
    database_of,
    engine_of,
    export_log,
    history_of,
    options_of,
    place_of,
    post,
    served_again,
    webhook_to,
)  # fmt: skip

MODEL = "mlp(hidden=(8,))"


@pytest.fixture
def source():
    return source_of("replay(capacity=20)", data="iris", model=MODEL)


def started(source, folder, options="options(batch=4, wait=None, every=2)", **named):
    record = settle(folder, source, options_of(options), None)
    engine = engine_of(source, folder, record, **named)
    engine.wait_ready()
    return engine


def fed(engine, rows=24):
    for number in range(rows):
        x = [float(number % 7), 1.0, -1.0, 0.5]
        engine.predict([Ask(f"r{number}", engine.spec.row(x))]).result()
        engine.feedback([Told(f"r{number}", number % 3)]).result()
    assert engine.learned()


def test_the_log_of_a_folder_is_a_stream_that_gives_the_same_weights(source, tmp_path):
    with started(source, tmp_path / "served") as engine:
        fed(engine)
        sha = engine.learning.fold.sha256()
    written = export_log(tmp_path / "served", tmp_path / "log.parquet")
    assert (written["inputs"], written["answers"]) == (24, 24)
    again = source_of("replay(capacity=20)", data="iris", model=MODEL).served
    run(again, served(tmp_path / "log.parquet"))
    assert digest(again.state_dict()) == sha


def test_a_version_is_exported_as_far_as_it_had_learned(source, tmp_path):
    with started(source, tmp_path / "served") as engine:
        fed(engine)
        first = engine.versions()[-2]
    written = export_log(tmp_path / "served", tmp_path / "log.parquet", first["version"])
    assert written["steps"] == first["number"] == 2
    with pytest.raises(StateError, match="no version 99"):
        export_log(tmp_path / "served", tmp_path / "other.parquet", 99)


def test_a_folder_goes_on_where_it_stopped(source, tmp_path):
    with started(source, tmp_path) as engine:
        fed(engine)
        before = (engine.learning.fold.sha256(), engine.status()["version"])
    again = source_of(str(tmp_path))
    with started(again, tmp_path) as engine:
        assert (engine.learning.fold.sha256(), engine.status()["version"]) == before


def test_a_folder_is_named_by_what_it_serves(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of("runs/a", "mine", source).name == "mine"
    assert place_of("runs/a", None, source) != place_of("runs/b", None, source)
    settle(tmp_path / "served", source, None, None)
    assert place_of("served", None, source).name == "served"


def test_options_alarms_and_engines_are_read_or_refused(source, tmp_path):
    assert options_of("options(batch=5)").batch == 5
    assert alarms_of("alarms(psi=None)").psi is None
    with pytest.raises(SpecError, match="did you mean 'batch'"):
        options_of("options(btach=5)")
    with pytest.raises(SpecError, match="alarms"):
        alarms_of("alarm()")
    with pytest.raises(ArgumentError, match="local, ray"):
        engine_of(source, tmp_path, settle(tmp_path, source, None, None), engine="rya")
    with pytest.raises(ArgumentError, match="postgresql://"):
        database_of(tmp_path, "mysql://there", options_of("options()"))


def test_a_default_that_is_no_answer_is_refused(source, tmp_path):
    with pytest.raises(ArgumentError, match="did you mean 'setosa'"):
        started(source, tmp_path, "options(horizon=60, default='setsoa')")


def test_a_folder_without_a_log_cannot_be_exported(source, tmp_path):
    settle(tmp_path, source, None, None)
    with pytest.raises(StateError, match="no log yet"):
        history_of(tmp_path)


def test_the_learner_of_a_name_is_made_in_another_process(source):
    given = {"data": "iris", "model": MODEL, "seed": 0}
    assert digest(served_again("replay(capacity=20)", given, []).state_dict()) == digest(source.served.state_dict())


def test_alarms_go_to_the_webhook_of_the_url(monkeypatch):
    sent = []
    monkeypatch.setattr("everlearn.serve.webhook.Webhook.send", lambda self, alarm: sent.append((self._url, alarm.kind)))
    post("http://127.0.0.1:9/hook", Alarm("lag", 1.0, 0.5, "late"))
    assert sent == [("http://127.0.0.1:9/hook", "lag")]
    assert webhook_to("http://127.0.0.1:9/hook") is webhook_to("http://127.0.0.1:9/hook")
    webhook_to("http://127.0.0.1:9/hook").close()


def test_the_engine_is_a_local_one_unless_another_is_asked_for(source, tmp_path):
    with started(source, tmp_path) as engine:
        assert isinstance(engine, LocalEngine)
        assert engine.learning.fold.watch is not None


def test_a_copy_made_while_it_runs_is_served_as_the_original(source, tmp_path):
    with started(source, tmp_path / "served") as engine:
        fed(engine)
        copied = back_up(tmp_path / "served", tmp_path / "copy")
        sha, versions = engine.learning.fold.sha256(), len(engine.versions())
    assert copied["versions"] == versions
    with started(source_of(str(tmp_path / "copy")), tmp_path / "copy") as engine:
        assert engine.learning.fold.sha256() == sha


def test_a_copy_that_lacks_the_newest_versions_makes_them_again(source, tmp_path):
    with started(source, tmp_path / "served") as engine:
        fed(engine)
        sha, newest = engine.learning.fold.sha256(), engine.versions()[0]["version"]
    back_up(tmp_path / "served", tmp_path / "copy")
    for path in (tmp_path / "copy" / "versions").glob(f"{newest:09d}.*"):
        path.unlink()
    with started(source_of(str(tmp_path / "copy")), tmp_path / "copy") as engine:
        assert engine.learning.fold.sha256() == sha


def test_nothing_is_copied_over_something(source, tmp_path):
    with started(source, tmp_path / "served"):
        pass
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine").write_text("mine")
    with pytest.raises(StateError, match="not empty"):
        back_up(tmp_path / "served", tmp_path / "copy")
    settle(tmp_path / "new", source, None, None)
    with pytest.raises(StateError, match="no log yet"):
        back_up(tmp_path / "new", tmp_path / "other")
