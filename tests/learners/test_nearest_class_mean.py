"""Nearest class mean: distances by hand, exactness against a plain mean, and features of a network."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.state import same
from everlearn.learners.nearest_class_mean import UNSEEN, NearestClassMean
from everlearn.nn.features import features


def test_scores_worked_out_by_hand(fold):
    learner = NearestClassMean(None, classes=4)
    fold(
        learner,
        [
            Batch(torch.tensor([[0.0, 0.0], [5.0, 5.0]]), torch.tensor([2, 0])),
            Batch(torch.tensor([[4.0, -2.0]]), torch.tensor([2])),  # mean of class 2: (2, -1)
        ],
    )
    assert learner.predict(torch.tensor([[2.0, 1.0]])).tolist() == [[-(9.0 + 16.0), UNSEEN, -4.0, UNSEEN]]


def test_before_anything_is_learned_the_scores_are_numbers(network):
    scores = NearestClassMean(network()).predict(torch.zeros(3, 5))
    assert scores.shape == (3, 3)
    assert torch.isfinite(scores).all()


def test_equals_the_plain_means(network, batches, fold):
    events = batches(30)
    x, y = torch.cat([batch.x for batch in events]).double(), torch.cat([batch.y for batch in events])
    means = torch.stack([x[y == label].mean(0) for label in range(3)])
    expected = -((x[:, None] - means) ** 2).sum(2)
    found = fold(NearestClassMean(network()), events).predict(x.float())
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 39), max_size=6), seed=st.integers(0, 99))
def test_batch_boundaries_do_not_matter_to_the_bit(cuts, seed):
    random = torch.Generator().manual_seed(seed)
    x, y = torch.randn(40, 4, generator=random), torch.randint(3, (40,), generator=random)
    whole, pieces = NearestClassMean(None, classes=3), NearestClassMean(None, classes=3)
    whole.update(Batch(x, y))
    edges = [0, *sorted(set(cuts)), 40]
    for start, end in pairwise(edges):
        pieces.update(Batch(x[start:end], y[start:end]))
    assert same(whole.state_dict(), pieces.state_dict())


def test_bytes_are_scaled_and_flattened(fold):
    random = torch.Generator().manual_seed(0)
    x, y = torch.randint(256, (20, 3, 4, 4), dtype=torch.uint8, generator=random), torch.arange(20) % 2
    first = fold(NearestClassMean(None, classes=2), [Batch(x, y)])
    second = fold(NearestClassMean(None, classes=2), [Batch((x.double() / 255 - 0.5).flatten(1), y)])
    assert torch.equal(first.predict(x), second.predict((x.double() / 255 - 0.5).flatten(1)))


def test_features_of_a_network(network, batches, fold):
    model = network()
    learner = fold(NearestClassMean(model, features="network"), batches())
    embedded = [Batch(features(model, batch.x).double(), batch.y) for batch in batches()]
    twin = fold(NearestClassMean(None, classes=3), embedded)
    assert torch.equal(learner.predict(batches()[0].x), twin.predict(embedded[0].x))
    assert not torch.equal(learner.predict(batches()[0].x), fold(NearestClassMean(model), batches()).predict(batches()[0].x))


def test_the_network_is_part_of_the_state_only_where_it_is_used(network, batches, fold):
    first = fold(NearestClassMean(network(0), features="network"), batches())
    second = NearestClassMean(network(1), features="network")
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.predict(batches()[0].x), second.predict(batches()[0].x))
    assert NearestClassMean(network()).state_dict()["network"] is None


@pytest.mark.parametrize("source", ["input", "network"])
def test_continues_from_a_snapshot(network, batches, continues, source):
    assert continues(lambda: NearestClassMean(network(), features=source), batches())


def test_refusals(network, batches, fold):
    learner = fold(NearestClassMean(network()), batches())
    before = learner.state_dict()
    with pytest.raises(InputError, match=r"nearest_class_mean: label 3 is out of range; allowed: 0\.\.2"):
        learner.update(Batch(torch.zeros(2, 5), torch.tensor([0, 3])))
    with pytest.raises(InputError, match="shape"):
        learner.predict(torch.zeros(2, 4))
    assert learner.update(Batch(torch.zeros(2, 5))) == {}
    learner.boundary(Boundary(1))
    assert same(before, learner.state_dict())
    with pytest.raises(ArgumentError, match="features must be 'auto', 'input' or 'network', got 'pixels'"):
        NearestClassMean(network(), features="pixels")
    with pytest.raises(ArgumentError, match="needs a model, got None"):
        NearestClassMean(None, features="network", classes=3)
    with pytest.raises(ArgumentError, match="give classes="):
        NearestClassMean(torch.nn.ReLU())
    with pytest.raises(InputError, match=r"torch\.int64 cannot serve as features"):
        NearestClassMean(network()).update(Batch(torch.zeros(2, 5, dtype=torch.int64), torch.tensor([0, 1])))
