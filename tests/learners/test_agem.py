"""A-GEM: its projection worked out by hand, its guarantee, its limits, and a slow twin."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, log_softmax

from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.state import same
from everlearn.data.memory import Memory, Ring
from everlearn.learners.agem import AGEM, projected
from everlearn.learners.fine_tune import FineTune
from everlearn.optim.optimizers import SGD, Adam


def test_the_projection_worked_out_by_hand():
    # g = (1, -2, 3), r = (0, 4, 1): <g, r> = -5, <r, r> = 17, so g + 5/17 r = (1, -2 + 20/17, 3 + 5/17), at right angles to r.
    turned, product = projected(
        [torch.tensor([1.0, -2.0]), torch.tensor([3.0])], [torch.tensor([0.0, 4.0]), torch.tensor([1.0])]
    )
    assert product.item() == -5.0
    assert turned[0].tolist() == pytest.approx([1.0, -2.0 + 20 / 17])
    assert turned[1].tolist() == pytest.approx([3.0 + 5 / 17])


def test_gradients_that_agree_are_left_as_they_are():
    for reference in ([2.0, 1.0], [2.0, 4.0], [0.0, 0.0]):  # products 3, 0 and 0
        turned, product = projected([torch.tensor([2.0, -1.0])], [torch.tensor(reference)])
        assert product.item() == 2.0 * reference[0] - reference[1]
        assert turned[0].tolist() == [2.0, -1.0]


def test_none_stands_for_zeros():
    one, two = torch.tensor([1.0]), torch.tensor([2.0])
    turned, product = projected([one, None, None, one], [-two, two, None, None])
    # <g, r> = -2, <r, r> = 8: g + r / 4 = (1/2, 1/2, nothing, 1)
    assert product.item() == -2.0
    assert [None if value is None else value.item() for value in turned] == [0.5, 0.5, None, 1.0]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_no_step_goes_against_the_reference(seed, size):
    random = torch.Generator().manual_seed(seed)
    own, other = (torch.randn(size, 3, generator=random, dtype=torch.float64) for _ in range(2))
    turned, product = projected([own], [other])
    left = (turned[0] * other).sum().item()
    assert left == pytest.approx(max(product.item(), 0.0), abs=1e-12)
    # among all such directions it is the nearest one: what was added is along the reference
    assert torch.linalg.matrix_rank(torch.stack([(turned[0] - own).flatten(), other.flatten()]), tol=1e-9) <= 1


def test_two_steps_worked_out_by_hand():
    # Two classes, one weight each from zero, one input x=1: the gradient of the loss is +-(p_y - 1). Step 1 has y=0, moves weights
    # by +-lr/2 and stores the row. Step 2 has y=1: its gradient is against that of the stored row, in the same two weights, so
    # nothing of it is left.
    model = torch.nn.Linear(1, 2, bias=False)
    torch.nn.init.zeros_(model.weight)
    learner = AGEM(model, capacity=1, replay_batch=1, optimizer=SGD(lr=0.05))
    assert "conflict" not in learner.update(Batch(torch.tensor([[1.0]]), torch.tensor([0])))
    assert model.weight.flatten().tolist() == pytest.approx([0.025, -0.025])
    metrics = learner.update(Batch(torch.tensor([[1.0]]), torch.tensor([1])))
    assert metrics["conflict"].item() == 1.0
    assert model.weight.flatten().tolist() == pytest.approx([0.025, -0.025], abs=1e-8)
    fresh = torch.nn.Linear(1, 2, bias=False)
    torch.nn.init.zeros_(fresh.weight)
    plain = FineTune(fresh, optimizer=SGD(lr=0.05))
    plain.update(Batch(torch.tensor([[1.0]]), torch.tensor([0])))
    plain.update(Batch(torch.tensor([[1.0]]), torch.tensor([1])))
    assert fresh.weight[0].item() < 0.0


def slow_twin(model, events, memory, count, lr):
    """Equation 11 on one long vector."""
    turns = 0

    def gradient(x, y):
        loss = -log_softmax(model(x), 1)[range(len(y)), y].mean()
        return torch.cat([value.flatten() for value in torch.autograd.grad(loss, list(model.parameters()))])

    for batch in events:
        drawn = memory.draw(count)
        g = gradient(batch.x, batch.y)
        if drawn is not None:
            r = gradient(drawn["x"], drawn["y"])
            if g @ r < 0:
                turns += 1
                g = g - (g @ r) / (r @ r) * r
        position = 0
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= lr * g[position : position + parameter.numel()].view_as(parameter)
                position += parameter.numel()
        memory.insert(x=batch.x, y=batch.y)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), turns


def test_equals_the_slow_twin(network, batches, weights):
    events = [Batch(batch.x.double(), batch.y) for batch in batches(40)]
    learner = AGEM(network().double(), capacity=20, replay_batch=6, optimizer=SGD(lr=0.05), seed=2)
    turns = sum(learner.update(batch).get("conflict", torch.zeros(())).item() for batch in events)
    twin, expected = slow_twin(network().double(), events, Memory(20, seed=2), 6, 0.05)
    assert torch.allclose(weights(learner), twin, rtol=1e-11, atol=1e-12)
    assert turns == expected
    assert 0 < turns < len(events)


def test_a_small_step_does_not_raise_the_loss_on_the_draw(network, batches, fold):
    learner = fold(AGEM(network(), capacity=4, replay_batch=4, optimizer=SGD(lr=1e-3)), batches(6))
    held, turned = learner.memory, 0
    for batch in batches(30, seed=7):
        old = {key: value.clone() for key, value in held.rows().items()}  # the draw is the whole memory, in some order
        before = cross_entropy(learner.predict(old["x"]), old["y"])
        turned += learner.update(batch)["conflict"].item()
        assert cross_entropy(learner.predict(old["x"]), old["y"]) <= before + 1e-5  # lr^2 times a curvature of order 1
    assert turned > 0


def test_an_empty_memory_equals_fine_tuning(network, batches, fold):
    learner = AGEM(network())
    Budget(replay=0).limit(learner)
    fold(learner, batches())
    assert same(learner.state_dict()["descent"], fold(FineTune(network()), batches()).state_dict()["descent"])


def test_the_turned_gradient_is_what_adam_is_given(network, batches, fold, weights):
    learner = fold(AGEM(network(), capacity=8, replay_batch=4, optimizer=Adam()), batches())
    assert not torch.equal(weights(learner), weights(fold(FineTune(network(), optimizer=Adam()), batches())))


@pytest.mark.parametrize(
    "change",
    [{"capacity": 3}, {"keep": Ring()}, {"replay_batch": 2}, {"optimizer": Adam()}, {"passes": 2}, {"seed": 1}],
    ids=str,
)
def test_every_option_changes_the_weights(network, batches, fold, weights, change):
    usual = {"capacity": 8, "replay_batch": 4}
    first, second = fold(AGEM(network(), **usual), batches()), fold(AGEM(network(), **usual | change), batches())
    assert not torch.equal(weights(first), weights(second))


def test_the_memory_counts(network, batches, fold):
    learner = fold(AGEM(network(), capacity=7, replay_batch=3, passes=2), batches())
    assert (learner.memory.stored, learner.memory.seen) == (7, sum(map(len, batches())))
    assert learner.memory.replayed == 3 * 2 * (len(batches()) - 1)


def test_layers_that_play_no_part_are_left_alone(batches, fold):
    class Spare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.spare = torch.nn.Linear(5, 5)
            self.used = torch.nn.Linear(5, 3)

        def forward(self, x):
            return self.used(x)

    learner = AGEM(Spare(), capacity=8, optimizer=SGD(weight_decay=0.1))
    before = learner.state_dict()["descent"]["model"]
    after = fold(learner, batches()).state_dict()["descent"]["model"]
    assert torch.equal(before["spare.weight"], after["spare.weight"])
    assert not torch.equal(before["used.weight"], after["used.weight"])


def test_continues_from_a_snapshot(network, batches, continues):
    assert continues(lambda: AGEM(network(), capacity=6, seed=5), batches())


def test_refusals(network, batches, fold):
    learner = fold(AGEM(network(), capacity=4), batches())
    before = learner.state_dict()
    with pytest.raises(InputError, match="agem"):
        learner.update(Batch(torch.zeros(2, 5), torch.tensor([0, 7])))
    learner.boundary(Boundary(1))
    assert learner.update(Batch(torch.zeros(2, 5))) == {}
    assert same(before, learner.state_dict())
    for wrong in ({"capacity": 0}, {"replay_batch": 0}, {"passes": 0}):
        with pytest.raises(ArgumentError, match=f"agem: {next(iter(wrong))} must be"):
            AGEM(network(), **wrong)
