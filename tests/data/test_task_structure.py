"""Structures by name: which classes each may have, what is dropped, and every refusal."""

from itertools import combinations

import numpy
import pytest

from everlearn.core.errors import ArgumentError
from everlearn.data.class_schedule import Imbalanced
from everlearn.data.task_structure import STRUCTURES, check_structure, class_weights, make_schedule

UNIFORM = numpy.full(10, 0.1)
NAMES = tuple(f"c{label}" for label in range(10))


def walk(structure, *, tasks=100, weights=UNIFORM, per_task=2, mix=None, reduction=1.0, drop_after=None, seed=0):
    mix = check_structure(tasks, per_task, structure, mix, "uniform", reduction)
    return make_schedule(structure, weights, tasks, per_task, mix, reduction, drop_after, seed).walk(0, tasks)


# ---- structures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_task_has_its_distinct_classes(structure):
    found = walk(structure)
    assert found.shape == (100, 10 if structure == "iid" else 2)
    assert (numpy.diff(found) > 0).all() and found.min() >= 0 and found.max() <= 9


@pytest.mark.parametrize("structure", ["random", "cycle", "pairs", "periods", "lifelong"])
def test_classes_of_probability_zero_never_come(structure):
    weights = numpy.where(numpy.arange(10) % 3 == 1, 0.0, 1 / 7)
    found = walk(structure, weights=weights, mix=0.5 if structure in ("cycle", "pairs") else None)
    assert not numpy.isin(found, [1, 4, 7]).any() and len(numpy.unique(found)) == 7


def test_a_cycle_is_lexicographic_and_pairs_are_a_tenth_of_all():
    assert walk("cycle").tolist()[45:47] == [[0, 1], [0, 2]]
    assert len(set(map(tuple, walk("pairs", tasks=400).tolist()))) == 4
    assert len(set(map(tuple, walk("pairs", tasks=4000, mix=1.0).tolist()))) == 45


def test_a_partition_is_the_same_disjoint_tasks_again_and_again():
    found = walk("partition")
    assert sorted(found[:5].ravel().tolist()) == list(range(10))
    assert numpy.array_equal(found, numpy.tile(found[:5], (20, 1)))
    assert not numpy.array_equal(found, walk("partition", seed=1))


def test_periods_are_two_halves():
    found = walk("periods", tasks=101)
    assert set(found[:50].ravel().tolist()) == {0, 1, 2, 3, 4} and set(found[50:].ravel().tolist()) == {5, 6, 7, 8, 9}


@pytest.mark.parametrize("structure", ["random", "cycle", "pairs", "periods", "lifelong", "iid", "partition"])
def test_dropped_classes_never_come_from_that_task_on(structure):
    """The probe of absence: before it nothing changes, after it the others go on."""
    gone = (5, 6, 7, 8, 9) if structure != "periods" else (5, 6, 7)
    options = {"mix": 0.5} if structure == "pairs" else {}
    options |= {"per_task": 5, "weights": UNIFORM} if structure == "partition" else {}
    if structure == "partition":
        gone = tuple(walk("partition", per_task=5)[1].tolist())
    plain, probed = walk(structure, tasks=200, **options), walk(structure, tasks=200, drop_after=(75, gone), **options)
    assert numpy.array_equal(probed[:75], plain[:75])
    assert numpy.isin(plain[75:], gone).any() and not numpy.isin(probed[75:], gone).any()
    assert (probed[75:, : 2 if structure != "iid" else 5] >= 0).all()


def test_a_cycle_of_the_rest_begins_where_classes_are_dropped():
    found = walk("cycle", drop_after=(75, (5, 6, 7, 8, 9)))
    assert found[75:85].tolist() == list(map(list, combinations(range(5), 2))) and found[85].tolist() == [0, 1]


def test_a_partition_of_the_rest_begins_where_classes_are_dropped():
    groups = walk("partition")[:5].tolist()
    found = walk("partition", drop_after=(77, tuple(groups[3])))
    left = [group for group in groups if group != groups[3]]
    assert found[77:86].tolist() == [*left, *left, left[0]]


def test_shares_are_those_of_the_walk():
    for structure in ("cycle", "partition", "iid"):
        schedule = make_schedule(structure, UNIFORM, 90, 2, 0.0, 1.0, None, 0)
        assert numpy.allclose(schedule.shares(90), [(schedule.walk(0, 90) == label).any(1).mean() for label in range(10)])
    for structure, drop in (("random", (30, (0, 1, 2))), ("periods", None)):
        schedule = make_schedule(structure, UNIFORM, 90, 2, 0.0, 1.0, drop, 0)
        expected = {"random": [1 / 15] * 3 + [(30 * 0.2 + 60 * 2 / 7) / 90] * 7, "periods": [0.2] * 10}[structure]
        assert numpy.allclose(schedule.shares(90), expected)
    assert make_schedule("random", UNIFORM, 90, 2, 0.0, 2.0, None, 0).shares(90) is None


# ---- probabilities ---------------------------------------------------------------------------------------------------------


def test_probabilities_are_given_by_name_by_value_or_one_by_one():
    usable = [True] * 9 + [False]
    assert class_weights("uniform", usable, NAMES, 0).tolist() == [1 / 9] * 9 + [0.0]
    drawn = class_weights(Imbalanced(exponent=2), usable, NAMES, 0)
    assert numpy.array_equal(numpy.sort(drawn[:9])[::-1], Imbalanced(exponent=2).probabilities(9)) and drawn[9] == 0
    assert not numpy.array_equal(drawn, class_weights(Imbalanced(exponent=2), usable, NAMES, 1))
    given = (0.5, 0.25, 0.25, 0, 0, 0, 0, 0, 0, 0)
    assert class_weights(given, usable, NAMES, 0).tolist() == list(given)


@pytest.mark.parametrize(
    ("prob", "words"),
    [
        ((0.5, 0.6, -0.1, 0, 0, 0, 0, 0, 0, 0), "a tuple with a probability 0..1 for each class, got"),
        ((0.5, float("nan"), 0.5, 0, 0, 0, 0, 0, 0, 0), "a tuple with a probability 0..1 for each class, got"),
        ((0.5, 0.500002, 0, 0, 0, 0, 0, 0, 0, 0), r"must sum to 1 within 1e-06, got 1\.000002"),
        ((0.5, 0.5), "class_prob has 2 probabilities, and there are 10 classes"),
        ("equal", "must be 'uniform', imbalanced"),
        ((0.9, 0, 0, 0, 0, 0, 0, 0, 0, 0.1), "class 'c9' has the probability 0.1 and no row to learn from"),
    ],
)
def test_wrong_probabilities_are_refused(prob, words):
    with pytest.raises(ArgumentError, match=f"recurring: .*{words}"):
        class_weights(prob, [True] * 9 + [False], NAMES, 0)


def test_a_sum_within_the_tolerance_is_made_one():
    found = class_weights((0.5, 0.5000009, 0, 0, 0, 0, 0, 0, 0, 0), [True] * 10, NAMES, 0)
    assert found.sum() == pytest.approx(1.0, abs=1e-15) and found[1] > found[0]


# ---- refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tasks": 0}, "tasks must be an int >= 1, got 0"),
        ({"per_task": 0}, "classes_per_task must be an int >= 1, got 0"),
        (
            {"per_task": 11},
            "classes_per_task=11 is more than the 10 classes with positive probability. Use classes_per_task=10",
        ),
        ({"structure": "circle"}, "unknown structure 'circle'; did you mean 'cycle'"),
        ({"mix": 0.5}, "structure='random' has none. Leave mix out"),
        ({"structure": "cycle", "mix": 1.5}, r"mix must be a number between 0 and 1, got 1\.5"),
        ({"reduction": 0.5}, r"prob_reduction must be a number >= 1, got 0\.5"),
        ({"structure": "cycle", "reduction": 2.0}, "prob_reduction needs classes that are drawn anew"),
        ({"structure": "periods", "tasks": 1}, "structure='periods' has two, and tasks=1 is not enough"),
        ({"structure": "periods", "per_task": 6}, "classes_per_task=6 is more than the 5 classes"),
        (
            {"structure": "partition", "per_task": 3},
            "classes_per_task=3 does not divide the 10 classes. Use classes_per_task=2",
        ),
        ({"structure": "pairs", "mix": 0.001}, r"mix=0\.001 of the 45 combinations of 2 of 10 classes leaves none"),
        ({"drop_after": (5, tuple(range(9)))}, r"more than the 1 classes with positive probability from task 5 on"),
        ({"drop_after": 5}, r"drop_after must be \(task, classes\) such as \(75, \(5, 6\)\), got 5"),
        ({"drop_after": (100, (1,))}, "drop_after.0.=100 lies behind the last of 100 tasks"),
        ({"drop_after": (5, (10,))}, r"drop_after names class 10, and there are 10 classes, 0\.\.9"),
        ({"structure": "partition", "drop_after": (5, (0, 1, 2, 3, 4, 5, 6, 7))}, "leaves no task of structure='partition'"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(ArgumentError, match=words):
        walk(**{"structure": "random", **options})


@pytest.mark.parametrize(("structure", "mix"), [("cycle", None), ("pairs", None), ("partition", None), ("iid", None)])
def test_probabilities_that_a_structure_does_not_heed_are_refused(structure, mix):
    with pytest.raises(ArgumentError, match=f"class_prob weighs classes that are drawn, and structure='{structure}'"):
        check_structure(10, 2, structure, mix, Imbalanced(), 1.0)
    assert check_structure(10, 2, "cycle", 0.3, Imbalanced(), 1.0) == 0.3
