"""iCaRL: its loss and answer by hand, a slow twin of the whole, which exemplars stay and go, and its limits."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn import load
from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.random import isolated
from everlearn.core.state import capture, same
from everlearn.data.memory import Memory
from everlearn.data.split import split
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.icarl import Exemplars, ICaRL, sigmoid_loss
from everlearn.optim.optimizers import SGD, Adam


def identity(features=2, classes=3):
    """A network whose features are the rows themselves."""
    return torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(features, classes))


def test_the_loss_worked_out_by_hand():
    # Scores (0, ln 3, 5), sigmoids (1/2, 3/4, .). Seen 0 and 1, label 1: -log 1/2 - log 3/4 = ln 2 + ln 4/3 = ln 8/3.
    # Then scores (ln 3, ln 3), class 0 distilled from the old score -ln 3, target 1/4: -1/4 log 3/4 - 3/4 log 1/4 = ln 4 -
    # 1/4 ln 3, and -log 3/4 for class 1.
    seen = torch.tensor([1.0, 1.0])
    scores = torch.tensor([[0.0, math.log(3.0), 5.0]])
    loss = sigmoid_loss(scores, torch.tensor([1]), seen, None, torch.zeros(0))
    assert loss.item() == pytest.approx(math.log(8 / 3), rel=1e-6)
    scores = torch.tensor([[math.log(3.0), math.log(3.0), 5.0]], requires_grad=True)
    old = torch.tensor([[-math.log(3.0), 7.0, 7.0]])
    loss = sigmoid_loss(scores, torch.tensor([1]), seen, old, torch.tensor([1.0]))
    assert loss.item() == pytest.approx(math.log(4.0) - math.log(3.0) / 4 + math.log(4 / 3), rel=1e-6)
    loss.backward()  # the slope of a binary cross-entropy is sigmoid - target; classes not seen have none
    assert scores.grad[0].tolist() == pytest.approx([3 / 4 - 1 / 4, 3 / 4 - 1, 0.0], rel=1e-6)


def test_the_answer_worked_out_by_hand():
    # Class 0 holds (1, 0) and (0, 2): unit rows (1, 0), (0, 1), mean direction (1, 1) / sqrt 2. Class 2 holds (-3, 0). For the
    # row (4, 0) the squared distances are 2 - 2 / sqrt 2 and 4; class 1 has no exemplar.
    learner = ICaRL(identity())
    learner.update(Batch(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]), torch.tensor([0, 0, 2])))
    assert learner.predict(torch.tensor([[4.0, 0.0]]))[0].tolist() == pytest.approx([math.sqrt(2) - 2, -1e9, -4.0], abs=1e-5)


def slow_twin(model, events, memory, count, lr):
    """Loops over rows and classes, plain gradient descent; exemplars come from a memory of the same rule."""
    old, seen, known = None, set(), set()
    for event in events:
        if isinstance(event, Boundary):
            old, known = copy.deepcopy(model).requires_grad_(False), set(seen)
            for label, slots in memory.keeper.unordered():
                memory.keeper.order(label, slow_herding(model, memory, slots))
            continue
        seen |= set(event.y.tolist())
        known -= set(event.y.tolist())
        drawn = memory.draw(count)
        x, y = event.x, event.y
        if drawn is not None:
            x, y = torch.cat([x, drawn["x"]]), torch.cat([y, drawn["y"]])
        loss = 0.0
        for row, label in zip(x, y.tolist(), strict=True):
            chance = torch.sigmoid(model(row[None])[0])
            for name in seen:
                target = float(torch.sigmoid(old(row[None])[0, name])) if name in known else float(name == label)
                loss = loss - (target * torch.log(chance[name]) + (1 - target) * torch.log(1 - chance[name])) / len(x)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= lr * gradient
        memory.insert(x=event.x, y=event.y)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def slow_herding(model, memory, slots):
    """Algorithm 4: take, one by one, the row that brings the mean of those taken nearest to the mean of all."""
    with torch.no_grad():
        rows = {slot: torch.nn.functional.normalize(model[:-1](memory.rows()["x"][slot][None]))[0] for slot in slots}
    mean, taken = torch.stack(list(rows.values())).mean(0), []
    while len(taken) < len(slots):
        rest = [slot for slot in slots if slot not in taken]
        taken.append(min(rest, key=lambda slot: (mean - torch.stack([rows[one] for one in [*taken, slot]]).mean(0)).norm()))
    return taken


def test_equals_the_slow_twin(network, batches, fold, weights):
    rows = [Batch(batch.x.double(), batch.y) for batch in batches(24)]
    first = [
        Batch(batch.x, batch.y.clamp(max=1)) for batch in rows[:10]
    ]  # class 2 comes after the first change, with class 1
    second = [Batch(batch.x, batch.y.clamp(min=1)) for batch in rows[10:]]
    events = [*first, Boundary(1), *second[:8], Boundary(2), *second[8:]]
    learner = fold(ICaRL(network().double(), capacity=12, replay_batch=5, optimizer=SGD(lr=0.05), seed=2), events)
    memory = Memory(12, keep=Exemplars(), seed=2)
    twin = slow_twin(network().double(), events, memory, 5, 0.05)
    assert torch.allclose(weights(learner), twin, rtol=1e-9, atol=1e-11)
    assert learner.memory.keeper.members == memory.keeper.members
    assert learner.distilled.tolist() == [1.0, 0.0, 0.0]  # class 1 came again


def test_what_a_new_class_needs_is_taken_from_the_end_of_the_order():
    # Unit features of class 0 lie at angles 0, 10, 80 and 100 degrees. Their mean points to 46.9 degrees at length 0.74: 80 is
    # the nearest single row; with it 10 makes the best pair (45 degrees, 0.82).
    angles = torch.tensor([0.0, 10.0, 80.0, 100.0]) * math.pi / 180
    x = torch.stack([angles.cos(), angles.sin()], dim=1)
    learner = ICaRL(identity(), capacity=4)
    learner.update(Batch(x, torch.zeros(4, dtype=torch.int64)))
    learner.boundary(Boundary(1))
    order = slow_herding(learner.descent.model, learner.memory, [0, 1, 2, 3])
    assert order[:2] == [2, 1]
    assert learner.memory.keeper.members == {0: order}
    learner.update(Batch(-x[:2], torch.ones(2, dtype=torch.int64)))
    assert learner.memory.keeper.members == {0: order[:2], 1: [order[3], order[2]]}
    held = learner.memory.rows()["x"]
    assert torch.equal(held[order[:2]], x[[2, 1]])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 12), st.integers(0, 99), st.booleans())
def test_shares_are_equal_and_slots_are_those_held(labels, capacity, seed, order):
    """Whatever comes: no slot twice, each row beside its label, and no class two rows behind another that it could take from."""
    memory = Memory(capacity, keep=Exemplars(), seed=seed)
    y = torch.tensor(labels)
    for start in range(0, len(labels), 7):
        part = slice(start, start + 7)
        memory.insert(x=y[part, None] * 10.0, y=y[part])
        if order:
            for label, slots in memory.keeper.unordered():
                memory.keeper.order(label, slots[::-1])
    held = memory.rows()
    assert torch.equal(held["x"][:, 0], held["y"] * 10.0)
    members = memory.keeper.members
    assert sorted(slot for slots in members.values() for slot in slots) == list(range(memory.stored))
    for label, slots in members.items():
        assert held["y"][slots].tolist() == [label] * len(slots)
    if memory.stored == capacity < len(labels):
        last = labels[-1]  # a class that has just come lacks at most one row, unless it cannot be served at all
        assert max(map(len, members.values())) - len(members[last]) <= 1 or labels.count(last) == len(members[last])


def test_a_class_keeps_a_uniform_sample_while_it_comes():
    """Each of 40 rows stays with probability 1/4. Control: the newest rows fail the same test."""
    runs, counts = 400, torch.zeros(40)
    for seed in range(runs):
        memory = Memory(10, keep=Exemplars(), seed=seed)
        for start in range(0, 40, 8):
            x = torch.arange(start, start + 8.0)[:, None]
            memory.insert(x=x, y=torch.zeros(8, dtype=torch.int64))
        counts[memory.rows()["x"][:, 0].long()] += 1
    expected = runs / 4

    def surprise(seen):  # chi-squared with 39 degrees of freedom, shrunk by sampling without repetition; 0.999 point 72
        return float(((seen - expected) ** 2 / (expected * 0.75)).sum())

    assert surprise(counts) < 72
    assert surprise(torch.cat([torch.zeros(30), torch.full((10,), float(runs))])) > 72


def test_the_means_are_of_the_present_features(network, batches, fold):
    learner = fold(ICaRL(network(), capacity=10), batches())
    x = batches()[0].x
    before = learner.predict(x)
    assert learner._means is not None
    learner.update(batches()[1])
    fresh = ICaRL(network(), capacity=10)
    fresh.load_state_dict(learner.state_dict())
    assert torch.equal(learner.predict(x), fresh.predict(x))
    assert not torch.equal(before, learner.predict(x))


def test_many_exemplars_are_embedded_in_parts(network, monkeypatch):
    random = torch.Generator().manual_seed(0)
    learner = ICaRL(network())
    learner.update(Batch(torch.randn(50, 5, generator=random), torch.randint(3, (50,), generator=random)))
    x = torch.randn(7, 5, generator=random)
    whole = learner.predict(x)
    monkeypatch.setattr("everlearn.learners.icarl.ROWS", 6)
    learner.restored()
    assert torch.allclose(whole, learner.predict(x), atol=1e-6)


def test_classes_are_distilled_until_they_come_again(network):
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    learner = ICaRL(network())
    learner.update(Batch(x, torch.tensor([0, 1, 0, 1])))
    assert learner.distilled.tolist() == []
    learner.boundary(Boundary(1))
    assert learner.distilled.tolist() == [1.0, 1.0]
    learner.update(Batch(x, torch.tensor([2, 2, 2, 1])))
    assert learner.distilled.tolist() == [1.0, 0.0]
    learner.boundary(Boundary(2))
    assert learner.distilled.tolist() == [1.0, 1.0, 1.0]


def test_without_exemplars_the_network_answers_among_the_classes_seen(network, batches, fold):
    events = [Batch(batch.x, batch.y.clamp(max=1)) for batch in batches()]
    learner = ICaRL(network())
    Budget(replay=0).limit(learner)
    fold(learner, [*events[:6], Boundary(1), *events[6:]])
    scores = learner.predict(events[0].x)
    assert torch.equal(scores[:, :2], learner.descent.predict(events[0].x)[:, :2])
    assert scores[:, 2].tolist() == [-1e9] * len(scores)


@pytest.mark.parametrize(
    "change", [{"capacity": 3}, {"replay_batch": 2}, {"optimizer": Adam()}, {"passes": 2}, {"seed": 1}], ids=str
)
def test_every_option_changes_the_weights(network, batches, fold, weights, change):
    usual = {"capacity": 8, "replay_batch": 4}
    events = batches()
    events = [*events[:6], Boundary(1), *events[6:]]
    first, second = fold(ICaRL(network(), **usual), events), fold(ICaRL(network(), **usual | change), events)
    assert not torch.equal(weights(first), weights(second))


def test_digits_are_remembered():
    """Ten digits in five tasks, one pass, 200 exemplars: far above fine-tuning, which knows the last two of ten."""

    def accuracy(make):
        with isolated(0, "network"):
            layers = [torch.nn.Flatten(), torch.nn.Linear(64, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)]
        learner, stream = make(torch.nn.Sequential(*layers)), split(load("digits"), experiences=5)
        for place in range(len(stream)):
            event = stream[place]
            learner.boundary(event) if isinstance(event, Boundary) else learner.update(event)
        right = [(learner.predict(part.x).argmax(1) == part.y).float() for part in stream.held_out]
        return float(torch.cat(right).mean())

    assert accuracy(FineTune) < 0.25
    assert accuracy(lambda model: ICaRL(model, capacity=200)) > 0.75


def test_continues_from_a_snapshot(network, batches, continues):
    events = batches(18)
    for place in (4, 9, 14):  # the cut falls before, at and behind a change
        assert continues(lambda: ICaRL(network(), capacity=7, seed=5), [*events[:place], Boundary(1), *events[place:]])


def test_refusals(network, batches, fold):
    learner = fold(ICaRL(network(), capacity=4), batches())
    before = capture(learner)
    with pytest.raises(InputError, match="icarl: label 7 is out of range"):
        learner.update(Batch(torch.zeros(2, 5), torch.tensor([0, 7])))
    assert learner.update(Batch(torch.zeros(2, 5))) == {}
    assert same(before, capture(learner))
    for wrong in ({"capacity": 0}, {"replay_batch": 0}, {"passes": 0}):
        with pytest.raises(ArgumentError, match=f"icarl: {next(iter(wrong))} must be"):
            ICaRL(network(), **wrong)
    assert ICaRL.needs_boundaries
