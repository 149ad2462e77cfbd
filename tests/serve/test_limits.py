"""Buckets against numbers worked out by hand, and what a client is known by."""

import pytest

from everlearn.core.errors import ArgumentError
from everlearn.serve.limits import Buckets, network, spent, too_large


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_bucket_gives_its_burst_and_then_the_rate():
    clock = Clock()
    buckets = Buckets(2.0, burst=3, clock=clock)
    assert [buckets.wait("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    clock.now = 0.25
    assert buckets.wait("a") == 0.25  # half a row has come, and asking took nothing
    clock.now = 0.5
    assert buckets.wait("a") == 0.0
    clock.now = 100.0
    assert [buckets.wait("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]  # never more than the burst


def test_keys_do_not_share():
    buckets = Buckets(1.0, burst=1, clock=Clock())
    assert [buckets.wait(key) for key in "aba"] == [0.0, 0.0, 1.0]


def test_many_rows_at_once_are_paid_for_later():
    clock = Clock()
    buckets = Buckets(10.0, burst=20, clock=clock)
    assert buckets.wait("a") == 0.0
    buckets.draw("a", 99)  # 20 - 1 - 99 = -80
    assert buckets.wait("a") == pytest.approx(8.1)
    clock.now = 8.1
    assert buckets.wait("a") == 0.0


def test_a_key_may_have_a_rate_of_its_own():
    clock = Clock()
    buckets = Buckets(None, clock=clock)
    assert [buckets.wait("free") for _ in range(100)] == [0.0] * 100
    assert len(buckets) == 0
    assert [buckets.wait("slow", 0.5) for _ in range(11)] == [0.0] * 10 + [2.0]


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing():
    clock = Clock()
    clock.now = 10.0
    buckets = Buckets(1.0, burst=1, clock=clock)
    buckets.wait("a")
    clock.now = 5.0
    assert buckets.wait("a") == 1.0


def test_the_number_of_buckets_is_bounded_and_the_longest_unused_goes_first():
    buckets = Buckets(1.0, burst=1, most=3, clock=Clock())
    for key in "abc":
        buckets.wait(key)
    buckets.draw("a", 1)
    buckets.wait("d")
    assert len(buckets) == 3
    assert buckets.wait("a") > 0.0  # still known
    assert buckets.wait("b") == 0.0  # forgotten


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), "2", True])
def test_a_rate_must_be_a_number_above_nothing(value):
    with pytest.raises(ArgumentError, match="limits: rate must be a number"):
        Buckets(value)


@pytest.mark.parametrize(
    ("address", "known"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("no:address", "no:address"),
        ("local", "local"),
    ],
)
def test_a_client_is_known_by_what_it_can_change_least(address, known):
    assert network(address) == known


def test_refusals_say_how_long_and_how_much():
    assert (spent(0.2).status, spent(0.2).retry_after, str(spent(0.2))) == (429, 0.2, "the rate is spent; try again in 1 s.")
    assert (too_large(1024).status, "1,024 bytes" in str(too_large(1024))) == (413, True)
