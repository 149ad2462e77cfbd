"""From the records of single runs to one figure per learner: means and intervals over seeds, and differences between learners."""

from collections.abc import Sequence
from typing import Any

from everlearn.core.budget import Budget
from everlearn.measure.statistics import mean_interval, paired

# measure -> where a run's record holds it
SOURCES: dict[str, tuple[str, ...]] = {
    "accuracy": ("figures", "matrix", "average_accuracy"),
    "prequential_accuracy": ("figures", "prequential", "accuracy"),
    "skill": ("figures", "forecast", "skill"),
    "rmse": ("figures", "forecast", "rmse"),
    "mae": ("figures", "forecast", "mae"),
    "mape": ("figures", "forecast", "mape"),
    "refits": ("figures", "forecast", "refits"),
    "turned_back": ("figures", "turned_back", "turned_back"),
    "anytime_accuracy": ("figures", "matrix", "anytime_accuracy"),
    "forgetting": ("figures", "matrix", "forgetting"),
    "backward_transfer": ("figures", "matrix", "backward_transfer"),
    "forward_transfer": ("figures", "matrix", "forward_transfer"),
    "accumulated": ("figures", "accumulation", "end"),
    "instability": ("figures", "accumulation", "instability"),
    "active_units": ("figures", "plasticity", "active_units"),
    "effective_rank": ("figures", "plasticity", "effective_rank"),
    "replay_bytes": ("figures", "memory", "bytes"),
    "replay_stored": ("figures", "memory", "stored"),
    "replayed": ("figures", "memory", "replayed"),
    "update_ms": ("figures", "cost", "update_ms"),
    "update_ms_p99": ("figures", "cost", "update_ms_p99"),
    "predict_ms_p50": ("figures", "cost", "predict_ms_p50"),
    "predict_ms_p99": ("figures", "cost", "predict_ms_p99"),
    "seconds": ("figures", "cost", "seconds"),
    "peak_memory_bytes": ("figures", "cost", "peak_memory_bytes"),
    "model_bytes": ("figures", "cost", "model_bytes"),
    "labels": ("used", "labels"),
    "updates": ("used", "updates"),
}
HEADLINES = {"held_out": "accuracy", "prequential": "prequential_accuracy"}  # where answers are classes
FORECAST = "skill"  # where they are values


def value_of(run: dict[str, Any], measure: str) -> float | None:
    """One measure of one run; None where the run does not have it."""
    found: Any = run
    for key in SOURCES[measure]:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def summarise(label: str, runs: Sequence[dict[str, Any]], headline: str, budget: Budget) -> dict[str, Any]:
    """A learner's entry in the comparison record: its runs, and each measure's mean and 95 % interval over seeds."""
    ordered = sorted(runs, key=lambda run: run["seed"])
    summary = {}
    for measure in SOURCES:
        values = [value_of(run, measure) for run in ordered]
        known = [value for value in values if value is not None]
        if known and len(known) == len(values):
            summary[measure] = _interval(known)
    if headline in summary:
        summary["score"] = summary[headline]
    latency = summary.get("predict_ms_p99", {}).get("mean")
    fits = budget.latency_ms is None or latency is None or latency <= budget.latency_ms
    bytes_kept = summary.get("replay_bytes", {}).get("mean", 0)
    rows_kept = summary.get("replay_stored", {}).get("mean", 0)
    fits &= budget.replay_bytes is None or bytes_kept <= budget.replay_bytes
    fits &= budget.replay is None or rows_kept <= budget.replay
    keep = ("seed", "figures", "curve", "used", "sha256")
    return {
        "label": label,
        "name": ordered[0]["name"],
        "reference": ordered[0]["reference"],
        "within_budget": bool(fits),
        "error": next((run["error"] for run in ordered if run["error"]), None),
        "runs": [{key: run[key] for key in keep} for run in ordered if not run["error"]],
        "summary": summary,
    }


def _interval(values: list[float]) -> dict[str, Any]:
    mean, low, high = mean_interval(values)
    return {"mean": mean, "low": low, "high": high, "values": values}


def pairs(learners: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Paired differences of the score, first minus second, over the seeds that both ran. Better learner first."""
    able = [item for item in learners if "score" in item["summary"]]
    able.sort(key=lambda item: -item["summary"]["score"]["mean"])
    rows = []
    for index, first in enumerate(able):
        for second in able[index + 1 :]:
            left, right = first["summary"]["score"]["values"], second["summary"]["score"]["values"]
            if len(left) == len(right):
                rows.append({"first": first["label"], "second": second["label"], **paired(left, right)})
    return rows
