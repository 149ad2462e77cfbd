"""What Prometheus reads: parsed by its own client library, and held against the status."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from everlearn.serve.prometheus import Figures

from .fake_engine import ACTIONS, FakeEngine


def samples(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(found, name, **labels):
    return found[name, tuple(sorted(labels.items()))]


def test_requests_are_counted_by_route_and_status_and_timed_by_route():
    figures = Figures()
    for seconds in (0.002, 0.03):
        figures.answered("/v1/predict", 200, seconds)
    figures.answered("/v1/predict", 422, 0.5)
    found = samples(figures.text(None))
    assert value(found, "everlearn_requests_total", route="/v1/predict", status="200") == 2
    assert value(found, "everlearn_requests_total", route="/v1/predict", status="422") == 1
    assert value(found, "everlearn_request_seconds_count", route="/v1/predict") == 3
    assert value(found, "everlearn_request_seconds_sum", route="/v1/predict") == pytest.approx(0.532)
    assert value(found, "everlearn_request_seconds_bucket", route="/v1/predict", le="0.04") == 2


def test_the_status_is_told_figure_by_figure():
    engine = FakeEngine(ACTIONS)
    status = engine.status() | {
        "version": 7, "applied_seq": 8120, "last_seq": 8192, "lag": {"events": 72, "answers": 31, "seconds": 0.4},
        "queue": {"waiting": 3, "limit": 1000}, "learning": "paused", "score": {"rows": 200, "value": 0.91}, "fsync_ms": 0.2,
        "counts": {"inputs": 10, "answers": 4, "duplicates": 2, "steps": 5, "alarms": 1}, "ready": True,
    }  # fmt: skip
    found = samples(Figures().text(status))
    wanted = {
        "up": 1, "version": 7, "applied_seq": 8120, "last_seq": 8192, "lag_events": 72, "lag_answers": 31, "lag_seconds": 0.4,
        "queue_waiting": 3, "queue_limit": 1000, "ready": 1, "score": 0.91, "score_rows": 200, "fsync_seconds": 0.0002,
        "logged_inputs": 10, "logged_answers": 4, "duplicates_total": 2, "steps_total": 5, "alarms_total": 1,
        "propensity_least": 0.5, "propensity_effective": 0.9,
    }  # fmt: skip
    assert {name: value(found, f"everlearn_{name}") for name in wanted} == pytest.approx(wanted)
    states = {key[1][0][1]: count for key, count in found.items() if key[0] == "everlearn_learning"}
    assert states == {"running": 0, "paused": 1, "recovering": 0, "failed": 0, "following": 0}
    info = [dict(labels) for name, labels in found if name == "everlearn_served_info"]
    assert info[0]["model"] == "replay(capacity=200)"


def test_what_is_not_known_is_left_out():
    status = FakeEngine().status() | {"score": {"rows": 0, "value": None}, "fsync_ms": float("nan"), "version": None}
    found = {name for name, _ in samples(Figures().text(status))}
    assert not found & {"everlearn_score", "everlearn_fsync_seconds", "everlearn_propensity_least", "everlearn_version"}
    assert "everlearn_score_rows" in found


def test_without_a_status_the_process_still_tells_what_it_can():
    figures = Figures()
    figures.answered("/healthz", 200, 0.001)
    found = samples(figures.text(None))
    assert value(found, "everlearn_up") == 0
    assert value(found, "everlearn_requests_total", route="/healthz", status="200") == 1
    assert value(found, "everlearn_process_resident_memory_bytes") > 1e6
    assert not [name for name, _ in found if name == "everlearn_lag_events"]


def test_two_apps_do_not_mix_their_figures():
    one, two = Figures(), Figures()
    one.answered("/v1/predict", 200, 0.001)
    assert "/v1/predict" not in two.text(None).decode()


def test_a_model_with_any_name_stays_one_label():
    status = FakeEngine().status() | {"model": 'a"b\n{c="d"}'}
    info = [dict(labels) for name, labels in samples(Figures().text(status)) if name == "everlearn_served_info"]
    assert [labels["model"] for labels in info] == ['a"b\n{c="d"}']
