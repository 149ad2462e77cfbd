"""Query problems: refusals that name what is wrong, means, draws, losses, posteriors, recommendations."""

import math

import pytest
import torch

from everlearn.core.errors import ArgumentError, InputError
from everlearn.data.query_families import best_arm, labellings, thresholds, twenty_questions
from everlearn.data.query_problem import QueryProblem, leaders, pick


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def test_queries_that_do_not_span_the_differences_are_refused_with_the_direction():
    with pytest.raises(ArgumentError, match=r"answers 0 and 1 differ along \[0\.0, 0\.0, 1\.0\]"):
        QueryProblem(torch.eye(3)[:2], torch.tensor([[1.0, 0, 0], [1.0, 0, 1.0]]))
    # the answers themselves need not lie in the span, only their differences
    QueryProblem(torch.eye(3)[:2], torch.tensor([[1.0, 0, 5.0], [0, 1.0, 5.0]]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"queries": torch.eye(2)[:1]}, "at least two queries"),
        ({"answers": torch.eye(2)[:1]}, "at least two answers"),
        ({"horizon": 0}, "horizon must be an int >= 1"),
        ({"noise": "laplace"}, "noise must be one of"),
        ({"loss": "log"}, "loss must be one of"),
        ({"answers": torch.ones(2, 2)}, "same vector"),
        ({"answers": torch.eye(3)}, "as many dimensions"),
        ({"queries": torch.full((2, 2), math.nan)}, "finite tensor"),
        ({"likelihood": torch.full((2, 2), 1.0), "loss": "identification"}, "strictly between 0 and 1"),
        ({"likelihood": torch.full((2, 2), 0.5)}, "loss='identification'"),
        ({"query_names": ("a", "a")}, "different names"),
        ({"weights": torch.zeros(2)}, "numbers above 0"),
    ],
)
def test_bad_problems_are_refused(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        QueryProblem(**{"queries": torch.eye(2), "answers": torch.eye(2), **arguments})


def test_unknowns_outside_the_noise_are_refused_with_their_place():
    with pytest.raises(InputError, match=r"1\.2 for query 1 of row 0; sign noise needs it in -1\.\.1"):
        labellings(torch.tensor([[0.5, 0.5], [-0.5, 0.5]])).check(torch.tensor([[0.3, 1.2]]))
    with pytest.raises(InputError, match=r"bernoulli noise needs it in 0\.\.1"):
        best_arm(2, noise="bernoulli").check(torch.tensor([[-0.1, 0.5]]))
    with pytest.raises(InputError, match="signs of no answer"):
        thresholds(3).check(torch.tensor([[1.0, -1.0, 1.0]]).double())
    thresholds(3, constraint=None).check(torch.tensor([[1.0, -1.0, 1.0]]).double())
    best_arm(2).check(torch.tensor([[-5.0, 7.0]]))


@pytest.mark.parametrize(("noise", "mean"), [("sign", 0.4), ("bernoulli", 0.4), ("gaussian", 0.4)])
def test_draws_have_the_mean_that_is_told(noise, mean):
    problem = QueryProblem(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.eye(2), noise=noise, sigma=0.5)
    theta = torch.tensor([[0.2, 0.6]], dtype=torch.float64).expand(20_000, 2)
    y = problem.draw(torch.ones(20_000, dtype=torch.int64), theta, seeded())
    assert problem.mean(theta[:1]).tolist() == [[0.2, pytest.approx(0.4)]]
    assert abs(float(y.mean()) - mean) < 5.0 / math.sqrt(20_000)  # deviation at most 1
    if noise != "gaussian":
        assert set(y.tolist()) == ({-1.0, 1.0} if noise == "sign" else {0.0, 1.0})


def test_losses_are_the_margins_where_labels_differ():
    """<z* - z, theta> = sum of |theta_i| where they differ."""
    problem, theta = thresholds(3), torch.tensor([[-0.2, 0.3, 0.9]], dtype=torch.float64).expand(4, 3)
    assert problem.best(theta).tolist() == [1] * 4
    assert problem.losses(theta, torch.arange(4)).tolist() == pytest.approx([0.2, 0.0, 0.3, 1.2])
    right = QueryProblem(problem.queries, problem.answers, loss="identification")
    assert right.losses(theta, torch.arange(4)).tolist() == [1.0, 0.0, 1.0, 1.0]


def test_the_posterior_is_the_product_of_the_answers():
    table = torch.tensor([[0.9, 0.2], [0.3, 0.6], [0.5, 0.5]], dtype=torch.float64)
    problem = twenty_questions(table, 2, repeat=True)
    counts, sums = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, -1.0]])  # yes yes no, no
    slow = torch.tensor([0.9 * 0.9 * 0.1 * 0.8, 0.3 * 0.3 * 0.7 * 0.4, 0.5**4], dtype=torch.float64)
    assert torch.allclose(problem.log_posterior(counts, sums).exp()[0], slow / slow.sum(), atol=1e-12)
    weighted = QueryProblem(
        problem.queries, problem.answers, loss="identification", likelihood=table, weights=torch.tensor([1.0, 2.0, 3.0])
    )
    slow = slow * torch.tensor([1.0, 2.0, 3.0])
    assert torch.allclose(weighted.log_posterior(counts, sums).exp()[0], slow / slow.sum(), atol=1e-12)


def test_labels_agree_with_one_minus_beta():
    problem = thresholds(3)
    counts, sums = torch.tensor([[0.0, 2.0, 0.0]]), torch.tensor([[0.0, 2.0, 0.0]])
    agree = torch.where(problem.labels[:, 1] > 0, 0.8**2, 0.2**2).double()
    assert torch.allclose(problem.log_posterior(counts, sums, 0.2).exp()[0], agree / agree.sum(), atol=1e-12)
    # bernoulli answers 0 and 1 say the same as -1 and 1
    other = thresholds(3, noise="bernoulli")
    assert torch.equal(
        other.log_posterior(counts, torch.tensor([[0.0, 2.0, 0.0]]), 0.2), problem.log_posterior(counts, sums, 0.2)
    )


def test_the_truth_of_a_table_is_the_object_itself_whatever_its_probabilities_are():
    table = torch.tensor([[0.9, 0.6], [0.6, 0.9], [0.6, 0.6], [0.2, 0.55]], dtype=torch.float64)  # equal sides, other rows
    assert twenty_questions(table, 2).best(2 * table - 1).tolist() == [0, 1, 2, 3]


def test_the_gaussian_posterior_is_that_of_ridge_regression():
    generator = seeded(3)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    mean, root = torch.randn(3, generator=generator, dtype=torch.float64), torch.randn(3, 3, generator=generator).double()
    covariance = root @ root.T + torch.eye(3, dtype=torch.float64)
    problem = QueryProblem(x, x, noise="gaussian", sigma=0.7, prior=(mean, covariance), offset=torch.arange(5.0))
    asked = torch.tensor([0, 0, 3])
    y = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    counts = torch.tensor([[2.0, 0, 0, 1.0, 0]])
    sums = torch.tensor([[3.0, 0, 0, -1.0, 0]])
    rows, rest = x[asked], y - asked - x[asked] @ mean
    gain = covariance @ rows.T @ torch.linalg.inv(rows @ covariance @ rows.T + 0.49 * torch.eye(3, dtype=torch.float64))
    found, spread = problem.gaussian(counts, sums)
    assert torch.allclose(found[0], mean + gain @ rest, atol=1e-9)
    assert torch.allclose(spread[0], covariance - gain @ rows @ covariance, atol=1e-9)
    scores = problem.scores(counts, sums)[0]
    assert torch.allclose(scores, x @ found[0] + torch.arange(5.0).double(), atol=1e-9)


def test_ties_are_broken_at_random():
    """Untouched answers must not be told apart by their order: 6 sigma of a binomial."""
    problem, none = thresholds(4), torch.zeros(4000, 4)
    counts = problem.recommend(none, none, seeded()).bincount(minlength=5)
    assert float((counts - 800).abs().max()) < 6 * math.sqrt(4000 * 0.2 * 0.8)


def test_leaders_share_and_pick_draws_by_share():
    shares = leaders(torch.tensor([[1.0, 2.0, 2.0, 3.0]]), torch.tensor([[True, True, True, False]]))
    assert shares.tolist() == [[0.0, 0.5, 0.5, 0.0]]
    index = pick(torch.tensor([[0.0, 0.25, 0.75, 0.0]]).expand(4000, 4), seeded()).bincount(minlength=4)
    assert index[0] == index[3] == 0
    assert abs(int(index[1]) - 1000) < 6 * math.sqrt(4000 * 0.25 * 0.75)
