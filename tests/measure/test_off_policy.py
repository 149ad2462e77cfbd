"""Off-policy estimates: the numbers worked out by hand, slow twins, real logs, and what is refused."""

import math
import os
import time
from pathlib import Path

import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError, SpecError
from everlearn.data.decision_files import read_decisions
from everlearn.data.decision_log import DecisionLog
from everlearn.measure.off_policy import evaluate

double = {"dtype": torch.float64}
REWARD, PROPENSITY = torch.tensor([1.0, 0, 1, 1], **double), torch.tensor([0.5, 0.25, 0.5, 0.8], **double)
TARGET, MODEL = torch.tensor([0.9, 0.05, 0.1, 0.6], **double), torch.tensor([0.8, 0.3, 0.6, 0.7], **double)
EXPECTED = torch.tensor([0.75, 0.5, 0.55, 0.65], **double)


def toy():
    """(log, policy, q) of four rounds; the second action has the q that makes q_e what it is to be."""
    log = DecisionLog.of(torch.zeros(4, 1), action=torch.zeros(4), propensity=PROPENSITY, reward=REWARD, actions=2)
    other = (EXPECTED - TARGET * MODEL) / (1 - TARGET)
    return log, torch.stack([TARGET, 1 - TARGET], dim=1), torch.stack([MODEL, other], dim=1)


def world(rows=4000, seed=0, sharp=1.0):
    """A log of a soft policy over three actions whose rewards are known: (log, policy, value of the policy on these rounds)."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 2, generator=random, **double)
    mean = torch.sigmoid(x @ torch.randn(2, 3, generator=torch.Generator().manual_seed(9), **double))
    logging = torch.softmax(sharp * torch.randn(rows, 3, generator=random, **double), dim=1)
    action = torch.multinomial(logging, 1, generator=random)[:, 0]
    reward = (torch.rand(rows, generator=random, **double) < mean.gather(1, action[:, None])[:, 0]).double()
    log = DecisionLog.of(
        x,
        action=action,
        propensity=logging.gather(1, action[:, None])[:, 0],
        reward=reward,
        probabilities=logging,
        actions=3,
    )
    policy = torch.softmax(4.0 * mean, dim=1)
    return log, policy, float((policy * mean).sum(dim=1).mean())


def slow(log, policy, q):
    """The estimators round by round, as their definitions read."""
    found = dict.fromkeys(("dm", "ips", "ips(clip=2)", "dr", "switch_dr(tau=1.5)", "dros(shrinkage=3)"), 0.0)
    wr = w_sum = wd = match = matched = 0.0
    n = len(log)
    for i in range(n):
        a, r = int(log.action[i]), float(log.reward[i])
        w = float(policy[i, a]) / float(log.propensity[i])
        q_a, q_e = float(q[i, a]), sum(float(policy[i, b]) * float(q[i, b]) for b in range(log.actions))
        found["dm"] += q_e / n
        found["ips"] += w * r / n
        found["ips(clip=2)"] += min(w, 2.0) * r / n
        found["dr"] += (q_e + w * (r - q_a)) / n
        found["switch_dr(tau=1.5)"] += (q_e + (w if w <= 1.5 else 0.0) * (r - q_a)) / n
        found["dros(shrinkage=3)"] += (q_e + 3 * w / (w * w + 3) * (r - q_a)) / n
        wr, w_sum, wd = wr + w * r, w_sum + w, wd + w * (r - q_a)
        if max(range(log.actions), key=lambda b: float(policy[i, b])) == a:
            match, matched = match + r, matched + 1
    return {**found, "snips": wr / w_sum, "sndr": found["dm"] + wd / w_sum, "replay": match / matched}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ips", 0.6875),
        ("ips(clip=1)", 0.4875),
        ("snips", 0.93220339),
        ("dm", 0.6125),
        ("dr", 0.76375),
        ("sndr", 0.81758475),
        ("switch_dr(tau=1)", 0.67375),
        ("dros(shrinkage=1)", 0.67453411),
    ],
)
def test_four_rounds_by_hand(name, value):
    log, policy, q = toy()
    found = evaluate(log, policy, q, (name,), draws=10).estimates[0]
    assert found.value == pytest.approx(value, abs=5e-9)  # the figures are given to eight places
    assert found.name == name and found.ess == pytest.approx(2.24146813, abs=5e-9) and found.max_weight == pytest.approx(1.8)


def test_the_shrunken_weights_of_dros():
    weight = torch.tensor([1.8, 0.2, 0.2, 0.75], **double)
    from everlearn.measure.off_policy_estimators import dros

    wanted = torch.tensor([0.4245283, 0.19230769, 0.19230769, 0.48], **double)
    assert torch.allclose(dros(shrinkage=1.0).used(weight), wanted, atol=5e-9)


def test_a_weight_of_exactly_tau_is_still_corrected():
    from everlearn.measure.off_policy_estimators import switch_dr

    assert switch_dr(tau=2.0).used(torch.tensor([1.0, 2.0, 2.5])).tolist() == [1.0, 2.0, 0.0]


def test_each_estimator_is_what_its_definition_says():
    log, policy, _ = world(60)
    q = torch.rand(60, 3, generator=torch.Generator().manual_seed(1), **double)
    wanted = slow(log, policy, q)
    found = evaluate(log, policy, q, tuple(wanted), draws=5)
    for item in found.estimates:
        assert item.value == pytest.approx(wanted[item.name], abs=1e-12), item.name


def test_the_logging_policy_itself_is_worth_the_mean_reward_exactly():
    log, _, _ = world(500)
    found = evaluate(log, log.probabilities, estimators=("ips", "snips"), draws=10)
    assert [item.value for item in found.estimates] == [float(log.reward.mean())] * 2 == [found.logged] * 2
    assert found.overlap.ess == pytest.approx(500, abs=1e-9) and found.trusted


def test_limits_of_the_estimators_with_a_knob():
    log, policy, _ = world(300)
    q = torch.rand(300, 3, generator=torch.Generator().manual_seed(1), **double)
    names = (
        "dm",
        "dr",
        "ips",
        "dros(shrinkage=0)",
        "dros(shrinkage=1e999)",
        "switch_dr(tau=0)",
        "switch_dr(tau=1000.0)",
        "ips(clip=1000.0)",
    )
    value = {item.name: item.value for item in evaluate(log, policy, q, names, draws=5).estimates}
    assert value["dros(shrinkage=0)"] == value["switch_dr(tau=0)"] == value["dm"]
    assert (
        value["dros(shrinkage=1e999)"] == value["switch_dr(tau=1000.0)"] == value["dr"]
        and value["ips(clip=1000.0)"] == value["ips"]
    )


def test_a_row_that_stands_for_two_counts_as_two():
    log, policy, q = toy()
    twice = torch.tensor([0, 1, 1, 2, 3])
    names = ("ips", "snips", "dr", "sndr", "dm", "replay")
    spread = DecisionLog.of(
        log.x,
        action=log.action,
        propensity=log.propensity,
        reward=log.reward,
        actions=2,
        weight=torch.tensor([1.0, 2, 1, 1]),
    )
    doubled = log.rows(torch.arange(4))
    doubled = DecisionLog.of(
        log.x[twice], action=log.action[twice], propensity=log.propensity[twice], reward=log.reward[twice], actions=2
    )
    left = evaluate(spread, policy, q, names, draws=5)
    right = evaluate(doubled, policy[twice], q[twice], names, draws=5)
    for one, other in zip(left.estimates, right.estimates, strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-12), one.name


@pytest.mark.parametrize(
    ("name", "ips", "snips", "ess", "largest"),
    [
        ("men_bts", 0.0030086263, 0.0031894232, 655.71, 178.253),
        ("women_bts", 0.0074375776, 0.0023730461, 2.0778, 21739.13),
    ],
)
def test_the_open_bandit_logs(name, ips, snips, ess, largest):
    path = next(Path(place) / f"open_bandit_sample/{name}.npz" for place in os.environ.get("EVERLEARN_DATA", "").split(":"))
    if not path.is_file():
        pytest.skip("open_bandit_sample is not in EVERLEARN_DATA")
    log = read_decisions(path)
    uniform = torch.full((len(log), log.actions), 1 / log.actions, **double)
    found = evaluate(log, uniform, estimators=("ips", "snips"), draws=100)
    assert found["ips"].value == pytest.approx(ips, abs=1e-10) and found["snips"].value == pytest.approx(snips, abs=1e-10)
    assert found.overlap.ess == pytest.approx(ess, rel=1e-4) and found.overlap.max_weight == pytest.approx(largest, rel=1e-5)
    worthless = [item for item in found["snips"].warnings if "worthless" in item]
    assert bool(worthless) == (name == "women_bts") == (not found.trusted)
    if not found.trusted:
        assert "2.1 of its 10,000 rounds" in worthless[0] and "21,739" in worthless[0]
        with pytest.raises(DataError, match="worthless"):
            evaluate(log, uniform, strict=True)


def test_a_model_that_is_right_narrows_and_one_that_is_wrong_does_not_bias():
    values, plain, helped, wrong = [], [], [], []
    for seed in range(20):
        log, policy, value = world(1500, seed)
        mean = torch.sigmoid(log.x.double() @ torch.randn(2, 3, generator=torch.Generator().manual_seed(9), **double))
        values.append(value)
        plain.append(evaluate(log, policy, mean, ("ips",), draws=2).estimates[0].value)
        helped.append(evaluate(log, policy, mean, ("dr",), draws=2).estimates[0].value)
        wrong.append(evaluate(log, policy, 1 - mean, ("dr",), draws=2).estimates[0].value)
    value = torch.tensor(values)
    errors = {name: torch.tensor(held) - value for name, held in (("ips", plain), ("dr", helped), ("wrong", wrong))}
    assert errors["dr"].std() < 0.8 * errors["ips"].std()
    for name, error in errors.items():  # 4.5 standard errors of the mean of 20: one in 100,000
        assert error.mean().abs() < 4.5 * error.std() / math.sqrt(20), name


def test_an_overfitted_model_biases_the_direct_method_but_not_the_doubly_robust_when_cross_fitted():
    """A control: a model that has seen its rounds takes the correction away, so dr would be as biased as dm."""
    log, _, _ = world(600, 1)
    policy = torch.nn.functional.one_hot(log.action, 3).double()  # does what was done
    seen = torch.nn.functional.one_hot(log.action, 3).double() * log.reward[:, None]
    crooked = evaluate(log, policy, seen, ("dr",), draws=2).estimates[0].value
    assert crooked == pytest.approx(float(log.reward.mean()), abs=1e-12), "nothing is left to correct: weights play no part"
    assert evaluate(log, policy, "ridge", ("dr",), draws=2).estimates[0].value != pytest.approx(crooked, abs=1e-3)


def test_what_cannot_be_judged_is_refused():
    log, policy, q = toy()
    for act, error, said in [
        (lambda: evaluate(log, policy[:3]), DataError, r"shape \(4, 2\)"),
        (lambda: evaluate(log, policy * 0.9), DataError, "row 0 .*sum to 0.9"),
        (lambda: evaluate(log, policy, q[:, :1]), DataError, "scores must be finite, of shape"),
        (lambda: evaluate(log, policy, estimators=("snip",)), SpecError, "did you mean 'snips'"),
        (lambda: evaluate(log, policy, estimators=()), ArgumentError, "at least one"),
        (lambda: evaluate(log, policy, estimators=("switch_dr(tau=-1)",)), ArgumentError, "tau"),
        (lambda: evaluate(log, policy, estimators=("ips(clip=0)",)), ArgumentError, "clip must be above 0"),
        (lambda: evaluate(log, policy, interval="normal"), SpecError, "unknown interval"),
        (lambda: evaluate(log, policy, level=1.0), ArgumentError, "below 1"),
        (lambda: evaluate(log, policy, q, ("mrdr",)), ArgumentError, "fits the reward model itself"),
        (lambda: evaluate(log, policy, bounds=(0.0, 0.5)), ArgumentError, "must hold all rewards"),
        (lambda: evaluate(log, policy, q)["ips"], SpecError, "unknown estimate 'ips'"),
    ]:
        with pytest.raises(error, match=said):
            act()


@pytest.mark.slow
def test_intervals_cover_the_value_of_the_policy():
    """Of 200 logs, bootstrap intervals at 95 % should cover 190; 178 are four standard errors below."""
    hits = {"snips": 0, "dr": 0}
    for seed in range(200):
        log, policy, value = world(800, seed)
        for item in evaluate(log, policy, "ridge", tuple(hits), draws=200, seed=seed).estimates:
            hits[item.name] += item.low <= value <= item.high
    assert min(hits.values()) >= 178, hits


@pytest.mark.slow
def test_a_million_rounds_take_seconds():
    rows, random = 1_000_000, torch.Generator().manual_seed(0)
    log = DecisionLog.of(
        torch.randn(rows, 5, generator=random),
        action=torch.randint(0, 5, (rows,), generator=random),
        propensity=torch.full((rows,), 0.2),
        reward=(torch.rand(rows, generator=random) < 0.3).double(),
        actions=5,
    )
    policy = torch.softmax(torch.randn(rows, 5, generator=random).double(), dim=1)
    start = time.process_time()
    found = evaluate(log, policy, draws=200)
    seconds = time.process_time() - start
    assert found["snips"].low < 0.3 < found["snips"].high
    assert seconds < 5.0, seconds
