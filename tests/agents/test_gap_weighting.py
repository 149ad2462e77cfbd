"""Inverse-gap weighting: published and hand-worked numbers, schedules, the minimax bound, and elimination."""

import itertools
import math

import numpy
import pytest
import torch

from everlearn.agents.explorer import Progress
from everlearn.agents.explorers import Greedy, Uniformly
from everlearn.agents.gap_weighting import Falcon, FastCB, SquareCB, SquareCBExact
from everlearn.core.errors import ArgumentError, InputError
from everlearn.measure.policy_generation import effective_actions

from .test_explorers import near, table

THREE = table([0.9, 0.8, 0.5])


def test_numbers_of_three_and_four_scores():
    assert near(SquareCB(gamma=20.0).probabilities(THREE), 0.70909091, 0.2, 0.09090909)
    assert near(SquareCB(gamma=0.0).probabilities(THREE), 1 / 3, 1 / 3, 1 / 3, error=1e-15)
    assert near(SquareCB(gamma=1e12).probabilities(THREE), 1.0, 1e-11, 2.5e-12, error=1e-10)
    four = SquareCB(gamma=100.0).probabilities(table([0.95, 0.93, 0.90, 0.40]))
    assert near(four, 0.70527307, 0.16666667, 0.11111111, 0.01694915)
    for gamma in (0.0, 7.0, 1e9):
        assert near(SquareCB(gamma=gamma).probabilities(table([0.4] * 4)), *[0.25] * 4, error=1e-15)
    masked = SquareCB(gamma=10.0).probabilities(table([0.9, 0.95, 0.5]), torch.tensor([[True, False, True]]))
    assert near(masked, 5 / 6, 0.0, 1 / 6)


def test_the_exact_form_by_its_equation():
    found = SquareCBExact(gamma=20.0).probabilities(THREE)
    assert near(found, 0.61933809, 0.27665372, 0.10400819)
    assert 1.0 / float(found[0, 0]) == pytest.approx(1.614627, abs=1e-6)
    many = torch.rand(200, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for gamma in (0.0, 1.0, 1e3, 1e9):
        spread = SquareCBExact(gamma=gamma).probabilities(many)
        level = 1.0 / spread.max(1, keepdim=True).values
        torch.testing.assert_close(
            1.0 / (level + gamma * (many.max(1, keepdim=True).values - many)), spread, rtol=1e-9, atol=1e-12
        )


def test_losses_near_nothing_are_explored_little():
    assert near(FastCB(gamma=20.0).probabilities(1 - table([0.1, 0.2, 0.5])), 0.94447355, 0.04347826, 0.01204819)
    perfect = FastCB(gamma=20.0).probabilities(table([1.0, 0.5]))
    assert 0.0 < float(perfect[0, 1]) == pytest.approx(1e-6 / (2e-6 + 10.0), rel=1e-6)
    assert float(FastCB(gamma=20.0).probabilities(table([0.0, 0.5]))[0, 0]) == pytest.approx(
        0.5 / (1.0 + 10.0)
    )  # 0 is a score, too
    with pytest.raises(InputError, match=r"fastcb: scores must lie in \[0, 1\], got \[0.2, 1.5\] in row 1"):
        FastCB().probabilities(table([0.1, 0.2], [0.2, 1.5]))


def test_the_schedule_and_numbers_of_vowpal_wabbit():
    """Costs and probabilities that Vowpal Wabbit 9.11.9 printed: gamma = 10 sqrt(2), the first of two equals leads, uniform at first."""
    costs = table([0.2193080634, 0.1096540317, 0.1096540317])
    schedule = SquareCB(scale=10.0)
    assert near(schedule.probabilities(-costs, learned=2), 0.219744, 0.446922, 0.333333, error=5e-7)
    assert near(schedule.probabilities(-costs, learned=0), 1 / 3, 1 / 3, 1 / 3, error=1e-15)
    constant = SquareCB(scale=10.0, exponent=0.0)
    assert near(
        constant.probabilities(-costs, learned=0), *SquareCB(gamma=10.0).probabilities(-costs)[0].tolist(), error=0.0
    )


def test_the_batch_schedule_grows_with_the_rows_of_the_fit():
    gamma = 0.5 * math.sqrt(3 * 400 / math.log(20 / 0.1))
    falcon = Falcon(c=0.5, dimension=20.0, delta=0.1)
    assert near(
        falcon.probabilities(THREE, learned=Progress(9000, 400)), *SquareCB(gamma=gamma).probabilities(THREE)[0].tolist()
    )
    assert near(falcon.probabilities(THREE), 1 / 3, 1 / 3, 1 / 3)
    with pytest.raises(ArgumentError, match="dimension / delta"):
        Falcon(dimension=1.0, delta=1.0)


def test_a_target_of_effective_actions_is_met_and_no_more():
    scores = torch.rand(300, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for target in (1.5, 2.0, 4.0):
        found = effective_actions(SquareCB(gamma=1e6, effective_actions=target).probabilities(scores)).mean()
        assert float(found) == pytest.approx(target, abs=1e-6)
    loose = SquareCB(gamma=10.0, effective_actions=1.1)
    assert torch.equal(loose.probabilities(scores), SquareCB(gamma=10.0).probabilities(scores))
    even = SquareCB(effective_actions=9.0).probabilities(scores)  # more than there are: as even as can be
    torch.testing.assert_close(even, torch.full_like(even, 0.2), rtol=0, atol=1e-9)


def test_elimination_leaves_out_what_cannot_be_the_best():
    """c0 = .04, K = 3, n = 10: half = sqrt(.04 log 30) = .36885 times the width; .5 + .0369 < .9 - .0369, .85 + .0369 is not."""
    scores, widths = table([0.9, 0.85, 0.5]), table([0.1, 0.1, 0.1])
    rule = SquareCB(gamma=20.0, elimination=0.04)
    found = rule.probabilities(scores, learned=10, widths=widths)
    assert near(found, 2 / 3, 1 / 3, 0.0)
    everyone = rule.probabilities(scores, learned=10, widths=10 * widths)
    assert near(everyone, *SquareCB(gamma=20.0).probabilities(scores)[0].tolist())
    assert near(
        rule.probabilities(scores, learned=0, widths=widths), *SquareCB(gamma=20.0).probabilities(scores)[0].tolist()
    )


def worst(spread, gamma):
    """The greatest of regret - gamma / 4 * squared error over what the true means may be, on a grid of a hundredth."""
    grid = numpy.linspace(0.0, 1.0, 101)
    guess, spread = THREE[0].numpy(), spread[0].numpy()
    greatest = -numpy.inf
    for best in range(3):  # the regret is linear in the best mean, so look at each action as the best
        value = numpy.zeros(())
        for action in range(3):
            own = -spread[action] * (grid + gamma / 4 * (guess[action] - grid) ** 2) + (grid if action == best else 0.0)
            value = value + own.max()
        greatest = max(greatest, float(value))
    return greatest


def test_regret_is_bounded_whatever_the_truth():
    """The worst of regret less squared error is at most 2 k / gamma; the published worst cases, and two rules that break the bound."""
    for gamma, known in ((5.0, 0.28), (20.0, 0.11636), (100.0, 0.03392)):
        found = worst(SquareCB(gamma=gamma).probabilities(THREE), gamma)
        assert found == pytest.approx(known, abs=1e-5) and found <= 6.0 / gamma
    assert worst(Greedy().probabilities(THREE), 100.0) == pytest.approx(0.11, abs=1e-5)
    assert worst(Uniformly().probabilities(THREE), 100.0) == pytest.approx(0.18667, abs=1e-5)
    assert min(0.11, 0.18667) > 6.0 / 100.0


def test_the_search_for_the_worst_is_that_of_the_whole_grid():
    """The slow twin on a coarse grid: every truth, whichever action is its best."""
    spread, gamma = SquareCB(gamma=5.0).probabilities(THREE), 5.0
    whole = max(
        max(truth)
        - sum(
            p * (f + gamma / 4 * (g - f) ** 2) for p, f, g in zip(spread[0].tolist(), truth, THREE[0].tolist(), strict=True)
        )
        for truth in itertools.product(numpy.linspace(0, 1, 21).tolist(), repeat=3)
    )
    assert whole <= worst(spread, gamma) + 1e-12 and whole == pytest.approx(0.28, abs=0.01)
