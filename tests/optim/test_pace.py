"""What a change does to an optimiser: begin anew, anneal within the task, or nothing."""

import pytest
import torch

from everlearn.core.errors import InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.state import same
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.replay import Replay
from everlearn.optim.optimizers import SGD, Adam

X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
TASK = Batch(X, torch.arange(8) % 2)


def linear():
    model = torch.nn.Linear(3, 2)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    return model


def moved(learner, count=1):
    before = learner.descent.model.weight.detach().clone()
    for _ in range(count):
        learner.update(TASK)
    return (learner.descent.model.weight - before).norm().item()


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1, momentum=0.9), Adam(lr=0.01)])
def test_a_restart_drops_what_is_remembered_of_past_gradients(optimizer):
    restarted, kept = (FineTune(linear(), optimizer=optimizer, restart=restart) for restart in (True, False))
    fresh = FineTune(linear(), optimizer=optimizer)
    for learner in (restarted, kept):
        moved(learner, 5)
        learner.boundary(Boundary(1))
    fresh.descent.model.load_state_dict(restarted.descent.model.state_dict())
    assert same(restarted.descent.model.state_dict(), kept.descent.model.state_dict())
    for learner in (restarted, kept, fresh):
        learner.update(TASK)
    assert same(restarted.descent.model.state_dict(), fresh.descent.model.state_dict())
    assert not same(restarted.descent.model.state_dict(), kept.descent.model.state_dict())


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1), SGD(lr=0.1, weight_decay=1e-9)])
def test_the_rate_falls_along_half_a_cosine_of_the_tasks_rows(optimizer):
    """The first step from zero weights has one gradient, so lengths of steps from there are rates."""
    halves = [Batch(X[:4], TASK.y[:4]), Batch(X[4:], TASK.y[4:])]
    learner = FineTune(linear(), optimizer=optimizer, anneal=True)
    learner.boundary(Boundary(0, data=TASK))
    learner.update(halves[0])
    assert learner.descent.factor == 1.0
    learner.update(halves[1])
    assert learner.descent.factor == pytest.approx(0.5)  # half of the rows had come
    learner.update(halves[0])
    assert learner.descent.factor == 1.0  # the next pass
    slower, plain = FineTune(linear(), optimizer=optimizer, anneal=True), FineTune(linear(), optimizer=optimizer)
    slower.boundary(Boundary(0, data=TASK))
    slower.pace.came = 4
    assert moved(slower) == pytest.approx(moved(plain) / 2, rel=1e-4)


def test_annealing_goes_on_where_it_was_and_replay_knows_it_too():
    def make():
        return Replay(linear(), capacity=4, anneal=True)

    events = [Batch(X[start : start + 2], TASK.y[start : start + 2]) for start in range(0, 8, 2)]
    whole = make()
    whole.boundary(Boundary(0, data=TASK))
    for event in events[:2]:
        whole.update(event)
    other = make()
    other.load_state_dict(whole.state_dict())
    for learner in (whole, other):
        for event in events[2:]:
            learner.update(event)
    assert same(whole.state_dict(), other.state_dict()) and whole.descent.factor == pytest.approx(0.5 - 0.5**0.5 / 2)


def test_what_is_needed_is_said():
    assert FineTune(linear(), restart=True).needs_boundaries and FineTune(linear(), anneal=True).needs_boundaries
    assert not FineTune(linear()).needs_boundaries
    with pytest.raises(InputError, match="anneal=True needs boundaries that bring the rows"):
        FineTune(linear(), anneal=True).boundary(Boundary(0))
