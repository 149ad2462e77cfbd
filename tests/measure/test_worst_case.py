"""The attack on query rules: its gradient in closed form, its classes, and that it finds what hurts a rule."""

import itertools
import math

import pytest
import torch

from everlearn.agents.arm_rules import Lucb, SequentialHalving, Thompson, TopTwo, Ucb
from everlearn.agents.query_policy import Policy
from everlearn.agents.query_rules import Bald, GeneralizedBinarySearch, Random, Static, Uncertainty
from everlearn.agents.rage import Rage
from everlearn.core.errors import ArgumentError, InputError
from everlearn.data.query_families import best_arm, thresholds
from everlearn.data.query_problem import QueryProblem
from everlearn.measure.worst_case import (
    Played,
    answers_score,
    expected_losses,
    loss_gradient,
    play,
    pool_losses,
    worst_case,
)


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(counts, sums, step, generator):
    return torch.full_like(counts, 1.0 / counts.shape[1])


def two_labels(loss="regret"):
    """Two queries, one question; answers (+,-) and (-,+)."""
    answers = torch.tensor([[0.5, -0.5], [-0.5, 0.5]])
    return QueryProblem(torch.eye(2), answers, horizon=1, loss=loss, constraint="realisable")


def outcomes(problem, theta):
    """Each of the 4 outcomes of one uniform query: its probability, counts, sums."""
    for query, y in itertools.product(range(2), (-1.0, 1.0)):
        counts, sums = torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
        counts[0, query], sums[0, query] = 1.0, y
        yield 0.5 * (1.0 + y * float(theta[query])) / 2.0, counts, sums


@pytest.mark.parametrize("a", [0.3, 0.8])
def test_the_chance_to_be_wrong_after_one_query_is_worked_out_by_hand(a):
    """theta = (a, -a): wrong where the answer misleads, (1 - a) / 2 for either query; the regret then is 2 a."""
    problem, theta = two_labels(), torch.tensor([a, -a], dtype=torch.float64)
    wrong = sum(
        chance * float(problem.losses(theta[None], problem.recommend(counts, sums, random())))
        for chance, counts, sums in outcomes(problem, theta)
    )
    assert wrong == pytest.approx(2 * a * (1 - a) / 2, abs=1e-12)
    # 20,000 episodes: five standard errors of a Bernoulli times 2 a
    played = expected_losses(uniform, problem, theta[None], episodes=20_000, generator=random())
    chance = (1 - a) / 2
    assert float(played) == pytest.approx(2 * a * chance, abs=5 * 2 * a * math.sqrt(chance * (1 - chance) / 20_000))


def test_the_gradient_of_the_adversary_agrees_with_finite_differences():
    """Exact expectation over the 4 outcomes: pathwise part and score part sum to d/da of a (1 - a)."""
    problem = two_labels()
    theta = torch.tensor([[0.3, -0.3]], dtype=torch.float64)
    total = torch.zeros(1, 2, dtype=torch.float64)
    for chance, counts, sums in outcomes(problem, theta[0]):
        answer = problem.recommend(counts, sums, random())
        loss = problem.losses(theta, answer)
        score = loss * answers_score(problem, theta, counts, sums)
        total += chance * (score + problem.answers[problem.best(theta)] - problem.answers[answer])
    along = float(total[0, 0] - total[0, 1])  # d/da at theta = (a, -a)

    def loss_at(a):
        return a * (1 - a)

    assert along == pytest.approx((loss_at(0.3 + 1e-6) - loss_at(0.3 - 1e-6)) / 2e-6, abs=1e-6)


def test_episodes_that_lose_alike_leave_only_the_pathwise_part():
    problem = two_labels("identification")
    theta = torch.tensor([[0.3, -0.3]], dtype=torch.float64)
    counts = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    played = Played(counts, counts, torch.tensor([0, 0]), torch.ones(2, dtype=torch.float64))
    assert not loss_gradient(problem, theta, played, 2).any()


@pytest.mark.parametrize("noise", ["sign", "bernoulli", "gaussian"])
def test_the_score_of_answers_is_that_of_their_likelihood(noise):
    x = torch.tensor([[1.0, 0.2], [0.3, -0.5], [0.4, 0.4]], dtype=torch.float64)
    theta = torch.tensor([[0.6, 0.3]], dtype=torch.float64, requires_grad=True)
    if noise == "bernoulli":
        x = x.abs()
    problem = QueryProblem(x, torch.eye(2), noise=noise, horizon=6, sigma=0.7)
    counts = torch.tensor([[3.0, 1.0, 2.0]], dtype=torch.float64)
    yes = torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64)
    sums = 2 * yes - counts if noise == "sign" else yes
    mean = problem.mean(theta)
    if noise == "gaussian":
        log_likelihood = -((counts * mean**2 - 2 * sums * mean).sum()) / (2 * 0.7**2)
    else:
        chance = (1 + mean) / 2 if noise == "sign" else mean
        log_likelihood = (yes * chance.log() + (counts - yes) * (1 - chance).log()).sum()
    (expected,) = torch.autograd.grad(log_likelihood, theta)
    assert answers_score(problem, theta.detach(), counts, sums).tolist() == [pytest.approx(expected[0].tolist(), rel=1e-12)]


def test_episodes_spend_the_horizon_and_remember_the_way():
    problem = thresholds(5, horizon=7)
    theta = 2.0 * problem.answers[:3] * 0.5
    played = play(uniform, problem, theta, random(), record=True)
    assert played.counts.sum(1).tolist() == [7.0] * 3 and played.index.shape == (7, 3) and played.states.shape == (7, 3, 10)
    for t in range(7):
        assert torch.equal(played.states[t, :, :5], torch.nn.functional.one_hot(played.index[:t], 5).sum(0).double())


def test_an_attack_finds_what_hurts_a_rule_and_stays_in_the_class():
    """A rule that never asks the middle query is hurt where that one decides: far above the mean of where it began."""
    problem = thresholds(5, horizon=10)

    def blind(counts, sums, step, generator):
        chance = torch.ones_like(counts)
        chance[:, 2] = 0.0
        return chance / chance.sum(1, keepdim=True)

    found = worst_case(blind, problem, 20.0, particles=30, steps=60, episodes=200)
    fair = worst_case(uniform, problem, 20.0, particles=30, steps=60, episodes=200)
    before = worst_case(blind, problem, 20.0, particles=30, steps=0, episodes=200)
    assert bool((found.difficulty <= 1.05 * 20.0).all()) and found.losses.tolist() == sorted(
        found.losses.tolist(), reverse=True
    )
    assert found.worst > before.worst + 0.1 and found.worst > fair.worst
    problem.check(found.theta)


LABEL_RULES = (Random(), GeneralizedBinarySearch(), Uncertainty(), Bald(), Static())
ARM_RULES = (Ucb(), Thompson(), TopTwo(), Lucb(), SequentialHalving(), Rage())


@pytest.mark.parametrize(("rule", "arms"), [(r, False) for r in LABEL_RULES] + [(r, True) for r in ARM_RULES], ids=repr)
def test_built_in_rules_can_be_attacked(rule, arms):
    problem = best_arm(4, horizon=8, noise="sign") if arms else thresholds(4, horizon=4)
    found = worst_case(Policy(rule, problem), problem, 60.0, particles=10, steps=3, episodes=20)
    assert len(found.losses) >= 5 and 0.0 < found.worst <= 4.0


def test_arms_can_be_attacked():
    problem = best_arm(3, horizon=6, noise="sign")
    found = worst_case(uniform, problem, 40.0, particles=20, steps=20, episodes=50)
    assert bool((found.difficulty <= 42.0).all()) and float(found.theta.abs().max()) <= 1.0
    assert not torch.equal(found.theta, worst_case(uniform, problem, 40.0, particles=20, steps=0, episodes=50).theta)


def test_the_same_seed_finds_the_same():
    problem = thresholds(4, horizon=4)
    first, second, other = (
        worst_case(uniform, problem, 12.0, particles=10, steps=5, episodes=20, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first.theta, second.theta) and first.worst == second.worst and first.worst != other.worst


def test_choosing_the_hardest_does_not_flatter_the_adversary():
    """A hundred copies of one instance: the mean of the ten that looked hardest is that of all, once they are played again."""
    problem, theta = two_labels(), torch.tensor([[0.5, -0.5]], dtype=torch.float64).repeat(100, 1)
    losses, worst = pool_losses(uniform, problem, theta, episodes=50, generator=random())
    assert float(losses.topk(10).values.mean()) > 0.31
    assert worst == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 10_000))


def test_bad_input_is_refused():
    problem = thresholds(10, horizon=10)
    with pytest.raises(ArgumentError, match=r"2\.1332"):
        worst_case(uniform, problem, 1.0)
    with pytest.raises(InputError, match="sum to 1"):
        worst_case(lambda counts, sums, step, generator: counts, problem, 12.0, particles=4)
    with pytest.raises(ArgumentError, match="particles"):
        worst_case(uniform, problem, 12.0, particles=0)
