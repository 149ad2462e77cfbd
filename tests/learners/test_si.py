"""Synaptic intelligence: path and penalty by hand, against a slow twin that loops over weights, and its limits."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.state import same
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.si import SI
from everlearn.optim.optimizers import SGD, Adam

POINT = Batch(torch.tensor([[1.0]]), torch.tensor([0]))


def two_weights():
    """Scores (w_0 x, w_1 x), from zero."""
    model = torch.nn.Linear(1, 2, bias=False)
    torch.nn.init.zeros_(model.weight)
    return model


def test_path_importance_and_penalty_worked_out_by_hand():
    # x = 1, y = 0, weights 0: p = (1/2, 1/2), slopes (-1/2, 1/2), moves (0.05, -0.05) at rate 0.1, so the path grows by
    # 1/2 * 0.05 = 0.025 for both. At the change the squared move is 0.0025: importance 0.025 / (0.0025 + 0.1) = 10 / 41.
    learner = SI(two_weights(), strength=2.0, damping=0.1, optimizer=SGD(lr=0.1))
    learner.update(POINT)
    assert learner.path.tolist() == pytest.approx([0.025, 0.025])
    learner.boundary(Boundary(1))
    assert learner.importance.tolist() == pytest.approx([10 / 41, 10 / 41])
    assert learner.path.tolist() == [0.0, 0.0]
    assert learner.anchor.tolist() == pytest.approx([0.05, -0.05])
    # Away from the anchor by (0.5, -1) the penalty's slope is 2 * 2 * 10/41 * (0.5, -1) = (20, -40) / 41.
    weight = learner.descent.model.weight
    with torch.no_grad():
        weight += torch.tensor([[0.5], [-1.0]])
    before = weight.detach().clone().flatten()
    slope = torch.softmax(before, 0) - torch.tensor([1.0, 0.0])
    learner.update(POINT)
    moves = -0.1 * (slope + torch.tensor([20 / 41, -40 / 41]))
    assert torch.allclose(weight.flatten(), before + moves, atol=1e-6)
    assert torch.allclose(learner.path, -slope * moves, atol=1e-6)  # the slope of the loss alone, the move by both


def test_a_move_uphill_takes_importance_back_but_not_below_zero():
    # A second task undoes the first one's path: importance 10/41 less 10 becomes 0, and not a spring that pushes away.
    learner = SI(two_weights(), optimizer=SGD(lr=0.1))
    learner.update(POINT)
    learner.boundary(Boundary(1))
    learner.update(POINT)
    learner.path.fill_(-1.0)
    learner.boundary(Boundary(2))
    assert learner.importance.tolist() == [0.0, 0.0]


def slow_twin(model, events, strength, damping, optimizer):
    """Equations 3 to 5 as they stand: the penalty in the loss, and loops over single weights."""
    parameters = list(model.parameters())
    clip, optimizer = optimizer.clip, optimizer.make(parameters)

    def numbers():
        return [value for parameter in parameters for value in parameter.detach().flatten().tolist()]

    anchor, importance, path = numbers(), [0.0] * len(numbers()), [0.0] * len(numbers())
    for event in events:
        present = numbers()
        if isinstance(event, Boundary):
            for i, value in enumerate(present):
                importance[i] = max(0.0, importance[i] + path[i] / ((value - anchor[i]) ** 2 + damping))
            anchor, path = present, [0.0] * len(present)
            continue
        loss = cross_entropy(model(event.x), event.y)
        alone = torch.autograd.grad(loss, parameters, retain_graph=True)
        alone = [value for gradient in alone for value in gradient.flatten().tolist()]
        weights = torch.cat([parameter.flatten() for parameter in parameters])
        for weight, spring, place in zip(weights, importance, anchor, strict=True):
            loss = loss + strength * spring * (weight - place) ** 2
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        for i, value in enumerate(numbers()):
            path[i] -= alone[i] * (value - present[i])
    return [torch.tensor(row, dtype=torch.float64) for row in (numbers(), importance, path)]


@pytest.mark.parametrize(
    "optimizer", [SGD(lr=0.05), SGD(lr=0.05, clip=0.3), SGD(lr=0.05, momentum=0.9), Adam(lr=0.01)], ids=repr
)
def test_equals_the_slow_twin(network, batches, fold, weights, optimizer):
    rows = [Batch(batch.x.double(), batch.y) for batch in batches(24)]
    events = [Boundary(0), *rows[:8], Boundary(1), *rows[8:16], Boundary(2), *rows[16:]]
    learner = fold(SI(network().double(), strength=0.7, damping=0.01, optimizer=optimizer), events)
    twin, importance, path = slow_twin(network().double(), events[1:], 0.7, 0.01, optimizer)
    assert torch.allclose(weights(learner), twin, rtol=1e-9, atol=1e-11)
    assert torch.allclose(learner.importance, importance, rtol=1e-7, atol=1e-11)
    assert torch.allclose(learner.path, path, rtol=1e-7, atol=1e-11)


def test_the_path_adds_up_to_what_the_loss_lost(network, batches):
    """With small steps on one batch the line integral of the gradient is the difference of the loss between its ends."""
    batch = Batch(torch.cat([item.x for item in batches()]).double(), torch.cat([item.y for item in batches()]))
    learner = SI(network().double(), optimizer=SGD(lr=0.01))
    first = learner.update(batch)["loss"]
    for _ in range(200):
        learner.update(batch)
    lost = first - cross_entropy(learner.predict(batch.x), batch.y)
    # each step's share is off by half the curvature of the step: lr * |H| / 2 < 0.01 of it here
    assert learner.path.sum().item() == pytest.approx(lost.item(), rel=0.01)
    assert lost > 0.05


def test_without_strength_or_before_a_change_it_is_fine_tuning_to_the_bit(network, batches, fold):
    events = batches()
    plain = fold(FineTune(network()), events).state_dict()["descent"]
    learner = fold(SI(network(), strength=0.0), [Boundary(0), *events[:6], Boundary(1), *events[6:]])
    assert same(plain, learner.state_dict()["descent"]) and learner.importance.max() > 0
    learner = fold(SI(network(), strength=10.0), [Boundary(0), *events])
    assert same(plain, learner.state_dict()["descent"]) and learner.tasks == 0


@pytest.mark.parametrize("change", [{"strength": 1.0}, {"damping": 0.01}, {"optimizer": Adam()}, {"passes": 2}], ids=str)
def test_every_option_changes_the_weights(network, batches, fold, weights, change):
    events = batches(12)
    events = [*events[:6], Boundary(1), *events[6:]]
    first, second = fold(SI(network()), events), fold(SI(network(), **change), events)
    assert not torch.equal(weights(first), weights(second))


def test_the_penalty_holds_the_model_at_the_old_task(network, batches, fold, weights):
    events = [*batches(20, seed=1), Boundary(1), *batches(20, seed=2)]
    offsets = []
    for strength in (0.0, 1.0, 10.0):
        learner = fold(SI(network(), strength=strength), events)
        offsets.append(float((learner.importance * (weights(learner) - learner.anchor) ** 2).sum()))
    assert offsets[0] > offsets[1] > offsets[2]


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05), SGD(lr=0.1, momentum=0.9)], ids=repr)
def test_no_strength_makes_the_weights_run_off(network, batches, fold, weights, optimizer):
    events = [*batches(20, seed=1), Boundary(1), *batches(100, seed=2)]
    for strength in (1e2, 1e4, 1e9):
        learner = fold(SI(network(), strength=strength, optimizer=optimizer), events)
        assert (weights(learner) - learner.anchor).abs().max() < 1.0


def test_two_changes_in_a_row_consolidate_once(network, batches, fold):
    once = fold(SI(network()), [*batches(), Boundary(1)])
    twice = fold(SI(network()), [*batches(), Boundary(1), Boundary(2)])
    assert same(once.state_dict(), twice.state_dict())


def test_a_frozen_layer_and_a_layer_without_a_part(batches, fold):
    """Frozen weights stand in no row; weights that the loss does not reach keep importance 0 and stay."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3))
    model[0].weight.requires_grad_(False)
    model.register_parameter("spare", torch.nn.Parameter(torch.ones(2)))
    learner = fold(SI(model, strength=1.0), [*batches(), Boundary(1), *batches()])
    assert learner.importance.shape == (2 + 4 + 12 + 3,)
    spare = [name for name, parameter in model.named_parameters() if parameter.requires_grad].index("spare")
    place = sum(parameter.numel() for parameter in learner.descent.parameters[:spare])
    assert learner.importance[place : place + 2].tolist() == [0.0, 0.0] and model.spare.tolist() == [1.0, 1.0]
    assert learner.importance.max() > 0


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9, clip=1.0), Adam()], ids=repr)
def test_continues_from_a_snapshot(network, batches, continues, optimizer):
    events = batches(18)
    for place in (4, 9, 14):  # the cut falls before, at and behind a change
        assert continues(
            lambda: SI(network(), strength=1.0, optimizer=optimizer), [*events[:place], Boundary(1), *events[place:]]
        )


def test_a_snapshot_takes_the_place_of_what_a_used_learner_held(network, batches, fold):
    """Springs, anchor and path of another past are left behind, also those that a step had cut to its needs."""
    events = [*batches(6, seed=1), Boundary(1), *batches(6, seed=2)]
    first = fold(SI(network(), strength=1.0), events)
    second = fold(SI(network(seed=3), strength=1.0), [*batches(9, seed=4), Boundary(1), *batches(3, seed=5)])
    second.load_state_dict(first.state_dict())
    rest = [*batches(6, seed=6), Boundary(2), *batches(2, seed=7)]
    assert same(fold(first, rest).state_dict(), fold(second, rest).state_dict())


def test_refusals(network, batches, fold):
    learner = fold(SI(network()), batches())
    before = learner.state_dict()
    with pytest.raises(InputError, match="si: label 7 is out of range"):
        learner.update(Batch(torch.zeros(2, 5), torch.tensor([0, 7])))
    assert learner.update(Batch(torch.zeros(2, 5))) == {}
    assert same(before, learner.state_dict())
    for wrong in ({"strength": -1.0}, {"damping": 0.0}, {"damping": -0.1}, {"passes": 0}):
        with pytest.raises(ArgumentError, match=f"si: {next(iter(wrong))} must be"):
            SI(network(), **wrong)
    assert SI.needs_boundaries
