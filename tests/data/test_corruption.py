"""Corruptions: identities and slow twins by kind, one kind per task, and the same event whenever it is asked for."""

import math

import numpy
import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.random import generator
from everlearn.data import corruption
from everlearn.data.corruption import KINDS, Corrupted, check_corruptible
from everlearn.data.dataset import Data


@pytest.fixture(scope="module")
def images(digits):
    """Sixteen real digits of 8x8 pixels, three times as large, in colour."""
    grey = (digits.x[:16].reshape(16, 1, 8, 8) / 16).repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)
    return torch.cat([grey, 0.5 * grey + 0.2, grey.square()], dim=1)


@pytest.fixture(scope="module")
def smooth():
    """Two smooth images in colour, on which kinds that blur and those that add noise differ little and much."""
    line = torch.linspace(0.1, 0.9, 24)
    plane = 0.5 + 0.3 * torch.sin(8 * line[:, None]) * torch.cos(5 * line[None])
    return torch.stack([torch.stack([plane, plane.T, plane.square()]), torch.stack([plane.flip(0), plane, plane.T])])


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


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"elastic", "glass_blur", "saturate"}))
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


def test_noises_have_their_deviations():
    """4 standard errors over 43,200 values: of a mean d / 208, of a deviation d / 294."""
    x, random = torch.full((25, 3, 24, 24), 0.5), generator(0, "test")
    error = 4 / math.sqrt(x.numel())
    for found, deviation in (
        (corruption.gaussian_noise(x, 0.1, random), 0.1),
        (corruption.speckle_noise(x, 0.2, random), 0.1),
        (corruption.shot_noise(x, 50, random), math.sqrt(0.5 / 50)),
    ):
        assert abs(float(found.mean()) - 0.5) < error * deviation
        assert abs(float(found.std()) - deviation) < error * deviation
    found = corruption.impulse_noise(x, 0.06, random)
    for value, share in ((0.0, 0.03), (1.0, 0.03), (0.5, 0.94)):
        assert abs(float((found == value).double().mean()) - share) < error * math.sqrt(share * (1 - share))


def test_a_gaussian_blur_is_scipys(smooth):
    from scipy.ndimage import gaussian_filter

    for deviation in (0.4, 1.0, 2.5):
        found = corruption.gaussian_blur(smooth, deviation)
        for image, blurred in zip(smooth.flatten(0, 1).numpy(), found.flatten(0, 1).numpy(), strict=True):
            assert numpy.allclose(blurred, gaussian_filter(image, deviation, mode="nearest", truncate=4.0), atol=1e-6)


def test_blurs_keep_the_mean_of_what_is_far_from_the_border():
    x = torch.zeros(1, 1, 41, 41)
    x[0, 0, 20, 20] = 1.0
    for kind in ("gaussian_blur", "defocus_blur", "motion_blur"):
        apply, strengths = KINDS[kind]
        for strength in strengths:
            assert float(apply(x, strength, generator(0, "test")).sum()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    "kind", ["gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic", "pixelate"]
)
def test_what_only_moves_or_mixes_leaves_a_plain_image_alone(kind):
    plain = torch.full((2, 3, 20, 20), 0.37)
    for severity in range(5):
        assert torch.allclose(Corrupted(severity, (kind,))(plain, 0, 0, 0), plain, atol=1e-5)


def test_a_shift_reads_the_pixel_beside():
    x = torch.arange(20.0).reshape(1, 1, 4, 5)
    right, down = corruption._moved(x, torch.tensor([1.0, 0.0])), corruption._moved(x, torch.tensor([0.0, 2.0]))
    assert torch.allclose(right[..., :4], x[..., 1:], atol=1e-5) and torch.allclose(right[..., 4], x[..., 4], atol=1e-5)
    assert torch.allclose(down[0, 0, :2], x[0, 0, 2:], atol=1e-5) and torch.allclose(down[0, 0, 2], x[0, 0, 3], atol=1e-5)


def test_an_enlargement_by_hand():
    """The middle half of a ramp, twice as large: 0..7 becomes 1.75, 2.25, ..., 5.25."""
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert torch.allclose(corruption._enlarged(ramp, 2.0)[0, 0, 3], 1.75 + 0.5 * torch.arange(8.0), atol=1e-5)
    assert torch.allclose(corruption._enlarged(ramp, 1.0), ramp, atol=1e-5)


def test_contrast_brightness_and_levels_by_hand():
    x = torch.tensor([0.2, 0.4, 0.9]).reshape(1, 1, 1, 3)
    random = generator(0, "test")
    assert torch.allclose(corruption.contrast(x, 0.5, random).flatten(), torch.tensor([0.35, 0.45, 0.7]))
    assert torch.allclose(corruption.brightness(x, 0.3, random).flatten(), torch.tensor([0.5, 0.7, 1.0]))
    assert torch.allclose(corruption.posterize(x, 6, random).flatten(), torch.tensor([0.2, 0.4, 0.8]), atol=1e-6)
    colour = torch.tensor([0.2, 0.4, 0.1]).reshape(1, 3, 1, 1)
    brighter = corruption.brightness(colour, 0.2, random).flatten()
    assert torch.allclose(brighter, torch.tensor([0.3, 0.6, 0.15]))


def test_saturation_is_that_of_the_standard_library(images):
    import colorsys

    for strength in ((0.3, 0.0), (2.0, 0.1)):
        found = corruption.saturate(images, strength, generator(0, "test"))
        pixels = images.permute(0, 2, 3, 1).reshape(-1, 3)[::37].tolist()
        for pixel, seen in zip(pixels, found.permute(0, 2, 3, 1).reshape(-1, 3)[::37].tolist(), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
            if saturation == 0:
                assert seen == pytest.approx(pixel)
            else:
                wanted = colorsys.hsv_to_rgb(hue, min(1.0, saturation * strength[0] + strength[1]), value)
                assert seen == pytest.approx(wanted, abs=1e-5)


def test_fog_lies_between_the_image_and_white_and_is_another_on_each_image():
    same = torch.full((4, 1, 16, 16), 0.5)
    found = corruption.fog(same, (0.5, 2.0), generator(0, "test"))
    assert torch.allclose(found.amin((1, 2, 3)), torch.full((4,), 0.25), atol=1e-5)  # 0.5 * 0.5 / (0.5 + 0.5)
    assert torch.allclose(found.amax((1, 2, 3)), torch.full((4,), 0.5), atol=1e-5)  # (0.5 + 0.5) * 0.5
    assert distance(found[0], found[1]) > 0.02


def test_motion_is_along_a_line():
    x = torch.zeros(1, 1, 31, 31)
    x[0, 0, 15, 15] = 1.0
    found = corruption.motion_blur(x, (9, 2.5), generator(3, "test"))[0, 0]
    places = (found > 0.02).nonzero().float() - 15
    along = places / places.norm(dim=1, keepdim=True).clamp(min=1)
    assert len(places) >= 4
    far = along[places.norm(dim=1) > 2]
    assert (far @ far.T > math.cos(math.radians(35))).all()  # one direction, as far as pixels tell


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
