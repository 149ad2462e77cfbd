"""Rewards that come late, twice, out of order or never end in the log of those that came in order and once."""

import pytest
import torch

from everlearn.core.errors import DataError
from everlearn.data.delayed_rewards import DelayedRewards, Open


def waiting(ttl=10.0):
    held = DelayedRewards(ttl=ttl)
    for number in range(4):
        held.decide(
            str(number), Open(torch.full((2,), float(number)), torch.ones(3).bool(), number % 3, 0.25, time=float(number))
        )
    return held


def test_out_of_order_and_twice_give_the_log_of_in_order_and_once():
    plain, messy = waiting(), waiting()
    for name in ("0", "1", "3"):
        assert plain.reward(name, float(name), time=5.0) == "joined"
    told = [messy.reward(name, float(name), time=6.0) for name in ("3", "0", "3", "1", "0")]
    assert told == ["joined", "joined", "twice", "joined", "twice"]
    left, right = plain.log(), messy.log()
    assert left.id == right.id == ("0", "1", "3"), "never rewarded is unknown, and not a failure"
    for name in ("x", "offered", "action", "propensity", "reward", "time", "generation"):
        assert torch.equal(getattr(left, name), getattr(right, name)), name
    assert len(messy) == 1


def test_late_and_unknown_rewards_are_counted_and_change_nothing():
    held = waiting(ttl=2.0)
    held.reward("3", 1.0, time=5.0)
    before = held.log()
    assert held.reward("0", 1.0, time=2.5) == "late" and held.reward("9", 1.0, time=2.5) == "unknown"
    assert held.log().id == before.id
    assert dict(held.counts) == {"joined": 1, "late": 1, "twice": 0, "unknown": 1, "expired": 0}
    assert held.expire(now=3.5) == 2 and len(held) == 1, "0 and 1 have waited longer than 2; 3 is answered, 2 still waits"
    assert held.reward("1", 1.0, time=3.6) == "unknown"


def test_what_contradicts_is_refused_with_nothing_changed():
    held = waiting()
    with pytest.raises(DataError, match="no reward has been joined"):
        held.log()
    held.reward("0", 1.0, time=1.0)
    for act, said in [
        (lambda: held.reward("0", 0.0, time=2.0), "has the reward 1 already, got 0"),
        (lambda: held.reward("1", float("nan"), time=2.0), "finite"),
        (lambda: held.decide("0", Open(torch.zeros(2), torch.ones(3).bool(), 0, 0.5, 0.0)), "was made before"),
    ]:
        with pytest.raises(DataError, match=said):
            act()
    assert held.counts["joined"] == 1 and held.log().reward.tolist() == [1.0]
