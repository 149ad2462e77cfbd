"""RAGE: published phase lengths, eliminations by hand, and what the fixed budget gains over a fixed plan."""

import math

import pytest
import torch

from everlearn.agents.query_policy import Policy, simulate
from everlearn.agents.query_rules import Static
from everlearn.agents.rage import Rage
from everlearn.core.errors import ArgumentError
from everlearn.data.query_families import best_arm, linear


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def test_the_first_phase_has_its_published_length():
    """Two arms: rho = 4, N_1 = ceil(8 * 4 * 1.1 * log(2 * 4 / .05)), half for each, to one."""
    plan = Rage(phases=0).begin(best_arm(2), 1)["plan"]
    assert plan.sum() == math.ceil(8 * 4 * 1.1 * math.log(8 / 0.05) - 1e-9)
    assert abs(float(plan[0, 0] - plan[0, 1])) <= 1
    # at least 2 factor asked of each query in the support
    assert Rage(phases=0, factor=500).begin(best_arm(2), 1)["plan"].sum() == 2 * 500 * 2


def test_an_answer_is_dropped_where_the_gap_passes_the_bound():
    """Two arms with 50 answers each: norm 2 / 50, bound sqrt(2 * 2/50 * log(1 / .05)) = .4896."""
    problem, rule = best_arm(2, horizon=400), Rage(phases=2)
    asked = torch.tensor([50.0, 50.0]).double()
    both = torch.ones(2, dtype=torch.bool)
    assert rule._eliminate(problem, both, asked, torch.tensor([0.0, 50 * 0.48]).double(), 1).tolist() == [True, True]
    assert rule._eliminate(problem, both, asked, torch.tensor([0.0, 50 * 0.50]).double(), 1).tolist() == [False, True]
    # what no query of the phase touched is not dropped
    assert rule._eliminate(problem, both, torch.tensor([100.0, 0.0]).double(), torch.tensor([-900.0, 0]).double(), 1).all()


def test_the_published_form_stops_at_one_answer_and_is_right():
    """Small noise, so that all phases fit; delta = .05 over 40 episodes: at most 8 wrong (probability below 1e-3)."""
    problem = best_arm(3, horizon=700, sigma=0.5, loss="identification")
    theta = torch.tensor([[0.0, 0.5, 1.5]]).double().repeat(40, 1)
    rule = Rage(phases=0)
    policy = Policy(rule, problem)
    found = simulate(rule, problem, theta, seeded())
    assert found.loss.sum() <= 8
    policy.begin(40)
    assert rule.advance(problem, found.counts, found.sums, policy.memory)["active"].sum() < 120


def test_a_fixed_budget_is_spent_on_what_remains():
    problem = best_arm(8, horizon=200, loss="identification")
    theta = torch.linspace(0, 2, 8).double().repeat(400, 1)
    ours, fixed = (simulate(rule, problem, theta, seeded(1)) for rule in (Rage(), Static()))
    assert ours.counts.sum(1).tolist() == [200.0] * 400
    assert float(ours.counts[:, 6:].mean() / ours.counts[:, :2].mean()) > 2.0
    a, b = float(ours.loss.mean()), float(fixed.loss.mean())
    assert b - a > 2 * ((a * (1 - a) + b * (1 - b)) / 400) ** 0.5


def test_the_third_arm_of_a_hard_linear_bandit_is_asked_what_tells_the_first_two_apart():
    """e1, e2, (cos .1, sin .1): e2 is no candidate, and is what tells e1 from the third; the design asks it most."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [math.cos(0.1), math.sin(0.1)]], dtype=torch.float64)
    problem = linear(x, horizon=400, sigma=0.3)
    theta = torch.tensor([[1.0, 0.0]]).double().repeat(20, 1)
    counts = simulate(Rage(phases=3), problem, theta, seeded()).counts
    assert float(counts[:, 1].mean()) > 200


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="rage: delta"):
        Rage(delta=0.0)
    with pytest.raises(ArgumentError, match="repeat"):
        Policy(Rage(), best_arm(3, repeat=False))
