"""Which interval goes with which estimate, with which width; the model that `mrdr` fits for itself; and what an estimate is warned of."""

import math

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.data.decision_log import DecisionLog
from everlearn.measure.off_policy import evaluate
from everlearn.measure.off_policy_intervals import bernstein, clopper_pearson, cressie_read
from everlearn.measure.reward_model import cross_fitted

from .test_off_policy import world

Q = torch.rand(400, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.fixture(scope="module")
def judged():
    """(log, policy, weights, q of the actions taken, q_e) of 400 rounds."""
    log, policy, _ = world(400, 3)
    taken = log.action[:, None]
    weight = policy.gather(1, taken)[:, 0] / log.propensity
    return log, policy, weight, Q.gather(1, taken)[:, 0], (policy * Q).sum(1)


def interval(judged, name, kind, **options):
    found = evaluate(judged[0], judged[1], Q, (name,), kind, **options).estimates[0]
    return found.low, found.high


def heavier(log, weight):
    """The same log, whose rows stand for several decisions each."""
    return DecisionLog.of(
        log.x,
        action=log.action,
        propensity=log.propensity,
        reward=log.reward,
        probabilities=log.probabilities,
        actions=3,
        weight=weight,
    )


@pytest.mark.parametrize(
    ("options", "most", "reach"),
    [
        ({}, None, 1.0),
        ({"bounds": (0.0, 2.0)}, None, 2.0),
        ({"bounds": (-1.0, 1.0)}, None, 2.0),
        ({"largest": 40.0}, 40.0, 1.0),
    ],
)
def test_a_bernstein_interval_has_the_width_that_its_terms_can_have(judged, options, most, reach):
    """ips: weights times what rewards can be, 0 included; dr: the model's range, and a correction of twice that for each weight."""
    log, _, weight, q, expected = judged
    most = float(weight.max()) if most is None else most
    plain = interval(judged, "ips", "bernstein", **options)
    assert plain == pytest.approx(bernstein(weight * log.reward, most * reach, 0.95))
    cut = interval(judged, "ips(clip=1.5)", "bernstein", **options)
    assert cut == pytest.approx(bernstein(weight.clamp(max=1.5) * log.reward, 1.5 * reach, 0.95))
    robust = interval(judged, "dr", "bernstein", **options)
    assert robust == pytest.approx(bernstein(expected + weight * (log.reward - q), reach * (1.0 + 2.0 * most), 0.95))
    direct = interval(judged, "dm", "bernstein", **options)
    assert direct == pytest.approx(bernstein(expected, reach, 0.95))


def test_the_other_intervals_are_those_of_weights_and_rewards(judged):
    log, _, weight, _, _ = judged
    most = float(weight.max())
    assert interval(judged, "ips", "clopper_pearson") == pytest.approx(
        clopper_pearson(float((weight * log.reward).sum()), 400, most, 0.95)
    )
    assert interval(judged, "ips(clip=1.5)", "clopper_pearson", bounds=(0.0, 2.0)) == pytest.approx(
        clopper_pearson(float((weight.clamp(max=1.5) * log.reward).sum()), 400, 3.0, 0.95)
    )
    for name in ("ips", "snips"):
        for options, span, largest in (
            ({}, (0.0, 1.0), most),
            ({"bounds": (-1.0, 2.0), "largest": 30.0}, (-1.0, 2.0), 30.0),
        ):
            wanted = cressie_read(weight, log.reward, span, largest, 0.95)
            assert interval(judged, name, "cressie_read", **options) == pytest.approx(wanted)


def test_rows_that_stand_for_several_weigh_in_every_interval(judged):
    log, policy, weight, q, expected = judged
    stands = 1.0 + torch.arange(400) % 3
    count = stands.double() / stands.double().mean()
    heavy, most, top = heavier(log, stands), float(weight.max()), float(count.max())

    def found(name, kind):
        row = evaluate(heavy, policy, Q, (name,), kind).estimates[0]
        return row.low, row.high

    assert found("ips", "bernstein") == pytest.approx(bernstein(count * weight * log.reward, most * top, 0.95))
    robust = count * (expected + weight * (log.reward - q))
    assert found("dr", "bernstein") == pytest.approx(bernstein(robust, top + 2.0 * most * top, 0.95))
    total = float((count * weight * log.reward).sum())
    assert found("ips", "clopper_pearson") == pytest.approx(clopper_pearson(total, 400, most * top, 0.95))
    assert found("snips", "cressie_read") == pytest.approx(
        cressie_read(count * weight, log.reward, (0.0, 1.0), most * top, 0.95)
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("snips", "bernstein"),
        ("sndr", "bernstein"),
        ("replay", "bernstein"),
        ("snips", "clopper_pearson"),
        ("dr", "clopper_pearson"),
        ("dr", "cressie_read"),
        ("ips(clip=2)", "cressie_read"),
    ],
)
def test_an_interval_that_does_not_go_with_an_estimate_is_left_out_and_said(judged, name, kind):
    row = evaluate(judged[0], judged[1], Q, (name,), kind).estimates[0]
    assert (row.low, row.high) == (None, None) and math.isfinite(row.value)
    assert f"The interval {kind} does not go with {name.split('(')[0]}; take bootstrap." in row.warnings


def test_losses_have_no_binomial_interval(judged):
    log, policy = judged[:2]
    losses = DecisionLog.of(log.x, action=log.action, propensity=log.propensity, reward=-log.reward, actions=3)
    row = evaluate(losses, policy, Q, ("ips",), "clopper_pearson").estimates[0]
    assert (row.low, row.high) == (None, None)
    assert evaluate(losses, policy, Q, ("ips",), "bernstein").estimates[0].low is not None


def test_bounds_may_be_what_the_rewards_are_and_no_less(judged):
    log, policy = judged[:2]
    assert evaluate(log, policy, Q, ("ips",), "bernstein", bounds=(0.0, 1.0)).estimates[0].high is not None
    for bounds in ((0.1, 1.0), (0.0, 0.9)):
        with pytest.raises(ArgumentError, match="must hold all rewards"):
            evaluate(log, policy, Q, ("ips",), bounds=bounds)


@pytest.mark.parametrize("model", ["ridge", "logistic"])
def test_mrdr_is_dr_with_a_model_fitted_for_its_variance(judged, model):
    log, policy = judged[:2]
    target, p = policy.gather(1, log.action[:, None])[:, 0], log.propensity
    own = cross_fitted(log, model, folds=4, weight=target * (1.0 - p) / p**2, seed=5)
    found = evaluate(log, policy, model, ("dr", "mrdr"), draws=5, folds=4, seed=5)
    assert found["mrdr"].value == pytest.approx(evaluate(log, policy, own, ("dr",), draws=5)["dr"].value, abs=1e-12)
    usual = cross_fitted(log, model, folds=4, seed=5)
    assert found["dr"].value == pytest.approx(evaluate(log, policy, usual, ("dr",), draws=5)["dr"].value, abs=1e-12)
    assert found["dr"].value != found["mrdr"].value


def test_replay_counts_rounds_on_which_both_agree(judged):
    log, policy = judged[:2]
    row = evaluate(log, policy, Q, ("replay",), draws=5).estimates[0]
    assert row.ess == int((policy.argmax(1) == log.action).sum()) and row.max_weight == 1.0
    heavy = evaluate(heavier(log, torch.full((400,), 2.0)), policy, Q, ("replay",), draws=5).estimates[0]
    assert heavy.ess == row.ess and heavy.max_weight == 2.0


def test_what_an_estimate_rests_on_is_said(judged):
    log, policy = judged[:2]
    told = {row.name: row.warnings for row in evaluate(log, policy, Q, ("dm", "dr", "replay"), draws=5).estimates}
    assert told["dm"] == ("It rests on the reward model alone.",) and told["dr"] == ()
    assert told["replay"] == ("The log was not drawn uniformly, so replay is biased.",)
    even = DecisionLog.of(log.x, action=log.action, propensity=torch.full((400,), 1 / 3), reward=log.reward, actions=3)
    assert evaluate(even, policy, Q, ("replay",), draws=5).estimates[0].warnings == ()
    nothing = DecisionLog.of(log.x, action=log.action, propensity=log.propensity, reward=0.0 * log.reward, actions=3)
    alike = "All resamples are alike, so this interval says nothing; take clopper_pearson or bernstein."
    assert evaluate(nothing, policy, Q, ("ips",), draws=5).estimates[0].warnings == (alike,)
    assert alike not in evaluate(nothing, policy, Q, ("ips",), "clopper_pearson").estimates[0].warnings
