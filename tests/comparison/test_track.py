"""Exports: every number of every run, and a clear word where the library is missing."""

import sys

import pytest

from everlearn.comparison.track import export, tracker
from everlearn.core.errors import ArgumentError, MissingExtraError

CURVE = [
    {"event": 10, "matrix": {"average_accuracy": 0.5, "per_class": {"a": 1.0}}},
    {"event": 20, "matrix": {"average_accuracy": 0.75}},
]
RECORD = {
    "stream": {"name": "split(digits)"},
    "config": {"stream": "split(digits)", "model": "auto", "budget": "budget()"},
    "learners": [{"label": "replay(capacity=5)", "runs": [{"seed": 3, "curve": CURVE}]}],
}


def test_an_unknown_tracker_is_answered_with_the_closest():
    with pytest.raises(ArgumentError, match="did you mean 'mlflow'"):
        tracker("mlfow")


@pytest.mark.parametrize(("kind", "library"), [("mlflow", "mlflow"), ("tensorboard", "tensorboard.summary.writer")])
def test_a_missing_library_is_said_before_anything_runs(kind, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=r"everlearn\[track\]"):
        tracker(kind)


def test_tensorboard_holds_the_curve(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    export(RECORD, "tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "replay(capacity=5)" / "seed-3"))
    events.Reload()
    points = events.Scalars("matrix/average_accuracy")
    assert [(point.step, point.value) for point in points] == [(10, 0.5), (20, 0.75)]


@pytest.mark.slow
def test_mlflow_holds_the_curve(tmp_path):
    from mlflow.tracking import MlflowClient

    export(RECORD, "mlflow", tmp_path)
    client = MlflowClient(tracking_uri=f"file:{tmp_path / 'mlruns'}")
    experiment = client.get_experiment_by_name("split(digits)")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["learner"] == "replay(capacity=5)"
    history = client.get_metric_history(run.info.run_id, "matrix/average_accuracy")
    assert sorted((point.step, point.value) for point in history) == [(10, 0.5), (20, 0.75)]
