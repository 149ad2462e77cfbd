"""Refit policies: when they are due, what they cost in all, and their state."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError
from everlearn.core.spec import build, parse
from everlearn.core.state import capture, restore, same
from everlearn.measure.drift import ADWIN, DETECTORS
from everlearn.optim.refit import REFIT, Every, Grown, Never, OnDrift


class Threshold:
    """An alarm on every error above a half; counts what it was told."""

    parts = ("told",)

    def __init__(self):
        self.told = 0

    def update(self, error):
        self.told += 1
        return error > 0.5


def rows_at_fits(policy, sizes, errors=None):
    """The numbers of rows at which a policy asked for a fit."""
    seen, found = 0, []
    for number, size in enumerate(sizes):
        seen += size
        if policy.due(seen, None if errors is None else errors[number]):
            found.append(seen)
    return found


def test_every_by_hand():
    assert rows_at_fits(Every(10), [4] * 8) == [12, 24]
    assert rows_at_fits(Every(1), [3, 3]) == [3, 6]


def test_grown_by_hand():
    assert rows_at_fits(Grown(1.5), [2] * 10) == [2, 4, 6, 10, 16]
    assert rows_at_fits(Grown(1.0), [1, 1, 1]) == [1, 2, 3]


@given(factor=st.floats(1.01, 4.0), sizes=st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_fits_under_growth_cost_a_multiple_of_the_rows(factor, sizes):
    # Fits at r_1 < r_2 < ... with r_{k+1} >= factor * r_k: their sum is at most r_last * factor / (factor - 1).
    found = rows_at_fits(Grown(factor), sizes)
    assert found[0] == sizes[0]
    assert all(later >= factor * earlier for earlier, later in pairwise(found))
    assert sum(found) <= found[-1] * factor / (factor - 1) * (1 + 1e-9)
    assert sum(sizes) < factor * found[-1] + max(sizes)  # the last fit saw nearly 1 / factor of the rows, or more


@given(n=st.integers(1, 100), sizes=st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_every_is_never_late_by_more_than_a_batch(n, sizes):
    found = [0, *rows_at_fits(Every(n), sizes), sum(sizes)]
    gaps = [later - earlier for earlier, later in pairwise(found)]
    assert all(gap >= n for gap in gaps[:-1])
    assert all(gap < n + max(sizes) for gap in gaps)


def test_never():
    assert rows_at_fits(Never(), [100] * 10) == []


def test_drift_by_hand():
    errors = [1.0, 1.0, 0.2, 0.9, 0.5, 0.6]
    policy = OnDrift(Threshold(), first=20)
    assert rows_at_fits(policy, [10] * 6, errors) == [20, 40, 60]
    assert policy.detector.told == 4  # from the first fit on


def test_drift_with_a_real_detector():
    calm, turned = [0.1] * 100, [0.9] * 100
    found = rows_at_fits(OnDrift(ADWIN(clock=1), first=1), [1] * 200, calm + turned)
    assert found[0] == 1
    assert len(found) == 2
    assert 100 < found[1] < 130


def test_whether_the_error_is_needed_is_said():
    assert OnDrift(Threshold()).needs_error
    assert not any(policy.needs_error for policy in (Every(1), Grown(2.0), Never()))
    with pytest.raises(ArgumentError, match="on_drift: error must be the share of wrong answers"):
        OnDrift(Threshold()).due(10, None)


POLICIES = [Every(30), Grown(1.3), Never(), OnDrift(ADWIN(clock=1), first=40)]


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_fresh_has_the_same_settings_and_no_memory(policy):
    errors = [0.0] * 20 + [1.0] * 20
    used = policy.fresh()
    first = rows_at_fits(used, [8] * 40, errors)
    assert repr(used) == repr(policy)
    assert same(capture(used.fresh()), capture(policy))
    assert rows_at_fits(used.fresh(), [8] * 40, errors) == first
    assert used.fresh() is not used


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_continues_from_its_state(policy):
    errors = [0.0] * 20 + [1.0] * 20
    whole, second = policy.fresh(), policy.fresh()
    for number in range(17):
        whole.due(8 * number + 8, errors[number])
    restore(second, capture(whole))
    rest = [(8 * number + 8, errors[number]) for number in range(17, 40)]
    assert [whole.due(*item) for item in rest] == [second.due(*item) for item in rest]


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_call_strings_are_read_back(policy):
    assert repr(build(parse(repr(policy)), {**REFIT, **DETECTORS})) == repr(policy)


def test_the_detector_given_is_left_alone():
    detector = Threshold()
    OnDrift(detector, first=1).due(5, 0.9)
    rows_at_fits(OnDrift(detector, first=1), [1] * 5, [0.9] * 5)
    assert detector.told == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Every(0), "every: n must be an int >= 1, got 0"),
        (lambda: Every(2.5), r"every: n must be an int >= 1, got 2\.5"),
        (lambda: Grown(0.9), r"grown: factor must be a number >= 1, got 0\.9\. Use every\(1\)"),
        (lambda: OnDrift(Threshold(), first=0), "on_drift: first must be an int >= 1"),
        (lambda: OnDrift("adwin"), r"on_drift: detector must have update\(error\) -> bool and parts, got str"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
