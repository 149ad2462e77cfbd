"""Rules for arms: sequential halving's pulls, bounds by hand, draws against their distribution, and a control that must lose."""

import math

import pytest
import torch

from everlearn.agents.arm_rules import Lucb, SequentialHalving, Thompson, TopTwo, Ucb, draw_worth, schedule
from everlearn.agents.query_policy import Policy, simulate
from everlearn.agents.query_rules import Random
from everlearn.core.errors import ArgumentError
from everlearn.data.query_families import best_arm, linear, thresholds
from everlearn.data.query_problem import pick


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def test_sequential_halving_pulls_8_4_2_arms_2_4_8_times():
    problem = best_arm(8, horizon=48)
    theta = torch.linspace(0, 1, 8).double().repeat(50, 1)
    found = simulate(SequentialHalving(), problem, theta, seeded())
    assert found.counts.sort(1).values.tolist() == [[2, 2, 2, 2, 6, 6, 14, 14]] * 50
    assert schedule(problem) == [(8, 0, 0), (4, 16, 2), (2, 32, 6), (1, 48, 14)]


def test_sequential_halving_keeps_the_better_half_of_each_round():
    """The twin keeps its survivors in a list; the rule reads them off the counts."""
    problem, generator = best_arm(6, horizon=60), seeded(2)
    theta = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    policy = Policy(SequentialHalving(), problem)
    counts, sums = torch.zeros(40, 6).double(), torch.zeros(40, 6).double()
    alive = [set(range(6)) for _ in range(40)]
    starts = {start: size for size, start, _ in schedule(problem)}
    for step in range(60):
        if step in starts and step:
            means = sums / counts.clamp(min=1)
            alive = [
                set(sorted(row, key=lambda arm: -float(mean[arm]))[: starts[step]])
                for row, mean in zip(alive, means, strict=True)
            ]
        index = pick(policy(counts, sums, step, generator), generator)
        assert all(int(arm) in row for arm, row in zip(index, alive, strict=True)), step
        y = problem.draw(index, theta, generator)
        counts = counts.scatter_add(1, index[:, None], torch.ones(40, 1).double())
        sums = sums.scatter_add(1, index[:, None], y[:, None])


def test_answers_that_fill_no_round_go_to_the_last_arm_which_is_the_answer():
    found = simulate(SequentialHalving(), best_arm(4, horizon=19), torch.zeros(20, 4).double(), seeded())
    assert found.counts.sum(1).tolist() == [19.0] * 20
    assert torch.equal(found.counts.argmax(1), found.answer)
    with pytest.raises(ArgumentError, match="horizon of 8 at least"):
        Policy(SequentialHalving(), best_arm(4, horizon=7))


def test_upper_bounds_by_hand():
    """N(0, 1) priors: mean S / (N + 1), variance 1 / (N + 1)."""
    x = torch.eye(2, dtype=torch.float64)
    problem = linear(x, prior=(torch.zeros(2), x))
    counts, sums = torch.tensor([[3.0, 0.0]]), torch.tensor([[2.0, 0.0]])  # .5 + w .5  against  0 + w
    assert Ucb(0.9).probabilities(problem, counts, sums, 3, seeded(), {}).tolist() == [[1.0, 0.0]]
    assert Ucb(1.1).probabilities(problem, counts, sums, 3, seeded(), {}).tolist() == [[0.0, 1.0]]
    assert Ucb(1.0).probabilities(problem, counts, sums, 3, seeded(), {}).tolist() == [[0.5, 0.5]]


def test_draws_follow_the_posterior():
    """Means and covariances of 20,000 draws, to 6 standard errors; with a known part of the means."""
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    problem = linear(x, prior=(torch.ones(2), torch.eye(2)), offset=torch.tensor([0.0, 5.0]), sigma=0.5)
    counts, sums = torch.tensor([[2.0, 1.0]]), torch.tensor([[3.0, 6.0]])
    drawn = draw_worth(problem, counts, sums, 20_000, seeded())[:, 0]
    mean, covariance = problem.gaussian(counts, sums)
    spread = x @ covariance[0] @ x.T
    assert torch.allclose(
        drawn.mean(0), mean[0] @ x.T + torch.tensor([0.0, 5.0]).double(), atol=6 * float(spread.max() / 20_000) ** 0.5
    )
    assert torch.allclose(drawn.T.cov(), spread, atol=6 * float(spread.max()) * (2 / 20_000) ** 0.5)


def test_top_two_gives_the_leader_its_share_and_the_rest_to_another():
    problem = best_arm(3, horizon=9)
    counts, sums = torch.full((200, 3), 2.0), torch.tensor([[0.0, 1.0, 9.0]]).expand(200, 3)
    shares = TopTwo(share=0.7).probabilities(problem, counts, sums, 6, seeded(), {})
    assert torch.allclose(shares.sum(1), torch.ones(200).double())
    assert shares.sort(1).values[:, 1:].round(decimals=9).tolist() == [[0.3, 0.7]] * 200
    assert float((shares.argmax(1) == 2).double().mean()) > 0.95  # two deviations of .7 apart by 4
    assert float(Thompson().probabilities(problem, counts, sums, 6, seeded(), {}).amax(1).min()) == 1.0


def test_lucb_pulls_the_less_known_of_leader_and_challenger():
    problem = best_arm(3, horizon=20)
    counts, sums = torch.tensor([[5.0, 2.0, 3.0]]), torch.tensor([[5.0, 0.2, 0.3]])
    # leader 0; bounds of the others: .1 + sqrt(2 log 60 / N), the wider of arm 1
    assert Lucb().probabilities(problem, counts, sums, 10, seeded(), {}).tolist() == [[0.0, 1.0, 0.0]]
    wide = 0.1 + math.sqrt(2 * math.log(60) / 2)
    assert wide > 0.1 + math.sqrt(2 * math.log(60) / 3)
    counts, sums = torch.tensor([[5.0, 9.0, 3.0]]), torch.tensor([[5.0, 8.9, -9.0]])
    assert Lucb().probabilities(problem, counts, sums, 17, seeded(), {}).tolist() == [[1.0, 0.0, 0.0]]
    # arms that were never pulled come first
    counts, sums = torch.tensor([[5.0, 0.0, 3.0]]), torch.tensor([[5.0, 0.0, 0.3]])
    assert Lucb().probabilities(problem, counts, sums, 8, seeded(), {}).tolist() == [[0.0, 1.0, 0.0]]


@pytest.mark.parametrize("rule", [Ucb(), Thompson(), TopTwo(), Lucb(), SequentialHalving()], ids=repr)
def test_the_best_arm_is_found_more_often_than_by_chance_pulls(rule):
    """1 of 8 arms, 96 pulls, 1,000 episodes; a difference of four standard errors to the control."""
    problem = best_arm(8, horizon=96, loss="identification")
    theta = torch.linspace(0, 1.5, 8).double().repeat(1000, 1)
    ours, control = (simulate(played, problem, theta, seeded(3)).loss.mean() for played in (rule, Random()))
    error = (float(ours * (1 - ours) + control * (1 - control)) / 1000) ** 0.5
    assert float(control - ours) > 4 * error


def test_problems_without_arms_are_refused():
    for rule in (Ucb(), Thompson(), TopTwo(), Lucb(), SequentialHalving()):
        with pytest.raises(ArgumentError, match=f"{rule.name}: the answers must be"):
            Policy(rule, thresholds(4))
    with pytest.raises(ArgumentError, match="separate arms"):
        Policy(Lucb(), linear(torch.randn(4, 2, generator=seeded())))
