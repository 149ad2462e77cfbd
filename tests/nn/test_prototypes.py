"""Prototypes: frames and spreads against their closed forms, matching, calibration, and classes that come and go."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.state import capture, load
from everlearn.nn.losses import dot_regression
from everlearn.nn.prototypes import (
    PrototypeClassifier,
    assign_prototypes,
    calibrated,
    directions,
    shown,
    simplex_etf,
    spread_prototypes,
)


@pytest.mark.parametrize(("n", "dim"), [(2, 1), (4, 3), (4, 4), (4, 9), (60, 59), (60, 64), (100, 640)])
def test_a_simplex_frame_has_equal_angles_whatever_the_space(n, dim):
    frame = simplex_etf(n, dim, seed=3)
    assert frame.shape == (n, dim)
    cosines = frame.double() @ frame.double().T
    wanted = torch.full((n, n), -1.0 / (n - 1), dtype=torch.float64).fill_diagonal_(1.0)
    # float32 vectors of up to 640 numbers: 1e-6 is some roundings of 6e-8
    assert torch.allclose(cosines, wanted, rtol=0, atol=1e-6)
    assert frame.sum(0).abs().max() < 1e-5


def test_the_published_angles():
    assert (simplex_etf(4, 8) @ simplex_etf(4, 8).T)[0, 1].item() == pytest.approx(-0.333333, abs=1e-6)
    assert (simplex_etf(100, 128) @ simplex_etf(100, 128).T)[0, 1].item() == pytest.approx(-0.010101, abs=1e-6)


def test_a_frame_comes_from_its_seed():
    assert torch.equal(simplex_etf(5, 6, 1), simplex_etf(5, 6, 1))
    assert not torch.allclose(simplex_etf(5, 6, 1), simplex_etf(5, 6, 2), atol=0.1)
    assert simplex_etf(1, 3).norm().item() == pytest.approx(1.0)


@pytest.mark.parametrize(("n", "loss"), [(60, 5.0625e-6), (100, 9.4783e-6)])
def test_the_cross_entropy_at_the_optimum_is_known(n, loss):
    frame = simplex_etf(n, n).double()
    found = cross_entropy(16.0 * directions(frame) @ directions(frame).T, torch.arange(n))
    assert math.log1p((n - 1) * math.exp(-16.0 * n / (n - 1))) == pytest.approx(loss, rel=1e-4)
    assert found.item() == pytest.approx(loss, rel=1e-4)
    assert dot_regression(3.0 * frame, frame).item() == pytest.approx(0.0, abs=1e-9)


def test_too_narrow_a_space_is_refused_with_the_width_that_is_needed():
    with pytest.raises(ArgumentError, match=r"dim must be at least n - 1 = 9 for n=10 prototypes, got 8.*spread"):
        simplex_etf(10, 8)


def objective(points, temperature=0.5):
    """The published measure of how crowded directions are, row by row."""
    rows = [[math.exp(float(a @ b) / temperature) for b in points if b is not a] for a in points]
    return sum(math.log(sum(row)) for row in rows) / len(rows)


def test_spread_prototypes_are_further_apart_than_random_ones_and_reach_the_optimum_where_it_is_known():
    points = spread_prototypes(20, 6, seed=1)
    random = directions(torch.randn(20, 6, generator=torch.Generator().manual_seed(1)))
    assert torch.allclose(points.norm(dim=1), torch.ones(20), atol=1e-6)
    assert objective(list(points)) < objective(list(random)) - 0.05
    # where a simplex frame fits, it is the optimum: cosines -1/3, objective log 3 - 2/3
    frame = spread_prototypes(4, 5, seed=2)
    assert objective(list(frame)) == pytest.approx(math.log(3) - 2 / 3, abs=1e-4)
    assert torch.equal(points, spread_prototypes(20, 6, seed=1)) and not torch.equal(points, spread_prototypes(20, 6))
    assert spread_prototypes(1, 3).norm().item() == pytest.approx(1.0)


def test_matching_takes_the_largest_total_cosine():
    means = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    prototypes = torch.tensor([[0.0, 1.0], [0.7, 0.7], [1.0, 0.0]])
    found = assign_prototypes(means, prototypes)
    assert found.tolist() == [2, 0, 1]
    assert (means * prototypes[found]).sum().item() == pytest.approx(2.7)  # 1 + 1 + 0.7
    cosines = directions(means) @ directions(prototypes).T
    totals = [
        sum(cosines[i, p[i]].item() for i in range(3)) for p in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 1, 0)]
    ]
    assert max(totals) < sum(cosines[i, found[i]].item() for i in range(3))
    with pytest.raises(ArgumentError, match="3 classes need as many prototypes, got 2"):
        assign_prototypes(means, prototypes[:2])


def test_matching_turns_with_the_means_and_ignores_lengths():
    prototypes = simplex_etf(6, 8)
    order = torch.tensor([3, 0, 5, 1])
    noise = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([[0.1], [5.0], [1.0], [30.0]])
    assert assign_prototypes(lengths * (prototypes[order] + 0.05 * noise), prototypes).tolist() == order.tolist()


def test_calibration_by_hand():
    new, base = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # cosines 0 and 0.8: the second weighs 1 / (1 + e^-12.8), so 0.5 (0, 1) + 0.5 (0.6, 0.8)
    assert calibrated(new, base, 0.5, 16.0)[0].tolist() == pytest.approx([0.3, 0.9], abs=1e-5)
    assert torch.equal(calibrated(new, base, 1.0), new)
    assert calibrated(new, base, 0.0, 0.0)[0].tolist() == pytest.approx([0.8, 0.4])  # the plain mean of base prototypes


def embeddings(count=7, d=5, seed=0):
    return torch.randn(count, d, generator=torch.Generator().manual_seed(seed))


def test_a_prototype_is_the_mean_in_whatever_portions_and_order():
    rows = embeddings()
    whole, portions, shuffled = PrototypeClassifier(), PrototypeClassifier(), PrototypeClassifier()
    whole.set("a", rows)
    for part in rows.split([1, 4, 2]):
        portions.add("a", part)
    shuffled.set("a", rows[torch.tensor([6, 2, 0, 5, 1, 4, 3])])
    assert torch.allclose(whole.prototypes["a"], rows.mean(0), atol=1e-6)
    # sums of seven float32 numbers in float64: the float32 they are rounded to is the same
    assert torch.equal(whole.means, portions.means) and torch.equal(whole.means, shuffled.means)
    assert whole.counts == portions.counts == [7]


def test_another_class_changes_no_prototype_and_only_the_answers_that_are_nearer_to_it():
    classifier = PrototypeClassifier()
    for number in range(3):
        classifier.set(number, embeddings(seed=number))
    before, probe = classifier.means.clone(), embeddings(200, seed=9)
    old, best = classifier.predict(probe), classifier.scores(probe).max(1).values
    classifier.set("new", embeddings(seed=5))
    new, nearer = classifier.predict(probe), classifier.scores(probe)[:, 3] > best
    assert torch.equal(classifier.means[:3], before)
    assert 0 < int(nearer.sum()) < 200
    assert all((b == "new") if near else (a == b) for a, b, near in zip(old, new, nearer.tolist(), strict=True))
    classifier.remove("new")
    assert torch.equal(classifier.means, before) and classifier.predict(probe) == old


def test_scores_are_scaled_cosines():
    classifier = PrototypeClassifier(scale=2.0)
    classifier.set(4, torch.tensor([[3.0, 4.0]]))
    classifier.set(2, torch.tensor([[0.0, 9.0]]))
    assert classifier.scores(torch.tensor([[10.0, 0.0]]))[0].tolist() == pytest.approx([1.2, 0.0])
    assert (classifier.labels, classifier.bytes_per_class) == ([4, 2], 16)


def test_normalised_averages_weigh_rows_alike():
    rows = torch.tensor([[9.0, 0.0], [0.0, 1.0]])
    raw, normalised = PrototypeClassifier(), PrototypeClassifier(average="normalised")
    raw.set("a", rows)
    normalised.set("a", rows)
    assert raw.means[0].tolist() == pytest.approx([4.5, 0.5])
    assert normalised.means[0].tolist() == pytest.approx([0.5, 0.5])


def test_set_begins_anew_and_add_goes_on():
    classifier = PrototypeClassifier()
    classifier.add("a", torch.ones(2, 3))
    classifier.add("a", 4 * torch.ones(1, 3))
    assert classifier.means[0, 0].item() == 2.0
    classifier.set("a", 7 * torch.ones(1, 3))
    assert (classifier.means[0, 0].item(), classifier.counts, len(classifier)) == (7.0, [1], 1)
    assert "a" in classifier and "b" not in classifier


def test_its_state_goes_on_elsewhere():
    first, second = PrototypeClassifier(), PrototypeClassifier()
    first.set("a", embeddings(seed=1))
    first.set(7, embeddings(seed=2))
    load(second, capture(first))
    for classifier in (first, second):
        classifier.add(7, embeddings(seed=3))
    assert second.labels == ["a", 7] and torch.equal(first.means, second.means)


def test_refusals():
    classifier = PrototypeClassifier()
    with pytest.raises(InputError, match="there is no class yet"):
        classifier.predict(torch.ones(1, 3))
    with pytest.raises(InputError, match=r"embeddings must be \(rows, d\) with at least one row, got \(0, 3\)"):
        classifier.set("a", torch.ones(0, 3))
    with pytest.raises(InputError, match="NaN"):
        classifier.set("a", torch.tensor([[float("nan")]]))
    classifier.set("a", torch.ones(1, 3))
    with pytest.raises(InputError, match="have 2 numbers, those of the other classes 3"):
        classifier.add("b", torch.ones(1, 2))
    with pytest.raises(InputError, match="there is no class 'b'; there are 'a'"):
        classifier.remove("b")
    with pytest.raises(ArgumentError, match="average must be 'raw' or 'normalised', got 'mean'"):
        PrototypeClassifier(average="mean")
    with pytest.raises(ArgumentError, match="scale"):
        PrototypeClassifier(scale=0)
    assert classifier.labels == ["a"]
    assert shown(list("abc"), most=2) == "'a', 'b' and 1 more" and shown([]) == "none"
