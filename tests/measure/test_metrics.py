"""Figures of accuracy against numbers worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from everlearn.core.errors import ArgumentError
from everlearn.measure.metrics import (
    anytime_accuracy,
    average_accuracy,
    backward_transfer,
    class_accuracy,
    forgetting,
    forward_transfer,
    guesses,
    kappa,
    learning_accuracy,
    seen_accuracy,
)

# three experiences; rows are checkpoints
SQUARE = [[0.9, 0.2, 0.1], [0.6, 0.8, 0.3], [0.5, 0.6, 1.0]]
# three checkpoints, two sets that are there from the start
OBLONG = [[0.4, 0.6], [0.8, 0.7], [0.6, 0.9]]


def test_square_matrix_by_hand():
    assert average_accuracy(SQUARE) == pytest.approx((0.5 + 0.6 + 1.0) / 3)
    assert seen_accuracy(SQUARE) == pytest.approx([0.9, 0.7, 0.7])
    assert anytime_accuracy(SQUARE) == pytest.approx((0.9 + 0.7 + 0.7) / 3)
    assert forgetting(SQUARE) == pytest.approx(((0.9 - 0.5) + (0.8 - 0.6)) / 2)  # over T-1 = 2 sets
    assert backward_transfer(SQUARE) == pytest.approx(((0.5 - 0.9) + (0.6 - 0.8)) / 2)
    assert forward_transfer(SQUARE, [0.0, 0.1, 0.2]) == pytest.approx(((0.2 - 0.1) + (0.3 - 0.2)) / 2)


def test_the_worked_example_of_sparse_tasks():
    matrix = [[0.8, 0.0, 0.0], [0.7, 0.9, 0.0], [0.6, 0.85, 0.75]]
    assert average_accuracy(matrix) == pytest.approx(0.733333, abs=5e-7)
    assert backward_transfer(matrix) == pytest.approx(-0.125)
    assert learning_accuracy(matrix) == pytest.approx(0.816667, abs=5e-7)
    assert learning_accuracy(OBLONG) is None


def test_oblong_matrix_by_hand():
    assert average_accuracy(OBLONG) == pytest.approx(0.75)
    assert seen_accuracy(OBLONG) == pytest.approx([0.5, 0.75, 0.75])
    assert anytime_accuracy(OBLONG) == pytest.approx(2.0 / 3)
    assert forgetting(OBLONG) == pytest.approx(((0.8 - 0.6) + (0.7 - 0.9)) / 2)  # all sets; the second improved
    assert backward_transfer(OBLONG) is None
    assert forward_transfer(OBLONG, [0.0, 0.0]) is None


def test_forgetting_is_measured_from_the_best_earlier_checkpoint_not_from_the_diagonal():
    matrix = [[0.5, 0.0, 0.0], [0.9, 0.5, 0.0], [0.6, 0.5, 0.5]]
    assert forgetting(matrix) == pytest.approx((0.3 + 0.0) / 2)
    assert backward_transfer(matrix) == pytest.approx((0.1 + 0.0) / 2)


def test_what_is_not_defined_is_none():
    assert average_accuracy([]) is None
    assert anytime_accuracy([]) is None
    for matrix in ([], [[0.5]], [[0.5, 0.5]]):
        assert forgetting(matrix) is None
        assert backward_transfer(matrix) is None
        assert forward_transfer(matrix, [0.1]) is None


def test_a_baseline_of_the_wrong_length_is_refused():
    with pytest.raises(ArgumentError, match="each of 3 sets, got 2"):
        forward_transfer(SQUARE, [0.1, 0.1])


@given(
    some.integers(2, 6).flatmap(
        lambda n: some.lists(some.lists(some.floats(0, 1), min_size=n, max_size=n), min_size=n, max_size=n)
    )
)
def test_properties_of_square_matrices(matrix):
    size = len(matrix)
    # the best earlier accuracy of set i is at least R[i, i], so forgetting is at least minus backward transfer
    assert forgetting(matrix) >= -backward_transfer(matrix) - 1e-12
    assert 0.0 <= average_accuracy(matrix) <= 1.0
    assert 0.0 <= anytime_accuracy(matrix) <= 1.0
    constant = [matrix[0]] * size  # a model that never changes neither forgets nor transfers
    assert forgetting(constant) == 0.0
    assert backward_transfer(constant) == 0.0
    assert forward_transfer(constant, matrix[0]) == 0.0


def test_classes_without_rows_are_left_out_and_labels_are_the_users():
    assert class_accuracy([3, 0, 1], [4, 0, 2], ("low", "none", "high")) == {"low": 0.75, "high": 0.5}


def test_kappa_by_hand():
    # Cohen's worked form: confusion [[20, 5], [10, 15]]: p = 35/50, q = (25*30 + 25*20) / 50^2 = 0.5
    assert kappa(35, labelled=[25, 25], named=[30, 20]) == pytest.approx(0.4)
    assert kappa(0, labelled=[0, 0], named=[0, 0]) is None
    assert kappa(9, labelled=[9, 0], named=[9, 0]) is None


def test_kappa_agrees_with_scikit_learn():
    from sklearn.metrics import cohen_kappa_score

    random = torch.Generator().manual_seed(3)
    y = torch.randint(0, 4, (200,), generator=random)
    guess = torch.where(torch.rand(200, generator=random) < 0.5, y, torch.randint(0, 4, (200,), generator=random))
    found = kappa(
        int((y == guess).sum()), torch.bincount(y, minlength=4).tolist(), torch.bincount(guess, minlength=4).tolist()
    )
    assert found == pytest.approx(cohen_kappa_score(y.numpy(), guess.numpy()), abs=1e-12)


def test_masked_guesses_let_only_the_classes_of_the_set_compete():
    scores = torch.tensor([[9.0, 1.0, 2.0], [9.0, 4.0, 3.0]])
    y = torch.tensor([1, 2])
    assert guesses(scores, y).tolist() == [0, 0]
    assert guesses(scores, y, masked=True).tolist() == [2, 1]


def test_the_worked_example_of_three_tasks():
    """[.9 0 0] [.6 .8 0] [.5 .7 .95]: forgetting over the first two tasks is (.4 + .1) / 2; over all three it would be 1/6."""
    matrix = [[0.9, 0.0, 0.0], [0.6, 0.8, 0.0], [0.5, 0.7, 0.95]]
    assert average_accuracy(matrix) == pytest.approx(0.716667, abs=1e-6)
    assert forgetting(matrix) == pytest.approx(0.25)
    assert backward_transfer(matrix) == pytest.approx(-0.25)
    assert anytime_accuracy(matrix) == pytest.approx(0.772222, abs=1e-6)
