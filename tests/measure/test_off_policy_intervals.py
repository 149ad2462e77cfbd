"""Intervals against closed forms, other libraries, and a search by a general solver."""

import math

import numpy
import pytest
import torch

from everlearn.core.errors import SpecError
from everlearn.measure import off_policy_intervals as intervals
from everlearn.measure.off_policy import evaluate
from tests.measure.test_off_policy import world


def values(rows=40, seed=0):
    return torch.rand(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_bootstrap_is_that_of_a_loop_over_resamples():
    top, ones = values(40), torch.ones(40, dtype=torch.float64)
    bottom = values(40, 1)
    (mean, ratio) = intervals.bootstrap([[(top, ones)], [(top, bottom)]], 4000, 0.9, seed=3)
    random = numpy.random.default_rng(5)
    picked = random.integers(0, 40, (4000, 40))
    for found, draws in (
        (mean, top.numpy()[picked].mean(1)),
        (ratio, top.numpy()[picked].sum(1) / bottom.numpy()[picked].sum(1)),
    ):
        low, high = numpy.quantile(draws, [0.05, 0.95])
        error = (
            4 * math.sqrt(0.05 * 0.95 / 4000) * (high - low) / 2
        )  # of a quantile: its density there is about 1 / (half the width)
        assert abs(found[0] - low) < 2 * error and abs(found[1] - high) < 2 * error


def test_poisson_counts_serve_as_well_as_exact_ones(monkeypatch):
    columns = torch.stack([values(5000) + 100.0, torch.ones(5000, dtype=torch.float64)], dim=1)
    exact = intervals.resampled(columns, 400, seed=1)
    monkeypatch.setattr(intervals, "EXACT", 0)
    fast = intervals.resampled(columns, 400, seed=1)
    for sums in (exact, fast):
        means = sums[:, 0] / sums[:, 1]
        assert abs(means.mean() - float(columns[:, 0].mean())) < 5 * 0.29 / math.sqrt(5000 * 400)
        assert means.std() == pytest.approx(float(columns[:, 0].std()) / math.sqrt(5000), rel=0.15)  # 4 / sqrt(2 * 400)
    table = intervals._poisson_table()
    assert table.mean() == pytest.approx(1.0, abs=1e-3) and table.var() == pytest.approx(1.0, abs=1e-3)


def test_bernstein_is_the_formula_and_covers_where_a_short_interval_would_not():
    terms = values(30)
    low, high = intervals.bernstein(terms, 1.0, 0.95)
    log = math.log(2 / 0.025)
    half = math.sqrt(2 * terms.numpy().var(ddof=1) * log / 30) + 7 * log / (3 * 29)
    assert (low, high) == pytest.approx((float(terms.mean()) - half, float(terms.mean()) + half), abs=1e-12)
    rare = torch.zeros(20, dtype=torch.float64)  # a reward of one in a hundred was not seen
    assert intervals.bernstein(rare, 1.0, 0.95)[1] > 0.01 > intervals.bootstrap([[(rare, rare + 1)]], 50, 0.95, 0)[0][1]


def test_clopper_pearson_is_scipys_on_counts():
    from scipy.stats import binomtest

    for hits, n in ((0, 10), (3, 10), (10, 10), (46, 10_000)):
        wanted = binomtest(hits, n).proportion_ci(0.95, method="exact")
        assert intervals.clopper_pearson(float(hits), n, 1.0, 0.95) == pytest.approx((wanted.low, wanted.high), abs=1e-10)
    assert intervals.clopper_pearson(6.0, 10, 2.0, 0.95) == pytest.approx(
        tuple(2 * end for end in intervals.clopper_pearson(3.0, 10, 1.0, 0.95))
    )


@pytest.mark.parametrize("scale", [1.0, 1.3, 0.7], ids=["as they are", "too heavy", "too light"])
def test_cressie_read_is_what_a_general_solver_finds(scale):
    """A slow twin: least and greatest sum q w r under the constraints as they are written, for each round that was not seen."""
    from scipy.optimize import minimize
    from scipy.stats import f

    weight, reward = (
        scale * torch.tensor([0.2, 1.5, 0.7, 2.0, 0.5, 0.6], dtype=torch.float64),
        torch.tensor([0, 1, 1, 0, 1.0, 0]).double(),
    )
    found = intervals.cressie_read(weight, reward, (0.0, 1.0), 3.0, 0.8)
    n = len(weight)

    def best(goal, w, budget):
        limits = [
            {"type": "eq", "fun": lambda q: q.sum() - 1},
            {"type": "eq", "fun": lambda q: q @ w - 1},
            *(
                []
                if budget is None
                else [{"type": "ineq", "fun": lambda q: budget - (n + 1) * ((q - 1 / (n + 1)) ** 2).sum()}]
            ),
        ]
        return minimize(
            goal, numpy.full(n + 1, 1 / (n + 1)), constraints=limits, method="SLSQP", options={"ftol": 1e-14, "maxiter": 500}
        ).fun

    seen = {unseen: numpy.append(weight.numpy(), unseen) for unseen in (0.0, 3.0)}
    least = min(best(lambda q: (n + 1) * ((q - 1 / (n + 1)) ** 2).sum(), w, None) for w in seen.values())
    budget = least + f.isf(0.2, 1, n) / (n + 1)
    ends = []
    for sign, bound in ((1.0, 0.0), (-1.0, 1.0)):
        held = [(w, w * numpy.append(reward.numpy(), bound)) for w in seen.values()]
        ends.append(sign * min(best(lambda q, v=v: sign * (q @ v), w, budget) for w, v in held))  # noqa: B023
    assert found == pytest.approx((max(ends[0], 0.0), min(ends[1], 1.0)), abs=1e-5)


def test_cressie_read_shrinks_with_rounds_and_holds_the_rewards_bounds():
    widths = []
    for rows in (100, 400, 1600):
        log, policy, _ = world(rows)
        item = evaluate(log, policy, estimators=("snips",), interval="cressie_read")["snips"]
        assert 0.0 <= item.low < item.value < item.high <= 1.0
        widths.append(item.high - item.low)
    assert widths[0] > widths[1] > widths[2] and 2.0 < widths[0] / widths[2] < 8.0  # 4, as 1 / sqrt(n) has it


@pytest.mark.parametrize("interval", intervals.INTERVALS)
def test_each_interval_goes_with_the_estimators_it_names_and_covers(interval):
    log, policy, value = world(2000, 3)
    found = evaluate(log, policy, "ridge", ("dm", "ips", "snips", "dr", "sndr"), interval, draws=200)
    has = {item.name for item in found.estimates if item.low is not None}
    wanted = {
        "bootstrap": {"dm", "ips", "snips", "dr", "sndr"},
        "bernstein": {"dm", "ips", "dr"},
        "clopper_pearson": {"ips"},
        "cressie_read": {"ips", "snips"},
    }
    assert has == wanted[interval]
    for item in found.estimates:
        if item.low is None:
            assert any("does not go with" in line for line in item.warnings)
        elif item.name != "dm":
            assert item.low <= value <= item.high, (item, value)


def test_an_unknown_interval_is_refused():
    log, policy, _ = world(10)
    with pytest.raises(SpecError, match="did you mean 'bernstein'"):
        evaluate(log, policy, interval="bernstien")
