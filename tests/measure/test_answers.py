"""Late answers are joined to the predictions of their time, once each."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.core.events import Batch, Boundary
from everlearn.core.monitor import Step
from everlearn.core.state import capture, restore, same
from everlearn.measure.answers import Answers


def scores(*guesses, classes=3):
    return torch.nn.functional.one_hot(torch.tensor(guesses), classes).float()


def step(position, y=None, names=None, guesses=None):
    rows = len(names or y)
    event = Batch(torch.zeros(rows, 1), None if y is None else torch.tensor(y), id=names)
    return Step(position, event, None if guesses is None else scores(*guesses), None, 0.0, 0.0)


def test_an_answer_that_comes_with_its_input_is_scored_at_once():
    answers = Answers()
    first = step(0, y=[0, 2], guesses=(0, 1))
    assert answers.wants(first.event)
    found = answers.match(first)
    assert (found.guesses.tolist(), found.labels.tolist(), found.asked, found.revised) == ([0, 1], [0, 2], None, ())
    named = step(1, y=[1], names=("a",), guesses=(1,))
    assert answers.wants(named.event)
    assert answers.match(named).guesses.tolist() == [1]


def test_the_prediction_of_the_time_of_the_input_counts():
    answers = Answers()
    assert answers.wants(step(0, names=("a", "b")).event)
    assert answers.match(step(0, names=("a", "b"), guesses=(1, 2))) is None
    assert answers.waiting == 2
    late = step(7, y=[2, 1], names=("b", "a"))
    assert not answers.wants(late.event)
    found = answers.match(late)
    assert (found.guesses.tolist(), found.labels.tolist(), found.asked.tolist()) == ([2, 1], [2, 1], [0, 0])
    assert answers.waiting == 0


def test_a_batch_may_hold_late_and_fresh_rows():
    answers = Answers()
    answers.match(step(0, names=("a",), guesses=(1,)))
    mixed = step(1, y=[0, 2], names=("a", "b"), guesses=(0, 2))
    assert answers.wants(mixed.event)
    found = answers.match(mixed)
    assert found.guesses.tolist() == [1, 2]  # the old guess for a, the new one for b
    assert found.asked.tolist() == [0, 1]


def test_a_correction_revises_and_is_not_scored_again():
    answers = Answers()
    answers.match(step(0, names=("a",), guesses=(1,)))
    answers.match(step(1, y=[0], names=("a",)))
    again = step(2, y=[1], names=("a",))
    assert not answers.wants(again.event)
    found = answers.match(again)
    assert len(found.guesses) == 0
    assert found.revised == ((1, 0, 1, 0),)
    assert answers.match(step(3, y=[2], names=("a",))).revised == ((1, 1, 2, 0),)


def test_inputs_without_an_id_can_never_be_joined():
    answers = Answers()
    blind = Step(0, Batch(torch.zeros(2, 1)), None, None, 0.0, 0.0)
    assert not answers.wants(blind.event)
    assert answers.match(blind) is None
    assert answers.match(Step(1, Boundary(0), None, None, 0.0, 0.0)) is None
    assert answers.waiting == 0


def test_what_waits_and_what_is_remembered_is_bounded():
    answers = Answers(capacity=2, remembered=1)
    answers.match(step(0, names=("a", "b", "c"), guesses=(0, 1, 2)))
    assert list(answers.pending) == ["b", "c"]
    assert answers.waiting == 3  # the one given up is still unanswered
    answers.match(step(1, y=[1, 2], names=("b", "c")))
    assert list(answers.answered) == ["c"]
    assert answers.wants(step(2, y=[1], names=("b",)).event)  # forgotten: no longer known as a correction
    with pytest.raises(ArgumentError, match="capacity"):
        Answers(capacity=0)


def test_state_continues():
    answers = Answers()
    answers.match(step(0, names=("a", "b"), guesses=(1, 2)))
    answers.match(step(1, y=[1], names=("a",)))
    other = Answers()
    restore(other, capture(answers))
    assert same(capture(other), capture(answers))
    assert other.match(step(2, y=[0, 2], names=("a", "b"))).revised == ((1, 1, 0, 0),)
    assert answers.waiting == 1 and other.waiting == 0


def test_values_wait_as_they_were_predicted():
    answers = Answers(values=True)
    x = torch.zeros(2, 1)
    asked = Step(3, Batch(x, id=("a", "b")), torch.tensor([[0.1, 2.0], [1e30, -4.0]]), None, 0.0, 0.0)
    assert answers.match(asked) is None
    again = Answers(values=True)
    restore(again, capture(answers))
    y = torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    found = again.match(Step(9, Batch(x, y, id=("b", "a")), None, None, 0.0, 0.0))
    assert torch.equal(found.guesses, asked.prediction.flip(0)) and torch.equal(found.labels, y)  # to the bit
    assert found.asked.tolist() == [3, 3]
    revised = again.match(Step(12, Batch(x, y + 1, id=("b", "a")), None, None, 0.0, 0.0))
    assert revised.guesses.shape == revised.labels.shape == (0, 2)
    assert revised.revised[0][1:] == ([5.0, 6.0], [6.0, 7.0], 3)
    at_once = again.match(Step(13, Batch(x, y), torch.ones(2, 2), None, 0.0, 0.0))
    assert torch.equal(at_once.guesses, torch.ones(2, 2)) and torch.equal(at_once.labels, y)


def test_answers_that_learners_are_never_told_score_at_once():
    answers = Answers()
    hidden = Step(4, Batch(torch.zeros(3, 1)), scores(0, 1, 2), None, 0.0, 0.0, torch.tensor([0, 2, 2]))
    found = answers.match(hidden)
    assert (found.guesses.tolist(), found.labels.tolist(), found.asked) == ([0, 1, 2], [0, 2, 2], None)
    assert answers.waiting == 0
