"""What is read from runs: curves over seeds, matrices, forgetting by set; with numbers worked out by hand."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.measure.metrics import forgetting
from everlearn.measure.report import series


def run(matrix=None, names=None, curve=(), **figures):
    held = dict(figures)
    if matrix is not None:
        held["matrix"] = {"matrix": matrix, "names": names or [f"set {index}" for index in range(len(matrix[0]))]}
    return {"seed": 0, "figures": held, "curve": list(curve), "used": {}, "sha256": ""}


def learner(*runs):
    return {"label": "replay", "name": "replay", "runs": list(runs), "summary": {}}


def test_thinning_keeps_the_ends_and_spreads_evenly():
    assert series.thinned(list(range(11)), 3) == [0, 5, 10]
    assert series.thinned([1, 2], 5) == [1, 2]


@given(st.integers(2, 40), st.integers(1, 300))
def test_thinning_never_exceeds_its_limit_nor_repeats(most, length):
    kept = series.thinned(list(range(length)), most)
    assert len(kept) == min(most, length)
    assert kept == sorted(set(kept))
    assert (kept[0], kept[-1]) == (0, length - 1)


def test_a_curve_is_mean_and_interval_over_seeds_at_events_that_all_seeds_have():
    points = [[{"event": 10, "cost": {"ms": 1.0}}, {"event": 20, "cost": {"ms": value}}] for value in (1.0, 2.0, 3.0)]
    points[2].append({"event": 30, "cost": {"ms": 9.0}})
    rows = series.curve(learner(*(run(curve=point) for point in points)), "cost", "ms")
    assert [row["event"] for row in rows] == [10, 20]
    assert rows[0] == {"event": 10, "mean": 1.0, "low": 1.0, "high": 1.0}
    half = 0.95 / (2 * 0.975 * 0.025) ** 0.5 / 3**0.5
    assert rows[1]["mean"] == pytest.approx(2.0)
    assert rows[1]["high"] == pytest.approx(2.0 + half)
    cut = series.curve(learner(*(run(curve=point) for point in points)), "cost", "ms", bounds=(0.0, 3.0))
    assert (cut[1]["low"], cut[1]["high"]) == (0.0, 3.0)


def test_a_curve_of_one_seed_has_no_band():
    rows = series.curve(learner(run(curve=[{"event": 1, "cost": {"ms": 4.0}}])), "cost", "ms")
    assert rows == [{"event": 1, "mean": 4.0, "low": 4.0, "high": 4.0}]


def test_a_curve_can_be_kept_to_some_events():
    points = [{"event": event, "cost": {"ms": float(event)}} for event in range(1, 9)]
    assert [row["event"] for row in series.curve(learner(run(curve=points)), "cost", "ms", only=[2, 8])] == [2, 8]
    assert len(series.curve(learner(run(curve=points)), "cost", "ms", only=[99])) == 8


def test_forgetting_by_set_is_best_earlier_minus_last():
    first = [[0.9, 0.0, 0.0], [0.7, 0.8, 0.0], [0.5, 0.6, 0.9]]
    second = [[0.8, 0.0, 0.0], [1.0, 0.6, 0.0], [0.6, 0.8, 0.9]]
    rows = series.best_and_last(learner(run(first), run(second)))
    assert [row["name"] for row in rows] == ["set 0", "set 1"]
    assert [row["mean"] for row in rows] == pytest.approx([0.4, 0.0])  # (0.4 + 0.4)/2 and (0.2 - 0.2)/2
    assert [row["best"] for row in rows] == pytest.approx([0.95, 0.7])
    assert [row["last"] for row in rows] == pytest.approx([0.55, 0.7])


@given(st.integers(2, 6), st.integers(1, 6), st.integers(0, 99))
def test_its_mean_over_sets_is_the_forgetting_of_the_metrics(rows, columns, seed):
    matrix = numpy.random.default_rng(seed).uniform(size=(rows, columns))
    if rows == columns == 1:
        return
    lost = series.best_and_last(learner(run(matrix.tolist())))
    assert numpy.mean([row["mean"] for row in lost]) == pytest.approx(forgetting(matrix))


def test_a_matrix_of_one_checkpoint_shows_no_forgetting():
    assert series.best_and_last(learner(run([[0.4, 0.5]]))) == []
    assert series.best_and_last(learner()) == []


def test_names_that_differ_between_seeds_are_numbered():
    same = [[0.5, 0.5], [0.5, 0.5]]
    assert series.set_names(learner(run(same, ["cat", "dog"]), run(same, ["cat", "dog"]))) == ["cat", "dog"]
    assert series.set_names(learner(run(same, ["cat", "dog"]), run(same, ["dog", "cat"]))) == [
        "experience 1",
        "experience 2",
    ]
    assert series.set_names(learner(run(same, ["cat", "cat"]))) == ["1: cat", "2: cat"]


def test_the_mean_matrix_leaves_out_what_was_not_judged():
    found = series.mean_matrix(learner(run([[0.2, None], [0.4, 0.6]]), run([[0.4, None], [0.6, 1.0]])))
    assert found[0] == [pytest.approx(0.3), None]
    assert found[1] == pytest.approx([0.5, 0.8])
    assert series.when_new(learner(run([[0.2, 0.0], [0.4, 0.6]]))) == [0.2, 0.6]
    assert series.when_new(learner(run([[0.2, 0.0]]))) == []


def test_classes_at_the_end_come_from_held_out_sets_or_else_from_answers():
    judged = {"matrix": [[1.0]], "names": ["all"], "per_class": [{"cat": 0.1, "dog": 0.3}, {"cat": 0.5, "dog": 0.7}]}
    entry = learner({"figures": {"matrix": judged, "prequential": {"per_class": {"cat": 0.0}}}, "curve": []})
    assert series.classes_at_end(entry) == {"cat": 0.5, "dog": 0.7}
    assert series.classes_at_end(learner({"figures": {"prequential": {"per_class": {"cat": 0.2}}}})) == {"cat": 0.2}
    rows = series.class_curves(entry, [10, 20])
    assert [tuple(row.values()) for row in rows] == [
        ("cat", 0, 10, 0.1),
        ("dog", 0, 10, 0.3),
        ("cat", 0, 20, 0.5),
        ("dog", 0, 20, 0.7),
    ]


def test_curves_of_classes_come_from_answers_where_nothing_was_held_out():
    points = [{"event": 5, "prequential": {"per_class": {"cat": 0.25}}}, {"event": 6, "prequential": {"accuracy": 0.5}}]
    rows = series.class_curves(learner(run(curve=points)), [])
    assert rows == [{"label": "cat", "seed": 0, "event": 5, "accuracy": 0.25}]


def test_what_a_class_lost_is_best_earlier_minus_last_seed_by_seed():
    first = {
        "matrix": [[1.0]],
        "names": ["a"],
        "per_class": [{"cat": 0.9, "dog": 0.0}, {"cat": 0.5, "dog": 0.8}, {"cat": 0.4, "dog": 0.8}],
    }
    second = {
        "matrix": [[1.0]],
        "names": ["b"],
        "per_class": [{"cat": 0.0, "dog": 0.6}, {"cat": 0.7, "dog": 0.2}, {"cat": 0.6, "dog": 0.2}],
    }
    entry = learner({"figures": {"matrix": first}}, {"figures": {"matrix": second}})
    found = {row["name"]: (row["best"], row["last"], row["mean"]) for row in series.class_losses(entry)}
    assert found["cat"] == pytest.approx((0.8, 0.5, 0.3))  # 0.9 -> 0.4 and 0.7 -> 0.6
    assert found["dog"] == pytest.approx((0.7, 0.5, 0.2))  # 0.8 -> 0.8 and 0.6 -> 0.2
    assert not series.same_sets(entry)


def test_detectors_are_averaged_over_seeds():
    first = {"alarms": {"adwin": [5]}, "scores": {"adwin": {"found": 1, "changes": 2, "delay": 4.0, "false_per_1000": 0.0}}}
    second = {"alarms": {"adwin": []}, "scores": {"adwin": {"found": 0, "changes": 2, "delay": None, "false_per_1000": 2.0}}}
    entry = learner(run(drift=first), run(drift=second))
    assert series.alarms(entry) == {"adwin": [[5], []]}
    assert series.detector_scores(entry) == {"adwin": {"found": 0.5, "changes": 2.0, "delay": 4.0, "false_per_1000": 1.0}}


def test_columns_are_rows_turned_and_rounded():
    assert series.columns([{"a": 0.123456, "b": "x"}, {"a": 2, "b": "y"}], digits=3) == {"a": [0.123, 2], "b": ["x", "y"]}
    assert series.columns([]) == {}
