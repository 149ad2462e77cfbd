"""Reward models: no round is judged by a model that has seen it, and each action's model is that of a library."""

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


def test_ridge_is_scikit_learns():
    from sklearn.linear_model import Ridge

    random = torch.Generator().manual_seed(0)
    x, reward = torch.randn(50, 3, generator=random).double(), torch.rand(50, generator=random).double()
    weight, action = torch.rand(50, generator=random).double(), torch.arange(50) % 2
    told = ridge(x, action, reward, weight, 3)(x)
    z = ((x - x.mean(0)) / x.std(0, unbiased=False)).numpy()
    for number in (0, 1):
        rows = (action == number).numpy()
        held = weight[rows] / weight[rows].mean()
        wanted = Ridge(alpha=1.0).fit(z[rows], reward[rows], sample_weight=held).predict(z)
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
