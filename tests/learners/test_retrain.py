"""Retraining on everything: against plain training by hand, cold and warm, on a schedule and between its dates."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.random import generator
from everlearn.core.state import same
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.retrain import Retrain
from everlearn.measure.drift import ADWIN
from everlearn.optim.optimizers import SGD, Adam
from everlearn.optim.refit import Every, Grown, Never, OnDrift


def trained(model, x, y, epochs, size, number, seed=0):
    """Plain training on all rows, as training NUMBER of a learner with this seed orders them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=SGD().lr, fused=True)
    random = generator(seed, "retrain", number)
    for _ in range(epochs):
        for index in torch.randperm(len(y), generator=random).split(size):
            optimizer.zero_grad()
            cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def joined(events):
    return torch.cat([batch.x for batch in events]), torch.cat([batch.y for batch in events])


def test_a_cold_training_is_training_from_the_initial_weights_on_all_rows(network, batches, fold, weights):
    events = batches(12)
    learner = fold(Retrain(network(), when=Every(5), epochs=3, batch=4, follow=False), events)
    # sizes 4, 1, 6 in turn: rows so far are 4 5 11 15 16 22 26 27 33 37 38 44; fits at 5, 11, 16, 22, 27, 33, 38, 44
    assert learner.trainings == 8
    assert torch.equal(weights(learner), trained(network(), *joined(events), 3, 4, number=7))


def test_a_warm_training_goes_on_from_where_the_model_stands(network, batches, fold, weights):
    events = batches(2)
    learner = fold(Retrain(network(), when=Every(1), epochs=2, batch=4, follow=False, warm=True), events)
    model = network()
    trained(model, *joined(events[:1]), 2, 4, number=0)
    assert torch.equal(weights(learner), trained(model, *joined(events), 2, 4, number=1))


def test_between_trainings_it_stands_still_or_follows(network, batches, weights):
    events = batches(12)
    still, follows = Retrain(network(), when=Every(20), follow=False), Retrain(network(), when=Every(20))
    for batch in events[:6]:  # the sixth brings row 22
        before = weights(still)
        assert (still.update(batch) == {}) == torch.equal(before, weights(still)) == (still.trainings == 0)
        follows.update(batch)
    assert torch.equal(weights(still), weights(follows))  # a cold training forgets the steps between
    still.update(events[6])
    follows.update(events[6])
    assert (still.memory.replayed, follows.memory.replayed) == (0, 1 + 5 + 4 + 1 + 4)
    assert not torch.equal(weights(still), weights(follows))


def test_never_training_without_following_leaves_the_initial_weights(network, batches, fold, weights):
    learner = fold(Retrain(network(), when=Never(), follow=False), batches())
    assert torch.equal(weights(learner), weights(Retrain(network())))
    assert learner.trainings == 0


def test_the_first_step_of_following_is_fine_tuning(network, batches, fold, weights):
    first = batches(1)
    assert torch.equal(weights(fold(Retrain(network(), when=Never()), first)), weights(fold(FineTune(network()), first)))


@pytest.mark.parametrize(
    "change",
    [{"when": Every(3)}, {"epochs": 1}, {"batch": 3}, {"warm": True}, {"follow": False}, {"optimizer": Adam()}, {"seed": 1}],
    ids=str,
)
def test_every_option_changes_the_weights(network, batches, fold, weights, change):
    first, second = fold(Retrain(network()), batches()), fold(Retrain(network(), **change), batches())
    assert not torch.equal(weights(first), weights(second))


def test_all_rows_are_kept_whatever_the_budget(network, batches, fold):
    learner = Retrain(network())
    assert learner.reference
    Budget(replay=3).limit(learner)
    fold(learner, batches(30))
    x, y = joined(batches(30))
    assert torch.equal(learner.memory.rows()["x"], x)
    assert torch.equal(learner.memory.rows()["y"], y)


def test_trainings_grow_with_the_logarithm_of_the_rows(network, batches, fold):
    learner = fold(Retrain(network(), when=Grown(2.0), epochs=1), batches(96, sizes=(1,)))
    assert learner.trainings == 7  # at 1, 2, 4, ... 64 rows


def test_drift_calls_for_a_training(network, batches, fold):
    calm = batches(60, seed=1, sizes=(8,))
    calm = [Batch(batch.x, (batch.x[:, 0] > 0).long()) for batch in calm]
    turned = [Batch(batch.x, 1 - batch.y) for batch in calm]

    def policy():
        return OnDrift(ADWIN(clock=1), first=100)

    assert fold(Retrain(network(), when=policy(), follow=False), calm).trainings == 1
    assert fold(Retrain(network(), when=policy(), follow=False), calm + turned).trainings >= 2


def test_a_policy_is_not_shared_between_learners(network, batches, fold):
    policy = Every(10)
    assert (
        fold(Retrain(network(), when=policy), batches()).trainings
        == fold(Retrain(network(), when=policy), batches()).trainings
    )
    assert policy.fitted == 0
    assert Retrain(network()).when is not Retrain(network()).when


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"warm": True, "optimizer": Adam()},
        {"when": OnDrift(ADWIN(clock=1), first=5)},
        {"when": Every(7), "follow": False},
    ],
    ids=str,
)
def test_continues_from_a_snapshot(network, batches, continues, options):
    assert continues(lambda: Retrain(network(), epochs=2, seed=5, **options), batches())


def test_a_cold_start_survives_a_snapshot_into_another_model(network, batches, fold):
    first = fold(Retrain(network(0), epochs=1), batches()[:6])
    second = Retrain(network(99), epochs=1)
    second.load_state_dict(first.state_dict())
    assert same(fold(first, batches()[6:]).state_dict(), fold(second, batches()[6:]).state_dict())


def test_refusals(network, batches, fold):
    learner = fold(Retrain(network()), batches())
    before = learner.state_dict()
    with pytest.raises(InputError, match="retrain"):
        learner.update(Batch(torch.zeros(2, 5), torch.tensor([0, 7])))
    assert learner.update(Batch(torch.zeros(2, 5))) == {}
    learner.boundary(Boundary(1))
    assert same(before, learner.state_dict())
    for wrong in ("epochs", "batch"):
        with pytest.raises(ArgumentError, match=f"retrain: {wrong} must be an int >= 1, got 0"):
            Retrain(network(), **{wrong: 0})


def test_its_call_string(network):
    assert repr(Retrain(network())) == "retrain()"
    text = repr(Retrain(network(), when=OnDrift(ADWIN(), first=50), warm=True))
    assert text == "retrain(when=on_drift(adwin(), first=50), warm=True)"
