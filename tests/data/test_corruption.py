"""Corruptions: the formulas of `corrupt`, one kind per task, and the same event whenever it is asked for."""

import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data.corruption import KINDS, Corrupted, check_corruptible, posterize
from everlearn.data.corruptions import corrupt
from everlearn.data.dataset import Data


@pytest.fixture(scope="module")
def images(digits):
    """Sixteen real digits of 8x8 pixels, three times as large, in colour."""
    grey = (digits.x[:16].reshape(16, 1, 8, 8) / 16).repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)
    return torch.cat([grey, 0.5 * grey + 0.2, grey.square()], dim=1)


def distance(left, right):
    return float((left - right).square().mean().sqrt())


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_images_and_keeps_them_images(images, kind):
    for severity in range(5):
        found = Corrupted(severity, (kind,))(images, seed=0, task=3, step=2)
        assert found.shape == images.shape and found.dtype == images.dtype
        assert float(found.min()) >= 0 and float(found.max()) <= 1
        assert distance(found, images) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_the_same_corruption_rounded(images, kind):
    whole = (images * 255).round().to(torch.uint8)
    apply = Corrupted(2, (kind,))
    found = apply(whole, seed=1, task=0, step=0)
    assert found.dtype == torch.uint8
    real = apply(whole.float() / 255, seed=1, task=0, step=0)
    assert torch.equal(found, (real * 255).round().to(torch.uint8))


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"elastic_transform", "glass_blur", "saturate"}))
def test_severity_four_is_further_from_the_image_than_zero(images, kind):
    """The published strengths of the other three are not ordered by distance."""
    near, far = (Corrupted(severity, (kind,))(images, seed=0, task=0, step=0) for severity in (0, 4))
    assert distance(far, images) > distance(near, images)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"saturate"}))
def test_grey_images_stay_grey_images(images, kind):
    found = Corrupted(1, (kind,))(images[:, :1], seed=0, task=0, step=0)
    assert found.shape == (16, 1, 24, 24) and distance(found, images[:, :1]) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_drawn_from_the_global_state_and_inputs_stay(images, kind):
    before, copy = torch.get_rng_state(), images.clone()
    first = Corrupted(3, (kind,))(images, seed=0, task=1, step=5)
    torch.manual_seed(99)
    assert torch.equal(first, Corrupted(3, (kind,))(images, seed=0, task=1, step=5))
    torch.set_rng_state(before)
    assert torch.equal(images, copy)


# ---- kinds -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"posterize"}))
def test_a_kind_is_that_of_corrupt_one_severity_up(images, kind):
    """Where nothing is drawn, to the bit; noise has its deviation."""
    found, twin = Corrupted(2, (kind,))(images, 0, 0, 0), corrupt(images, kind, 3)
    still = (
        "gaussian_blur",
        "defocus_blur",
        "zoom_blur",
        "brightness",
        "contrast",
        "saturate",
        "pixelate",
        "jpeg_compression",
    )
    if kind in still:
        assert torch.equal(found, twin)
    assert distance(found, images) == pytest.approx(distance(twin, images), rel=0.35)


@pytest.mark.parametrize(
    "kind", ["gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform", "pixelate"]
)
def test_what_only_moves_or_mixes_leaves_a_plain_image_alone(kind):
    plain = torch.full((2, 3, 20, 20), 0.37)
    for severity in range(5):
        assert torch.allclose(Corrupted(severity, (kind,))(plain, 0, 0, 0), plain, atol=1e-5)


def test_posterize_by_hand():
    x = torch.tensor([0.2, 0.4, 0.9]).reshape(1, 1, 1, 3)
    assert torch.allclose(posterize(x, 6).flatten(), torch.tensor([0.2, 0.4, 0.8]), atol=1e-6)


# ---- one kind per task -----------------------------------------------------------------------------------------------------


def test_the_kind_is_a_function_of_seed_and_task(images):
    apply = Corrupted(severity="random")
    kinds = [apply.kind(3, 0, task) for task in range(600)]
    assert {name for name, _ in kinds} == set(KINDS) and {level for _, level in kinds} == set(range(5))
    assert [apply.kind(3, 0, task) for task in reversed(range(600))] == kinds[::-1]
    assert [apply.kind(3, 1, task) for task in range(600)] != kinds
    assert "saturate" not in {apply.kind(1, 0, task)[0] for task in range(600)}
    assert {Corrupted(1, ("fog", "snow")).kind(1, 0, task) for task in range(50)} == {("fog", 1), ("snow", 1)}
    assert {Corrupted().kind(3, 0, task)[1] for task in range(50)} == {1}
    first, second = (Corrupted(1, ("snow",))(images, seed=0, task=0, step=step) for step in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"severity": 5}, "severity must be 0 to 4 or 'random', got 5"),
        ({"severity": -1}, "severity must be an int >= 0, got -1. Or use severity='random'"),
        ({"severity": 1.5}, r"severity must be an int >= 0, got 1\.5"),
        ({"kinds": ("frog",)}, "unknown kind 'frog'; did you mean 'fog'"),
        ({"kinds": ()}, r"kinds must be names such as \('fog', 'snow'\), or None for all, got \(\)"),
        ({"kinds": "fog"}, "kinds must be names"),
    ],
)
def test_wrong_corruptions_are_refused(options, words):
    with pytest.raises(ArgumentError, match=f"corrupted: {words}"):
        Corrupted(**options)


def test_only_images_can_be_corrupted(digits):
    grey = Data("grey", torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("a", "b"))
    check_corruptible("recurring", grey, Corrupted())
    with pytest.raises(
        DataError, match=r"needs images of shape \(1 or 3, height, width\), and digits has rows of shape \(64,\)"
    ):
        check_corruptible("recurring", digits, Corrupted())
    with pytest.raises(DataError, match=r"needs bytes, or values 0\.\.1, and grey has 0 to 16"):
        real = Data("grey", 16 * torch.rand(4, 1, 8, 8).round(), grey.y, grey.classes)
        real.x[0, 0, 0, :2] = torch.tensor([0.0, 16.0])
        check_corruptible("recurring", real, Corrupted())
    with pytest.raises(ArgumentError, match=r"transform must be None or corrupted\(severity=1\), got 'fog'"):
        check_corruptible("recurring", grey, "fog")
    with pytest.raises(ArgumentError, match=r"corrupted\(kinds=\('saturate',\)\) leaves grey images as they are"):
        check_corruptible("recurring", grey, Corrupted(kinds=("saturate",)))
