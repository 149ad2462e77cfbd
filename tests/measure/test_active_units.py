"""Active units on the newest rows: when they are looked at, and that looking changes nothing."""

import pytest
import torch

from everlearn import FineTune, Uniform
from everlearn.core.state import capture, digest, load
from everlearn.measure.active_units import PROBE_BYTES, ActiveUnits


def network(dead):
    """Ten hidden units, so many of which never fire."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = torch.nn.Sequential(torch.nn.Linear(4, 10), torch.nn.ReLU(), torch.nn.Linear(10, 3))
    with torch.no_grad():
        made[0].bias[:dead] = -1e6
    return made


def rows(seed, count):
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("dead", "over"), [(0, False), (7, False), (9, True)])
def test_the_share_is_looked_at_when_it_is_due(dead, over):
    units, learner = ActiveUnits(least=0.2, every=200, rows=64), FineTune(network(dead))
    readings = [units.add(rows(step, 32), learner) for step in range(16)]
    assert [place for place, found in enumerate(readings) if found] == [7, 15]
    assert {reading.over for found in readings for reading in found} == {over}
    assert units.share == (10 - dead) / 10
    assert units.probe is None


def test_looking_changes_no_state_and_leaves_no_hooks():
    units, learner = ActiveUnits(every=10, rows=32), FineTune(network(2))
    before = digest(learner.state_dict())
    assert units.add(rows(0, 64), learner)
    assert digest(learner.state_dict()) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in learner.descent.model.modules())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_network_that_is_broken_is_not_looked_into(number):
    made = network(0)
    with torch.no_grad():
        made[0].weight[0, 0] = number
    units = ActiveUnits(every=10, rows=32)
    assert units.add(rows(0, 64), FineTune(made)) == []
    assert units.share is None


def test_a_threshold_finds_units_that_hardly_fire():
    made = network(0)
    with torch.no_grad():
        made[0].weight[:9] *= 1e-5
        made[0].bias[:9] *= 1e-5
    shares = []
    for threshold in (0.0, 0.025):
        units = ActiveUnits(threshold=threshold, every=10, rows=32)
        units.add(rows(0, 64), FineTune(made))
        shares.append(units.share)
    assert shares[1] == 0.1 < shares[0]


def test_what_has_no_network_is_never_looked_at_and_nothing_is_kept():
    units = ActiveUnits(every=10)
    for step in range(10):
        assert units.add(rows(step, 32), Uniform()) == []
    assert units.probe is None


def test_large_rows_are_fewer():
    assert ActiveUnits(row_bytes=4 * 3 * 224 * 224).rows == 8
    assert ActiveUnits(row_bytes=PROBE_BYTES // 20).rows == 20
    assert ActiveUnits(row_bytes=256).rows == 128


def test_state_goes_on_in_the_middle_of_gathering():
    learner = FineTune(network(9))
    first, second = ActiveUnits(every=50, rows=64), ActiveUnits(every=50, rows=64)
    for step in range(2):
        first.add(rows(step, 32), learner)
    assert first.probe is not None
    load(second, capture(first))
    assert first.add(rows(3, 32), learner) == second.add(rows(3, 32), learner) != []
