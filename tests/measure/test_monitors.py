"""The standard monitors together: which there are, what figures they give, and that a killed run ends in the same ones."""

import json

import pytest
import torch

from everlearn import FineTune, Schema, run
from everlearn.core.monitor import Monitor
from everlearn.measure.monitors import standard

KEYS = {  # docs/architecture.md
    "prequential": {"accuracy", "accuracy_all", "scored", "pending", "per_class"},
    "matrix": {
        "matrix", "names", "average_accuracy", "anytime_accuracy", "forgetting", "backward_transfer", "forward_transfer", "per_class",
    },
    "accumulation": {
        "curve", "end", "level", "instability", "per_class", "by_frequency", "forgetting_curve", "returning", "recurrence", "unit",
        "window", "passes",
    },
    "plasticity": {"active_units", "effective_rank", "weight_norm"},
    "drift": {"alarms", "scores"},
    "memory": {"seen", "stored", "replayed", "bytes", "capacity"},
    "cost": {
        "update_ms", "update_ms_p99", "predict_ms_p50", "predict_ms_p99", "seconds", "peak_memory_bytes", "model_bytes",
    },
}  # fmt: skip


def names(stream):
    return [monitor.name for monitor in standard(stream)]


def test_which_monitors_there_are(incremental):
    assert names(incremental()) == ["prequential", "matrix", "accumulation", "plasticity", "memory", "cost"]
    assert names(incremental(base_classes=(0,)))[:3] == ["prequential", "matrix", "sessions"]
    assert "sessions" not in names(incremental(base_classes=(0,), held_out=()))
    assert names(incremental(headline="prequential")) == [
        "prequential", "matrix", "accumulation", "plasticity", "drift", "memory", "cost",
    ]  # fmt: skip
    loads = Schema((6, 1), torch.float32, (), ("load",), targets=("load",))
    assert names(incremental(schema=loads)) == ["forecast", "plasticity", "drift", "memory", "cost"]
    assert names(incremental(held_out=())) == ["prequential", "accumulation", "plasticity", "memory", "cost"]
    assert names(incremental(checkpoints=())) == ["prequential", "accumulation", "plasticity", "memory", "cost"]
    assert all(
        isinstance(monitor, Monitor) and set(monitor.parts) <= set(vars(monitor)) for monitor in standard(incremental())
    )


def test_figures_have_the_fixed_keys_and_are_plain_json(incremental, network):
    stream = incremental(headline="prequential")
    result = run(FineTune(network()), stream, monitors=standard(stream))
    text = json.dumps([result.figures, result.curve], allow_nan=False)
    assert json.loads(text) == [result.figures, result.curve]
    for name, keys in KEYS.items():
        assert keys <= set(result.figures[name])


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 12, 25, 33])
def test_a_run_that_is_killed_ends_in_the_same_figures(incremental, network, tmp_path, at):
    def again(stream, folder):
        return run(FineTune(network()), stream, monitors=standard(stream), folder=folder, snapshot_every=4)

    def without_times(result):
        return {name: figures for name, figures in result.figures.items() if name != "cost"}

    stream = incremental(headline="prequential")
    whole = again(stream, tmp_path / "whole")
    broken = incremental(headline="prequential")
    kind = type(broken)

    class Breaking(kind):
        def __getitem__(self, index):
            if len(self.fuse) and index == self.fuse[0] and self.running:
                raise Killed
            return kind.__getitem__(self, index)

    broken.__class__ = Breaking
    broken.fuse, broken.running = [], False
    monitors = standard(broken)
    learner = FineTune(network())

    def arm(done, total):
        broken.fuse, broken.running = [at], True

    with pytest.raises(Killed):
        run(learner, broken, monitors=monitors, folder=tmp_path / "killed", snapshot_every=4, progress=arm)
    resumed = again(incremental(headline="prequential"), tmp_path / "killed")
    assert without_times(resumed) == without_times(whole)
    assert resumed.curve == whole.curve
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    cost = resumed.figures["cost"]
    assert cost["peak_memory_bytes"] == whole.figures["cost"]["peak_memory_bytes"]
    assert cost["predict_rows"] == whole.figures["cost"]["predict_rows"]
