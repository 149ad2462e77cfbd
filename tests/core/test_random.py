"""Random numbers are functions of (seed, labels), independent between labels, and leave the global state alone."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from everlearn.core.random import derive, generator, isolated

labels = st.lists(st.integers() | st.text(max_size=5), max_size=3).map(tuple)


@given(st.integers(), labels)
def test_a_seed_is_63_bits_and_the_same_each_time(seed, labels):
    assert derive(seed, *labels) == derive(seed, *labels)
    assert 0 <= derive(seed, *labels) < 2**63


@given(st.tuples(st.integers(), labels), st.tuples(st.integers(), labels))
def test_other_seeds_or_labels_give_other_numbers(first, second):
    if first != second:
        assert derive(first[0], *first[1]) != derive(second[0], *second[1])


def test_seeds_are_the_same_in_every_process():
    """The numbers that a run begun elsewhere goes on with; Python's own hash would differ."""
    code = "from everlearn.core.random import derive; print(derive(3, 'memory', 7))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(seen) == derive(3, "memory", 7) == 5228669243247172078


def test_bits_are_fair():
    """Each of the 62 lowest bits is set in half of 4,000 seeds, to 5 standard deviations (sqrt(4000) / 2 = 32)."""
    counts = [0] * 62
    for number in range(4000):
        value = derive(0, number)
        for bit in range(62):
            counts[bit] += value >> bit & 1
    assert all(abs(count - 2000) < 5 * 32 for count in counts)


def test_generators_of_two_labels_are_uncorrelated():
    first = torch.randn(4000, generator=generator(0, "network"))
    second = torch.randn(4000, generator=generator(0, "memory"))
    assert torch.equal(first, torch.randn(4000, generator=generator(0, "network")))
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 5 / 4000**0.5


def test_inside_the_block_numbers_follow_from_the_seed_and_outside_nothing_happened():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    drawn = []
    for _ in range(2):
        with isolated(0, "network"):
            drawn.append(torch.rand(3))
    with isolated(0, "other"):
        assert not torch.equal(torch.rand(3), drawn[0])
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(torch.rand(2), expected)


def test_the_global_state_comes_back_after_an_error():
    torch.manual_seed(1)
    expected = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), isolated(0):
        torch.rand(1)
        1 / 0  # noqa: B018
    assert torch.equal(torch.get_rng_state(), expected)


def test_the_bits_are_those_of_manual_seed_and_errors_put_the_state_back_too():
    torch.manual_seed(derive(4, "x"))
    expected = torch.rand(3)
    before = torch.get_rng_state()
    with isolated(4, "x"):
        assert torch.equal(torch.rand(3), expected)
    with pytest.raises(KeyError), isolated(4, "x"):
        raise KeyError
    assert torch.equal(before, torch.get_rng_state())
