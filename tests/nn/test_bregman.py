"""Bregman divergences: published numbers, and what holds for every potential on random points."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError, InputError
from everlearn.nn.bregman import (
    POTENTIALS,
    BinaryNegEntropy,
    LogNorm,
    NegEntropy,
    Quadratic,
    Squared,
    bregman,
    gaussian_divergence,
    gaussian_parameters,
    sigmoid_divergence,
    softmax_divergence,
)

P, Q = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64), torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)


def test_worked_numbers():
    assert bregman(P, Q, NegEntropy()).item() == pytest.approx(0.0992727822, abs=1e-10)
    assert bregman(P, Q, Squared()).item() == pytest.approx(0.065, abs=1e-12)
    assert bregman(P, Q, Quadratic((2.0, 1.0, 4.0))).item() == pytest.approx(0.08625, abs=1e-12)
    assert bregman(P, Q, Quadratic(torch.diag(torch.tensor([2.0, 1.0, 4.0])))).item() == pytest.approx(0.08625, abs=1e-12)


def test_distance_from_the_uniform_distribution():
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert bregman(P, uniform, NegEntropy()).item() == pytest.approx(0.2967937361, abs=1e-10)
    scores = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    spread = -(scores.softmax(1) * scores.log_softmax(1)).sum().item()
    assert spread == pytest.approx(0.8323955818, abs=1e-10)
    found = softmax_divergence(scores, uniform[None], model_first=True).item()
    assert found == pytest.approx(0.2662167068, abs=1e-10) == pytest.approx(math.log(3) - spread)


def test_two_coins():
    z, s = torch.tensor([0.8], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    crossed = -(z * s.log() + (1 - z) * (1 - s).log()).item()
    known = -(z * z.log() + (1 - z) * (1 - z).log()).item()
    assert bregman(z, s, BinaryNegEntropy()).item() == pytest.approx(0.5341108087, abs=1e-10)
    assert crossed - known == pytest.approx(0.5341108087, abs=1e-10)
    assert sigmoid_divergence(torch.logit(s)[None], z[None]).item() == pytest.approx(0.5341108087, abs=1e-10)


def test_two_gaussians_are_compared_the_other_way_round():
    one = torch.ones(1, dtype=torch.float64)
    p, q = gaussian_parameters(one, 2 * one), gaussian_parameters(0 * one, one)
    assert gaussian_divergence(one, 2 * one, 0 * one, one).item() == pytest.approx(1.3068528194, abs=1e-10)
    assert bregman(q, p, LogNorm()).item() == pytest.approx(1.3068528194, abs=1e-10)
    assert bregman(p, q, LogNorm()).item() != pytest.approx(1.3068528194, abs=0.1)


def test_a_categorical_family_gives_the_divergence_of_softmaxes():
    a, b = torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(bregman(a, b, LogNorm("categorical")), softmax_divergence(a, b.softmax(1)))


def test_a_kronecker_pair_is_the_matrix_that_it_stands_for():
    random = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=random, dtype=torch.float64) for size in (2, 3))
    left, right = left @ left.T, right @ right.T
    p, q = torch.randn(2, 4, 6, generator=random, dtype=torch.float64)
    assert torch.allclose(bregman(p, q, Quadratic((left, right))), bregman(p, q, Quadratic(torch.kron(left, right))))


def domain(name, rows, coordinates):
    """Random points where a potential of this name is defined."""
    random = torch.Generator().manual_seed(rows * 31 + coordinates)
    free = torch.randn(3, coordinates, generator=random, dtype=torch.float64)
    positive = free.exp()
    if name == "negentropy":
        return positive, NegEntropy()
    if name == "binary_negentropy":
        return free.sigmoid(), BinaryNegEntropy()
    if name == "gaussian":
        return gaussian_parameters(free, positive), LogNorm()
    if name == "categorical":
        return free, LogNorm("categorical")
    root = torch.randn(coordinates, coordinates, generator=random, dtype=torch.float64)
    matrix = {"squared": None, "diagonal": positive[0], "dense": root @ root.T, "pair": (root @ root.T, torch.ones(1, 1))}
    return free, Squared() if name == "squared" else Quadratic(matrix[name])


NAMES = ("squared", "diagonal", "dense", "pair", "negentropy", "binary_negentropy", "gaussian", "categorical")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), coordinates=st.integers(1, 6))
def test_what_makes_it_a_bregman_divergence(name, seed, coordinates):
    """Its definition, the sign, convexity in p, and the three-point identity."""
    (p, q, r), potential = domain(name, seed, coordinates)
    size = 1.0 + sum(potential.value(point).abs() + potential.gradient(point).norm() * 10 for point in (p, q, r)).item()

    def near(first, second):
        return abs(float(first) - float(second)) <= 1e-12 * size * size

    defined = potential.value(p) - potential.value(q) - (potential.gradient(q) * (p - q)).sum()
    assert near(bregman(p, q, potential), defined)
    assert bregman(p, q, potential) >= -1e-12 * size
    assert near(bregman(p, p, potential), 0.0)
    if name not in ("categorical", "dense", "pair") and not torch.allclose(p, q):
        assert bregman(p, q, potential) > 0
    middle = bregman(0.3 * p + 0.7 * r, q, potential)
    assert middle <= 0.3 * bregman(p, q, potential) + 0.7 * bregman(r, q, potential) + 1e-9 * size
    three = bregman(p, q, potential) + bregman(q, r, potential) - bregman(p, r, potential)
    assert near(three, ((potential.gradient(r) - potential.gradient(q)) * (p - q)).sum())


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_the_potential(name):
    (p, _, _), potential = domain(name, 3, 4)
    p = p.clone().requires_grad_()
    assert torch.allclose(torch.autograd.grad(potential.value(p), p)[0], potential.gradient(p.detach()))


def test_forms_from_scores_agree_with_the_plain_ones_and_stay_finite():
    random = torch.Generator().manual_seed(1)
    scores, others = torch.randn(2, 5, 4, generator=random, dtype=torch.float64)
    soft, coins = others.softmax(1), others.sigmoid()
    for first in (False, True):
        order = (lambda g, z: (g, z)) if first else (lambda g, z: (z, g))
        assert torch.allclose(
            softmax_divergence(scores, soft, first), bregman(*order(scores.softmax(1), soft), NegEntropy())
        )
        plain = bregman(*order(scores.sigmoid(), coins), BinaryNegEntropy())
        assert torch.allclose(sigmoid_divergence(scores, coins, first), plain)
    far = torch.tensor([[0.0, 500.0]])
    assert softmax_divergence(far, torch.tensor([[1.0, 0.0]])).item() == 500.0
    assert sigmoid_divergence(-far, torch.ones(1, 2)).isfinite().all()


def test_one_hot_targets_give_the_cross_entropy():
    scores, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 1, 2, 2, 1, 0])
    target = torch.nn.functional.one_hot(labels, 3).float()
    assert torch.allclose(
        softmax_divergence(scores, target), torch.nn.functional.cross_entropy(scores, labels, reduction="none")
    )


def test_names_and_refusals():
    assert [repr(cls()) for cls in POTENTIALS.values()] == [
        "squared()",
        "quadratic()",
        "negentropy()",
        "binary_negentropy()",
        "lognorm()",
    ]
    assert repr(Quadratic(torch.tensor([1.0, 2.0]))) == "quadratic([1.0, 2.0])"
    with pytest.raises(ArgumentError, match="did you mean 'gaussian'"):
        LogNorm("gausian")
    with pytest.raises(ArgumentError, match="square matrix"):
        Quadratic(torch.zeros(2, 3))
    with pytest.raises(ArgumentError, match="no matrix"):
        bregman(P, Q, Quadratic())
    with pytest.raises(InputError, match="2 coordinates, got 3"):
        bregman(P, Q, Quadratic((1.0, 2.0)))
    with pytest.raises(InputError, match="same coordinates"):
        bregman(P, Q[:2], Squared())
