"""DER++: its loss against a slow twin, its limits (fine-tuning, DER), and what it stores."""

import pytest
import torch
from torch.nn.functional import log_softmax

from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch
from everlearn.core.state import same
from everlearn.data.memory import Memory, Ring
from everlearn.learners.derpp import DERpp
from everlearn.learners.fine_tune import FineTune
from everlearn.optim.optimizers import SGD, Adam


def test_the_score_part_worked_out_by_hand():
    # Two classes, one weight each from zero, x=1. Step 1 (y=0): p = 1/2, scores stored are (0, 0), weights become +-s, s = lr/2.
    # Step 2, alpha only: mean over 2 classes of (w x - 0)^2 = s^2, its slope in w_0 is 2 s / 2 = s; the batch part is p_0 - 1.
    model = torch.nn.Linear(1, 2, bias=False)
    torch.nn.init.zeros_(model.weight)
    learner = DERpp(model, capacity=1, alpha=0.7, beta=0.0, replay_batch=1, optimizer=SGD(lr=0.05))
    batch = Batch(torch.tensor([[1.0]]), torch.tensor([0]))
    learner.update(batch)
    step = 0.025
    assert model.weight.flatten().tolist() == pytest.approx([step, -step])
    learner.update(batch)
    chance = 1 / (1 + torch.exp(torch.tensor(-2 * step)).item())
    assert model.weight[0].item() == pytest.approx(step - 0.05 * (chance - 1 + 0.7 * step), rel=1e-6)


def slow_twin(model, events, memory, alpha, beta, count, lr):
    """Equation 6, one forward pass for each part and plain gradient descent."""
    for batch in events:
        first, second = memory.draw(count), memory.draw(count)
        logits = model(batch.x)
        loss = -log_softmax(logits, 1)[range(len(batch)), batch.y].mean()
        if first is not None:
            loss = loss + alpha * ((model(first["x"]) - first["logits"]) ** 2).mean()
            scores = log_softmax(model(second["x"]), 1)
            loss = loss - beta * scores[range(len(second["y"])), second["y"]].mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= lr * gradient
        memory.insert(x=batch.x, y=batch.y, logits=logits.detach())
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_equals_the_slow_twin(network, batches, fold, weights):
    events = [Batch(batch.x.double(), batch.y) for batch in batches(40)]
    options = {"capacity": 20, "alpha": 0.6, "beta": 0.8, "replay_batch": 6, "optimizer": SGD(lr=0.05), "seed": 2}
    learner = fold(DERpp(network().double(), **options), events)
    twin = slow_twin(network().double(), events, Memory(20, seed=2), 0.6, 0.8, 6, 0.05)
    assert torch.allclose(weights(learner), twin, rtol=1e-11, atol=1e-12)


def test_without_both_weights_it_is_fine_tuning_to_the_bit(network, batches, fold):
    learner = fold(DERpp(network(), alpha=0.0, beta=0.0), batches())
    assert same(learner.state_dict()["descent"], fold(FineTune(network()), batches()).state_dict()["descent"])
    assert learner.memory.replayed == 0


def test_an_empty_memory_equals_fine_tuning(network, batches, fold):
    learner = DERpp(network())
    Budget(replay=0).limit(learner)
    fold(learner, batches())
    assert same(learner.state_dict()["descent"], fold(FineTune(network()), batches()).state_dict()["descent"])


@pytest.mark.parametrize(
    "change",
    [
        {"capacity": 3},
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"beta": 0.0},
        {"beta": 1.0},
        {"replay_batch": 2},
        {"keep": Ring()},
        {"optimizer": Adam()},
        {"passes": 2},
        {"seed": 1},
    ],
    ids=str,
)
def test_every_option_changes_the_weights(network, batches, fold, weights, change):
    usual = {"capacity": 8, "replay_batch": 4}
    first, second = fold(DERpp(network(), **usual), batches()), fold(DERpp(network(), **usual | change), batches())
    assert not torch.equal(weights(first), weights(second))


def test_scores_are_stored_as_they_were_before_the_step(network, batches):
    learner = DERpp(network(), capacity=100)
    expected = []
    for batch in batches():
        expected.append(learner.predict(batch.x))
        learner.update(batch)
    stored = learner.memory.rows()["logits"]
    # One product of 4 rows and one of 4 + draws may be summed in another order: compare to a few roundings.
    assert torch.allclose(stored, torch.cat(expected), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(stored, learner.predict(learner.memory.rows()["x"]), rtol=1e-3)


def test_the_two_draws_differ(network, batches, fold):
    learner = fold(DERpp(network(), capacity=20, replay_batch=5), batches())
    draws = []
    plain = learner.memory.draw
    learner.memory.draw = lambda *given, **named: draws.append(plain(*given, **named)) or draws[-1]
    learner.update(batches()[0])
    x = torch.cat([drawn["x"] for drawn in draws])
    assert len(x) == 10
    assert not torch.equal(x[:5], x[5:])


def test_capacity_and_counts(network, batches, fold):
    learner = fold(DERpp(network(), capacity=7, replay_batch=3), batches())
    assert (learner.memory.stored, learner.memory.seen) == (7, sum(map(len, batches())))
    assert learner.memory.replayed == 2 * 3 * (len(batches()) - 1)


def test_continues_from_a_snapshot(network, batches, continues):
    assert continues(lambda: DERpp(network(), capacity=6, seed=5), batches())


def test_refusals(network, batches, fold):
    learner = fold(DERpp(network(), capacity=4), batches())
    before = learner.state_dict()
    with pytest.raises(InputError, match="derpp"):
        learner.update(Batch(torch.zeros(2, 5), torch.tensor([0, 7])))
    assert learner.update(Batch(torch.zeros(2, 5))) == {}
    assert same(before, learner.state_dict())
    for wrong in ({"alpha": -0.1}, {"beta": float("nan")}, {"capacity": 0}, {"replay_batch": 0}, {"passes": 0}):
        with pytest.raises(ArgumentError, match=f"derpp: {next(iter(wrong))} must be"):
            DERpp(network(), **wrong)
