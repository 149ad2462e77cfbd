"""Distances between samples: numbers worked out by hand, scipy's own, slow twins, and how often chance passes the limits."""

import math

import numpy
import pytest
import torch
from scipy import stats

from everlearn import load
from everlearn.core.errors import ArgumentError, InputError
from everlearn.measure.distribution import (
    bin_counts,
    bin_edges,
    kernel,
    ks,
    ks_limit,
    median_scale,
    mmd,
    mmd_limit,
    psi,
    psi_limit,
)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shares(values, reference, bins=10):
    edges = bin_edges(reference, bins)
    return psi(bin_counts(reference, edges), bin_counts(values, edges))


# ---- PSI -------------------------------------------------------------------------------------------------------------------


def test_psi_by_hand():
    """(0.5 - 0.8) ln(0.5 / 0.8) + (0.5 - 0.2) ln(0.5 / 0.2), whatever the number of rows."""
    expected = -0.3 * math.log(0.625) + 0.3 * math.log(2.5)
    found = psi(torch.tensor([[50, 50], [5, 5]]), torch.tensor([[80, 20], [400, 100]]))
    torch.testing.assert_close(found, torch.full((2,), expected, dtype=torch.float64))


def test_psi_counts_an_empty_bin_as_half_a_row_and_bins_empty_on_both_sides_as_nothing():
    found = psi(torch.tensor([[200, 0, 0]]), torch.tensor([[90, 10, 0]]))
    expected = 0.1 * math.log(1.0 / 0.9) + (0.1 - 0.005) * math.log(0.1 / 0.005)
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_psi_is_symmetric_and_never_negative():
    first, second = (torch.randint(0, 50, (40, 7), generator=torch.Generator().manual_seed(seed)) + 1 for seed in (0, 1))
    torch.testing.assert_close(psi(first, second), psi(second, first))
    assert (psi(first, second) > 0).all()
    assert psi(first, first).tolist() == [0.0] * 40


def test_edges_are_quantiles_and_a_value_on_an_edge_lies_below_it():
    reference = torch.arange(1.0, 101.0)[:, None]
    edges = bin_edges(reference, 4)
    assert edges.tolist() == [[25.0, 50.0, 75.0]]
    assert bin_counts(reference, edges).tolist() == [[25, 25, 25, 25]]
    assert bin_counts(torch.tensor([[-5.0], [25.0], [25.5], [1e9]]), edges).tolist() == [[2, 1, 0, 1]]


@pytest.mark.parametrize("moved", [0.9, 1.1])
def test_a_constant_column_that_moves_either_way_is_far(moved):
    reference = torch.ones(200, 1)
    assert float(shares(torch.ones(100, 1), reference)) == 0.0
    assert float(shares(torch.full((100, 1), moved), reference)) > 5.0


def test_a_rare_category_that_becomes_common_is_seen():
    """95 % ones: every inner quantile is 1, and zeros are told from ones all the same."""
    reference = (torch.arange(200) % 20 > 0).double()[:, None]
    assert float(shares((torch.arange(100) % 2).double()[:, None], reference)) == pytest.approx(
        0.45 * math.log(10) + 0.45 * math.log(0.95 / 0.5)
    )


@pytest.mark.parametrize("rare", [0.0, 1.0])
def test_one_row_in_a_hundred_is_a_bin_of_its_own_where_there_is_no_other(rare):
    reference = torch.full((200, 1), 1.0 - rare)
    reference[:2] = rare
    values = torch.full((100, 1), 1.0 - rare)
    values[:20] = rare
    expected = 0.19 * math.log(20.0) + 0.19 * math.log(0.99 / 0.8)
    assert float(shares(values, reference)) == pytest.approx(expected)


def test_bins_of_few_rows_are_merged_and_empty_ones_stay():
    """Half zeros, then whole numbers 1..50 once or twice each: bins hold at least a twentieth of the rows, or none."""
    reference = torch.cat([torch.zeros(80), torch.arange(1.0, 51.0), torch.arange(1.0, 31.0)])[:, None]
    counts = bin_counts(reference, bin_edges(reference))[0].tolist()
    assert min(count for count in counts if count) >= 8
    assert counts[0] == 0  # below zero
    assert sum(counts) == 160


def test_chance_passes_the_limit_seldom_on_columns_of_few_values_too():
    """Pixels of digits hold 17 values, most of them 0."""
    pixels = load("digits").x.double()
    source = torch.Generator().manual_seed(0)
    passed = 0
    for _ in range(300):
        reference, values = (pixels[torch.randint(len(pixels), (rows,), generator=source)] for rows in (500, 250))
        edges = bin_edges(reference)
        far = psi(bin_counts(reference, edges), bin_counts(values, edges))
        limits = torch.tensor([psi_limit(500, 250, len(column.unique()) + 1, 0.05 / 64) for column in edges])
        passed += bool((far > limits).any())
    assert passed <= 0.05 * 300


def test_counts_add_up_column_by_column():
    reference, values = normal(0, 300, 5), normal(1, 120, 5)
    reference[:, 2] = reference[:, 2].round()
    edges = bin_edges(reference)
    counts = bin_counts(values, edges)
    assert counts.sum(dim=1).tolist() == [120] * 5
    for column in range(5):
        alone = [int((edges[column] < value).sum()) for value in values[:, column]]
        assert counts[column].tolist() == [alone.count(place) for place in range(counts.shape[1])]


def test_the_limit_of_psi_is_the_chi_square_quantile():
    expected = stats.chi2.isf(0.001, 9) * (1 / 990 + 1 / 240)
    assert psi_limit(1000, 250, 10, 0.001) == pytest.approx(expected)
    assert psi_limit(1000, 250, 1, 0.001) == 0.0


@pytest.mark.parametrize(("n", "m", "bins"), [(1000, 250, 10), (250, 250, 10), (1000, 500, 19)])
def test_chance_passes_the_limit_of_psi_about_as_often_as_it_says(n, m, bins):
    draws = 40_000
    source = numpy.random.default_rng(0)
    first, second = (torch.from_numpy(source.multinomial(rows, [1.0 / bins] * bins, size=draws)) for rows in (n, m))
    far = psi(first, second)
    for level in (0.01, 0.001):
        passed = int((far > psi_limit(n, m, bins, level)).sum())
        slack = 4.0 * math.sqrt(draws * level)
        assert 0.75 * draws * level - slack < passed < 1.15 * draws * level + slack


# ---- Kolmogorov-Smirnov ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounded", [False, True])
def test_ks_is_that_of_scipy(rounded):
    first, second = normal(0, 137, 6), 1.3 * normal(1, 61, 6) + 0.2
    if rounded:
        first, second = first.round(), second.round()
    expected = [stats.ks_2samp(first[:, column], second[:, column]).statistic for column in range(6)]
    torch.testing.assert_close(ks(first, second), torch.tensor(expected, dtype=torch.float64))


def test_the_limit_of_ks_is_that_of_scipy():
    assert ks_limit(300, 200, 0.003) == pytest.approx(stats.kstwobign.isf(0.003) * math.sqrt(1 / 300 + 1 / 200))


def test_chance_passes_the_limit_of_ks_at_most_as_often_as_it_says():
    far = torch.cat([ks(normal(2 * seed, 200, 200), normal(2 * seed + 1, 150, 200)) for seed in range(20)])
    passed = int((far > ks_limit(200, 150, 0.01)).sum())
    assert 0 < passed < 0.01 * 4000 + 4.0 * math.sqrt(40)


# ---- maximum mean discrepancy ----------------------------------------------------------------------------------------------


def test_the_kernel_and_its_scale_by_hand():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    assert float(kernel(x[:1], x[1:2], 50.0)) == pytest.approx(math.exp(-0.5))
    assert median_scale(x) == pytest.approx(18.0)  # squared distances 25, 1, 18
    assert median_scale(torch.ones(5, 2)) == 1.0
    assert median_scale(torch.ones(1, 2)) == 1.0


def test_mmd_is_that_of_a_slow_twin():
    first, second, scale = normal(0, 9, 3), normal(1, 7, 3) + 1.0, 2.5

    def mean(one, other):
        pairs = [math.exp(-float((x - y).square().sum()) / scale) for x in one for y in other]
        return sum(pairs) / len(pairs)

    expected = mean(first, first) + mean(second, second) - 2.0 * mean(first, second)
    assert mmd(first, second, scale) == pytest.approx(expected)
    assert mmd(first, first, scale) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("width", [2, 40])
def test_chance_passes_the_limit_of_mmd_about_as_often_as_it_says(width):
    draws, passed = 600, {0.05: 0, 0.01: 0}
    for seed in range(draws):
        first, second = normal(2 * seed, 80, width), normal(2 * seed + 1, 60, width)
        scale = median_scale(first)
        far = mmd(first, second, scale)
        for level in passed:
            passed[level] += far > mmd_limit(first, 60, scale, level)
    for level, count in passed.items():
        slack = 4.0 * math.sqrt(draws * level)
        assert 0.4 * draws * level - slack < count < draws * level + slack
    assert passed[0.05] > 0


def test_mmd_sees_a_change_that_no_column_shows():
    """Two columns that were independent become equal; each alone is what it was."""
    first, second = normal(0, 200, 2), normal(1, 200, 1).expand(200, 2)
    scale = median_scale(first)
    assert mmd(first, second, scale) > mmd_limit(first, 200, scale, 1e-4)
    assert (ks(first, second) < ks_limit(200, 200, 0.01)).all()


def test_the_limit_of_mmd_for_rows_that_do_not_differ_is_none():
    assert mmd_limit(torch.ones(10, 3), 10, 1.0, 0.01) == pytest.approx(0.0, abs=1e-12)


# ---- what is refused -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="reference must be"):
        bin_edges(torch.zeros(5))
    with pytest.raises(ArgumentError, match="bins must be an int >= 2, got 1"):
        bin_edges(torch.zeros(5, 1), 1)
    with pytest.raises(ArgumentError, match="psi_limit: level must be a number between"):
        psi_limit(10, 10, 3, 0.0)
    with pytest.raises(ArgumentError, match="ks_limit: m must be an int >= 1, got 0"):
        ks_limit(10, 0, 0.1)
