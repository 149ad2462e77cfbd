"""Draws by number: even, without pattern between neighbours, and an inverse that never picks what has no mass."""

import numpy
import pytest
from scipy.stats import chisquare, kstest

from everlearn.agents.draws import pick, uniforms
from everlearn.core.errors import InputError


def test_draws_are_even_and_do_not_hang_on_their_neighbours():
    drawn = uniforms(5, numpy.arange(20_000))
    assert kstest(drawn, "uniform").pvalue > 1e-3 and drawn.min() >= 0.0 and drawn.max() < 1.0
    pairs = numpy.bincount((drawn[:-1] * 8).astype(int) * 8 + (drawn[1:] * 8).astype(int), minlength=64)
    assert chisquare(pairs).pvalue > 1e-3
    seeds = numpy.array([uniforms(seed, [3])[0] for seed in range(2_000)])
    assert kstest(seeds, "uniform").pvalue > 1e-3
    assert kstest(drawn**1.05, "uniform").pvalue < 1e-3  # the control


def test_a_draw_is_a_function_of_seed_and_key():
    keys = [0, 1, 2**62 + 5, -1]
    assert uniforms(1, keys).tolist() == [uniforms(1, [key])[0] for key in keys]
    assert uniforms(1, keys).tolist() == uniforms(1, numpy.array(keys, numpy.int64)).tolist() != uniforms(2, keys).tolist()
    with pytest.raises(InputError, match="keys must be whole numbers"):
        uniforms(1, ["a"])


def test_picking_is_the_inverse_of_the_distribution_function():
    spread = numpy.array([[0.0, 0.2], [0.5, 0.0], [0.5, 0.8]])
    assert pick(spread, numpy.array([0.0, 0.0])).tolist() == [1, 0]
    assert pick(spread, numpy.array([0.5, 0.2])).tolist() == [2, 2]
    short = numpy.array([[0.5], [0.5 - 1e-12], [0.0]])  # a sum below the number drawn: the last with mass
    assert pick(short, numpy.array([1.0 - 1e-15])).tolist() == [1]
