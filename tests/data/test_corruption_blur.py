"""Kernels with their published numbers, and every blur beside its slow twin."""

import math

import numpy
import pytest
import torch
from scipy import ndimage

from everlearn.data.corruption_blur import (
    copied_from,
    defocus_blur,
    disk,
    gaussian_blur,
    gaussian_matrix,
    glass_blur,
    motion_blur,
    motion_kernel,
    zoom_blur,
    zoomed,
    zooms,
)
from everlearn.data.corruption_noise import Draws
from everlearn.data.corruption_tables import TABLE_32, TABLE_224


@pytest.fixture(scope="module")
def image():
    return torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(1))


def draws(rows=2):
    return Draws(0, "test", range(rows))


@pytest.mark.parametrize(("radius", "ones"), [(0.3, 1), (0.4, 1), (0.5, 1), (1, 5), (1.5, 9), (3, 29), (10, 317)])
def test_disks_have_their_published_number_of_ones(radius, ones):
    """A softening that is none leaves the disk itself."""
    kernel = disk(radius, 1e-3)
    assert int((kernel > 0).sum()) == ones
    assert torch.allclose(kernel[kernel > 0], torch.full((ones,), 1.0 / ones))


def test_a_softened_disk_is_a_gaussian_of_three_by_three():
    line = numpy.exp(-0.5 * (numpy.arange(-1, 2) / 0.4) ** 2)
    line /= line.sum()
    assert disk(0.3, 0.4).numpy() == pytest.approx(numpy.outer(line, line), abs=1e-7)


def test_a_disk_that_touches_its_grid_weighs_one_percent_more_as_published():
    """Softening mirrors the border of the grid, where a disk of radius 10 has pixels on each side; smaller ones weigh 1."""
    assert float(disk(8, 0.5).sum()) == pytest.approx(1.0, abs=0.02) and float(disk(6, 0.5).sum()) == pytest.approx(
        1.0, abs=1e-6
    )
    assert 1.0 < float(disk(10, 0.5).sum()) < 1.02


def test_a_disk_wider_than_its_grid_is_softened_by_five_by_five():
    line = numpy.exp(-0.5 * (numpy.arange(-2, 3) / 0.9) ** 2)
    line /= line.sum()
    place = numpy.arange(-10, 11)
    inside = (place[:, None] ** 2 + place**2 <= 100) / 317
    slow = ndimage.correlate1d(ndimage.correlate1d(inside, line, 0, mode="mirror"), line, 1, mode="mirror")
    assert numpy.abs(disk(10, 0.9).numpy() - slow).max() < 1e-7


def test_defocus_beside_a_plain_convolution(image):
    kernel = disk(1.5, 0.1).numpy()
    slow = numpy.stack([[ndimage.correlate(plane, kernel, mode="mirror") for plane in row] for row in image.numpy()])
    assert numpy.abs(defocus_blur(image, 1.5, 0.1).numpy() - slow).max() < 1e-5


@pytest.mark.parametrize("deviation", [0.05, 0.4, 1.0, 3.0])
def test_gaussian_blur_beside_scipy(image, deviation):
    slow = ndimage.gaussian_filter(image.numpy().astype(float), (0, 0, deviation, deviation), mode="nearest", truncate=4.0)
    assert numpy.abs(gaussian_blur(image, deviation).numpy() - slow).max() < 1e-5


def test_a_wide_gaussian_mirrors_its_border_again_and_again():
    row = numpy.random.default_rng(0).random(9)
    slow = ndimage.gaussian_filter1d(row, 20.0, mode="reflect", truncate=3.0)
    assert gaussian_matrix(9, 20.0, "reflect", 3.0).double().numpy() @ row == pytest.approx(slow, abs=1e-6)


def slowly_copied(plane, shift, distance):
    """Pixels from the last to the first, each replaced by a near one as it is by then."""
    out = plane.copy()
    height, width = plane.shape
    for h in range(height - distance, distance, -1):
        for w in range(width - distance, distance, -1):
            right, down = shift[:, h - distance - 1, w - distance - 1]
            out[h, w] = out[h + down, w + right]
    return out


@pytest.mark.parametrize("distance", [1, 2, 4])
def test_glass_copies_one_after_the_other(distance):
    height, width = 15, 13
    random = numpy.random.default_rng(distance)
    shift = random.integers(-distance, distance, (3, 2, height - 2 * distance, width - 2 * distance))
    source = copied_from(torch.from_numpy(shift), height, width, distance)
    plane = numpy.arange(height * width).reshape(height, width)
    for row in range(3):
        assert (slowly_copied(plane, shift[row], distance).ravel() == source[row].numpy()).all()


def test_glass_blur_without_blur_only_moves_pixels(image):
    found = glass_blur(image, 0.05, 1, 2, draws=draws())
    assert set(found[0, 0].unique().tolist()) <= set(image[0, 0].unique().tolist())
    assert not torch.equal(found, image)
    assert torch.equal(found[:, :, :2], image[:, :, :2])  # the border stays


def test_glass_is_smooth_before_and_behind(image):
    found = glass_blur(image, 0.8, 1, 2, draws=draws())
    drawn, slow = draws(), gaussian_blur(image, 0.8).numpy()
    for _ in range(2):
        shift = drawn.integers(-1, 1, 2, 18, 22).numpy()
        slow = numpy.stack(
            [[slowly_copied(plane, own, 1) for plane in planes] for planes, own in zip(slow, shift, strict=True)]
        )
    assert torch.equal(found, gaussian_blur(torch.from_numpy(slow), 0.8))


def test_motion_kernels_have_their_published_weights():
    assert motion_kernel(9, 2.5)[:4].tolist() == pytest.approx([0.275233, 0.254072, 0.199860, 0.133970], abs=5e-7)
    assert motion_kernel(6, 1.0)[:4].tolist() == pytest.approx([0.570348, 0.345934, 0.077188, 0.006336], abs=5e-7)


def test_motion_blur_beside_shifted_copies(image):
    found = motion_blur(image, 4, 1.5, draws=draws())
    angles = Draws(0, "test", range(2)).uniform(-45.0, 45.0, 1)
    weights = motion_kernel(4, 1.5).numpy()
    for row, angle in enumerate(torch.deg2rad(angles.double()).flatten().tolist()):
        slow = numpy.zeros(image.shape[1:])
        for h in range(image.shape[2]):
            for w in range(image.shape[3]):
                for step, weight in enumerate(weights):
                    down = min(max(h + math.ceil(step * math.sin(angle) - 0.5), 0), image.shape[2] - 1)
                    right = min(w + math.ceil(step * math.cos(angle) - 0.5), image.shape[3] - 1)
                    slow[:, h, w] += weight * image[row, :, down, right].numpy()
        assert numpy.abs(found[row].numpy() - slow).max() < 1e-5


def test_the_number_of_zooms_is_that_of_floating_point_steps():
    assert [len(zooms(*row)) for row in TABLE_32["zoom_blur"]] == [7, 12, 16, 21, 26]
    assert [len(zooms(*row)) for row in TABLE_224["zoom_blur"]] == [12, 16, 11, 13, 11]


def slowly_zoomed(plane, factor):
    kept = [math.ceil(side / factor) for side in plane.shape]
    top = [(side - few) // 2 for side, few in zip(plane.shape, kept, strict=True)]
    large = ndimage.zoom(plane[top[0] : top[0] + kept[0], top[1] : top[1] + kept[1]], factor, order=1, mode="nearest")
    trim = [(big - side) // 2 for big, side in zip(large.shape, plane.shape, strict=True)]
    return large[trim[0] : trim[0] + plane.shape[0], trim[1] : trim[1] + plane.shape[1]]


@pytest.mark.parametrize("factor", [1.0, 1.06, 1.25, 1.75, 4.5])
def test_zoom_beside_scipy(image, factor):
    plane = image[0, 0].numpy().astype(float)
    assert numpy.abs(zoomed(image, factor)[0, 0].numpy() - slowly_zoomed(plane, factor)).max() < 1e-5


def test_zoom_blur_is_a_mean(image):
    slow = numpy.mean([image[1, 2].numpy(), *(slowly_zoomed(image[1, 2].double().numpy(), z) for z in zooms(1.06, 0.01))], 0)
    assert numpy.abs(zoom_blur(image, 1.06, 0.01)[1, 2].numpy() - slow).max() < 1e-5
    assert torch.allclose(zoom_blur(torch.ones(1, 1, 9, 9), 1.26, 0.01), torch.ones(1, 1, 9, 9))
