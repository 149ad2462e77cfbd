"""NOTE: answers row by row, the balanced memory, its steps, and its switches."""

import pytest
import torch
from torch import nn

from everlearn import NOTE, Batch, Boundary
from everlearn.core.errors import ArgumentError
from everlearn.core.state import capture, same
from everlearn.nn.batch_statistics import by_instance, normalised


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))


def images(count, seed=1):
    return 2.0 * torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed)) + 1.0


def test_answers_do_not_depend_on_the_batch():
    learner, x = NOTE(network()), images(12)
    scores = learner.adapt(x)
    for row in (0, 7):
        torch.testing.assert_close(learner.predict(x[row : row + 1]), scores[row : row + 1])


def test_a_step_each_64_rows_is_the_slow_loop():
    """100 rows one by one: one step on the first 64, as a loop with torch's own optimiser takes it."""
    learner, x = NOTE(network(), lr=0.01), images(100)
    steps = [(learner.adapt(row[None]), learner.adaptation.steps)[1] for row in x]
    assert steps == 63 * [0] + 37 * [1]
    twin = network()
    weights = [twin[1].weight, twin[1].bias]
    optimizer = torch.optim.Adam(weights, lr=0.01)
    with normalised(twin, by_instance(momentum=0.01)):
        scores = twin(x[:64])
    loss = -(scores.softmax(1) * scores.log_softmax(1)).sum(1).mean()
    loss.backward(inputs=weights)
    optimizer.step()
    torch.testing.assert_close(learner.adaptation.model[1].weight, twin[1].weight)
    torch.testing.assert_close(learner.adaptation.model[1].running_mean, twin[1].running_mean)
    whole = NOTE(network(), lr=0.01)
    whole.adapt(x)
    assert whole.waiting == learner.waiting == 36
    torch.testing.assert_close(whole.adaptation.model[1].weight, twin[1].weight)


def test_the_memory_is_balanced_over_predicted_classes_however_rows_come():
    learner, x = NOTE(network(), capacity=20, lr=0.0, momentum=0.0), 3.0 * (images(400) - 1.0)
    kinds = learner.predict(x).argmax(1)
    order = kinds.argsort(stable=True)
    for some in order.split(10):
        learner.adapt(x[some])
    held, present = learner.memory.per_class, kinds.bincount()
    common = [kind for kind in range(5) if present[kind] >= 20]
    assert len(common) >= 3 and learner.memory.stored == 20
    assert max(held.values()) - min(held[kind] for kind in common) <= 1
    newest = NOTE(network(), capacity=20, lr=0.0, momentum=0.0, balanced=False)
    for some in order.split(10):
        newest.adapt(x[some])
    assert len(newest.memory.per_class) < len(held)


def test_switches_change_what_is_learned():
    def after(**arguments):
        learner = NOTE(network(), **{"capacity": 16, "lr": 0.01, **arguments})
        for number, some in enumerate(images(100).split(10)):
            if number == 9:
                learner.boundary(Boundary(1))
            learner.adapt(some)
        return learner.predict(images(10, seed=2))

    plain = after()
    for switch in (
        *({"every": 5}, {"width": 0.0}, {"momentum": 0.2}, {"balanced": False}, {"capacity": 10}, {"method": "sgd"}),
        {"reset_at_boundaries": True},
    ):
        assert not torch.equal(after(**switch), plain), switch
    assert torch.equal(after(every=16), plain) and torch.equal(after(width=1e9), after(width=None))


def test_reset_brings_back_statistics_and_forgets_rows():
    learner = NOTE(network(), capacity=8, lr=0.1)
    before = capture(learner.adaptation.model)
    metrics = learner.update(Batch(images(20)))
    assert metrics["learned_from"] == 8 and learner.memory.stored == 8 and learner.waiting == 4
    assert not same(before, capture(learner.adaptation.model))
    learner.reset()
    assert same(before, capture(learner.adaptation.model)) and learner.memory.stored == learner.waiting == 0


def test_batch_norm_without_running_statistics_is_refused():
    with pytest.raises(ArgumentError, match="track_running_stats is off"):
        NOTE(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, track_running_stats=False)))
