"""Learning without forgetting: its loss by hand and against a slow twin, which classes are distilled, and its limits."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.state import same
from everlearn.learners.fine_tune import FineTune
from everlearn.learners.lwf import Former, LwF
from everlearn.nn.criteria import Masked
from everlearn.optim.optimizers import SGD, Adam


def test_a_step_worked_out_by_hand():
    # x = 1. The former model says (2 ln 3, 0): softened by 2, p = (3/4, 1/4). The present one says (0, 0), label 1. Both parts
    # of the loss are ln 2; the slopes in the scores are (1/2, -1/2) and (1/2 - 3/4) / 2 = -1/8, 1/8.
    model = torch.nn.Linear(1, 2, bias=False)
    learner = LwF(model, strength=2.0, temperature=2.0, optimizer=SGD(lr=0.1))
    learner.update(Batch(torch.ones(2, 1), torch.tensor([0, 1])))
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2 * math.log(3.0)], [0.0]]))
    learner.boundary(Boundary(1))
    torch.nn.init.zeros_(model.weight)
    loss = learner.update(Batch(torch.ones(1, 1), torch.tensor([1])))["loss"]
    assert loss.item() == pytest.approx(math.log(2) * (1 + 2.0), rel=1e-6)
    assert model.weight.flatten().tolist() == pytest.approx([-0.1 * (0.5 - 2 / 8), 0.1 * (0.5 - 2 / 8)], rel=1e-5)


def slow_twin(model, events, strength, temperature, lr):
    """Loops over rows and classes, plain gradient descent."""
    old, seen, known = None, set(), []
    for event in events:
        if isinstance(event, Boundary):
            old, known = copy.deepcopy(model), sorted(seen)
            continue
        scores = model(event.x)
        loss = cross_entropy(scores, event.y)
        if old is not None:
            taught = old(event.x).detach()
            for new, was in zip(scores, taught, strict=True):
                top = [math.exp(was[label] / temperature) for label in known]
                bottom = sum(torch.exp(new[label] / temperature) for label in known)
                for label, weight in zip(known, top, strict=True):
                    share = torch.exp(new[label] / temperature) / bottom
                    loss = loss - strength * weight / sum(top) * torch.log(share) / len(scores)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= lr * gradient
        seen |= set(event.y.tolist())
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_equals_the_slow_twin(network, batches, fold, weights):
    rows = [Batch(batch.x.double(), batch.y) for batch in batches(18)]
    first = [Batch(batch.x, batch.y.clamp(max=1)) for batch in rows[:6]]  # class 2 comes after the first change
    events = [*first, Boundary(1), *rows[6:12], Boundary(2), *rows[12:]]
    learner = fold(LwF(network().double(), strength=0.7, temperature=3.0, optimizer=SGD(lr=0.05)), events)
    assert learner.former.columns.tolist() == [0, 1, 2]
    assert torch.allclose(weights(learner), slow_twin(network().double(), events, 0.7, 3.0, 0.05), rtol=1e-10, atol=1e-12)


def test_only_classes_known_at_the_change_are_distilled(network):
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    learner = LwF(network())
    learner.update(Batch(x, torch.tensor([0, 2, 0, 2, 0, 2])))
    learner.boundary(Boundary(1, (1,)))
    learner.update(Batch(x, torch.ones(6, dtype=torch.int64)))
    assert learner.former.columns.tolist() == [0, 2]
    learner.boundary(Boundary(2))
    assert learner.former.columns.tolist() == [0, 1, 2]


def test_the_former_model_stands_still_and_answers_in_evaluation_mode(batches, fold):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.Dropout(0.5), torch.nn.Linear(7, 3))
    learner = fold(LwF(model), [batch for batch in batches() if len(batch) > 1])
    learner.boundary(Boundary(1))
    x = batches()[0].x
    before = learner.former(x)
    assert torch.equal(before, learner.predict(x))
    fold(learner, [batch for batch in batches(seed=2) if len(batch) > 1])
    assert torch.equal(before, learner.former(x))
    assert not torch.equal(before, learner.predict(x))


def test_without_strength_or_before_a_change_it_is_fine_tuning_to_the_bit(network, batches, fold):
    events = batches()
    plain = fold(FineTune(network()), events).state_dict()["descent"]
    learner = fold(LwF(network(), strength=0.0), [Boundary(0), *events[:6], Boundary(1), *events[6:]])
    assert same(plain, learner.state_dict()["descent"])
    learner = fold(LwF(network()), [Boundary(0), *events])
    assert same(plain, learner.state_dict()["descent"]) and not learner.former.ready


@pytest.mark.parametrize(
    "change",
    [{"strength": 2.0}, {"temperature": 1.0}, {"loss": Masked()}, {"optimizer": Adam()}, {"passes": 2}],
    ids=str,
)
def test_every_option_changes_the_weights(network, batches, fold, weights, change):
    events = batches(12)
    events = [*events[:6], Boundary(1), *events[6:]]
    first, second = fold(LwF(network()), events), fold(LwF(network(), **change), events)
    assert not torch.equal(weights(first), weights(second))


def test_strength_keeps_old_answers(network, batches, fold):
    """Trained on other labels for the same kind of rows, the more it distils the nearer it stays to what it said before."""
    probe, distances = torch.randn(50, 5, generator=torch.Generator().manual_seed(9)), []
    for strength in (0.0, 1.0, 10.0):
        learner = fold(LwF(network(), strength=strength), [*batches(30, seed=1), Boundary(1)])
        before = learner.predict(probe).softmax(1)
        fold(learner, batches(30, seed=2))
        distances.append(float((learner.predict(probe).softmax(1) - before).abs().mean()))
    assert distances[0] > distances[1] > distances[2]


def test_a_change_before_anything_was_learned_keeps_nothing(network, batches, fold):
    learner = fold(LwF(network()), [Boundary(0)])
    assert not learner.former.ready
    fold(learner, [*batches(), Boundary(1)])
    kept = learner.state_dict()["former"]
    learner.boundary(Boundary(2))
    assert same(kept, learner.state_dict()["former"])


def test_what_was_seen_is_the_same_however_labels_come():
    """The quick way for labels that are no wider than what was seen, beside hearing all at once; what is known stands still."""
    labels = torch.randint(6, (40,), generator=torch.Generator().manual_seed(0))
    whole, parts = Former(torch.nn.Linear(1, 6)), Former(torch.nn.Linear(1, 6))
    whole.hear(labels)
    for part in (torch.tensor([5]), torch.zeros(0, dtype=torch.int64), *labels[:3].split(1)):
        parts.hear(part)
    parts.keep(torch.nn.Linear(1, 6), learned=1)
    known = parts.known.clone()
    for part in labels.split(3):
        parts.hear(part)
    assert torch.equal(parts.seen, whole.seen) and whole.seen.tolist() == [1.0] * 6
    assert torch.equal(parts.known, known) and 0 < known.sum() < 6


def test_labels_widen_what_was_seen():
    former = Former(torch.nn.Linear(2, 5))
    for labels in ([1], [4, 1], [0]):
        former.hear(torch.tensor(labels))
    assert former.seen.tolist() == [1.0, 1.0, 0.0, 0.0, 1.0]


def test_continues_from_a_snapshot(network, batches, continues):
    events = batches(18)
    for place in (4, 9, 14):  # the cut falls before, at and behind a change
        assert continues(lambda: LwF(network(), loss=Masked("seen")), [*events[:place], Boundary(1), *events[place:]])


def test_refusals(network, batches, fold):
    learner = fold(LwF(network()), batches())
    before = learner.state_dict()
    with pytest.raises(InputError, match="lwf: label 7 is out of range"):
        learner.update(Batch(torch.zeros(2, 5), torch.tensor([0, 7])))
    assert learner.update(Batch(torch.zeros(2, 5))) == {}
    assert same(before, learner.state_dict())
    for wrong in ({"strength": -1.0}, {"temperature": 0.0}, {"passes": 0}):
        with pytest.raises(ArgumentError, match=f"lwf: {next(iter(wrong))} must be"):
            LwF(network(), **wrong)
    assert LwF.needs_boundaries
