"""The base session of a few-shot learner: rows held and released, matching, pre-training, and missing rows."""

import pytest
import torch

from everlearn.core.budget import Budget
from everlearn.core.events import Batch, Boundary
from everlearn.learners.few_shot import FewShot
from everlearn.nn.prototypes import directions
from everlearn.optim.optimizers import SGD

X = torch.randn(24, 5, generator=torch.Generator().manual_seed(1))
Y = torch.arange(24) % 2
OPENING = Boundary(0, (0, 1), Batch(X, Y))


def learner(network, **given):
    return FewShot(network(classes=4), **{"optimizer": SGD(lr=0.05), **given})


def test_rows_are_held_from_the_boundary_and_not_twice(network):
    made = learner(network)
    made.boundary(OPENING)
    made.update(Batch(X[:8], Y[:8]))
    memory = made.base.memory
    assert (memory.stored, memory.seen, made.base.learned) == (24, 24, 8)
    made.end_base()
    assert (memory.stored, memory.nbytes, memory.seen) == (0, 0, 24)


def test_rows_that_no_boundary_brought_are_held_as_they_come(network):
    made = learner(network)
    for part in (slice(0, 10), slice(10, 24)):
        made.update(Batch(X[part], Y[part]))
    assert made.base.memory.stored == 24 and not made.base.whole
    made.boundary(Boundary(1))
    h = made.network.embed(X)
    wanted = torch.stack([h[label == Y].mean(0) for label in (0, 1)])
    assert torch.allclose(made.answers.classifier.means, wanted, atol=1e-6) and made.answers.base == [0, 1]


def test_the_class_means_answer_at_the_end_of_a_pass_and_the_classifier_within_one(network):
    made = learner(network)
    made.boundary(OPENING)
    h = made.network.embed(X)
    classifier = 16.0 * directions(h) @ directions(made.network.weight).T
    assert torch.allclose(made.predict(X)[:, :2], classifier[:, :2], atol=1e-4)
    made.update(Batch(X[:12], Y[:12]))
    assert not made.base.whole
    made.update(Batch(X[12:], Y[12:]))
    assert made.base.whole
    answered = made.predict(X)
    made.end_base()
    assert torch.equal(answered, made.predict(X))  # as if the session had ended here


def test_a_budget_of_no_rows_leaves_the_classifier_s_vectors(network):
    made = learner(network)
    Budget(replay=0).limit(made)
    made.boundary(OPENING)
    made.update(Batch(X, Y))
    made.end_base()
    assert torch.allclose(made.answers.vectors[1], directions(made.network.weight[:2]), atol=1e-6)
    cut = learner(network)
    Budget(replay=6).limit(cut)
    cut.boundary(OPENING)
    assert cut.base.memory.stored == 6
    cut.update(Batch(X, Y))
    cut.end_base()
    assert sum(cut.answers.classifier.counts) == 6


def test_fixed_prototypes_are_matched_where_pretraining_made_features_and_else_taken_in_order(network):
    plain = learner(network, prototypes="etf")
    plain.boundary(OPENING)
    assert plain.answers.places.tolist() == [0, 1, -1, -1]
    with pytest.warns(UserWarning, match="no images"):
        matched = learner(network, prototypes="etf", pretrain=1, seed=3)
        matched.boundary(OPENING)
    places = matched.answers.places[:2].tolist()
    h = matched.network.embed(X)
    cosines = torch.stack([directions(h[label == Y].mean(0)) for label in (0, 1)]) @ matched.network.fixed.T
    best = max(((cosines[0, a] + cosines[1, b]).item(), [a, b]) for a in range(4) for b in range(4) if a != b)
    assert places == best[1]


@pytest.mark.filterwarnings("ignore:few_shot")
def test_pretraining_changes_the_encoder_and_not_the_fresh_heads_optimiser(network):
    plain, before = learner(network), learner(network, pretrain=2, pretrain_batch=8)
    head = before.network.projection[0].weight.clone()
    for made in (plain, before):
        made.boundary(OPENING)
    assert before.descent.steps == 2 * 3 and not before.descent.optimizer.state
    assert not torch.equal(plain.network.embed(X), before.network.embed(X))
    assert torch.equal(plain.network.weight, before.network.weight)  # the classifier has not been trained yet
    assert not torch.equal(head, before.network.projection[0].weight)
    without = learner(network, pretrain=2, pretrain_batch=8)
    without.boundary(Boundary(0, (0, 1), Batch(X)))  # no labels are needed
    assert torch.equal(before.network.embed(X), without.network.embed(X)) and not without.base.given


@pytest.mark.parametrize(
    ("change", "differs"), [({"pretrain_batch": 6}, True), ({"pretrain_temperature": 0.5}, True), ({}, False)]
)
@pytest.mark.filterwarnings("ignore:few_shot")
def test_options_of_pretraining_count(network, change, differs):
    results = []
    for given in ({}, change):
        made = learner(network, **{"pretrain": 2, "pretrain_batch": 8, **given})
        made.boundary(OPENING)
        results.append(made.network.embed(X))
    assert torch.equal(*results) != differs


def test_a_class_that_the_boundary_did_not_bring_ends_the_session(network):
    made = learner(network)
    made.boundary(OPENING)
    made.update(Batch(X, Y))
    weights = made.network.embed(X)
    made.update(Batch(X[:3] + 4.0, torch.tensor([3, 3, 3])))
    assert made.over and made.answers.known == [0, 1, 3] and torch.equal(weights, made.network.embed(X))
