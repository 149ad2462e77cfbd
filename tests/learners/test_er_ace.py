"""ER-ACE: its two masks worked out by hand, its limits, and a slow twin."""

import pytest
import torch

from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.random import isolated
from everlearn.core.state import same
from everlearn.data.memory import Memory, Ring
from everlearn.learners.er_ace import ERACE
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.replay import Replay
from everlearn.nn.criteria import Masked
from everlearn.optim.optimizers import SGD, Adam


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_two_steps_worked_out_by_hand():
    # Three classes, one weight each from zero, x=1. Step 1 (y = 0, 1): among two classes p = 1/2, the mean gradient is 0.
    # Step 2 (y = 2 alone): the batch's loss is 0, for no other class is in it. The draw is both rows, y = 0, 1, among the three
    # classes seen by now: p = 1/3 each, so the gradient is ((1/3 - 1 + 1/3) / 2, the same, 1/3).
    model = torch.nn.Linear(1, 3, bias=False)
    torch.nn.init.zeros_(model.weight)
    learner = ERACE(model, capacity=2, replay_batch=2, optimizer=SGD(lr=0.3))
    learner.update(Batch(torch.ones(2, 1), torch.tensor([0, 1])))
    assert model.weight.flatten().tolist() == [0.0, 0.0, 0.0]
    assert learner.seen.tolist() == [1.0, 1.0, 0.0]
    loss = learner.update(Batch(torch.ones(1, 1), torch.tensor([2])))["loss"]
    assert loss.item() == pytest.approx(torch.log(torch.tensor(3.0)).item())
    assert model.weight.flatten().tolist() == pytest.approx([0.3 / 6, 0.3 / 6, -0.1])


def test_new_rows_do_not_push_old_classes_down():
    """The reason for the method: with replay of nothing but class 2, the weights of old classes stay where they are."""
    for learner, moved in ((ERACE(torch.nn.Linear(1, 3), seed=1), False), (Replay(torch.nn.Linear(1, 3), seed=1), True)):
        weight = learner.descent.model.weight
        before = weight.detach().clone()
        learner.update(Batch(torch.ones(4, 1), torch.full((4,), 2)))
        assert (not torch.equal(before[:2], weight[:2])) is moved


def slow_twin(model, events, memory, count, lr):
    """Both masks by picking columns, one forward pass for each part."""
    seen = set()
    for batch in events:
        drawn = memory.draw(count)
        seen |= set(batch.y.tolist())
        loss = among(model(batch.x), batch.y, set(batch.y.tolist()))
        if drawn is not None:
            loss = loss + among(model(drawn["x"]), drawn["y"], seen)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= lr * gradient
        memory.insert(x=batch.x, y=batch.y)
    return flat(model)


def among(logits, labels, classes):
    total = 0.0
    for row, label in zip(logits, labels.tolist(), strict=True):
        total = total + torch.log(sum(torch.exp(row[name]) for name in classes)) - row[label]
    return total / len(labels)


def test_equals_the_slow_twin(network, batches, fold, weights):
    events = [Batch(batch.x.double(), batch.y) for batch in batches(30, classes=6)]
    learner = ERACE(network(classes=8).double(), capacity=20, replay_batch=6, optimizer=SGD(lr=0.05), seed=2)
    twin = slow_twin(network(classes=8).double(), events, Memory(20, seed=2), 6, 0.05)
    assert torch.allclose(weights(fold(learner, events)), twin, rtol=1e-10, atol=1e-11)
    assert learner.seen.tolist() == [1.0] * 6 + [0.0] * 2


def test_a_class_that_left_the_memory_still_competes(network):
    learner = ERACE(network(), capacity=1, keep=Ring(), replay_batch=1)
    learner.update(Batch(torch.ones(1, 5), torch.tensor([2])))
    learner.update(Batch(torch.ones(1, 5), torch.tensor([0])))
    assert learner.memory.per_class == {0: 1}
    before = learner.descent.model[2].bias.detach().clone()
    learner.update(Batch(torch.ones(1, 5), torch.tensor([0])))
    assert learner.descent.model[2].bias[2] < before[2]
    assert learner.descent.model[2].bias[1] == before[1]  # a class that never came does not


def test_an_empty_memory_equals_masked_fine_tuning_to_the_bit(network, batches, fold):
    learner = ERACE(network())
    Budget(replay=0).limit(learner)
    fold(learner, batches())
    masked = fold(FineTune(network(), loss=Masked("batch")), batches()).state_dict()["descent"]
    assert same(learner.state_dict()["descent"], masked)
    assert not same(masked, fold(FineTune(network()), batches()).state_dict()["descent"])


def normalising(seed=0):
    with isolated(seed, "test network"):
        return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 3))


def test_batch_and_draw_have_batch_norm_statistics_of_their_own_unless_merged(batches, fold, weights):
    events = batches(sizes=(4, 6))
    apart, merged = (fold(ERACE(normalising(), capacity=8, merged=flag), events) for flag in (False, True))
    assert not torch.equal(weights(apart), weights(merged))
    memory, model = Memory(8), normalising()
    assert torch.allclose(weights(apart), slow_twin(model, events, memory, 10, 0.1), rtol=1e-3, atol=1e-5)


def test_without_batch_norm_merging_changes_nothing(network, batches, fold):
    first, second = (fold(ERACE(network(), capacity=8, merged=flag), batches()).state_dict() for flag in (False, True))
    assert same(first, second)


@pytest.mark.parametrize(
    "change",
    [{"capacity": 3}, {"keep": Ring()}, {"replay_batch": 2}, {"optimizer": Adam()}, {"passes": 2}, {"seed": 1}],
    ids=str,
)
def test_every_option_changes_the_weights(network, batches, fold, weights, change):
    usual = {"capacity": 8, "replay_batch": 4}
    first, second = fold(ERACE(network(), **usual), batches()), fold(ERACE(network(), **usual | change), batches())
    assert not torch.equal(weights(first), weights(second))


def test_continues_from_a_snapshot(network, batches, continues, fold):
    assert continues(lambda: ERACE(network(), capacity=6, seed=5), batches())
    assert fold(ERACE(network(), capacity=6, seed=5), batches()).state_dict()["seen"].tolist() == [1.0, 1.0, 1.0]


def test_refusals(network, batches, fold):
    learner = fold(ERACE(network(), capacity=4), batches())
    before = learner.state_dict()
    with pytest.raises(InputError, match="er_ace"):
        learner.update(Batch(torch.zeros(2, 5), torch.tensor([0, 7])))
    learner.boundary(Boundary(1))
    assert learner.update(Batch(torch.zeros(2, 5))) == {}
    assert same(before, learner.state_dict())
    for wrong in ({"capacity": 0}, {"replay_batch": 0}, {"passes": 0}):
        with pytest.raises(ArgumentError, match=f"er_ace: {next(iter(wrong))} must be"):
            ERACE(network(), **wrong)
