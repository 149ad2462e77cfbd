"""MIR: which rows it retrieves, worked out by hand and beside a slow twin; that scoring changes nothing; its limits."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax

from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.random import isolated
from everlearn.core.state import capture, same
from everlearn.data.memory import Memory, Ring
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.mir import MIR, added
from everlearn.optim.optimizers import SGD, Adam


def test_interference_worked_out_by_hand():
    # Two classes, one weight each from zero. The batch x=2, y=0 has the gradient (-1, +1); a virtual step of lr=0.1 gives w' =
    # (0.1, -0.1). The loss of a row (x, y) goes from log 2 to log(1 + exp(-+0.2 x)): up for y=1 with x > 0 or y=0 with x < 0.
    model = torch.nn.Linear(1, 2, bias=False)
    torch.nn.init.zeros_(model.weight)
    learner = MIR(model, optimizer=SGD(lr=0.1))
    _, gradients = learner.descent.gradients(lambda: cross_entropy(model(torch.tensor([[2.0]])), torch.tensor([0])))
    assert gradients[0].flatten().tolist() == [-1.0, 1.0]
    x, y = torch.tensor([[1.0], [1.0], [3.0], [-3.0]]), torch.tensor([0, 1, 1, 1])
    expected = torch.log(1 + torch.exp(torch.tensor([-0.2, 0.2, 0.6, -0.6]))) - torch.log(torch.tensor(2.0))
    assert torch.allclose(learner.interference(x, y, gradients), expected, atol=1e-6)
    chosen, labels = MIR(model, replay_batch=2, optimizer=SGD(lr=0.1))._most_interfered({"x": x, "y": y}, gradients)
    assert chosen.flatten().tolist() == [3.0, 1.0] and labels.tolist() == [1, 1]


def slow_twin(model, events, memory, candidates, count, lr):
    """A deep copy takes the virtual step, rows are scored one by one, and the two gradients are summed."""
    for batch in events:
        loss = -log_softmax(model(batch.x), 1)[range(len(batch)), batch.y].mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        drawn = memory.draw(candidates)
        if drawn is not None:
            virtual = copy.deepcopy(model)
            with torch.no_grad():
                for parameter, gradient in zip(virtual.parameters(), gradients, strict=True):
                    parameter -= lr * gradient
                harms = []
                for position, label in enumerate(drawn["y"].tolist()):
                    row = drawn["x"][position : position + 1]
                    harms.append((log_softmax(model(row), 1) - log_softmax(virtual(row), 1))[0, label].item())
            order = sorted(range(len(harms)), key=lambda position: -harms[position])[:count]
            loss = -log_softmax(model(drawn["x"][order]), 1)[range(len(order)), drawn["y"][order]].mean()
            further = torch.autograd.grad(loss, list(model.parameters()))
            gradients = [first + second for first, second in zip(gradients, further, strict=True)]
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= lr * gradient
        memory.insert(x=batch.x, y=batch.y)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_equals_the_slow_twin(network, batches, fold, weights):
    events = [Batch(batch.x.double(), batch.y) for batch in batches(30)]
    options = {"capacity": 30, "candidates": 12, "replay_batch": 4, "optimizer": SGD(lr=0.05), "seed": 2}
    learner = fold(MIR(network().double(), **options), events)
    twin = slow_twin(network().double(), events, Memory(30, seed=2), 12, 4, 0.05)
    assert torch.allclose(weights(learner), twin, rtol=1e-10, atol=1e-11)


def normalising(dropout=0.5):
    with isolated(0, "test network"):
        return torch.nn.Sequential(
            torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.Dropout(dropout), torch.nn.Linear(7, 3)
        )


def test_scoring_moves_no_statistics_and_draws_nothing(batches, fold):
    learner = fold(MIR(normalising(), capacity=20), batches(sizes=(4, 6)))
    drawn = learner.memory.rows()
    _, gradients = learner.descent.gradients(lambda: cross_entropy(learner.descent.model(drawn["x"]), drawn["y"]))
    before, shared = capture(learner), torch.get_rng_state()
    first = learner.interference(drawn["x"], drawn["y"], gradients)
    assert torch.equal(first, learner.interference(drawn["x"], drawn["y"], gradients))
    assert same(before, capture(learner))
    assert torch.equal(shared, torch.get_rng_state())


def test_statistics_are_those_of_batch_and_replayed_rows(batches):
    """One pass over the batch, one over the rows replayed: two updates of the running statistics per step, not four."""
    learner = MIR(normalising(), capacity=40, candidates=10, replay_batch=2)
    for number, batch in enumerate(batches(sizes=(4, 6))):
        learner.update(batch)
        assert learner.descent.model[1].num_batches_tracked.item() == 1 + 2 * number


def test_an_empty_memory_equals_fine_tuning(network, batches, fold):
    learner = MIR(network())
    Budget(replay=0).limit(learner)
    fold(learner, batches())
    assert same(learner.state_dict()["descent"], fold(FineTune(network()), batches()).state_dict()["descent"])


def test_with_no_more_candidates_than_replayed_rows_it_is_replay_of_the_draw(network, batches, fold, weights):
    learner = fold(MIR(network(), capacity=8, candidates=4, replay_batch=4), batches())
    memory, plain = Memory(8), FineTune(network())

    def gradient(x, y):
        return plain.descent.gradients(lambda: cross_entropy(plain.descent.model(x), y))[1]

    for batch in batches():
        drawn = memory.draw(4)
        gradients = gradient(batch.x, batch.y)
        plain.descent.follow(gradients if drawn is None else added(gradients, gradient(drawn["x"], drawn["y"])))
        memory.insert(x=batch.x, y=batch.y)
    assert torch.equal(weights(plain), weights(learner))
    assert not torch.equal(
        weights(learner), weights(fold(MIR(network(), capacity=8, candidates=8, replay_batch=4), batches()))
    )


def test_gradients_are_added_with_none_for_zeros():
    one, two = torch.tensor([1.0]), torch.tensor([2.0])
    sums = added((one, None, one, None), (two, two, None, None))
    assert [None if value is None else value.item() for value in sums] == [3.0, 2.0, 1.0, None]


def test_dict_inputs(fold):
    class Pair(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(5, 2)

        def forward(self, x):
            return self.layer(torch.cat([x["values"], x["place"]], dim=1))

    random = torch.Generator().manual_seed(0)
    events = [
        Batch(
            {"values": torch.randn(4, 3, generator=random), "place": torch.randn(4, 2, generator=random)},
            torch.randint(2, (4,), generator=random),
        )
        for _ in range(5)
    ]
    learner = fold(MIR(Pair(), capacity=12, replay_batch=2, candidates=6), events)
    assert learner.memory.replayed == 4 + 3 * 6


@pytest.mark.parametrize(
    "change",
    [
        {"capacity": 6},
        {"keep": Ring()},
        {"replay_batch": 2},
        {"candidates": 5},
        {"optimizer": Adam()},
        {"passes": 2},
        {"seed": 1},
    ],
    ids=str,
)
def test_every_option_changes_the_weights(network, batches, fold, weights, change):
    usual = {"capacity": 12, "replay_batch": 4, "candidates": 8}
    first, second = fold(MIR(network(), **usual), batches()), fold(MIR(network(), **usual | change), batches())
    assert not torch.equal(weights(first), weights(second))


def test_continues_from_a_snapshot(network, batches, continues):
    assert continues(lambda: MIR(network(), capacity=12, candidates=8, replay_batch=3, seed=5), batches())


def test_refusals(network, batches, fold):
    learner = fold(MIR(network(), capacity=4), batches())
    before = learner.state_dict()
    with pytest.raises(InputError, match="mir"):
        learner.update(Batch(torch.zeros(2, 5), torch.tensor([0, 7])))
    learner.boundary(Boundary(1))
    assert learner.update(Batch(torch.zeros(2, 5))) == {}
    assert same(before, learner.state_dict())
    for wrong in ({"capacity": 0}, {"replay_batch": 0}, {"candidates": 0}, {"passes": 0}):
        with pytest.raises(ArgumentError, match=f"mir: {next(iter(wrong))} must be"):
            MIR(network(), **wrong)
    with pytest.raises(ArgumentError, match=r"at least replay_batch=20, got 5\. Use candidates=100"):
        MIR(network(), replay_batch=20, candidates=5)
