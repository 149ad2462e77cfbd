"""Streaming LDA: by hand, against the closed form on all rows, against scikit-learn, and row by row as published."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.state import same
from everlearn.learners.streaming_lda import UNSEEN, StreamingLDA


def closed_form(x, y, classes, shrinkage):
    """(W, b) of linear discriminant analysis on all rows at once."""
    means = torch.stack([x[y == label].mean(0) for label in range(classes)])
    centred = x - means[y]
    shrunk = (1 - shrinkage) * centred.T @ centred / len(x) + shrinkage * torch.eye(x.shape[1], dtype=x.dtype)
    weight = means @ torch.linalg.inv(shrunk)
    return weight, -0.5 * (weight * means).sum(1)


def clouds(seed=0, rows=60, size=4, classes=3):
    random = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(classes), torch.randint(classes, (rows - classes,), generator=random)])
    means = torch.randn(classes, size, dtype=torch.float64, generator=random)
    mix = torch.randn(size, size, dtype=torch.float64, generator=random)
    return means[y] + torch.randn(rows, size, dtype=torch.float64, generator=random) @ mix, y


def test_worked_out_by_hand():
    # Classes at 0, 2 (mean 1) and 4, 8 (mean 6): S = (1 + 1 + 4 + 4) / 4 = 2.5. Half shrunk: 1.25 + 0.5 = 1.75.
    # w = (1, 6) / 1.75, b = -(1, 36) / 3.5; at z = 3.5 both score (3.5 - 0.5) / 1.75 = (21 - 18) / 1.75: halfway between.
    learner = StreamingLDA(None, classes=3, shrinkage=0.5)
    learner.update(Batch(torch.tensor([[0.0], [2.0], [4.0], [8.0]]), torch.tensor([0, 0, 1, 1])))
    assert learner.predict(torch.tensor([[3.5]])).tolist() == [[pytest.approx(3 / 1.75), pytest.approx(3 / 1.75), UNSEEN]]
    assert learner.scatter.item() / 4 == pytest.approx(2.5)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(1, 59), max_size=12), seed=st.integers(0, 99), shrinkage=st.sampled_from([1e-4, 0.1, 1.0]))
def test_equals_the_closed_form_however_the_rows_are_cut(cuts, seed, shrinkage):
    x, y = clouds(seed)
    learner = StreamingLDA(None, classes=3, shrinkage=shrinkage)
    edges = [0, *sorted(set(cuts)), 60]
    for start, end in pairwise(edges):
        learner.update(Batch(x[start:end], y[start:end]))
    weight, bias = closed_form(x, y, 3, shrinkage)
    # float64 sums of 60 terms, carried through an inverse of condition at most about 1e6 at the smallest shrinkage
    assert torch.allclose(learner.predict(x), x @ weight.T + bias, rtol=1e-7, atol=1e-6)


def test_equals_the_running_formula_row_by_row():
    x, y = clouds(5)
    learner = StreamingLDA(None, classes=3)
    means, counts, scatter = torch.zeros(3, 4, dtype=torch.float64), [0, 0, 0], torch.zeros(4, 4, dtype=torch.float64)
    for row, label in zip(x, y.tolist(), strict=True):
        c = counts[label]
        offset = row - means[label]
        scatter += c / (c + 1) * torch.outer(offset, offset)
        means[label] += offset / (c + 1)
        counts[label] += 1
        learner.update(Batch(row[None], torch.tensor([label])))
        assert torch.allclose(learner.scatter, scatter, rtol=1e-12, atol=1e-12)
        assert torch.allclose(learner.means, means, rtol=1e-12, atol=1e-12)


def test_equals_scikit_learn_at_equal_priors():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    x, y = clouds(3, rows=90)
    # Its covariance weighs classes by the priors, ours by their rows: equal where classes have equally many rows.
    fewest = int(torch.bincount(y).min())
    keep = torch.cat([(y == label).nonzero().flatten()[:fewest] for label in range(3)])
    other = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3)
    other.fit(x[keep].numpy(), y[keep].numpy())
    learner = StreamingLDA(None, classes=3, shrinkage=1e-12)
    learner.update(Batch(x[keep], y[keep]))
    expected = torch.from_numpy(other.predict_log_proba(x.numpy()))
    assert torch.allclose(torch.log_softmax(learner.predict(x), 1), expected, rtol=1e-6, atol=1e-6)


def test_full_shrinkage_is_nearest_class_mean(batches, fold, network):
    from everlearn.learners.nearest_class_mean import NearestClassMean

    events = batches(20)
    first, second = fold(StreamingLDA(network(), shrinkage=1.0), events), fold(NearestClassMean(network()), events)
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(9))
    assert torch.equal(first.predict(x).argmax(1), second.predict(x).argmax(1))
    other = fold(StreamingLDA(network()), events)
    assert not torch.equal(other.predict(x).argmax(1), second.predict(x).argmax(1))


def test_classes_far_from_zero_lose_no_digits():
    # Naive sums of squares would lose 1e6^2 * 2^-53 = 1e-4 of a variance of 1; the centred update loses nothing to speak of.
    x, y = clouds(1)
    learner, shifted = StreamingLDA(None, classes=3), StreamingLDA(None, classes=3)
    for start in range(0, 60, 7):
        learner.update(Batch(x[start : start + 7], y[start : start + 7]))
        shifted.update(Batch(x[start : start + 7] + 1e6, y[start : start + 7]))
    assert torch.allclose(shifted.scatter, learner.scatter, rtol=1e-7, atol=1e-7)


def test_predicting_changes_no_state_and_sees_every_update(network, batches):
    asked, silent = StreamingLDA(network()), StreamingLDA(network())
    x = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    for batch in batches():
        asked.update(batch)
        silent.update(batch)
        before = asked.state_dict()
        asked.predict(x)
        assert same(before, asked.state_dict())
    assert torch.equal(asked.predict(x), silent.predict(x))


def test_before_anything_is_learned_the_scores_are_numbers(network):
    assert StreamingLDA(network()).predict(torch.zeros(2, 5)).tolist() == [[UNSEEN] * 3] * 2


def test_features_of_a_network(network, batches, fold):
    learner = fold(StreamingLDA(network(), features="network"), batches())
    assert learner.scatter.shape == (7, 7)
    second = StreamingLDA(network(9), features="network")
    second.load_state_dict(learner.state_dict())
    assert torch.equal(learner.predict(batches()[0].x), second.predict(batches()[0].x))


def test_images_come_as_features_of_a_convolutional_network_by_default():
    random = torch.Generator().manual_seed(0)
    x, y = torch.rand(30, 1, 8, 8, generator=random), torch.arange(30) % 2
    torch.manual_seed(0)
    layers = (
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 2),
    )
    found = {}
    for features in ("auto", "network", "input"):
        learner = StreamingLDA(torch.nn.Sequential(*layers), features=features)
        learner.update(Batch(x, y))
        found[features] = learner.predict(x)
    assert torch.equal(found["auto"], found["network"])
    assert not torch.equal(found["auto"], found["input"])


@pytest.mark.parametrize("source", ["input", "network"])
def test_continues_from_a_snapshot(network, batches, continues, source):
    assert continues(lambda: StreamingLDA(network(), features=source), batches())


def test_refusals(network, batches, fold):
    learner = fold(StreamingLDA(network()), batches())
    before = learner.state_dict()
    with pytest.raises(InputError, match="streaming_lda: label 3"):
        learner.update(Batch(torch.zeros(2, 5), torch.tensor([0, 3])))
    assert learner.update(Batch(torch.zeros(2, 5))) == {}
    learner.boundary(Boundary(1))
    assert same(before, learner.state_dict())
    with pytest.raises(ArgumentError, match=r"shrinkage must be a number between 1e-12 and 1, got 0\.0"):
        StreamingLDA(network(), shrinkage=0.0)


def test_features_beyond_float64_are_refused_in_one_sentence():
    random = torch.Generator().manual_seed(0)
    column = 1e15 * torch.randn(50, 1, generator=random, dtype=torch.float64)
    learner = StreamingLDA(None, classes=2)
    learner.update(Batch(torch.cat([column, column], 1), torch.arange(50) % 2))
    with pytest.raises(InputError, match=r"largest variance .* has no inverse .* Standardise"):
        learner.predict(torch.zeros(1, 2, dtype=torch.float64))


def test_digits_in_the_order_of_classes_lose_nothing():
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    train, test = torch.arange(len(y)) % 5 != 0, torch.arange(len(y)) % 5 == 0
    learner = StreamingLDA(None, classes=10)
    for label in range(10):
        learner.update(Batch(x[train & (y == label)], y[train & (y == label)]))
    weight, bias = closed_form(x[train].double(), y[train], 10, 1e-4)
    assert torch.allclose(learner.predict(x[test]), x[test].double() @ weight.T + bias, rtol=1e-6, atol=1e-6)
    assert (learner.predict(x[test]).argmax(1) == y[test]).double().mean() > 0.92
