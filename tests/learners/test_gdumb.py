"""GDumb: its sampler by hand and beside algorithm 1, its training beside plain torch, its schedule and mixing, and when it trains."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.random import generator
from everlearn.core.state import capture, same
from everlearn.data.memory import Memory
from everlearn.learners.gdumb import GDumb, Greedy, cut_and_mix, warm_restarts
from everlearn.measure.drift import ADWIN
from everlearn.optim.optimizers import SGD, Adam
from everlearn.optim.refit import Every, Never, OnDrift


def filled(labels, capacity, seed=0, step=3):
    """A memory that was offered rows of these labels, x their numbers."""
    memory = Memory(capacity, keep=Greedy(), seed=seed)
    for start in range(0, len(labels), step):
        part = torch.tensor(labels[start : start + step])
        memory.insert(x=torch.arange(start, start + len(part)).float()[:, None], y=part)
    return memory


def test_the_sampler_worked_out_by_hand():
    # capacity 4, shares 4, 2, 4/3 as classes come. A class with its share is passed over, even where there is room.
    assert filled([0, 0, 0, 0, 0], 4).per_class == {0: 4}
    assert filled([0, 0, 1, 0], 4).per_class == {0: 2, 1: 1}
    assert filled([0, 0, 0, 0, 1], 4).per_class == {0: 3, 1: 1}
    assert filled([0, 0, 0, 0, 1, 1, 1], 4).per_class == {0: 2, 1: 2}
    third = filled([0, 0, 0, 0, 1, 1, 2], 4).per_class  # displaces a row of class 0 or of class 1
    assert sorted(third.values()) == [1, 1, 2] and third[2] == 1
    assert filled([0, 0, 0, 0, 1, 1, 2, 2, 2], 4).per_class == {0: 1, 1: 1, 2: 2}  # 1 < 4/3 <= 2
    assert filled([0, 0, 0, 0, 1, 1], 4).rows()["x"].flatten().tolist().count(4.0) == 1  # what has a share stays


def algorithm_one(labels, capacity, seed, step=3):
    """Algorithm 1 of the paper on lists of (row, label), with the memory's own random numbers."""
    random, kept, seen = generator(seed, "memory"), [], []
    for start in range(0, len(labels), step):
        part = labels[start : start + step]
        draws = torch.rand(len(part), 2, generator=random, dtype=torch.float64).tolist()
        for row, (label, (draw, place)) in enumerate(zip(part, draws, strict=True), start=start):
            if label not in seen:
                seen.append(label)
            mine = [item for item in kept if item[1] == label]
            if not len(mine) < capacity / len(seen):
                continue
            if len(kept) >= capacity:
                sizes = {name: sum(item[1] == name for item in kept) for name in seen}
                largest = [name for name in seen if sizes[name] == max(sizes.values())]
                chosen = largest[int(draw * len(largest))]
                rows = [item for item in kept if item[1] == chosen]
                # swaps as a memory that keeps a class in one list does: the last takes the place of the one removed
                position = int(place * len(rows))
                gone, rows[position] = rows[position], rows[-1]
                kept = [item for item in kept if item[1] != chosen] + rows[:-1]
                assert gone not in kept
            kept.append((row, label))
    return kept


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=50), st.integers(1, 12), st.integers(0, 99))
def test_the_sampler_is_algorithm_one(labels, capacity, seed):
    held = filled(labels, capacity, seed).rows()
    found = sorted(zip(held["x"].flatten().int().tolist(), held["y"].tolist(), strict=True))
    assert found == sorted(algorithm_one(labels, capacity, seed))


def test_the_schedule_is_that_of_torch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=1, T_mult=2, eta_min=0.0005)
    for epoch in range(1, 40):
        assert 0.05 * warm_restarts(epoch, 0.01) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert warm_restarts(0, 0.01) == 0.1


def trained(model, x, y, epochs, size, number, seed=0):
    """Plain training of a new network with torch's own parts, as training NUMBER of a learner with this seed orders rows."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-6)
    random = generator(seed, "gdumb", number)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 0.05 * warm_restarts(epoch, 0.01)
        for index in torch.randperm(len(y), generator=random).split(size):
            optimizer.zero_grad()
            cross_entropy(model(x[index]), y[index]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_training_is_plain_training_on_the_memory_from_the_initial_weights(network, batches, fold, weights):
    events = [Batch(100.0 * batch.x.double(), batch.y) for batch in batches(12)]  # so large that gradients are cut
    learner = fold(GDumb(network().double(), capacity=10, when=Every(15), epochs=5, batch=4), events)
    # sizes 4, 1, 6 in turn: rows so far are 4 5 11 15 16 22 26 27 33 37 38 44; trainings at 15 and 33
    assert (learner.trainings, learner.memory.stored) == (2, 10)
    learner.boundary(Boundary(1))
    assert learner.trainings == 3
    held = learner.memory.rows()
    twin = trained(network().double(), held["x"], held["y"], 5, 4, number=2)
    assert torch.allclose(weights(learner), twin, rtol=1e-6, atol=1e-8)


def test_it_trains_when_due_and_at_changes_and_stands_still_between(network, batches, weights):
    learner, trainings = GDumb(network(), when=Every(20), epochs=1), []
    learner.boundary(Boundary(0))
    assert learner.trainings == 0  # there is nothing to train on
    for batch in batches(8):
        before = weights(learner)
        metrics = learner.update(batch)
        assert (metrics == {}) == torch.equal(before, weights(learner))
        trainings.append(learner.trainings)
    assert trainings == [0, 0, 0, 0, 0, 1, 1, 1]
    for expected in (2, 2):  # a second change at once finds no new rows
        learner.boundary(Boundary(1))
        assert learner.trainings == expected


def test_it_trains_when_all_rows_that_a_boundary_brought_have_come(network, batches, weights):
    events, trainings = batches(6), []  # of 4, 1, 6, 4, 1, 6 rows
    learner = GDumb(network(), when=Never(), epochs=1)
    learner.boundary(Boundary(0, data=Batch(torch.zeros(10, 5))))
    for event in [*events[:4], Boundary(1, data=Batch(torch.zeros(5, 5))), *events[3:5], Boundary(2), *events]:
        learner.boundary(event) if isinstance(event, Boundary) else learner.update(event)
        trainings.append((learner.trainings, learner.trained))
    # rows of the first task 4 5 11 15, of 10 announced: a training at 11, and one at the boundary for those behind them
    assert trainings[:5] == [(0, 0), (0, 0), (1, 11), (1, 11), (2, 15)]
    assert trainings[5:8] == [(2, 15), (3, 20), (3, 20)]
    assert trainings[8:] == [(3, 20)] * 6  # nothing is known of the third


def test_it_does_not_train_on_the_same_memory_twice(network, batches, fold):
    events = [Batch(batch.x, batch.y * 0) for batch in batches(6)]  # one class: what is kept stays
    learner = fold(GDumb(network(), capacity=10, when=Every(11), epochs=1), [*events, Boundary(1), *events, Boundary(2)])
    assert (learner.memory.seen, learner.trainings, learner.trained) == (44, 1, 10)


def test_without_a_memory_nothing_is_learned(network, batches, fold, weights):
    learner = GDumb(network())
    Budget(replay=0).limit(learner)
    fold(learner, [*batches(), Boundary(1)])
    assert torch.equal(weights(learner), weights(GDumb(network()))) and learner.trainings == 0


@pytest.mark.parametrize(
    "change",
    [
        {"capacity": 5},
        {"when": Never()},
        {"epochs": 2},
        {"batch": 3},
        {"floor": 0.5},
        {"optimizer": SGD(lr=0.05, momentum=0.9)},
        {"optimizer": Adam()},
        {"seed": 1},
    ],
    ids=str,
)
def test_every_option_changes_the_weights(network, batches, fold, weights, change):
    usual = {"capacity": 20, "epochs": 4}
    first, second = fold(GDumb(network(), **usual), batches()), fold(GDumb(network(), **usual | change), batches())
    assert not torch.equal(weights(first), weights(second))


def test_mixed_images_hold_one_rectangle_of_their_partner():
    x = torch.arange(5.0)[:, None, None, None].expand(5, 3, 7, 9)
    random, shares = torch.Generator().manual_seed(0), []
    for _ in range(200):
        mixed, partner, share = cut_and_mix(x, random)
        assert sorted(partner.tolist()) == [0, 1, 2, 3, 4]
        moved = partner != torch.arange(5)
        foreign = (mixed != x) & (mixed == partner[:, None, None, None].float())
        assert torch.equal(foreign, mixed != x)
        if moved.any():
            place = foreign[moved][0, 0]
            assert (foreign[moved] == place).all()
            assert place.sum().item() == round((1 - share) * 63)
            down, across = place.any(1), place.any(0)
            assert place.sum() == down.sum() * across.sum()  # a full rectangle
        shares.append(share)
    # lambda is uniform in 0..1 and a rectangle is only ever cut smaller: the mean is above 1/2 by more than chance
    assert min(shares) < 0.2 and max(shares) > 0.95 and sum(shares) / 200 > 0.55


def test_a_mixed_step_weighs_both_labels_by_area():
    def model():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3)).double()

    random = torch.Generator().manual_seed(3)
    x, y = torch.randn(4, 1, 6, 6, generator=random, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    learner = GDumb(model(), epochs=1, when=Never(), cutmix=1.0, optimizer=SGD(lr=1.0))
    learner.update(Batch(x, y))
    learner.boundary(Boundary(1))
    twin, random = model(), generator(0, "gdumb", 0)
    index = torch.randperm(4, generator=random)
    torch.rand((), generator=random)
    mixed, partner, share = cut_and_mix(x[index], random)
    scores = twin(mixed).log_softmax(1)
    loss = 0.0
    for row in range(4):
        own, other = y[index][row], y[index][partner][row]
        loss = loss - (share * scores[row, own] + (1 - share) * scores[row, other]) / 4
    loss.backward()
    expected = twin[1].weight - 0.1 * twin[1].weight.grad  # the first epoch takes a tenth of the rate
    assert 0 < share < 1
    assert torch.allclose(learner.descent.model[1].weight, expected, rtol=1e-10)


def test_cutmix_changes_the_weights_and_refuses_what_is_no_image(network, batches, weights):
    x, y = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    learners = []
    for cutmix in (0.0, 0.5):
        torch.manual_seed(0)
        learners.append(GDumb(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)), cutmix=cutmix))
        learners[-1].update(Batch(x, y))
    assert not torch.equal(weights(learners[0]), weights(learners[1]))
    learner = GDumb(network(), cutmix=0.5)
    with pytest.raises(InputError, match="gdumb: cutmix needs images"):
        learner.update(batches()[0])


def test_drift_calls_for_a_training(network, batches, fold):
    calm = [Batch(batch.x, (batch.x[:, 0] > 0).long()) for batch in batches(60, sizes=(8,))]
    turned = [Batch(batch.x, 1 - batch.y) for batch in calm]

    def policy():
        return OnDrift(ADWIN(clock=1), first=100)

    assert fold(GDumb(network(), when=policy(), epochs=4), calm).trainings == 1
    assert fold(GDumb(network(), when=policy(), epochs=4), calm + turned).trainings >= 2


@pytest.mark.parametrize(
    "options", [{}, {"when": Every(7), "capacity": 6}, {"when": OnDrift(ADWIN(clock=1), first=5)}], ids=str
)
def test_continues_from_a_snapshot(network, batches, continues, options):
    events = batches()
    assert continues(lambda: GDumb(network(), epochs=2, seed=5, **options), [*events[:7], Boundary(1), *events[7:]])


def test_refusals(network, batches, fold):
    learner = fold(GDumb(network(), epochs=1), batches())
    before = capture(learner)
    with pytest.raises(InputError, match="gdumb: label 7 is out of range"):
        learner.update(Batch(torch.zeros(2, 5), torch.tensor([0, 7])))
    assert learner.update(Batch(torch.zeros(2, 5))) == {}
    assert same(before, capture(learner))
    for wrong in ({"capacity": 0}, {"epochs": 0}, {"batch": 0}, {"floor": 1.5}, {"cutmix": -0.1}):
        with pytest.raises(ArgumentError, match=f"gdumb: {next(iter(wrong))} must be"):
            GDumb(network(), **wrong)


def test_its_call_string(network):
    assert repr(GDumb(network())) == "gdumb()"
    assert repr(GDumb(network(), when=Every(50), epochs=256, cutmix=0.5)) == "gdumb(when=every(50), epochs=256, cutmix=0.5)"
