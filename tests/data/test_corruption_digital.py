"""Light, shape and storage, beside the colour space, the image library and the filters that they are defined by."""

import colorsys

import numpy
import pytest
import torch
from PIL import Image
from scipy import ndimage

from everlearn.data.corruption_digital import (
    brightness,
    contrast,
    elastic_transform,
    jpeg_compression,
    pixel_matrix,
    pixelate,
    saturate,
)
from everlearn.data.corruption_noise import Draws


@pytest.fixture(scope="module")
def image():
    found = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found[0, :, 0, 0] = 0.0  # black
    found[0, :, 0, 1] = 0.5  # grey
    return found


def in_hsv(image, change):
    """Each pixel changed in HSV by the standard library."""
    out = image.clone()
    for h in range(6):
        for w in range(6):
            out[:, h, w] = torch.tensor(colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*image[:, h, w].tolist()))))
    return out[:, :6, :6]


@pytest.mark.parametrize("more", [0.05, 0.5])
def test_brightness_raises_the_value(image, more):
    found = brightness(image, more)[0, :, :6, :6]
    assert torch.allclose(found, in_hsv(image[0], lambda h, s, v: (h, s, min(v + more, 1.0))), atol=1e-5)
    one = image[:, :1]
    assert torch.allclose(brightness(one, more), (one + more).clamp(max=1.0), atol=1e-6)


@pytest.mark.parametrize(("factor", "more"), [(0.3, 0.0), (2.0, 0.1), (20.0, 0.2)])
def test_saturate_changes_the_saturation(image, factor, more):
    found = saturate(image, factor, more)[0, :, :6, :6]
    assert torch.allclose(found, in_hsv(image[0], lambda h, s, v: (h, min(s * factor + more, 1.0), v)), atol=1e-5)
    assert torch.equal(saturate(image[:, :1], factor, more), image[:, :1])


def test_contrast_keeps_means_and_scales_deviations(image):
    found = contrast(image, 0.15)
    assert torch.allclose(found.mean((2, 3)), image.mean((2, 3)), atol=1e-6)
    assert torch.allclose(found.std((2, 3)), 0.15 * image.std((2, 3)), atol=1e-6)


def test_elastic_shifts_beside_scipy(image):
    """Without the affine part: map_coordinates on the same field."""
    found = elastic_transform(image, 3.0, 1.0, 0.0, draws=Draws(0, "test", range(2)))
    random = Draws(0, "test", range(2))
    random.uniform(0.0, 0.0, 3, 2)
    field = random.uniform(-1.0, 1.0, 2, 32, 32).double().numpy()
    for row in range(2):
        right, down = (3.0 * ndimage.gaussian_filter(plane, 1.0, mode="reflect", truncate=3.0) for plane in field[row])
        places = numpy.stack([numpy.arange(32)[:, None] + down, numpy.arange(32)[None] + right])
        slow = ndimage.map_coordinates(image[row, 1].double().numpy(), places, order=1, mode="reflect")
        assert numpy.abs(found[row, 1].numpy() - slow).max() < 1e-4


def test_elastic_maps_the_image_with_its_three_points():
    """Where the moved points lie, the image has what it had at the points: of planes that are coordinates, the reading is exact."""
    right, down = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="xy")
    found = elastic_transform(torch.stack([right, down])[None], 0.0, 0.0, 2.5, draws=Draws(0, "test", [5]))
    moved = Draws(0, "test", [5]).uniform(-2.5, 2.5, 3, 2)[0].double().numpy()
    points = 16 + 10 * numpy.array([[1, 1], [1, -1], [-1, -1]])
    for point, shift in zip(points, moved, strict=True):
        place = (point + shift)[::-1, None]
        read = [ndimage.map_coordinates(plane.double().numpy(), place, order=1)[0] for plane in found[0]]
        assert read == pytest.approx(point.tolist(), abs=1e-3)


@pytest.mark.parametrize(("side", "part"), [(32, 0.95), (32, 0.65), (28, 0.25), (56, 0.4)])
def test_pixelate_beside_pillow(side, part):
    """Pillow rounds to bytes twice, by half a byte each."""
    x = torch.randint(0, 256, (1, 3, side, side), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    few = int(side * part)
    picture = Image.fromarray(x[0].permute(1, 2, 0).numpy()).resize((few, few), Image.BOX).resize((side, side), Image.BOX)
    found = pixelate(x.float(), part)[0].permute(1, 2, 0).numpy()
    assert numpy.abs(found - numpy.asarray(picture, dtype=float)).max() <= 1.0
    assert torch.allclose(pixel_matrix(side, few).sum(1), torch.ones(side), atol=1e-6)


def test_jpeg_is_what_pillow_reads_again(image):
    found = jpeg_compression(image, 40)
    assert found.shape == image.shape and float((found - image).abs().mean()) > 0.01
    assert float((jpeg_compression(image, 95) - image).abs().mean()) < float((found - image).abs().mean())
    smooth = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    assert float((jpeg_compression(smooth, 95) - smooth).abs().max()) < 0.03
