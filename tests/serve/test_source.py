"""What a name stands for: runs, comparisons, call strings, a server's own folder; and what its server.json keeps."""

import json

import pytest
import torch
from safetensors.torch import save_file

from everlearn import Replay, Uniform, compare, run
from everlearn.comparison.building import build_learner, build_stream
from everlearn.core.errors import ArgumentError, SpecError, StateError
from everlearn.core.state import digest, same
from everlearn.measure.contents import networks
from everlearn.serve.options import Options
from everlearn.serve.source import SERVER, record_of, remade, settle, source_of, without_password

STREAM = "split(iris, experiences=3, batch=8)"
MODEL = "mlp(hidden=(8,))"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "cmp"
    compare(["replay(capacity=20)"], STREAM, model=MODEL, seeds=2, engine="inline", folder=folder, baselines=False)
    return folder


def seed_folder(comparison, seed):
    return next((comparison / "runs").glob(f"replay*/seed-{seed}"))


def test_a_run_is_served_in_the_state_in_which_it_ended(comparison):
    source = source_of(str(seed_folder(comparison, 1)))
    stream = build_stream(STREAM, 1)
    learner = build_learner("replay(capacity=20)", stream, MODEL, 1)
    run(learner, stream)
    assert digest(source.served.state_dict()) == digest(learner.state_dict())
    assert (source.spec.kind, source.spec.shape, source.spec.classes) == ("classes", (4,), stream.schema.classes)
    assert (source.learner, source.seed, source.model) == ("replay(capacity=20)", 1, MODEL)


def test_of_a_comparison_the_named_learner_and_seed_is_served(comparison):
    source = source_of(str(comparison), learner="replay(capacity=20)", seed=1)
    assert same(source.served.state_dict(), source_of(str(seed_folder(comparison, 1))).served.state_dict())


def test_of_a_comparison_an_unknown_learner_is_refused_with_the_nearest(comparison):
    with pytest.raises(SpecError, match=r"did you mean 'replay\(capacity=20\)'"):
        source_of(str(comparison), learner="replay(capacity=2)")


def test_a_comparison_without_a_recommendation_asks_for_a_learner(comparison, tmp_path):
    record = json.loads((comparison / "result.json").read_text())
    record["verdict"]["learner"] = None
    (tmp_path / "runs").mkdir()
    (tmp_path / "result.json").write_text(json.dumps(record))
    with pytest.raises(SpecError, match="--learner"):
        source_of(str(tmp_path))


def test_a_call_string_needs_data():
    with pytest.raises(ArgumentError, match="--data"):
        source_of("replay(capacity=20)")
    source = source_of("replay(capacity=20)", data="iris", model=MODEL)
    assert isinstance(source.served, Replay)
    assert source.spec.classes == ("setosa", "versicolor", "virginica")


def test_an_agent_is_served_by_its_call_string():
    source = source_of("uniform(actions=4)", data="iris", seed=3)
    assert isinstance(source.served, Uniform)
    assert (source.spec.kind, source.served.seed) == ("actions", 3)


def test_a_misspelt_learner_and_a_strange_folder_are_refused(tmp_path):
    with pytest.raises(SpecError, match="did you mean 'replay'"):
        source_of("repaly", data="iris")
    with pytest.raises(StateError, match="neither a run"):
        source_of(str(tmp_path))


def test_weights_of_ones_own_are_loaded_into_the_network(tmp_path):
    source = source_of("replay(capacity=20)", data="iris", model=MODEL)
    weights = {key: torch.full_like(value, 0.25) for key, value in networks(source.served)[0].state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    loaded = source_of("replay(capacity=20)", data="iris", model=MODEL, weights=str(tmp_path / "w.safetensors"))
    assert all(bool((value == 0.25).all()) for value in networks(loaded.served)[0].state_dict().values())


def test_weights_that_do_not_fit_or_are_no_weights_are_refused(tmp_path):
    save_file({"other": torch.zeros(2)}, tmp_path / "w.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"\x80\x04pickle")
    for name, told in (("w", "does not fit"), ("bad", "cannot be read"), ("none", "cannot be read")):
        with pytest.raises(StateError, match=told):
            source_of("replay(capacity=20)", data="iris", model=MODEL, weights=str(tmp_path / f"{name}.safetensors"))


def test_a_server_folder_is_made_again_without_its_data(tmp_path, monkeypatch):
    source = source_of("replay(capacity=20)", data="iris", model=MODEL, seed=2)
    settle(tmp_path, source, Options(batch=7), "alarms(psi=0.5)")
    monkeypatch.setattr("everlearn.serve.source.build_stream", lambda *given: pytest.fail("the data were read"))
    again = source_of(str(tmp_path))
    assert digest(again.served.state_dict()) == digest(source.served.state_dict())
    assert (again.spec, again.learner, again.seed) == (source.spec, source.learner, 2)
    assert again == again and remade(tmp_path).origin == "replay(capacity=20)"


def test_options_and_alarms_stay_until_others_are_given(tmp_path):
    source = source_of("replay(capacity=20)", data="iris", model=MODEL)
    settle(tmp_path, source, Options(batch=7), "alarms(psi=0.5)")
    assert Options.from_json(settle(tmp_path, source, None, None)["options"]) == Options(batch=7)
    record = settle(tmp_path, source, Options(batch=9), "alarms()")
    assert (record["options"]["batch"], record["alarms"]) == (9, "alarms()")
    assert record_of(tmp_path) == record


def test_a_databases_password_is_used_and_not_kept(tmp_path):
    source = source_of("replay(capacity=20)", data="iris", model=MODEL)
    url = "postgresql://anna:se:cr@t@db:5432/served?schema=one"
    assert settle(tmp_path, source, None, None, url)["database"] == url
    assert record_of(tmp_path)["database"] == "postgresql://anna@db:5432/served?schema=one"
    assert settle(tmp_path, source, None, None)["database"] == "postgresql://anna@db:5432/served?schema=one"
    assert without_password("postgresql:///served") == "postgresql:///served"


@pytest.mark.parametrize("idle", ["learner", "data", "target", "model"])
def test_what_a_server_s_folder_says_by_itself_is_not_said_again(tmp_path, idle):
    settle(tmp_path, source_of("replay(capacity=20)", data="iris", model=MODEL), None, None)
    with pytest.raises(ArgumentError, match=f"is the folder of a server, .* leave --{idle} out"):
        source_of(str(tmp_path), **{idle: "mlp"})


def test_a_learner_is_named_once():
    with pytest.raises(ArgumentError, match=r"derpp is a call string, .* leave --learner out"):
        source_of("derpp", learner="replay", data="iris")


def test_a_folder_that_serves_something_else_is_left_alone(tmp_path):
    settle(tmp_path, source_of("replay(capacity=20)", data="iris", model=MODEL), None, None)
    before = (tmp_path / SERVER).read_text()
    with pytest.raises(StateError, match="Choose another --folder"):
        settle(tmp_path, source_of("replay(capacity=30)", data="iris", model=MODEL), None, None)
    assert (tmp_path / SERVER).read_text() == before


def test_a_folder_of_a_newer_release_or_a_garbled_one_is_refused(tmp_path):
    (tmp_path / SERVER).write_text(json.dumps({"format": 99}))
    with pytest.raises(StateError, match="newer release"):
        record_of(tmp_path)
    with pytest.raises(StateError, match=r"nowhere is not a server's folder: it has no server.json"):
        record_of(tmp_path / "nowhere")
    (tmp_path / SERVER).write_text("{")
    with pytest.raises(StateError, match="cannot be read"):
        record_of(tmp_path)
