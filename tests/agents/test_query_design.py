"""Designs by Frank-Wolfe against closed forms, and rounding."""

import math

import pytest
import torch

from everlearn.agents.query_design import allocate, elimination_design, spread_design
from everlearn.data.query_families import best_arm


def test_equal_arms_get_equal_shares():
    """max_{i, j} 1 / l_i + 1 / l_j is least at l = 1 / n: the value 2 n."""
    share, rho = elimination_design(torch.eye(5, dtype=torch.float64), torch.eye(5, dtype=torch.float64))
    assert share.tolist() == pytest.approx([0.2] * 5, abs=1e-9) and rho == pytest.approx(10.0, abs=1e-6)


def test_of_one_difference_shares_are_proportional_to_its_coordinates():
    """u = z - z': (sum |u_i|)^2, l ~ |u_i|; Frank-Wolfe stops within 1 % of a step."""
    answers = torch.tensor([[1.0, 0.0], [math.cos(0.1), math.sin(0.1)]], dtype=torch.float64)
    share, rho = elimination_design(torch.eye(2, dtype=torch.float64), answers)
    u = (answers[0] - answers[1]).abs()
    assert rho == pytest.approx(float(u.sum() ** 2), rel=0.05)
    assert share[1] > 0.85


def test_queries_that_span_less_than_the_space_are_no_obstacle():
    x = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]], dtype=torch.float64)
    share, rho = elimination_design(
        x, torch.tensor([[1.0, 0, 7.0], [0, 1.0, 7.0]], dtype=torch.float64) - torch.tensor([0, 0, 7.0])
    )
    assert share.tolist() == pytest.approx([0.5, 0.5]) and rho == pytest.approx(4.0, abs=1e-6)


@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_rounding_sums_to_the_total_and_stays_near_the_shares(total):
    share = torch.tensor([0.37, 0.33, 0.2, 0.1, 0.0], dtype=torch.float64)
    counts = allocate(share, total)
    assert int(counts.sum()) == total and counts[4] == 0
    assert float((counts - total * share).abs().max()) <= 2.0


def test_a_problem_keeps_its_design():
    problem = best_arm(3)
    assert spread_design(problem) is spread_design(problem)
