"""A log of decisions checks itself, and says which row is wrong and what is allowed."""

import pytest
import torch

from everlearn.core.errors import DataError
from everlearn.data.decision_log import DecisionLog, check_probabilities

NAN = float("nan")


def parts(**changed):
    """Three good rows over three actions, some fields changed."""
    good = {
        "x": torch.zeros(3, 2),
        "offered": torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1]], dtype=torch.bool),
        "action": torch.tensor([0, 2, 1]),
        "propensity": torch.tensor([0.5, 0.25, 1.0], dtype=torch.float64),
        "reward": torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64),
        "id": ("a", "b", "c"),
        "generation": torch.tensor([0, 0, 1]),
    }
    return {**good, **changed}


def test_a_good_log_stands_as_it_was_given():
    log = DecisionLog(**parts())
    assert len(log) == 3 and log.actions == 3 and log.counts.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"propensity": torch.tensor([0.5, 0.0, 1.0]).double()},
            r"row 1 \(id 'b'\): the propensity is 0; .* above 0 and be at most 1",
        ),
        ({"propensity": torch.tensor([0.5, 0.5, 1.5]).double()}, r"row 2 .* propensity is 1.5"),
        ({"propensity": torch.tensor([NAN, 0.5, 1.0]).double()}, r"row 0 .* propensity is nan"),
        ({"action": torch.tensor([0, 1, 1])}, r"row 1 .* action 1 was not on offer"),
        ({"action": torch.tensor([0, 2, 3])}, r"row 2 .* action is 3; it must lie in 0..2"),
        (
            {"offered": torch.tensor([[1, 1, 1], [0, 0, 0], [0, 1, 1]]).bool()},
            r"row 1 .* no action is on offer; each row needs 1..3",
        ),
        ({"reward": torch.tensor([1.0, NAN, 0.0]).double()}, r"row 1 .* reward is nan"),
        ({"x": torch.tensor([[0.0, 0.0], [0.0, 0.0], [float("inf"), 0.0]])}, r"row 2 .* x holds NaN or infinite"),
        ({"id": ("a", "b", "a")}, r"row 2 \(id 'a'\): the id stands in an earlier row"),
        ({"id": ("a", "b")}, r"3 rows need 3 ids, got 2"),
        ({"weight": torch.tensor([1.0, 0.0, 1.0]).double()}, r"row 1 .* weight is 0"),
        ({"time": torch.tensor([1.0, NAN, 1.0]).double()}, r"row 1 .* time is nan"),
        ({"reward": torch.zeros(3)}, r"reward must be torch.float64 of shape \(3,\)"),
    ],
)
def test_a_row_that_cannot_be_right_is_named_with_the_range(changed, said):
    with pytest.raises(DataError, match=said):
        DecisionLog(**parts(**changed))


def test_probabilities_must_be_a_distribution_over_what_is_offered_and_agree_with_the_propensity():
    spread = torch.tensor([[0.5, 0.3, 0.2], [0.75, 0.0, 0.25], [0.0, 1.0, 0.0]], dtype=torch.float64)
    assert DecisionLog(**parts(probabilities=spread)).probabilities is spread
    for place, value, said in [
        ((0, 1), 0.4, "sum to 1.1"),
        ((1, 1), 0.1, "sum to 1.1"),
        ((0, 1), NAN, "NaN"),
        ((0, 1), -0.3, "outside 0..1"),
    ]:
        wrong = spread.clone()
        wrong[place] = value
        with pytest.raises(DataError, match=said):
            DecisionLog(**parts(probabilities=wrong))
    off = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    with pytest.raises(DataError, match=r"policy: row 0 .*not on offer"):
        check_probabilities("policy", off, torch.tensor([[False, True, True]]), ("z",))
    swapped = spread.clone()
    swapped[0] = torch.tensor([0.3, 0.5, 0.2])
    with pytest.raises(DataError, match="says otherwise"):
        DecisionLog(**parts(probabilities=swapped))


def test_a_decision_told_twice_is_kept_once_and_with_another_reward_refused():
    twice = {
        "action": torch.tensor([0, 1, 0]),
        "propensity": torch.full((3,), 0.5),
        "reward": torch.tensor([1.0, 0.0, 1.0]),
        "id": ("a", "b", "a"),
    }
    log = DecisionLog.of(torch.zeros(3, 1), **twice)
    assert log.id == ("a", "b") and log.reward.tolist() == [1.0, 0.0]
    with pytest.raises(DataError, match=r"row 2: the decision 'a' has the reward 0, and in row 0 1"):
        DecisionLog.of(torch.zeros(3, 1), **{**twice, "reward": torch.tensor([1.0, 0.0, 0.0])})


def test_rows_and_split_keep_what_belongs_together():
    log = DecisionLog(**parts())
    back = log.rows(torch.tensor([2, 0]))
    assert back.id == ("c", "a") and back.action.tolist() == [1, 0] and back.generation.tolist() == [1, 0]
    first, second = log.split(0.34)
    assert first.id == ("a",) and second.id == ("b", "c")
    with pytest.raises(DataError, match="leaves one part empty"):
        log.split(1.0)
    assert len(set(log.hashes())) == 1, "equal rows of x have equal hashes"
