"""Public sets, checked against the figures that come with them (skipped where EVERLEARN_DATA has none)."""

import hashlib

import numpy
import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data import known_sets
from everlearn.data.folders import find
from everlearn.data.load import load


def need(name):
    if find(name) is None:
        pytest.skip(f"EVERLEARN_DATA has no {name}")


def digest(images):
    """sha256 of the bytes in rows, height, width, channels order."""
    return hashlib.sha256(images.permute(0, 2, 3, 1).contiguous().numpy().tobytes()).hexdigest()


def test_cifar100_is_bit_exact():
    need("cifar100_12k")
    data = known_sets.cifar100_12k()
    assert data.x.shape == (10000, 3, 32, 32) and data.test_x.shape == (2000, 3, 32, 32) and data.x.dtype == torch.uint8
    assert int(data.x.sum(dtype=torch.int64)) == 3753424168 and int(data.test_x.sum(dtype=torch.int64)) == 748027216
    assert data.x[0, :, 0, 0].tolist() == [46, 51, 58]
    assert digest(data.x) == "124443d1a74c2651405025cd8864a598fbe0be12fc592009eeb90a343c69eb33"
    assert digest(data.test_x) == "486665a4f9cc3cf36b3849944ab0f8495a5de844beb9996d18c1c9bb69bba6fa"
    scaled = data.x.double() / 255
    assert scaled.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0.5074, 0.4879, 0.4421], abs=5e-5)
    assert scaled.std(dim=(0, 2, 3)).tolist() == pytest.approx([0.2668, 0.2553, 0.2752], abs=5e-5)


def test_cifar100_has_a_hundred_images_of_each_class_and_five_classes_in_each_superclass():
    need("cifar100_12k")
    fine, coarse = known_sets.cifar100_12k(), known_sets.cifar100_12k(labels="coarse")
    assert torch.bincount(fine.y).tolist() == [100] * 100 and torch.bincount(fine.test_y).tolist() == [20] * 100
    assert torch.bincount(coarse.y).tolist() == [500] * 20 and torch.bincount(coarse.test_y).tolist() == [100] * 20
    label, superclass = fine.classes.index("dolphin"), coarse.classes.index("aquatic_mammals")
    assert (coarse.y[fine.y == label] == superclass).all()
    assert fine.coarse_classes == coarse.classes and coarse.coarse == ()
    assert (fine.name, coarse.name) == ("cifar100_12k", "cifar100_12k(labels='coarse')")
    assert load("cifar100_12k").x is fine.x  # decoded once


def test_mnist_has_its_published_counts_and_a_fixed_split():
    need("mnist10k")
    data, other = known_sets.mnist10k(), known_sets.mnist10k(seed=1)
    assert data.x.shape == (8000, 1, 28, 28) and data.test_x.shape == (2000, 1, 28, 28) and data.x.dtype == torch.uint8
    every = torch.cat([data.x, data.test_x]).double() / 255
    counts = torch.bincount(torch.cat([data.y, data.test_y])).tolist()
    assert counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert float(every.mean()) == pytest.approx(0.13251, abs=5e-6) and float(every.std()) == pytest.approx(0.31048, abs=5e-6)
    order = numpy.random.default_rng(0).permutation(10000)
    with numpy.load(find("mnist10k").file) as file:
        assert numpy.array_equal(data.x[:, 0].numpy(), file["images"][order[:8000]])
        assert numpy.array_equal(data.test_y.numpy(), file["labels"][order[8000:]])
    assert other.name == "mnist10k(seed=1)" and not torch.equal(other.x, data.x)
    assert torch.equal(data.x, load("mnist10k").x)


def test_omniglot_is_split_by_drawer():
    need("omniglot_small")
    data = known_sets.omniglot_small()
    assert data.x.shape == (242 * 15, 1, 28, 28) and data.test_x.shape == (242 * 5, 1, 28, 28)
    with numpy.load(find("omniglot_small").file) as file:
        images = file["images"]
    character = 100
    assert numpy.array_equal(data.x[data.y == character, 0].numpy(), images[character, :15])
    assert numpy.array_equal(data.test_x[data.test_y == character, 0].numpy(), images[character, 15:])
    alphabets = known_sets.omniglot_small(labels="coarse")
    assert len(alphabets.classes) == 8
    assert all(name.startswith(alphabets.classes[kind]) for name, kind in zip(data.classes, data.coarse, strict=True))


@pytest.mark.parametrize(
    ("name", "rows", "columns", "classes", "majority"),
    [("letter", 20000, 16, 26, 0.0406), ("mushroom", 8124, 112, 2, 0.518), ("soybean", 683, 83, 19, 0.1347)],
)
def test_tables_have_their_published_sizes(name, rows, columns, classes, majority):
    need("bandit_classification/letter")
    data = known_sets.bandit_classification(name)
    assert data.x.shape == (rows, columns) and len(data.classes) == classes and len(data.features) == columns
    assert float(torch.bincount(data.y).max() / rows) == pytest.approx(majority, abs=5e-5)
    assert torch.allclose(data.x.double().mean(dim=0), torch.zeros(columns, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(data.x.double().std(dim=0, correction=0), torch.ones(columns, dtype=torch.float64), atol=1e-4)
    assert data.name == f"bandit_classification({name!r})" and torch.equal(load(name).x, data.x)


@pytest.mark.parametrize(
    ("name", "shape", "positive"),
    [("a9a", (32561, 123), 7841), ("sonar_scale", (208, 60), 111), ("mushrooms", (8124, 112), 3916)],
)
def test_sparse_sets_have_their_published_sizes(name, shape, positive):
    need("libsvm_binary/a9a")
    data = known_sets.libsvm_binary(name)
    assert tuple(data.x.shape) == shape and data.classes == ("-1", "1") and int(data.y.sum()) == positive


def test_letters_keep_their_names():
    need("bandit_classification/letter")
    assert load("letter").classes == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def test_what_is_missing_says_where_it_was_looked_for(monkeypatch):
    monkeypatch.setenv("EVERLEARN_DATA", "/no/such/folder")
    with pytest.raises(
        DataError, match=r"cifar100_12k: not found in EVERLEARN_DATA \(/no/such/folder, which is no folder\)"
    ):
        known_sets.cifar100_12k()
    with pytest.raises(ArgumentError, match="'fine' or 'coarse'"):
        known_sets.omniglot_small(labels="rough")
