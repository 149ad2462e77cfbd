"""From runs to one figure per learner."""

import pytest

from everlearn.comparison.summary import pairs, summarise
from everlearn.core.budget import Budget


def run(seed, accuracy, latency=1.0, error=None):
    figures = {
        "matrix": {"average_accuracy": accuracy},
        "cost": {"predict_ms_p99": latency},
        "memory": {"bytes": 100, "stored": 5},
    }
    if error:
        figures = {}
    return {
        "seed": seed,
        "name": "replay",
        "reference": False,
        "figures": figures,
        "curve": [],
        "used": {},
        "sha256": "",
        "error": error,
    }


def test_mean_and_interval_over_seeds():
    entry = summarise("a", [run(1, 0.7), run(0, 0.5)], "accuracy", Budget())
    score = entry["summary"]["score"]
    assert score["values"] == [0.5, 0.7]
    assert score["mean"] == pytest.approx(0.6)
    half = 12.706204736 * 0.1  # t(1 degree of freedom, 97.5 %) times the standard error 0.1
    assert score["low"] == pytest.approx(0.6 - half)
    assert score["high"] == pytest.approx(0.6 + half)


@pytest.mark.parametrize(
    ("budget", "fits"),
    [
        (Budget(), True),
        (Budget(latency_ms=0.5), False),
        (Budget(latency_ms=1.5), True),
        (Budget(replay=4), False),
        (Budget(replay_bytes=99), False),
        (Budget(replay=5, replay_bytes=100), True),
    ],
)
def test_a_learner_over_the_budget_is_marked(budget, fits):
    assert summarise("a", [run(0, 0.5)], "accuracy", budget)["within_budget"] is fits


def test_a_failed_run_leaves_its_error_and_no_score():
    entry = summarise("a", [run(0, 0.5), run(1, 0.5, error="broken")], "accuracy", Budget())
    assert entry["error"] == "broken"
    assert "score" not in entry["summary"]


def test_pairs_put_the_better_first():
    entries = [
        summarise(label, [run(seed, base + seed / 100) for seed in range(3)], "accuracy", Budget())
        for label, base in (("a", 0.5), ("b", 0.7))
    ]
    (pair,) = pairs(entries)
    assert (pair["first"], pair["second"]) == ("b", "a")
    assert pair["difference"] == pytest.approx(0.2)
    assert pair["clear"]
