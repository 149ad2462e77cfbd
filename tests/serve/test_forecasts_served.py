"""A forecaster in service: it answers, is fitted again on late answers, and its log folds offline to the same weights."""

import json

import torch

from everlearn.comparison.grid import compare
from everlearn.comparison.stream_text import stream_text
from everlearn.core.run import run
from everlearn.core.stream import Schema
from everlearn.data.served import served
from everlearn.learners.forecaster import Forecaster
from everlearn.nn.series import CfC
from everlearn.optim.refit import Every
from everlearn.serve.export import export
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.records import Ask, Told
from everlearn.serve.source import remade, settle, source_of

from .test_export import learned, until

WINDOW = 6
SCHEMA = Schema((WINDOW, 1), torch.float32, (), ("load",), targets=("load",))


def forecaster():
    return Forecaster(CfC(units=4), window=WINDOW, first=30, epochs=2, refit=Every(20), refit_epochs=2)


def loads(rows=100):
    steps = torch.arange(rows + WINDOW)
    return 50 + 10 * torch.sin(0.4 * steps) + torch.randn(rows + WINDOW, generator=torch.Generator().manual_seed(0))


def test_the_log_of_a_forecaster_folds_to_the_same_weights(tmp_path):
    learner, series = forecaster(), loads()
    spec = InputSpec.of(learner, SCHEMA)
    assert (spec.kind, spec.targets, spec.shape) == ("values", ("load",), (WINDOW, 1))
    options = Options(batch=4, every=2, wait=0.01)
    with LocalEngine(learner, spec, tmp_path / "log", options) as engine:
        until(lambda: engine.status()["ready"])
        for number in range(80):
            row = spec.row(series[number : number + WINDOW, None].numpy())
            answer = engine.predict([Ask(f"w{number}", row)]).result()[0]
            if number < 20:  # before the first fit: the newest value
                assert answer.output["answer"] == [float(series[number + WINDOW - 1])]
            if number >= 3:  # answers come three windows later
                late = number - 3
                engine.feedback([Told(f"w{late}", [float(series[late + WINDOW])])]).result()
        until(lambda: learned(engine))
        assert engine.status()["ready"]
    with LocalEngine(forecaster(), spec, tmp_path / "log", options) as engine:
        last = engine.versions()[0]
        path = tmp_path / "deployed.parquet"
        export(engine.history.lineage(last["version"]), path, spec, model=repr(learner), seed=0)
        state = engine.history.learner_state(last["version"])
    assert state["fits"] >= 3
    stream = served(path)
    assert stream.schema.targets == ("load",) and stream.schema.answers == "values"
    assert run(forecaster(), stream).sha256 == last["sha256"]
    assert stream_text(str(path)) == f"served({str(path)!r})"
    record = compare(["forecaster(first=30)"], str(path), seeds=1, engine="inline").record
    assert next(row["label"] for row in record["learners"]) == "persistence" and record["stream"]["headline"] == "skill"
    assert record["learners"][0]["runs"][0]["figures"]["forecast"]["all"]["scored"] == 77


def test_a_compared_forecaster_is_served_and_made_again(tmp_path):
    """From the folder of a comparison: it answers as its run ended, and a restart needs neither the table nor the run."""
    table = tmp_path / "load.csv"
    table.write_text("hour,load\n" + "".join(f"{k},{value:.3f}\n" for k, value in enumerate(loads().tolist())))
    text = f"forecast({str(table)!r}, target='load', time='hour', window={WINDOW})"
    compare(["forecaster(cfc(units=4), epochs=2)"], text, seeds=1, engine="inline", baselines=False, folder=tmp_path / "out")
    source = source_of(str(tmp_path / "out"), learner="forecaster(cfc(units=4), epochs=2)")
    x = loads()[None, :WINDOW, None]
    assert source.spec.targets == ("load",) and source.served.fits == 1
    settle(tmp_path / "served", source, None, None)
    table.unlink()
    again = remade(tmp_path / "served").served
    again.load_state_dict(source.served.state_dict())
    assert torch.equal(again.predict(x), source.served.predict(x)) and not torch.equal(again.predict(x), x[:, -1])
    assert json.loads((tmp_path / "served" / "server.json").read_text())["spec"]["targets"] == ["load"]
