"""What learning a batch takes, learner by learner."""

import pytest

from everlearn.comparison.weighing import weigh
from everlearn.core.errors import ArgumentError, DataError

SMALL = {
    "data": "corruptions(digits(side=8), types=('contrast',), source_batch=16)",
    "model": "conv4(widths=(4, 4))",
    "rows": 24,
}
ALL = "tent, bn_stats, note, ecotta, fine_tune, replay(capacity=50), nearest_class_mean"


@pytest.fixture(scope="module")
def reports():
    return {report.name: report for report in weigh(ALL, **SMALL)}


def test_each_learner_trains_what_is_its_own(reports):
    every = 4 * (9 * 4 + 2 * 4 + 9 * 16 + 2 * 4)  # two convolutions and their norms; the head comes on top
    affine = 4 * (2 * 4 + 2 * 4)
    assert reports["tent"].trained == reports["note"].trained == affine
    assert reports["fine_tune"].trained == reports["replay(capacity=50)"].trained == reports["fine_tune"].parameters > every
    assert reports["bn_stats"].trained == reports["nearest_class_mean"].trained == 0
    assert reports["tent"].optimizer == pytest.approx(2 * affine, abs=4 * 2 * 2)  # moments, and a counter for each tensor


def test_what_is_kept_follows_the_rows_that_are_learned(reports):
    """Replay's draw comes on top of the batch, and NOTE learns from its memory of 64 rows, whatever the batch."""
    kept = {name: report.activations for name, report in reports.items()}
    assert kept["bn_stats"] == kept["nearest_class_mean"] == 0
    assert kept["replay(capacity=50)"] == pytest.approx(kept["fine_tune"] * (24 + 24) / 24, rel=0.4)
    assert kept["note"] > kept["tent"] * 64 / 24
    assert kept["ecotta"] < kept["tent"] < kept["fine_tune"]
    assert (reports["replay(capacity=50)"].replay_rows, reports["note"].replay_rows, reports["tent"].replay_rows) == (
        50,
        64,
        0,
    )
    assert reports["replay(capacity=50)"].replay >= 50 * 64


def test_the_published_count_stands_beside_what_is_measured(reports):
    norms = 2 * 4 * 24 * 4 * 64  # two norms, 4 bytes, 24 rows, 4 planes; the first is of 8x8 pixels
    assert 0.5 * norms < reports["tent"].formula <= norms
    assert reports["bn_stats"].formula == 0
    scores = 4 * 24 * 10  # the entropy keeps a few tensors of the scores' size, which no count of a network has
    assert 0 <= reports["ecotta"].activations - reports["ecotta"].formula <= 3 * scores
    assert reports["tent"].formula < reports["tent"].activations
    assert reports["fine_tune"].formula < reports["fine_tune"].activations
    assert reports["note"].formula is None and reports["replay(capacity=50)"].formula is None


def test_a_stream_without_deployment_and_batches_that_are_joined():
    """Boundaries come before the first batch; rows come from as many batches as it takes."""
    (report,) = weigh(["fine_tune"], "split(digits, experiences=5, batch=10)", model="mlp(hidden=(8,))", rows=33)
    assert report.rows == 33
    (few,) = weigh(["fine_tune"], "split(iris, experiences=3)", model="mlp(hidden=(8,))", rows=10**6)
    assert 100 < few.rows <= 150


def test_nothing_to_weigh_is_refused():
    with pytest.raises(ArgumentError, match="rows must be an int >= 1, got 0"):
        weigh("tent", rows=0)
    with pytest.raises(ArgumentError, match="no learner was named"):
        weigh([])
    with pytest.raises(DataError, match=r"digits\(side=32\)"):
        weigh("tent", "corruptions(digits)")
