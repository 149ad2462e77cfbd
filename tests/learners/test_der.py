"""DER: its loss by hand and against a slow twin, its limits (fine-tuning, DER++ without labels), and what it stores."""

import pytest
import torch
from torch.nn.functional import log_softmax

from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch
from everlearn.core.state import same
from everlearn.data.memory import Memory, Ring
from everlearn.learners.der import DER
from everlearn.learners.derpp import DERpp
from everlearn.learners.fine_tune import FineTune
from everlearn.optim.optimizers import SGD, Adam


def test_two_steps_worked_out_by_hand():
    # Two classes, a weight each from zero, x = 2, y = 0. Step 1: p = (1/2, 1/2), slopes of the weights are 2 (p - (1, 0)) =
    # (-1, 1), so the weights become (s, -s), s = lr; the scores kept are (0, 0). Step 2: scores (2s, -2s); the mean over the two
    # classes of (score - 0)^2 is 4 s^2, its slope in the first weight 2 * 2s * 2 / 2 = 4 s; that of the label 2 (p_0 - 1).
    model = torch.nn.Linear(1, 2, bias=False)
    torch.nn.init.zeros_(model.weight)
    learner = DER(model, capacity=1, alpha=0.5, replay_batch=1, optimizer=SGD(lr=0.1))
    batch = Batch(torch.tensor([[2.0]]), torch.tensor([0]))
    learner.update(batch)
    assert model.weight.flatten().tolist() == pytest.approx([0.1, -0.1])
    loss = learner.update(batch)["loss"]
    chance = 1 / (1 + torch.exp(torch.tensor(-0.4)).item())  # scores 0.2 and -0.2
    assert model.weight[0].item() == pytest.approx(0.1 - 0.1 * (2 * (chance - 1) + 0.5 * 0.4), rel=1e-6)
    assert loss.item() == pytest.approx(-torch.log(torch.tensor(chance)).item() + 0.5 * 0.04, rel=1e-6)


def slow_twin(model, events, memory, alpha, count, lr):
    """Equation 4, one forward pass for each part and plain gradient descent."""
    for batch in events:
        drawn = memory.draw(count)
        logits = model(batch.x)
        loss = -log_softmax(logits, 1)[range(len(batch)), batch.y].mean()
        if drawn is not None:
            loss = loss + alpha * ((model(drawn["x"]) - drawn["logits"]) ** 2).mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= lr * gradient
        memory.insert(x=batch.x, y=batch.y, logits=logits.detach())
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_equals_the_slow_twin(network, batches, fold, weights):
    events = [Batch(batch.x.double(), batch.y) for batch in batches(40)]
    learner = DER(network().double(), capacity=20, alpha=0.6, replay_batch=6, optimizer=SGD(lr=0.05), seed=2)
    twin = slow_twin(network().double(), events, Memory(20, seed=2), 0.6, 6, 0.05)
    assert torch.allclose(weights(fold(learner, events)), twin, rtol=1e-11, atol=1e-12)


def test_it_is_derpp_without_labels_to_the_bit(network, batches, fold):
    usual = {"capacity": 9, "replay_batch": 4, "alpha": 0.7, "passes": 2, "seed": 3}
    der = fold(DER(network(), **usual), batches())
    derpp = fold(DERpp(network(), beta=0.0, **usual), batches())
    assert same(der.state_dict(), derpp.state_dict())
    assert not same(der.state_dict(), fold(DERpp(network(), **usual), batches()).state_dict())


def test_remembered_labels_play_no_part(network, batches, fold, weights):
    first, second = (fold(DER(network(), capacity=50), batches()) for _ in range(2))
    second.memory.rows()["y"].zero_()  # the rows are views of what is held
    for learner in (first, second):
        learner.update(batches()[0])
    assert torch.equal(weights(first), weights(second))


def test_without_weight_or_memory_it_is_fine_tuning_to_the_bit(network, batches, fold):
    plain = fold(FineTune(network()), batches()).state_dict()["descent"]
    learner = fold(DER(network(), alpha=0.0), batches())
    assert same(plain, learner.state_dict()["descent"])
    assert learner.memory.replayed == 0
    learner = DER(network())
    Budget(replay=0).limit(learner)
    assert same(plain, fold(learner, batches()).state_dict()["descent"])


@pytest.mark.parametrize(
    "change",
    [
        {"capacity": 3},
        {"alpha": 0.0},
        {"alpha": 1.0},
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
    first, second = fold(DER(network(), **usual), batches()), fold(DER(network(), **usual | change), batches())
    assert not torch.equal(weights(first), weights(second))


def test_capacity_and_counts(network, batches, fold):
    learner = fold(DER(network(), capacity=7, replay_batch=3), batches())
    assert (learner.memory.stored, learner.memory.seen) == (7, sum(map(len, batches())))
    assert learner.memory.replayed == 3 * (len(batches()) - 1)


def test_continues_from_a_snapshot(network, batches, continues):
    assert continues(lambda: DER(network(), capacity=6, seed=5), batches())


def test_refusals(network, batches, fold):
    learner = fold(DER(network(), capacity=4), batches())
    before = learner.state_dict()
    with pytest.raises(InputError, match=r"der: label 7 is out of range; allowed: 0\.\.2"):
        learner.update(Batch(torch.zeros(2, 5), torch.tensor([0, 7])))
    assert learner.update(Batch(torch.zeros(2, 5))) == {}
    assert same(before, learner.state_dict())
    for wrong in ({"alpha": -0.1}, {"capacity": 0}, {"replay_batch": 0}, {"passes": 0}):
        with pytest.raises(ArgumentError, match=f"der: {next(iter(wrong))} must be"):
            DER(network(), **wrong)
