"""Diagnostics of a generation: against scikit-learn, slow twins, hand-worked numbers, and what they refuse."""

import math

import pytest
import torch
from sklearn import metrics

from everlearn.core.errors import InputError
from everlearn.measure.exploration import effective_size
from everlearn.measure.policy_generation import (
    effective_actions,
    expected_calibration_error,
    generation_figures,
    trust,
)


def drawn(count=400, seed=1):
    random = torch.Generator().manual_seed(seed)
    scores = torch.rand(count, generator=random, dtype=torch.float64).mul(20).round().div(20)  # with ties
    return scores, (torch.rand(count, generator=random) < scores).double()


def test_log_loss_and_auc_are_those_of_scikit_learn():
    scores, outcomes = drawn()
    table, action = torch.stack([1.0 - scores, scores], 1), torch.ones(400, dtype=torch.int64)
    found = trust(table, action, outcomes)
    assert found["log_loss"] == pytest.approx(metrics.log_loss(outcomes.numpy(), scores.numpy()))
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(outcomes.numpy(), scores.numpy()))
    alike = trust(table, action, torch.ones(400))
    assert alike["auc"] is None and math.isfinite(alike["log_loss"])


def test_calibration_error_is_its_slow_twin():
    scores, outcomes = drawn()
    total = 0.0
    for number in range(10):
        inside = [row for row in range(400) if min(int(float(scores[row]) * 10), 9) == number]
        if inside:
            gap = sum(float(scores[row]) for row in inside) / len(inside) - sum(
                float(outcomes[row]) for row in inside
            ) / len(inside)
            total += abs(gap) * len(inside) / 400
    assert expected_calibration_error(scores, outcomes) == pytest.approx(total)
    assert expected_calibration_error(scores, outcomes) < expected_calibration_error(scores**3, outcomes)


def test_effective_numbers():
    assert effective_actions(torch.tensor([[0.25] * 4, [1.0, 0, 0, 0]])).tolist() == pytest.approx([4.0, 1.0])
    weights = torch.tensor([1.8, 0.2, 0.2, 0.75], dtype=torch.float64)
    assert effective_size(weights) == pytest.approx(2.24146813, abs=1e-8)


def test_a_generation_by_hand():
    scores = torch.tensor([[0.9, 0.5], [0.4, 0.8]])
    probabilities = torch.tensor([[0.75, 0.25], [0.0, 1.0]])
    action, reward = torch.tensor([1, 1]), torch.tensor([1.0, 0.0])
    after = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    found = generation_figures(
        scores, probabilities, action, reward, next_probabilities=after, control=(scores, action, 1 - reward)
    )
    assert found["approval"] == 0.5 and found["counts"] == [0, 2]
    assert found["effective_actions"] == pytest.approx((math.exp(0.5623351446) + 1.0) / 2)
    assert found["exploration_cost"] == pytest.approx(
        (0.9 - (0.75 * 0.9 + 0.25 * 0.5)) / 2
    )  # the second row has one action only
    assert found["ess"] == pytest.approx(3.0**2 / (2.0**2 + 1.0)) and found["ess_share"] == pytest.approx(0.9)
    assert found["window"]["log_loss"] == pytest.approx(-(math.log(0.5) + math.log(0.2)) / 2, rel=1e-6)
    assert found["window"]["by_action"][0] == {"action": 0, "count": 0, "expected": None, "observed": None}
    assert (
        found["window"]["by_action"][1]["expected"] == pytest.approx(0.65)
        and found["window"]["by_action"][1]["observed"] == 0.5
    )
    assert found["window"]["positive"] == 0.5 and found["control"]["auc"] == 1.0 and found["window"]["auc"] == 0.0
    true = generation_figures(scores, probabilities, action, reward, chances=torch.tensor([[0.2, 0.6], [0.1, 0.1]]))
    assert true["exploration_cost"] == pytest.approx((0.2 - 0.3) / 2) and "ess" not in true and "control" not in true


def test_refusals():
    scores, action, reward = torch.tensor([[0.9, 0.5]]), torch.tensor([1]), torch.tensor([1.0])
    with pytest.raises(InputError, match="row 0: the policy never takes action 1"):
        generation_figures(scores, torch.tensor([[1.0, 0.0]]), action, reward)
    with pytest.raises(InputError, match=r"row 0: a probability lies in 0..1, got 1.5"):
        trust(torch.tensor([[0.9, 1.5]]), action, reward)
    with pytest.raises(InputError, match="outcomes must be 0 or 1"):
        trust(scores, action, torch.tensor([0.25]))
