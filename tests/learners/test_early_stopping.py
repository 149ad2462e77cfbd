"""Early stopping by task: when it ends, which weights it keeps, and what it does where rows are not told."""

import pytest
import torch

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.random import generator
from everlearn.core.state import capture
from everlearn.learners.early_stopping import EarlyStopping
from everlearn.learners.fine_tune import FineTune
from everlearn.optim.optimizers import SGD


def task(rows=60, seed=0):
    random = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (rows,), generator=random)
    return Batch(torch.randn(rows, 5, generator=random) + y[:, None], y)


def announced(data, number=0):
    return [Boundary(number, data=data), Batch(data.x[:30], data.y[:30]), Batch(data.x[30:], data.y[30:])]


def slow_twin(model, data, epochs, patience, validation, batch, lr):
    """(weights kept, passes made): every pass as plain gradient descent, every accuracy kept in a list."""
    random = generator(0, "early stopping", 0)
    order = torch.randperm(len(data), generator=random)
    aside = round(validation * len(data))
    judged, learned = order[:aside], order[aside:]
    history, states = [], []
    for _ in range(epochs):
        for part in learned[torch.randperm(len(learned), generator=random)].split(batch):
            loss = torch.nn.functional.cross_entropy(model(data.x[part]), data.y[part])
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for weight, gradient in zip(model.parameters(), gradients, strict=True):
                    weight -= lr * gradient
        history.append((model(data.x[judged]).argmax(1) == data.y[judged]).float().mean().item())
        states.append(capture(model))
        best = history.index(max(history))
        if len(history) - 1 - best >= patience:
            break
    return states[best], len(history), best


def test_it_ends_when_patience_does_and_keeps_the_best_weights(network):
    learner = EarlyStopping(network(), patience=4, validation=0.2, batch=16, optimizer=SGD(lr=0.05))
    learner.boundary(Boundary(0, data=task()))
    expected, passes, best = slow_twin(network(), task(), 200, 4, 0.2, 16, 0.05)
    assert learner.ran == passes == best + 5 and 5 < passes < 200
    for name, value in learner.descent.model.state_dict().items():
        assert torch.allclose(value, expected[name], atol=1e-6)


def test_epochs_and_patience_bound_the_passes(network):
    few = EarlyStopping(network(), epochs=3, optimizer=SGD(lr=0.05))
    hasty = EarlyStopping(network(), patience=1, optimizer=SGD(lr=0.0))
    for learner in (few, hasty):
        learner.boundary(Boundary(0, data=task()))
    assert few.ran == 3 and hasty.ran == 2  # the first pass is the best so far, the second no better


def test_the_batches_of_a_learned_task_are_not_learned_again(network, fold, weights):
    learner = EarlyStopping(network(), epochs=2)
    events = announced(task())
    learner.boundary(events[0])
    before = weights(learner)
    assert [learner.update(event) for event in events[1:]] == [{}, {}]
    assert torch.equal(before, weights(learner))


def test_rows_that_are_not_told_are_learned_as_they_come(network, fold, weights):
    data = task()
    for boundary in (Boundary(0), Boundary(0, data=Batch(data.x))):
        events = [boundary, *announced(data)[1:]]
        learner, plain = fold(EarlyStopping(network()), events), fold(FineTune(network()), events)
        assert torch.equal(weights(learner), weights(plain)) and learner.ran == 0


def test_an_optimiser_made_anew_forgets_its_momentum(network, fold, weights):
    events = [*announced(task()), *announced(task(seed=1), 1)]
    momentum = SGD(lr=0.05, momentum=0.9)
    first, second = (
        fold(EarlyStopping(network(), epochs=2, restart=restart, optimizer=momentum), events) for restart in (True, False)
    )
    assert not torch.equal(weights(first), weights(second))


def test_snapshots_go_on_to_the_same_bits(network, continues):
    events = [event for number in range(4) for event in announced(task(seed=number), number)]
    assert continues(lambda: EarlyStopping(network(), epochs=3, optimizer=SGD(lr=0.05, momentum=0.9)), events)


def test_what_makes_no_sense_is_refused(network):
    assert EarlyStopping(network()).needs_boundaries
    for wrong in ({"epochs": 0}, {"patience": 0}, {"batch": 0}, {"validation": 0.0}, {"validation": 1.0}):
        with pytest.raises(ArgumentError):
            EarlyStopping(network(), **wrong)
    learner = EarlyStopping(network())
    with pytest.raises(InputError):
        learner.boundary(Boundary(0, data=Batch(torch.full((4, 5), torch.nan), torch.tensor([0, 1, 0, 1]))))
