"""Rules that look at the posterior: first queries, exactness, information in nats, the table of twenty questions."""

import math

import pytest
import torch

from everlearn.agents.query_policy import Policy, hit_rates, simulate
from everlearn.agents.query_rules import (
    Bald,
    GeneralizedBinarySearch,
    Random,
    Static,
    Uncertainty,
    askable,
    entropy,
    posterior,
)
from everlearn.core.errors import ArgumentError
from everlearn.data.folders import roots
from everlearn.data.query_families import best_arm, linear, thresholds, twenty_questions
from everlearn.data.query_tables import animals


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def first(rule, problem):
    none = torch.zeros(1, problem.size)
    return Policy(rule, problem)(none, none, 0, seeded())[0]


def test_binary_search_asks_in_the_middle_first():
    problem, none = thresholds(10), torch.zeros(1, 10)
    scores = GeneralizedBinarySearch().scores(problem, none, none)[0]
    assert torch.allclose(scores, -(2 * torch.arange(1, 11).double() - 11).abs() / 11, atol=1e-12)
    assert first(GeneralizedBinarySearch(), problem)[4:6].tolist() == [0.5, 0.5]  # +-1/11


def test_binary_search_is_exact_after_four_answers_without_noise():
    """ceil(log2 11) = 4 answers, whichever way ties are broken; three are not enough for all."""
    problem = thresholds(10, horizon=4)
    theta = (2.0 * problem.answers).repeat(20, 1)
    assert float(simulate(GeneralizedBinarySearch(beta=1e-6), problem, theta, seeded()).loss.max()) == 0.0
    assert float(simulate(GeneralizedBinarySearch(beta=1e-6), thresholds(10, horizon=3), theta, seeded()).loss.max()) > 0.0


def test_information_is_nothing_where_all_agree_and_half_a_bit_where_two_differ():
    table = torch.tensor([[0.9, 0.9], [0.9, 0.1]], dtype=torch.float64)
    problem, none = twenty_questions(table, 2), torch.zeros(1, 2)
    scores = Bald().scores(problem, none, none)[0]
    assert abs(float(scores[0])) < 1e-12
    assert float(scores[1]) == pytest.approx(math.log(2) - (-0.9 * math.log(0.9) - 0.1 * math.log(0.1)), abs=1e-12)
    assert float(scores[1]) == pytest.approx(0.368064, abs=5e-7)


def test_scores_are_those_of_slow_formulas():
    generator = seeded(4)
    table = torch.rand(5, 7, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    problem = twenty_questions(table, 7)
    counts = torch.randint(0, 3, (6, 7), generator=generator).double()
    sums = torch.round((2 * torch.rand(6, 7, generator=generator) - 1) * counts)
    sums = sums + (counts - sums) % 2  # as many yes and no as there were answers
    weight, chance = posterior(problem, counts, sums, 0.1)
    uncertain, telling = Uncertainty().scores(problem, counts, sums), Bald().scores(problem, counts, sums)
    split = GeneralizedBinarySearch().scores(problem, counts, sums)
    for row in range(6):
        for query in range(7):
            p = sum(float(weight[row, k] * chance[k, query]) for k in range(5))
            h = sum(float(weight[row, k]) * float(entropy(chance[k, query])) for k in range(5))
            total = -p * math.log(p) - (1 - p) * math.log(1 - p)
            assert float(uncertain[row, query]) == pytest.approx(total, abs=1e-12)
            assert float(telling[row, query]) == pytest.approx(total - h, abs=1e-12)
            sign = sum(float(weight[row, k]) * math.copysign(1, float(chance[k, query]) - 0.5) for k in range(5))
            assert float(split[row, query]) == pytest.approx(-abs(sign), abs=1e-12)


def test_of_gaussian_unknowns_the_widest_query_is_asked():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]], dtype=torch.float64)
    problem = linear(x, prior=(torch.zeros(2), torch.diag(torch.tensor([1.0, 3.0]))))
    none = torch.zeros(1, 3)
    assert Uncertainty().scores(problem, none, none).tolist() == [pytest.approx([1.0, 3.0, 4.0])]
    assert Bald().scores(problem, none, none)[0].tolist() == pytest.approx([0.5 * math.log(1 + v) for v in (1, 3, 4)])
    with pytest.raises(ArgumentError, match="sgbs: answers must be labellings"):
        Policy(GeneralizedBinarySearch(), problem)


def test_beta_changes_what_is_asked():
    """An answer that can be trusted rules half of the thresholds out; one that cannot hardly moves the middle."""
    problem = thresholds(10)
    counts, sums = torch.zeros(1, 10), torch.zeros(1, 10)
    counts[0, 5], sums[0, 5] = 1.0, 1.0
    trusted = GeneralizedBinarySearch(beta=1e-6).probabilities(problem, counts, sums, 1, seeded(), {})
    doubted = GeneralizedBinarySearch(beta=0.49).probabilities(problem, counts, sums, 1, seeded(), {})
    assert trusted.argmax() == 2 and doubted.argmax() == 4


def test_whether_queries_repeat_is_the_problems_to_say():
    """Under noise the same ambiguous query is asked again, unless the problem forbids it."""
    counts, sums = torch.zeros(1, 10), torch.zeros(1, 10)
    counts[0, 4], sums[0, 4] = 2.0, 0.0
    again = thresholds(10, repeat=True)
    never = thresholds(10, repeat=False)
    for rule in (Uncertainty(), GeneralizedBinarySearch(), Bald(), Random()):
        assert rule.probabilities(again, counts, sums, 2, seeded(), {})[0, 4] > 0
        assert rule.probabilities(never, counts, sums, 2, seeded(), {})[0, 4] == 0
    assert askable(never, torch.ones(1, 10)).all()  # where none is left, all may be asked again


def test_static_follows_its_design_to_the_number():
    problem = best_arm(4, horizon=11)
    found = simulate(Static((0.5, 0.3, 0.2, 0.0)), problem, torch.zeros(3, 4).double(), seeded())
    assert found.counts.tolist() == [[6.0, 3.0, 2.0, 0.0]] * 3
    assert simulate(Static(), best_arm(4, horizon=12), torch.zeros(1, 4).double(), seeded()).counts.tolist() == [[3.0] * 4]
    with pytest.raises(ArgumentError, match="sum to 1"):
        Static((0.5, 0.3))
    with pytest.raises(ArgumentError, match="must have 4 shares"):
        Policy(Static((0.5, 0.5)), problem)


TABLE = {  # (questions, flip): {rule: (mean, five worst)}
    (8, None): {
        "random_query": (0.287, 0.132),
        "uncertainty": (0.456, 0.242),
        "sgbs": (0.495, 0.296),
        "bald": (0.690, 0.545),
    },
    (12, None): {
        "random_query": (0.452, 0.258),
        "uncertainty": (0.664, 0.514),
        "sgbs": (0.707, 0.588),
        "bald": (0.858, 0.735),
    },
    (20, None): {
        "random_query": (0.660, 0.481),
        "uncertainty": (0.883, 0.800),
        "sgbs": (0.910, 0.840),
        "bald": (0.964, 0.907),
    },
    (20, 0.1): {
        "random_query": (0.534, 0.319),
        "uncertainty": (0.800, 0.630),
        "sgbs": (0.807, 0.655),
        "bald": (0.807, 0.618),
    },
}


@pytest.mark.skipif(
    not any((root / "animals_attributes").is_dir() for root in roots()), reason="animals_attributes is not there"
)
@pytest.mark.parametrize(
    "questions", [pytest.param(key, marks=pytest.mark.slow if key != (8, None) else ()) for key in TABLE]
)
def test_twenty_questions_about_animals(questions):
    """The mean over 50 animals has a standard error of at most .5 / sqrt(50 episodes); two runs are compared at four of those.

    With 60 episodes an animal that is .013. The figures in the table are of unknown numbers of episodes, taken to be as many. The worst
    five are a minimum over noisy rates, held to twice the width of the mean of five.
    """
    horizon, flip = questions
    truth = torch.arange(50).repeat_interleave(60)
    theta = 2 * animals().likelihood[truth] - 1
    for rule in (Random(), Uncertainty(), GeneralizedBinarySearch(), Bald()):
        mean, worst = TABLE[questions][rule.name]
        answer = simulate(rule, animals(horizon, flip=flip), theta, seeded(1)).answer
        rate = (answer == truth).double().view(50, 60).mean(1)
        assert abs(float(rate.mean()) - mean) <= 4 * 2**0.5 * 0.5 / (50 * 60) ** 0.5, rule
        assert abs(float(rate.sort().values[:5].mean()) - worst) <= 4 * 2**0.5 * 0.5 / (5 * 60) ** 0.5, rule


def test_hit_rates_are_those_of_the_table():
    problem = twenty_questions(torch.tensor([[0.9, 0.5], [0.1, 0.4]], dtype=torch.float64), 1)
    rate = hit_rates(Bald(), problem, 400)
    assert rate.tolist() == pytest.approx([0.9, 0.9], abs=5 * (0.09 / 400) ** 0.5)
    with pytest.raises(ArgumentError, match="no table of probabilities"):
        hit_rates(Bald(), thresholds(4), 10)
