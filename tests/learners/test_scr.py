"""SCR: its loss and its answer beside slow twins and hand-worked numbers, its cached class means, its limits."""

import math

import pytest
import torch

from everlearn import load
from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.random import generator, isolated
from everlearn.core.state import capture, same
from everlearn.data.memory import Memory, Ring
from everlearn.data.split import split
from everlearn.data.views import Views
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.scr import SCR, Projected, class_scores
from everlearn.optim.optimizers import SGD, Adam

pytestmark = pytest.mark.filterwarnings("ignore:scr. rows are no images")


def identity(features=2, classes=3):
    """A network whose features are the rows themselves."""
    return torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(features, classes))


def test_the_answer_worked_out_by_hand():
    # Class 0 holds (1, 0) and (0, 2): unit rows (1, 0), (0, 1), mean direction (1, 1) / sqrt 2. Class 2 holds (-3, 0). For the
    # row (4, 0) the squared distances are 2 - 2 / sqrt 2 and 4; class 1 is not in the memory.
    learner = SCR(identity())
    learner.update(Batch(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]), torch.tensor([0, 0, 2])))
    assert learner.predict(torch.tensor([[4.0, 0.0]]))[0].tolist() == pytest.approx([math.sqrt(2) - 2, -1e9, -4.0], abs=1e-5)


def test_scores_are_squared_distances():
    random = torch.Generator().manual_seed(0)
    rows, means = (torch.nn.functional.normalize(torch.randn(5, 4, generator=random)) for _ in range(2))
    scores = class_scores(rows, means, torch.ones(5, dtype=torch.bool))
    assert torch.allclose(scores, -torch.cdist(rows, means).square(), atol=1e-5)


def slow_loss(vectors, labels, temperature):
    """The contrastive loss with loops over anchors and positives."""
    total = 0.0
    for anchor in range(len(labels)):
        others = [row for row in range(len(labels)) if row != anchor]
        bottom = sum(torch.exp(vectors[anchor] @ vectors[row] / temperature) for row in others)
        positives = [row for row in others if labels[row] == labels[anchor]]
        for row in positives:
            total = total - torch.log(torch.exp(vectors[anchor] @ vectors[row] / temperature) / bottom) / len(positives)
    return total / len(labels)


def slow_twin(model, events, memory, views, count, temperature, lr):
    """Two passes, loops over rows, plain gradient descent on every weight that the loss reaches."""
    random, unit = generator(2, "views"), torch.nn.functional.normalize
    network, head = model.network, model.head
    weights = [*network[:-1].parameters(), *head.parameters()]
    for batch in events:
        drawn = memory.draw(count)
        if drawn is not None:
            x, y = torch.cat([drawn["x"], batch.x]), torch.cat([drawn["y"], batch.y])
            vectors = torch.cat([unit(head(network[:-1](x))), unit(head(network[:-1](views(x, random).double())))])
            gradients = torch.autograd.grad(slow_loss(vectors, torch.cat([y, y]), temperature), weights)
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight -= lr * gradient
        memory.insert(x=batch.x, y=batch.y)
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def seeing(seed=0):
    with isolated(seed, "test network"):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))


def pictures(count=6, seed=1, size=4):
    random = torch.Generator().manual_seed(seed)
    return [
        Batch(torch.rand(size, 1, 8, 8, generator=random), torch.randint(3, (size,), generator=random)) for _ in range(count)
    ]


class Double(torch.nn.Module):
    def forward(self, x):
        return x.double()


def precise():
    return torch.nn.Sequential(Double(), *seeing().double())


def test_equals_the_slow_twin(fold, weights):
    events = [Batch(batch.x.double(), batch.y) for batch in pictures()]
    learner = SCR(precise(), capacity=12, replay_batch=5, optimizer=SGD(lr=0.05), seed=2)
    with isolated(2, "scr", "projection"):
        model = Projected(precise(), 128)
    twin = slow_twin(model, events, Memory(12, seed=2), Views(), 5, 0.07, 0.05)
    # unit vectors are taken with 1e-6 added to the length here and none there: lengths are about 1, so weights agree to that
    assert torch.allclose(weights(fold(learner, events)), twin, atol=1e-5)
    assert not torch.allclose(weights(SCR(precise(), seed=2)), twin, atol=1e-2)


def test_two_views_of_one_row_are_its_only_positives_where_classes_are_single(fold):
    """One row drawn and one that comes, of two classes: the loss is that of telling the pairs apart."""
    learner = SCR(identity(), capacity=1, projection=2, optimizer=SGD(lr=0.0))
    learner.update(Batch(torch.tensor([[1.0, 2.0]]), torch.tensor([0])))
    loss = learner.update(Batch(torch.tensor([[-2.0, 1.0]]), torch.tensor([1])))["loss"].item()
    with torch.no_grad():
        first, second = learner.descent.model(torch.tensor([[1.0, 2.0], [-2.0, 1.0]]))
    # positive: a copy of the same vector, at 1; negatives: twice the other one
    expected = math.log(math.exp(1 / 0.07) + 2 * math.exp((first @ second).item() / 0.07)) - 1 / 0.07
    assert loss == pytest.approx(expected, abs=1e-4)


def test_nothing_is_learned_while_the_memory_is_empty(fold):
    learner = SCR(seeing())
    begun = capture(learner.descent)
    Budget(replay=0).limit(learner)
    fold(learner, pictures())
    assert same(begun, capture(learner.descent))
    assert learner.predict(pictures()[0].x).argmax(1).tolist() == [0] * 4
    held = SCR(seeing())
    held.update(pictures()[0])
    assert same(begun, capture(held.descent)) and held.memory.stored == 4
    held.update(pictures()[1])
    assert not same(begun, capture(held.descent))


def test_the_last_linear_layer_plays_no_part(fold):
    learner = SCR(seeing(), optimizer=SGD(weight_decay=0.1))
    before = capture(learner.descent.model)
    after = capture(fold(learner, pictures()).descent.model)
    assert {key for key in before if torch.equal(before[key], after[key])} == {"network.3.weight", "network.3.bias"}
    with torch.no_grad():
        scores = learner.predict(pictures()[0].x)
        learner.descent.model.layer.weight.zero_()
        learner._means = None
        assert torch.equal(scores, learner.predict(pictures()[0].x))


def test_class_means_are_taken_once_and_anew_after_an_update(fold):
    learner, looked = fold(SCR(seeing()), pictures(3)), []
    plain = learner._remember
    learner._remember = lambda: looked.append(1) or plain()
    x = pictures()[0].x
    first = learner.predict(x)
    assert torch.equal(first, learner.predict(x)) and len(looked) == 1
    learner.update(pictures(4)[3])
    assert not torch.equal(first, learner.predict(x)) and len(looked) == 2
    learner.update(Batch(x))  # rows without answers change nothing
    learner.predict(x)
    assert len(looked) == 2


def test_class_means_are_no_state_and_do_not_outlive_it(fold):
    one, other = fold(SCR(seeing()), pictures(3)), fold(SCR(seeing()), pictures(3, seed=5))
    x = pictures()[0].x
    before, stale = one.state_dict(), other.predict(x)
    expected = one.predict(x)
    assert same(before, one.state_dict())
    other.load_state_dict(before)
    assert torch.equal(expected, other.predict(x))
    assert not torch.equal(stale, expected)


def test_memories_larger_than_a_chunk_have_the_same_means(monkeypatch, fold):
    learner = fold(SCR(seeing()), pictures(5))
    x = pictures()[0].x
    whole = learner.predict(x)
    monkeypatch.setattr("everlearn.learners.scr.ROWS", 3)
    learner._means = None
    assert torch.allclose(whole, learner.predict(x), atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"capacity": 5},
        {"keep": Ring()},
        {"replay_batch": 2},
        {"temperature": 0.5},
        {"projection": 16},
        {"views": None},
        {"views": Views(scale=(0.9, 1.0))},
        {"optimizer": Adam()},
        {"passes": 2},
        {"seed": 1},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:scr. views=None")
def test_every_option_changes_the_features(fold, change):
    usual = {"capacity": 8, "replay_batch": 4}
    first, second = (fold(SCR(seeing(), **options), pictures()) for options in (usual, usual | change))
    assert not torch.equal(first.descent.model.network[1].weight, second.descent.model.network[1].weight)


def test_continues_from_a_snapshot(continues):
    assert continues(lambda: SCR(seeing(), capacity=8, replay_batch=4, seed=5), pictures())


def test_rows_that_are_no_images_are_their_own_second_view(network, batches, fold):
    learner = SCR(network(), capacity=8)
    with pytest.warns(UserWarning, match="scr: rows are no images"):
        fold(learner, batches(3))


def test_refusals(fold):
    learner = fold(SCR(seeing(), capacity=4), pictures())
    before = learner.state_dict()
    with pytest.raises(InputError, match="scr"):
        learner.update(Batch(torch.zeros(2, 1, 8, 8), torch.tensor([0, 7])))
    learner.boundary(Boundary(1))
    assert learner.update(Batch(torch.zeros(2, 1, 8, 8))) == {}
    assert same(before, learner.state_dict())
    for wrong in ({"capacity": 0}, {"replay_batch": 0}, {"passes": 0}, {"projection": 0}, {"temperature": 0.0}):
        with pytest.raises(ArgumentError, match=f"scr: {next(iter(wrong))} must be"):
            SCR(seeing(), **wrong)
    with pytest.raises(ArgumentError, match="views must be views"):
        SCR(seeing(), views=3)
    with pytest.raises(ArgumentError, match="scr: the network needs a last linear layer"):
        SCR(torch.nn.ReLU())


def test_it_remembers_digits_that_fine_tuning_forgets():
    stream = split(load("digits"), experiences=5, batch=10)
    with isolated(0, "test network"):
        make = [
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
            for _ in range(2)
        ]
    right = []
    for learner in (SCR(make[0], capacity=200), FineTune(make[1])):
        for event in stream:
            learner.boundary(event) if isinstance(event, Boundary) else learner.update(event)
        right.append(
            sum((learner.predict(held.x).argmax(1) == held.y).float().mean().item() for held in stream.held_out) / 5
        )
    assert right[0] > 0.7 > 0.4 > right[1]
