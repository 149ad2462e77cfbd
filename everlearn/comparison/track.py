"""Export a finished comparison to MLflow or TensorBoard. The run folder stays the truth; these are copies of it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from everlearn.core.errors import ArgumentError, closest, optional

Tracker = Callable[[dict[str, Any], Path], None]


def tracker(kind: str) -> Tracker:
    """The exporter of a name ("mlflow" or "tensorboard"), refused at once where its library is missing."""
    if kind not in TRACKERS:
        raise ArgumentError(closest("tracker", kind, TRACKERS))
    optional({"mlflow": "mlflow", "tensorboard": "tensorboard.summary.writer"}[kind], "track", f"--track {kind}")
    return TRACKERS[kind]


def export(record: dict[str, Any], kind: str, folder: Path) -> None:
    """Write every run of a comparison record to a tracker, under the comparison's folder."""
    tracker(kind)(record, folder)


def _points(run: dict[str, Any]) -> Iterator[tuple[int, str, float]]:
    """(event, name, value) of every number on a run's curve."""
    for point in run["curve"]:
        for monitor, figures in point.items():
            if isinstance(figures, dict):
                for key, value in figures.items():
                    if isinstance(value, (int, float)):
                        yield point["event"], f"{monitor}/{key}", float(value)


def _to_tensorboard(record: dict[str, Any], folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    for learner in record["learners"]:
        for run in learner["runs"]:
            with SummaryWriter(str(folder / "tensorboard" / learner["label"] / f"seed-{run['seed']}")) as writer:
                writer.add_text("configuration", f"{learner['label']} on {record['stream']['name']}")
                for event, name, value in _points(run):
                    writer.add_scalar(name, value, event)


def _to_mlflow(record: dict[str, Any], folder: Path) -> None:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # files need no database library; mlflow asks for a word
    client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"file:{(folder / 'mlruns').resolve()}")
    title = record["stream"]["name"]
    found = client.get_experiment_by_name(title)
    experiment = found.experiment_id if found else client.create_experiment(title)
    for learner in record["learners"]:
        for run in learner["runs"]:
            started = client.create_run(experiment, run_name=f"{learner['label']} seed {run['seed']}")
            key = started.info.run_id
            for name in ("stream", "model", "budget"):
                client.log_param(key, name, record["config"][name])
            client.log_param(key, "learner", learner["label"])
            client.log_param(key, "seed", run["seed"])
            metrics = [Metric(name, value, 0, event) for event, name, value in _points(run)]
            for start in range(0, len(metrics), 1000):
                client.log_batch(key, metrics=metrics[start : start + 1000])
            client.set_terminated(key)


TRACKERS: dict[str, Tracker] = {"tensorboard": _to_tensorboard, "mlflow": _to_mlflow}
