"""Experience replay: its loss worked out by hand, its limits, and what its memory counts."""

import pytest
import torch

from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.state import same
from everlearn.data.memory import Memory, Ring
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.replay import Replay
from everlearn.optim.optimizers import SGD, Adam


def test_the_joint_mean_worked_out_by_hand():
    # One weight row per class from zero, so p = 1/2 everywhere. First batch: x=2, y=0. Second: x=-4, y=1, joined with the first.
    # Gradient of W[0]: step 1 is -1/2 * 2; step 2 is the mean over both rows at the weights then held.
    model = torch.nn.Linear(1, 2, bias=False)
    torch.nn.init.zeros_(model.weight)
    learner = Replay(model, capacity=1, replay_batch=5, optimizer=SGD(lr=0.05))
    learner.update(Batch(torch.tensor([[2.0]]), torch.tensor([0])))
    first = 0.05 * 0.5 * 2.0
    assert model.weight.flatten().tolist() == pytest.approx([first, -first])
    learner.update(Batch(torch.tensor([[-4.0]]), torch.tensor([1])))
    chance = [1 / (1 + torch.exp(torch.tensor(-2.0 * first * x)).item()) for x in (-4.0, 2.0)]  # of class 0
    slope = (chance[0] * -4.0 + (chance[1] - 1.0) * 2.0) / 2
    assert model.weight[0].item() == pytest.approx(first - 0.05 * slope, rel=1e-6)


def test_it_equals_fine_tuning_on_the_joined_batches(network, batches, weights):
    memory = Memory(6, seed=3)
    plain, learner = FineTune(network()), Replay(network(), capacity=6, replay_batch=4, seed=3)
    for batch in batches():
        drawn = memory.draw(4)
        x, y = (batch.x, batch.y) if drawn is None else (torch.cat([batch.x, drawn["x"]]), torch.cat([batch.y, drawn["y"]]))
        plain.update(Batch(x, y))
        memory.insert(x=batch.x, y=batch.y)
        learner.update(batch)
        assert torch.equal(weights(plain), weights(learner))


def test_an_empty_memory_equals_fine_tuning(network, batches, fold):
    learner = Replay(network())
    Budget(replay=0).limit(learner)
    fold(learner, batches())
    assert learner.memory.stored == 0
    assert same(learner.state_dict()["descent"], fold(FineTune(network()), batches()).state_dict()["descent"])


@pytest.mark.parametrize(
    "change",
    [{"capacity": 3}, {"keep": Ring()}, {"replay_batch": 2}, {"optimizer": Adam()}, {"passes": 2}, {"seed": 1}],
    ids=str,
)
def test_every_option_changes_the_weights(network, batches, fold, weights, change):
    usual = {"capacity": 8, "replay_batch": 4}
    first, second = fold(Replay(network(), **usual), batches()), fold(Replay(network(), **usual | change), batches())
    assert not torch.equal(weights(first), weights(second))


def test_the_memory_counts_and_stays_within_its_capacity(network, batches):
    learner = Replay(network(), capacity=7, replay_batch=3, passes=2)
    for batch in batches():
        learner.update(batch)
        assert learner.memory.stored <= 7
    rows = sum(map(len, batches()))
    assert (learner.memory.seen, learner.memory.stored) == (rows, 7)
    assert learner.memory.replayed == 3 * 2 * (len(batches()) - 1)


@pytest.mark.parametrize("optimizer", [None, Adam()], ids=repr)
def test_continues_from_a_snapshot(network, batches, continues, optimizer):
    options = {} if optimizer is None else {"optimizer": optimizer}
    assert continues(lambda: Replay(network(), capacity=6, seed=5, **options), batches())


def test_images_stay_bytes_in_the_memory():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    learner = Replay(torch.nn.Sequential(_Float(), model), capacity=3)
    learner.update(Batch(torch.randint(256, (5, 1, 2, 2), dtype=torch.uint8), torch.tensor([0, 1, 0, 1, 0])))
    assert learner.memory.rows()["x"].dtype == torch.uint8


class _Float(torch.nn.Module):
    def forward(self, x):
        return x / 255


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
    learner = fold(Replay(Pair(), capacity=6, replay_batch=2), events)
    assert (learner.memory.stored, learner.memory.replayed) == (6, 8)
    assert learner.predict(events[0].x).shape == (4, 2)


def test_refusals_leave_everything_as_it_was(network, batches, fold):
    learner = fold(Replay(network(), capacity=4), batches())
    before = learner.state_dict()
    with pytest.raises(InputError, match="replay"):
        learner.update(Batch(torch.full((2, 5), float("inf")), torch.tensor([0, 1])))
    learner.boundary(Boundary(1))
    assert learner.update(Batch(torch.zeros(2, 5))) == {}
    assert same(before, learner.state_dict())
    with pytest.raises(ArgumentError, match=r"capacity must be an int >= 1, got 0\. Use fine_tune"):
        Replay(network(), capacity=0)
    with pytest.raises(ArgumentError, match="replay_batch must be an int >= 1"):
        Replay(network(), replay_batch=0)
