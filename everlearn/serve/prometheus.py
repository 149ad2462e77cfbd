"""What Prometheus reads at /metrics: requests as they are answered, and the engine's status at the time of reading.

Labels have few values by construction: routes are templates, versions are numbers in values and not in labels.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from everlearn.core.errors import optional

LEARNING = ("running", "paused", "recovering", "failed", "following")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.5, 1.0, 5.0)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# name, key of the status, what it is
GAUGES = (
    ("version", "version", "Number of the version in service."),
    ("branch", "branch", "Number of the branch that is learned on."),
    ("applied_seq", "applied_seq", "Number of the newest event that was learned from."),
    ("last_seq", "last_seq", "Number of the newest event in the log."),
    ("lag_events", "lag.events", "Events in the log that are not learned from."),
    ("lag_answers", "lag.answers", "Answers in the log that are not learned from."),
    ("lag_seconds", "lag.seconds", "Age of the oldest answer that is not learned from."),
    ("queue_waiting", "queue.waiting", "Requests that wait."),
    ("queue_limit", "queue.limit", "Requests that may wait."),
    ("ready", "ready", "1 where predictions are answered."),
    ("logged_inputs", "counts.inputs", "Predictions in the log."),
    ("logged_answers", "counts.answers", "Answers in the log."),
    ("early_waiting", "counts.early_waiting", "Answers that wait for their prediction."),
    ("versions", "counts.versions", "Versions made."),
    ("score", "score.value", "Score of the newest answered rows, as they were answered; higher is better."),
    ("score_rows", "score.rows", "Rows behind the score."),
    ("unanswered_share", "unanswered_share", "Share of predictions without an answer."),
    ("propensity_least", "propensity.least", "Least propensity of recent actions."),
    ("propensity_effective", "propensity.effective", "Effective share of recent rows under importance weights."),
    ("guard_candidate_score", "guard.candidate", "Score of the newest candidate over the guard's window."),
    ("guard_service_score", "guard.service", "Score of the version in service over the guard's window."),
    ("guard_parent_score", "guard.parent", "Score of the parent of the version in service over the guard's window."),
    ("alarms_recent", "alarms.recent", "Alarms of the last hour."),
    ("started_seconds", "started", "When the server began, in seconds since 1970."),
)
COUNTERS = (
    ("duplicates", "counts.duplicates", "Requests that had been answered before."),
    ("early_expired", "counts.early_expired", "Answers given up because their prediction did not come."),
    ("unanswered", "counts.unanswered", "Predictions whose horizon passed without an answer."),
    ("defaulted", "counts.defaulted", "Predictions that were given the default answer."),
    ("steps", "counts.steps", "Steps learned."),
    ("alarms", "counts.alarms", "Alarms raised."),
)


class Figures:
    """Counts requests, and gives the text of all figures. Each has a registry of its own, so that apps do not mix theirs."""

    def __init__(self) -> None:
        client = optional("prometheus_client", "serve", "the address /metrics")
        self._client = client
        self._core = optional("prometheus_client.core", "serve", "the address /metrics")
        self.registry = client.CollectorRegistry(auto_describe=False)
        self._requests = client.Counter(
            "everlearn_requests", "Requests answered.", ("route", "status"), registry=self.registry
        )
        self._seconds = client.Histogram(
            "everlearn_request_seconds", "Seconds from a request's head to the end of its answer.", ("route",),
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        client.ProcessCollector(namespace="everlearn", registry=self.registry)
        self._children: dict[tuple[str, int], tuple[Any, Any]] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one request. route: its template."""
        found = self._children.get((route, status))
        if found is None:
            found = self._requests.labels(route, str(status)), self._seconds.labels(route)
            self._children[route, status] = found
        found[0].inc()
        found[1].observe(seconds)

    def text(self, status: dict[str, Any] | None) -> bytes:
        """All figures in Prometheus's text format; those of the engine are left out where its status is not known."""
        known = self._client.CollectorRegistry(auto_describe=False)
        known.register(_Status(self._core, status))
        return self._client.generate_latest(self.registry) + self._client.generate_latest(known)


class _Status:
    """The engine's status as figures; prometheus_client asks `collect`."""

    def __init__(self, core: Any, status: dict[str, Any] | None):
        self.families = list(families(core, status))

    def collect(self) -> Iterable[Any]:
        return self.families


def families(core: Any, status: dict[str, Any] | None) -> Iterator[Any]:
    """The figures of a status. core: prometheus_client.core."""
    yield core.GaugeMetricFamily("everlearn_up", "1 where the engine told its status.", float(status is not None))
    if status is None:
        return
    for name, key, meaning in GAUGES:
        value = _number(status, key)
        if value is not None:
            yield core.GaugeMetricFamily(f"everlearn_{name}", meaning, value)
    for name, key, meaning in COUNTERS:
        value = _number(status, key)
        if value is not None:
            yield core.CounterMetricFamily(f"everlearn_{name}", meaning, value)
    fsync = _number(status, "fsync_ms")
    if fsync is not None:
        yield core.GaugeMetricFamily("everlearn_fsync_seconds", "Seconds that a durable commit takes.", fsync / 1e3)
    states = core.GaugeMetricFamily("everlearn_learning", "1 for what learning is doing.", labels=["state"])
    for state in LEARNING:
        states.add_metric([state], float(status.get("learning") == state))
    yield states
    told = {key: str(status.get(key, "")) for key in ("model", "kind", "engine", "measure", "durability")}
    yield core.InfoMetricFamily("everlearn_served", "What is served.", told)


def _number(status: dict[str, Any], key: str) -> float | None:
    """The number under a dotted key, None where there is none."""
    found: Any = status
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return float(found) if isinstance(found, (int, float)) and math.isfinite(found) else None
