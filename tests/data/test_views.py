"""Random views: identities, ranges, what each probability does, and rows that have no views."""

import warnings

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.core.random import generator
from everlearn.data.views import Viewer, Views, is_image

GREY = torch.arange(2 * 28 * 28, dtype=torch.float32).view(2, 1, 28, 28)
COLOUR = (torch.rand(64, 3, 16, 16, generator=generator(1)) * 255).to(torch.uint8)
STILL = Views(scale=(1.0, 1.0), flip=0.0, jitter=0.0, grey=0.0)


def test_a_crop_of_everything_only_stretches():
    x = torch.full((8, 1, 12, 12), 7, dtype=torch.uint8)
    assert torch.allclose(STILL(x, generator(0)), x.float())
    mean = GREY.mean()
    assert STILL(GREY, generator(0)).mean() == pytest.approx(mean.item(), rel=0.2)


def test_a_mirror_image_is_the_image_from_right_to_left():
    ramp = torch.arange(16.0).expand(4, 1, 16, 16)
    plain = Views(scale=(1.0, 1.0), flip=0.0)(ramp, generator(5))
    turned = Views(scale=(1.0, 1.0), flip=1.0)(ramp, generator(5))
    assert bool((plain.diff(dim=3) >= 0).all()) and bool((turned.diff(dim=3) <= 0).all())
    half = Views(flip=0.5)(torch.arange(16.0).expand(400, 1, 16, 16), generator(5)).diff(dim=3).sum((1, 2, 3)) < 0
    assert 140 < int(half.sum()) < 260  # 6 standard deviations of 10


def test_a_crop_keeps_the_share_of_the_area_that_was_drawn():
    # On a ramp from 0 to 15 a crop of width w spans about 15 w: its squared share is the area where crops are square.
    ramp = torch.arange(64.0).expand(500, 1, 64, 64)
    spans = Views(scale=(0.25, 0.25), flip=0.0)(ramp, generator(2)).amax((1, 2, 3))
    lows = Views(scale=(0.25, 0.25), flip=0.0)(ramp, generator(2)).amin((1, 2, 3))
    width = (spans - lows) / 63.0
    assert width.min() > 0.5 * (3 / 4) ** 0.5 - 0.02 and width.max() < 0.5 * (4 / 3) ** 0.5 + 0.02
    assert width.mean().item() == pytest.approx(0.5, abs=0.02)


def test_pixels_stay_in_their_range_and_rows_are_not_changed():
    before = COLOUR.clone()
    seen = Views()(COLOUR, generator(0))
    assert seen.dtype == torch.float32 and seen.min() >= 0 and seen.max() <= 255.0 + 1e-3
    assert torch.equal(COLOUR, before)
    unit = Views()(COLOUR.float() / 255, generator(0))
    assert torch.allclose(unit * 255, seen, atol=1e-2)


def test_colours_change_with_their_probabilities():
    moved = Views(jitter=0.0, grey=0.0)
    # the same draws move the images; what differs from them afterwards was painted
    same = moved(COLOUR, generator(3))
    for jitter, low, high in ((0.0, 0, 0), (0.5, 10, 54), (1.0, 60, 64)):
        painted = Views(jitter=jitter, grey=0.0)(COLOUR, generator(3)) if jitter else moved(COLOUR, generator(3))
        changed = ((painted - same).abs().amax((1, 2, 3)) > 1e-2).sum()
        assert low <= int(changed) <= high
    plain = Views(jitter=0.0, grey=1.0)(COLOUR, generator(3))
    assert torch.allclose(plain[:, 0], plain[:, 2], atol=1e-3) and not torch.allclose(same[:, 0], same[:, 2], atol=1.0)


def test_grey_images_keep_their_side_and_most_of_their_area():
    ramp = torch.arange(28.0).expand(200, 1, 28, 28)
    seen = Views()(ramp, generator(0))
    assert bool((seen.diff(dim=3) >= 0).all())
    assert ((seen.amax((1, 2, 3)) - seen.amin((1, 2, 3))) / 27).min() > (0.6 * 3 / 4) ** 0.5 - 0.05


def test_the_generator_is_all_the_chance_there_is():
    torch.manual_seed(0)
    first = Views()(COLOUR, generator(4))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(first, Views()(COLOUR, generator(4)))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, Views()(COLOUR, generator(5)))


def test_rows_that_are_no_images_are_their_own_view_and_say_so_once():
    table = torch.randn(3, 5)
    viewer = Viewer("pcr", Views(), generator(0))
    with pytest.warns(UserWarning, match="rows are no images"):
        assert viewer(table) is table
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert viewer(table) is table
    with pytest.warns(UserWarning, match="views=None"):
        assert Viewer("pcr", None, generator(0))(COLOUR) is COLOUR
    assert is_image(COLOUR) and not is_image(torch.zeros(2, 5, 8, 8)) and not is_image({"x": table})


def test_impossible_views_are_refused():
    for wrong in ({"scale": (0.0, 1.0)}, {"scale": (0.8, 0.2)}, {"scale": (0.2, 1.2)}, {"flip": 2.0}, {"jitter": -0.1}):
        with pytest.raises(ArgumentError):
            Views(**wrong)
    with pytest.raises(ArgumentError, match="views must be"):
        Viewer("pcr", "views", generator(0))


def test_crops_are_those_of_affine_maps():
    """The slow twin: the same draws as one matrix per image."""
    seen = Views(scale=(0.3, 0.9), flip=0.5)(GREY, generator(8))
    draws = torch.rand(5, 2, generator=generator(8))
    side = (0.3 + 0.6 * draws[0]).sqrt()
    stretch = ((3 / 4) ** (1 - draws[1]) * (4 / 3) ** draws[1]).sqrt()
    width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    theta = torch.zeros(2, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = torch.where(draws[4] < 0.5, -width, width), height
    theta[:, 0, 2], theta[:, 1, 2] = (2 * draws[2] - 1) * (1 - width), (2 * draws[3] - 1) * (1 - height)
    grid = torch.nn.functional.affine_grid(theta, list(GREY.shape), align_corners=False)
    slow = torch.nn.functional.grid_sample(GREY, grid, padding_mode="border", align_corners=False)
    assert torch.allclose(seen, slow, atol=1e-2)
