"""What weights say of a log before any reward is looked at."""

import pytest
import torch

from everlearn.core.errors import DataError
from everlearn.data.decision_log import DecisionLog
from everlearn.measure.exploration import effective_size
from everlearn.measure.overlap import is_uniform, overlap


def log_of(probabilities, actions, keep=True):
    spread = torch.tensor(probabilities, dtype=torch.float64)
    action = torch.tensor(actions)
    return DecisionLog.of(
        torch.zeros(len(action), 1),
        action=action,
        propensity=spread.gather(1, action[:, None])[:, 0],
        reward=torch.zeros(len(action)),
        probabilities=spread if keep else None,
        actions=spread.shape[1],
    )


def test_figures_by_hand():
    log = log_of([[0.5, 0.5, 0.0]] * 4, [0, 1, 1, 0])
    policy = torch.tensor([[0.75, 0.0, 0.25]] * 4, dtype=torch.float64)
    found = overlap(log, policy)
    assert (found.rounds, found.ess, found.share, found.max_weight, found.mean_weight) == (4, 2.0, 0.5, 1.5, 0.75)
    assert found.never == 0.5 and found.unseen == 0.25
    assert found.quantiles == {"0.5": 1.5, "0.9": 1.5, "0.99": 1.5, "0.999": 1.5}
    assert [row["taken"] for row in found.actions] == [2, 2, 0]
    assert [row["policy"] for row in found.actions] == [0.75, 0.0, 0.25] and found.actions[2]["propensity"] is None
    said = " ".join(found.warnings())
    assert "worthless" in said and "25.0% of what the policy does cannot be seen" in said


def test_propensities_that_are_not_those_of_the_decisions_are_noticed():
    random = torch.Generator().manual_seed(0)
    action = torch.multinomial(torch.tensor([[0.8, 0.2]]).expand(2000, 2), 1, generator=random)[:, 0]
    wrong = log_of([[0.5, 0.5]] * 2000, action.tolist(), keep=False)
    policy = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(2000, 2)
    assert any("average 1.6" in line for line in overlap(wrong, policy).warnings())
    right = log_of([[0.8, 0.2]] * 2000, action.tolist(), keep=False)
    assert overlap(right, policy).warnings() == ()


def test_a_row_that_stands_for_several_counts_as_often():
    log = log_of([[0.5, 0.5]] * 3, [0, 1, 0])
    thrice = DecisionLog.of(
        log.x,
        action=log.action,
        propensity=log.propensity,
        reward=log.reward,
        actions=2,
        weight=torch.tensor([1.0, 3.0, 1.0]),
    )
    found = overlap(thrice, torch.tensor([[0.8, 0.2]] * 3, dtype=torch.float64))  # weights 1.6, .4 (three times), 1.6
    assert found.ess == pytest.approx((1.6 + 1.2 + 1.6) ** 2 / (1.6**2 + 1.2**2 + 1.6**2))
    assert found.mean_weight == pytest.approx(4.4 / 5) and found.max_weight == 1.6
    off = [1.6 - 0.88, 3 * (0.4 - 0.88), 1.6 - 0.88]
    assert found.error == pytest.approx(sum(value**2 for value in off) ** 0.5 / 5)
    assert [row["policy"] for row in found.actions] == pytest.approx([0.8, 0.2])


@pytest.mark.parametrize(("policy", "told"), [([[0.5, 0.5]], "got list"), (torch.ones(2, 2) / 2, r"got \(2, 2\)")])
def test_what_is_no_policy_for_the_log_is_refused(policy, told):
    with pytest.raises(DataError, match=rf"shape \(1, 2\), \(rounds, actions\), {told}"):
        overlap(log_of([[0.5, 0.5]], [0]), policy)


def test_fifty_rounds_and_one_percent_are_enough():
    even = torch.full((1, 2), 0.5, dtype=torch.float64)
    assert overlap(log_of([[0.5, 0.5]] * 50, [0, 1] * 25), even.expand(50, 2)).warnings() == ()
    few = overlap(log_of([[0.5, 0.5]] * 49, [0] * 49), even.expand(49, 2)).warnings()
    assert "as much as 49.0 of its 49 rounds" in few[0] and "the weight 1." in few[0]


def test_effective_size_and_uniform_logs():
    assert effective_size(torch.zeros(3)) == 0.0 and effective_size(torch.ones(7)) == pytest.approx(7.0)
    assert is_uniform(log_of([[0.5, 0.5]], [0])) and not is_uniform(log_of([[0.6, 0.4]], [0]))
