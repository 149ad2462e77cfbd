"""Families of query problems: shapes, names, what is refused."""

import pytest
import torch

from everlearn.comparison.catalog import values
from everlearn.core.errors import ArgumentError
from everlearn.core.spec import build, parse
from everlearn.data.query_families import best_arm, linear, thresholds, top_k, twenty_questions


def test_thresholds_are_all_cuts_of_a_row():
    assert (thresholds(2).answers * 2).tolist() == [[1, 1], [-1, 1], [-1, -1]]
    labels = thresholds(10).labels.mean(0)
    assert torch.allclose(labels, (2 * torch.arange(1, 11).double() - 11) / 11)  # (2 (i + 1) - 11) / 11


def test_top_k_are_all_sets():
    problem = top_k(4, 2)
    assert len(problem.answers) == 6 and bool((problem.answers.sum(1) == 2).all())
    with pytest.raises(ArgumentError, match="k must be below n"):
        top_k(4, 4)


def test_linear_takes_other_answers():
    problem = linear(torch.eye(3), answers=torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]))
    assert problem.answers.shape == (2, 3) and problem.noise == "gaussian"


def test_twenty_questions_refuse_objects_that_no_question_tells_apart():
    with pytest.raises(ArgumentError, match="two objects have the same row"):
        twenty_questions(torch.tensor([[0.9, 0.6], [0.8, 0.7]]), 2, flip=0.1)
    with pytest.raises(ArgumentError, match="2 questions, each asked once"):
        twenty_questions(torch.tensor([[0.9, 0.6], [0.8, 0.3]]), 3)


def test_a_family_is_read_back_from_its_text():
    for problem in (thresholds(4, horizon=5), best_arm(3, noise="bernoulli"), top_k(5, 2)):
        again = build(parse(problem.spec), values(), "problem")
        assert torch.equal(again.answers, problem.answers)
        assert (again.noise, again.horizon, again.spec) == (problem.noise, problem.horizon, problem.spec)
    assert linear(torch.eye(3)).spec is None
    assert thresholds(4).with_horizon(7).spec is None
