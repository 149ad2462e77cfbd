"""Which classes compete in the loss: the three scopes, what each remembers, and what is refused."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.state import capture, restore
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.replay import Replay
from everlearn.nn.criteria import Masked, Plain

LOGITS = torch.tensor([[2.0, 0, 1, 5], [0, 3, 1, 5]])
LABELS = torch.tensor([0, 1])


def over(classes, logits=LOGITS, labels=LABELS):
    """The cross-entropy when only some classes exist."""
    return cross_entropy(logits[:, classes], torch.tensor([classes.index(label) for label in labels.tolist()])).item()


def test_plain_is_the_cross_entropy_to_the_bit():
    assert torch.equal(Plain().make("x")(LOGITS, LABELS), cross_entropy(LOGITS, LABELS))


def test_each_scope_lets_its_classes_compete():
    assert Masked("batch").make("x")(LOGITS, LABELS).item() == pytest.approx(over([0, 1]))
    seen = Masked("seen").make("x")
    seen(LOGITS, torch.tensor([2, 2]))
    assert seen(LOGITS, LABELS).item() == pytest.approx(over([0, 1, 2]))
    task = Masked("task").make("x")
    task.hear(Boundary(0, classes=(1, 2)))
    assert task(LOGITS, LABELS).item() == pytest.approx(over([0, 1, 2]))
    task.hear(Boundary(1, data=Batch(LOGITS, torch.tensor([3, 0]))))
    assert task(LOGITS, LABELS).item() == pytest.approx(over([0, 1, 3]))


def test_what_was_seen_is_state():
    first, second = Masked("seen").make("x"), Masked("seen").make("x")
    first(LOGITS, torch.tensor([3, 3]))
    restore(second, capture(first))
    assert second(LOGITS, LABELS).item() == pytest.approx(over([0, 1, 3]))


def test_absent_classes_of_the_head_do_not_move():
    for learner in (
        FineTune(torch.nn.Linear(3, 4), loss=Masked()),
        Replay(torch.nn.Linear(3, 4), loss=Masked(), capacity=4),
    ):
        before = learner.descent.model.weight.detach().clone()
        for _ in range(3):
            learner.update(Batch(torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1])))
        moved = (learner.descent.model.weight - before).abs().sum(1)
        assert moved[2:].max() == 0 and moved[:2].min() > 0


def test_a_task_scope_needs_tasks():
    assert FineTune(torch.nn.Linear(3, 4), loss=Masked("task")).needs_boundaries
    assert not FineTune(torch.nn.Linear(3, 4), loss=Masked("seen")).needs_boundaries
    criterion = Masked("task").make("x")
    with pytest.raises(InputError, match="heard of no task"):
        criterion(LOGITS, LABELS)
    with pytest.raises(InputError, match="names none"):
        criterion.hear(Boundary(0))
    with pytest.raises(ArgumentError, match="scope"):
        Masked("tasks")
