"""Plasma beside its slow twin; snow, frost and fog by their formulas."""

import numpy
import pytest
import torch

from everlearn.data.corruption_blur import gaussian_blur, motion_blur, zoomed
from everlearn.data.corruption_noise import Draws
from everlearn.data.corruption_weather import fog, frost, frost_crops, frost_texture, grey, plasma, snow


def draws(rows=2, kind="test"):
    return Draws(3, kind, range(rows))


@pytest.fixture(scope="module")
def image():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.8


def slow_plasma(drawn, side, decay):
    """The diamond-square fractal point by point, random numbers in the order of squares, then the two kinds of diamonds."""
    field, numbers, step, wobble = numpy.zeros((side, side)), iter(drawn), side, 100.0
    while step >= 2:
        half = step // 2
        around = {
            (half, half): ((-half, -half), (-half, half), (half, -half), (half, half)),
            (0, half): ((half, 0), (-half, 0), (0, half), (0, -half)),
            (half, 0): ((half, 0), (-half, 0), (0, half), (0, -half)),
        }
        for (first, second), near in around.items():
            for i in range(first, side, step):
                for j in range(second, side, step):
                    mean = sum(field[(i + a) % side, (j + b) % side] for a, b in near) / 4
                    field[i, j] = mean + wobble * wobble * next(numbers)
        step, wobble = half, wobble / decay
    field -= field.min()
    return field / field.max()


@pytest.mark.parametrize("decay", [1.5, 3.0])
def test_plasma_beside_its_slow_twin(decay):
    found = plasma(draws(), 16, 16, decay)
    drawn = draws().uniform(-1.0, 1.0, 255).double().numpy()
    for row in range(2):
        assert numpy.abs(found[row].numpy() - slow_plasma(drawn[row], 16, decay)).max() < 1e-6


def test_plasma_reaches_from_0_to_1_and_is_cropped():
    found = plasma(draws(), 32, 32, 2.0)
    assert found.amin((1, 2)).tolist() == [0.0, 0.0] and found.amax((1, 2)).tolist() == [1.0, 1.0]
    assert torch.equal(plasma(draws(), 28, 20, 2.0), found[:, :28, :20])


def test_fog_is_its_formula_and_never_brighter_than_the_image(image):
    cloud = plasma(draws(), 32, 32, 1.75)[:, None]
    for row, found in enumerate(fog(image, 1.5, 1.75, draws=draws())):
        top = float(image[row].max())
        assert torch.allclose(found, (image[row] + 1.5 * cloud[row]) * top / (top + 1.5), atol=1e-6)
        assert float(found.max()) <= top + 1e-6


def test_snow_whitens_and_falls(image):
    still = snow(image, -9.0, 0.0, 1.0, 0.5, 8, 3.0, 0.8, draws=draws())  # no flake passes the threshold
    light = (image * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    assert torch.allclose(still, 0.8 * image + 0.2 * torch.maximum(image, light * 1.5 + 0.5), atol=1e-6)
    flakes = snow(image, 0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8, draws=draws()) - still
    assert float(flakes.min()) >= -1e-6 and float(flakes.max()) > 0.1
    assert torch.allclose(flakes, flakes.flip(-2, -1), atol=1e-5)  # a layer, and the same turned by 180 degrees
    assert torch.allclose(flakes[:, :1], flakes[:, 1:2], atol=1e-6)
    drawn = draws()
    layer = zoomed(0.3 + 0.3 * drawn.normal(1, 32, 32), 1.25)
    layer = motion_blur(torch.where(layer < 0.65, 0.0, layer).clamp(0.0, 1.0), 14, 12.0, draws=drawn, angles=(-135.0, -45.0))
    assert torch.allclose(flakes, layer + layer.flip(-2, -1), atol=1e-5)


def test_synthetic_frost_covers_two_fifths_with_a_tint(image):
    texture = frost_texture(image, draws())
    assert torch.allclose(texture[:, 0] / 0.9, texture[:, 2], atol=1e-6)
    ice = plasma(draws(), 32, 32, 1.5)
    least = ice.flatten(1).quantile(0.6, dim=1)
    covered = (ice >= least[:, None, None]).double().mean((1, 2))
    assert covered.tolist() == pytest.approx([0.4, 0.4], abs=0.001)
    bare = torch.where(ice < least[:, None, None], 0.0, ice)[:, None]
    assert torch.allclose(texture[:, 2:], gaussian_blur(bare, 0.5), atol=1e-6)
    assert torch.allclose(frost(image, 0.75, 0.45, draws=draws()), 0.75 * image + 0.45 * texture, atol=1e-6)
    assert frost_texture(image[:, :1], draws()).shape == (2, 1, 32, 32)


def test_photographs_of_frost_are_cropped_at_random(image):
    photo = torch.arange(40 * 50).float().reshape(1, 40, 50).expand(3, -1, -1) / 2000
    crops = frost_crops(image, draws(40), [photo])
    corners = (crops[:, 0, 0, 0] * 2000).round().long()
    assert crops.shape[1:] == (3, 32, 32) and len(corners.unique()) > 20
    assert int((corners // 50).max()) <= 8 and int((corners % 50).max()) <= 18
    assert torch.allclose(
        frost(image, 1.0, 0.2, draws=draws(), photos=[photo]), image + 0.2 * frost_crops(image, draws(), [photo])
    )


def test_grey_leaves_one_channel_as_it_is(image):
    assert torch.equal(grey(image[:, :1]), image[:, :1])
    assert torch.allclose(grey(torch.ones(1, 3, 8, 8)), torch.ones(1, 1, 8, 8))
