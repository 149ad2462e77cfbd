"""The study of homeostatic learning at quick scale, by the means, with its control; and the sums of the study by hand."""

import pytest

from everlearn.studies.homeostatic import regrets, storm_over_calm, trend
from everlearn.studies.runner import run_study
from everlearn.studies.study import HOLDS, study_named


def test_the_slope_against_ranks_is_that_of_a_straight_line():
    assert trend([1.0, 1.5, 2.0, 2.5]) == pytest.approx(0.5) and trend([3.0, 3.0, 3.0, 3.0]) == 0.0
    first, second = [0.9, 0.7, 0.6, 0.2], [0.8, 0.8, 0.5, 0.4]
    difference = [one - other for one, other in zip(first, second, strict=True)]
    assert trend(difference) == pytest.approx(trend(first) - trend(second))


def test_storms_are_held_against_calm():
    """Two events an epoch: calm 1 and 1, storm 3 and 5; a point that ends with an epoch belongs to it."""
    trace = [[1.0, 1.0], [2.0, 1.0], [3.0, 3.0], [4.0, 5.0]]
    assert storm_over_calm(trace, 2.0, (0, 7)) == 4.0


def test_regret_is_what_the_best_constant_rate_had_more():
    def arm(label, **means):
        return {"label": label, "measures": {name: {"mean": mean} for name, mean in means.items()} | {"rate": {"mean": 9.0}}}

    record = {
        "arms": [
            arm("next batch", none=0.5, seasons=0.75),
            arm("constant 0.05", none=0.75),
            arm("constant 0.1", none=0.25, seasons=0.5),
        ]
    }
    found = regrets(record)
    assert found["next batch"] == {"none": 0.25, "seasons": -0.25} and found["constant 0.1"] == {"none": 0.5, "seasons": 0.0}


@pytest.mark.slow
@pytest.mark.claim
@pytest.mark.timeout(1500)
def test_a_rate_that_regulates_itself_follows_swaps(tmp_path):
    record = run_study(study_named("homeostatic"), "quick", tmp_path).record
    means = {arm["label"]: {name: found["mean"] for name, found in arm["measures"].items()} for arm in record["arms"]}
    system, constant = means["next batch"], means["constant 0.0058"]
    assert system["200"] >= constant["200"] + 0.05
    assert system["200"] >= means["random walk"]["200"] + 0.03
    assert system["none"] >= constant["none"] - 0.04
    control = next(claim for claim in record["claims"] if claim["control"])
    assert control["verdict"] != HOLDS and not control["met"]
