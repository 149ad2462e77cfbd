"""Reward models: no round is judged by a model that has seen it, and each action's model is that of a library."""

import numpy
import pytest
import torch

from everlearn.core.errors import ArgumentError, InputError, SpecError
from everlearn.data.decision_log import DecisionLog
from everlearn.measure.reward_model import chosen, cross_fitted, logistic, ridge
from tests.measure.test_off_policy import world


def test_no_round_is_judged_by_a_model_that_has_seen_it():
    log, _, _ = world(90)

    def memory(x, action, reward, weight, actions):
        """Says 1 of any row that it was fitted on."""
        seen = {tuple(row) for row in x.tolist()}
        return lambda new: torch.tensor([[float(tuple(row) in seen)] * actions for row in new.tolist()])

    assert cross_fitted(log, memory, folds=3).abs().max() == 0.0
    assert float(memory(log.x.double(), None, None, None, 3)(log.x.double()).min()) == 1.0, "a control: it does remember"


def test_ridge_solves_the_weighted_normal_equations():
    random = torch.Generator().manual_seed(0)
    x, reward = torch.randn(50, 3, generator=random).double(), torch.rand(50, generator=random).double()
    weight, action = torch.rand(50, generator=random).double(), torch.arange(50) % 2
    told = ridge(x, action, reward, weight, 3)(x)
    z = ((x - x.mean(0)) / x.std(0, unbiased=False)).numpy()
    for number in (0, 1):
        rows = (action == number).numpy()
        held = weight[rows] / weight[rows].mean()
        one = numpy.hstack([z, numpy.ones((50, 1))])
        gram = (one[rows].T * held.numpy()) @ one[rows] + numpy.diag([1.0, 1.0, 1.0, 0.0])  # the constant is free
        wanted = one @ numpy.linalg.solve(gram, (one[rows].T * held.numpy()) @ reward[rows].numpy())
        assert torch.allclose(told[:, number], torch.from_numpy(wanted), atol=1e-9)
    mean = float((weight * reward).sum() / weight.sum())
    assert torch.allclose(told[:, 2], torch.full((50,), mean).double()), "never taken: the mean of all"


def test_logistic_learns_probabilities_and_an_action_without_contrast_is_shrunk():
    log, _, _ = world(3000)
    told = logistic(log.x.double(), log.action, log.reward, log.counts, 4)(log.x.double())
    truth = torch.sigmoid(
        log.x.double() @ torch.randn(2, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    )
    assert float((told[:, :3] - truth).abs().mean()) < 0.05
    assert torch.allclose(told[:, 3], log.reward.mean().expand(3000), atol=1e-9)
    assert torch.allclose(
        logistic(log.x.double() * 5 + 2, log.action, log.reward, log.counts, 4)(log.x.double() * 5 + 2), told, atol=1e-6
    )
    ones, none = torch.ones(4).double(), torch.zeros(4, 1).double()
    told = logistic(none, torch.tensor([0, 0, 0, 1]), torch.tensor([1.0, 1.0, 1.0, 0.0]).double(), ones, 2)(none[:1])
    assert told[0].tolist() == pytest.approx([(3 + 0.75) / 4, (0 + 0.75) / 2])  # (sum + mean of all) / (rounds + 1)
    always = logistic(torch.zeros(4, 1).double(), torch.zeros(4).long(), torch.ones(4).double(), torch.ones(4).double(), 1)
    assert (
        float(always(torch.zeros(1, 1).double())) == pytest.approx(1.0, abs=1e-5)
        and float(always(torch.zeros(1, 1).double())) < 1.0
    )


def test_the_default_goes_by_the_rewards_and_what_is_wrong_is_refused():
    log, _, _ = world(30)
    assert chosen(log, None) is logistic
    half = DecisionLog.of(log.x, action=log.action, propensity=log.propensity, reward=log.reward / 2, actions=3)
    assert chosen(half, None) is ridge
    for act, error, said in [
        (lambda: cross_fitted(log, "rige"), SpecError, "did you mean 'ridge'"),
        (lambda: cross_fitted(log, folds=1), ArgumentError, "folds"),
        (
            lambda: cross_fitted(log, lambda *given: lambda x: torch.zeros(len(x), 2)),
            InputError,
            r"must give finite scores of shape",
        ),
    ]:
        with pytest.raises(error, match=said):
            act()


@pytest.mark.parametrize("fit", [ridge, logistic])
def test_without_columns_each_action_has_a_mean_of_its_own(fit):
    reward, action = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0]).double(), torch.tensor([0, 0, 0, 0, 1, 1])
    told = fit(torch.zeros(6, 0).double(), action, reward, torch.ones(6).double(), 3)(torch.zeros(1, 0).double())[0].tolist()
    half = [0.75, 0.0, 0.5] if fit is ridge else [(3 + 0.5) / 5, 0.5 / 3, 0.5]
    assert told == pytest.approx(half)


def test_rounds_of_weight_zero_teach_nothing():
    log, _, _ = world(200)
    weight = (torch.arange(200) % 2).double()
    odd = torch.arange(1, 200, 2)
    for fit in (ridge, logistic):
        whole = fit(log.x.double(), log.action, log.reward, weight, 3)
        assert (whole(log.x.double()) - whole(log.x.double())[:1]).abs().max() > 0.0
        other = log.reward.clone()
        other[::2] = 1.0 - other[::2]
        again = fit(log.x.double(), log.action, other, weight, 3)
        assert torch.allclose(whole(log.x[odd].double()), again(log.x[odd].double()))
