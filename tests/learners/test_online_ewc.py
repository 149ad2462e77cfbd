"""Online EWC: the Fisher information by hand and against a vectorised twin, the penalty, and its limits."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.state import same
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.online_ewc import OnlineEWC
from everlearn.optim.optimizers import SGD, Adam


def logistic(first, second):
    model = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[first], [second]]))
    return model


def ended(model, x, y, **options):
    """The learner at the end of a task of these rows whose steps changed nothing (lr 0)."""
    learner = OnlineEWC(model, optimizer=SGD(lr=0.0), **options)
    learner.update(Batch(x, y))
    learner.boundary(Boundary(1))
    return learner


def test_the_fisher_of_logistic_regression_by_hand():
    # p = sigmoid((w0 - w1) x). d log p0 / d w0 = (1 - p) x, d log p1 / d w0 = -p x, so over the model's own labels
    # F = p (1 - p)^2 x^2 + (1 - p) p^2 x^2 = p (1 - p) x^2, for both weights. With w0 - w1 = log 3: p(x=1) = 3/4, p(x=2) = 9/10.
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1])
    model = logistic(float(torch.log(torch.tensor(3.0))), 0.0)
    exact = (3 / 16 * 1 + 9 / 100 * 4) / 2
    assert ended(model, x, y, labels="exact").fisher.tolist() == pytest.approx([exact, exact], rel=1e-6)
    # With the data's labels: row 1 has label 0, slope (1 - 3/4) * 1; row 2 has label 1, slope -9/10 * 2.
    true = ((1 / 4) ** 2 + (18 / 10) ** 2) / 2
    assert ended(model, x, y, labels="true").fisher.tolist() == pytest.approx([true, true], rel=1e-6)


def test_sampled_labels_give_the_exact_fisher_in_the_mean():
    # One row, x=1, p=3/4: the squared slope is 1/16 with probability 3/4 and 9/16 with 1/4. Mean 3/16, variance 3/64.
    x, y = torch.ones(4000, 1), torch.zeros(4000, dtype=torch.int64)
    model = logistic(float(torch.log(torch.tensor(3.0))), 0.0)
    found = ended(model, x, y, fisher_samples=4000).fisher[0].item()
    deviation = (3 / 64 / 4000) ** 0.5
    assert abs(found - 3 / 16) < 4 * deviation
    empirical = ended(model, x, y, fisher_samples=4000, labels="true").fisher[0].item()
    assert abs(empirical - 3 / 16) > 4 * deviation  # the control: the data's labels give 1/16, which is another thing


def test_equals_the_vectorised_twin(network, batches):
    events = batches(10)
    x, y = torch.cat([batch.x for batch in events]), torch.cat([batch.y for batch in events])
    model = network()
    parameters = dict(model.named_parameters())

    def chance(values, row, chosen):
        return log_softmax(functional_call(model, values, (row[None],))[0], 0) @ chosen

    def squares(labels):
        rows = vmap(grad(chance), (None, 0, 0))(parameters, x, one_hot(labels, 3).float())
        return torch.cat([value.flatten(1) for value in rows.values()], dim=1).square()

    weight = torch.softmax(model(x), 1).detach()
    exact = sum(weight[:, k, None] * squares(torch.full_like(y, k)) for k in range(3)).mean(0)
    assert torch.allclose(ended(network(), x, y, labels="exact").fisher, exact, rtol=1e-4, atol=1e-8)
    assert torch.allclose(ended(network(), x, y, labels="true").fisher, squares(y).mean(0), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05), Adam()], ids=["sgd", "adam"])
def test_the_added_pull_is_the_gradient_of_the_whole_loss(optimizer, network, batches, fold):
    """The slow twin lets autograd walk over all weights; a layer that plays no part in the loss is held by its springs alone."""
    quick = fold(OnlineEWC(Unused(network()), labels="exact", optimizer=optimizer), [*batches(), Boundary(1)])
    slow = copy.deepcopy(quick)
    with torch.no_grad():
        for learner in (quick, slow):
            learner.fisher[:4] = 0.5  # springs for the layer without a gradient, which was moved away from its anchor
            learner.descent.model.idle.weight += 1.0
    before = quick.descent.model.idle.weight.detach().clone()
    for batch in batches(seed=1):
        found = quick.update(batch)["loss"]

        def whole(batch=batch):
            offset = torch.cat([weight.reshape(-1) for weight in slow.descent.parameters]) - slow.anchor
            held = slow.fisher.clamp(max=slow.steepest) * offset
            loss = cross_entropy(slow.descent.model(batch.x), batch.y)
            return loss + 0.5 * slow.strength * torch.dot(held, offset)

        assert found.item() == pytest.approx(slow.descent(whole).item(), rel=1e-4)
    for one, other in zip(quick.descent.parameters, slow.descent.parameters, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)
    assert not torch.equal(quick.descent.model.idle.weight, before)


class Unused(nn.Module):
    """A network beside a layer that it does not ask."""

    def __init__(self, inner):
        super().__init__()
        self.idle = nn.Linear(2, 2, bias=False)
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def test_the_fisher_decays_and_the_anchor_moves(network, batches, fold):
    first, second = batches(6, seed=1), batches(6, seed=2)

    def after(decay):
        return fold(
            OnlineEWC(network(), strength=0.0, decay=decay, labels="exact"), [*first, Boundary(1), *second, Boundary(2)]
        )

    once = fold(OnlineEWC(network(), strength=0.0, labels="exact"), [*first, Boundary(1)]).fisher
    alone, half, whole = after(0.0).fisher, after(0.5).fisher, after(1.0).fisher
    assert torch.allclose(half, alone + 0.5 * once, rtol=1e-5, atol=1e-9)
    assert torch.allclose(whole, alone + once, rtol=1e-5, atol=1e-9)
    learner = after(1.0)
    parameters = torch.cat([parameter.detach().flatten() for parameter in learner.descent.model.parameters()])
    assert torch.equal(learner.anchor, parameters)


def test_without_strength_it_is_fine_tuning_to_the_bit(network, batches, fold):
    events = batches()
    learner = fold(OnlineEWC(network(), strength=0.0), [Boundary(0), *events[:6], Boundary(1), *events[6:]])
    assert same(learner.state_dict()["descent"], fold(FineTune(network()), events).state_dict()["descent"])
    assert learner.fisher is not None


def test_before_the_first_change_it_is_fine_tuning_to_the_bit(network, batches, fold):
    learner = fold(OnlineEWC(network()), [Boundary(0), *batches()])
    assert same(learner.state_dict()["descent"], fold(FineTune(network()), batches()).state_dict()["descent"])
    assert learner.tasks == 0


@pytest.mark.parametrize(
    "change",
    [
        {"strength": 1.0},
        {"decay": 0.1},
        {"fisher_samples": 3},
        {"labels": "true"},
        {"labels": "exact"},
        {"optimizer": Adam()},
        {"passes": 2},
        {"seed": 1},
    ],
    ids=str,
)
def test_every_option_changes_the_weights(network, batches, fold, weights, change):
    events = batches(18)
    events = [*events[:6], Boundary(1), *events[6:12], Boundary(2), *events[12:]]
    first, second = fold(OnlineEWC(network()), events), fold(OnlineEWC(network(), **change), events)
    assert not torch.equal(weights(first), weights(second))


def test_the_penalty_holds_the_model_at_the_old_task(network, batches, fold, weights):
    events = [*batches(20, seed=1), Boundary(1), *batches(20, seed=2)]
    offsets = {}
    for strength in (0.0, 5.0, 50.0):
        learner = fold(OnlineEWC(network(), strength=strength, labels="exact"), events)
        offsets[strength] = float((learner.fisher * (weights(learner) - learner.anchor) ** 2).sum())
    assert offsets[0.0] > offsets[5.0] > offsets[50.0]


def test_the_memory_is_bounded_and_emptied_at_the_end_of_a_task(network, batches, fold):
    learner = fold(OnlineEWC(network(), fisher_samples=9), batches())
    assert (learner.memory.stored, learner.memory.capacity) == (9, 9)
    learner.boundary(Boundary(1))
    assert (learner.memory.stored, learner.memory.seen, learner.memory.capacity) == (0, 0, 9)
    learner = OnlineEWC(network())
    Budget(replay=4).limit(learner)
    fold(learner, [*batches(), Boundary(1), *batches()])
    assert (learner.memory.stored, learner.memory.capacity, learner.tasks) == (4, 4, 1)


def test_two_changes_in_a_row_consolidate_once(network, batches, fold):
    once, twice = OnlineEWC(network()), OnlineEWC(network())
    fold(once, [*batches(), Boundary(1)])
    fold(twice, [*batches(), Boundary(1), Boundary(2)])
    assert same(once.state_dict(), twice.state_dict())


def test_the_fisher_is_taken_in_evaluation_mode(batches):
    x, y = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
    torch.manual_seed(0)
    layers = [torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3)]
    plain = ended(torch.nn.Sequential(*layers), x, y, labels="exact").fisher
    dropping = ended(
        torch.nn.Sequential(layers[0], layers[1], torch.nn.Dropout(0.5), layers[2]), x, y, labels="exact"
    ).fisher
    assert torch.equal(plain, dropping)


def test_a_frozen_layer_and_an_unused_one(batches, fold):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3))
    model.spare = None
    model[0].weight.requires_grad_(False)
    learner = fold(OnlineEWC(model, labels="exact"), [*batches(), Boundary(1), *batches()])
    assert learner.fisher.shape == (4 + 12 + 3,)  # the bias of the first layer and the whole second


def test_continues_from_a_snapshot(network, batches, continues):
    events = batches(18)
    for place in (4, 9, 14):  # the cut falls before, at and behind a change
        assert continues(
            lambda: OnlineEWC(network(), fisher_samples=10, seed=5), [*events[:place], Boundary(1), *events[place:]]
        )


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05), SGD(lr=0.1, momentum=0.9)], ids=repr)
def test_no_strength_makes_the_weights_run_off(network, batches, fold, weights, optimizer):
    events = [*batches(20, seed=1), Boundary(1), *batches(100, seed=2)]
    for strength in (1e2, 1e4, 1e9):
        learner = fold(OnlineEWC(network(), strength=strength, labels="exact", optimizer=optimizer), events)
        assert (weights(learner) - learner.anchor).abs().max() < 1.0


def test_the_stiffest_spring_takes_a_weight_back_in_one_step():
    # Capped at 1 / lr, the slope of the penalty is (w - a) / lr, so a step of lr ends at a, less the step that the batch asks for.
    model = logistic(float(torch.log(torch.tensor(3.0))), 0.0)
    learner = OnlineEWC(model, strength=1e6, labels="exact", optimizer=SGD(lr=0.05))
    learner.memory.insert(x=torch.ones(1, 1), y=torch.tensor([0]))
    learner.boundary(Boundary(1))
    anchor = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += torch.tensor([[0.5], [-1.0]])
    x, y = torch.tensor([[2.0]]), torch.tensor([1])
    slope = torch.autograd.grad(cross_entropy(model(x), y), model.weight)[0]
    learner.update(Batch(x, y))
    assert torch.allclose(model.weight, anchor - 0.05 * slope, rtol=1e-4, atol=1e-6)


def test_refusals(network, batches, fold):
    learner = fold(OnlineEWC(network()), batches())
    before = learner.state_dict()
    with pytest.raises(InputError, match="online_ewc"):
        learner.update(Batch(torch.zeros(2, 5), torch.tensor([0, 7])))
    assert learner.update(Batch(torch.zeros(2, 5))) == {}
    assert same(before, learner.state_dict())
    for wrong in ({"strength": -1.0}, {"decay": 1.5}, {"fisher_samples": 0}, {"labels": "none"}, {"passes": 0}):
        with pytest.raises(ArgumentError, match=f"online_ewc: {next(iter(wrong))} must be"):
            OnlineEWC(network(), **wrong)
    assert OnlineEWC.needs_boundaries
