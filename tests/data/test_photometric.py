"""Photometric views: each change beside its formula, pixels that stay in place, the same draws to the same bits."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.core.random import generator
from everlearn.data.photometric import DEVIATION, Photometric, _blurred, _contrasted, _jittered


def images(channels=3, count=6, side=8):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def test_nothing_asked_is_nothing_changed():
    x = images()
    assert Photometric(0.0, 0.0, 0.0)(x, generator(0)) is x


def test_the_same_generator_gives_the_same_bits_and_another_others():
    x = (255 * images()).to(torch.uint8)
    first, again, other = (Photometric()(x, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.dtype == torch.float32 and first.min() >= 0.0 and 1.0 < first.max() <= 255.001


def test_brightness_contrast_and_order_by_hand():
    """Draws of one half change nothing; brightness of 1 is a factor of 1.4, contrast of 0 a factor of 0.6 about the mean."""
    x = 0.5 * images(channels=1)
    half = torch.full((4, len(x)), 0.5)
    assert torch.allclose(_jittered(x, half, [0, 1, 2, 3]), x, atol=1e-6)
    bright = half.clone()
    bright[0] = 1.0
    assert torch.allclose(_jittered(x, bright, [0, 1, 2, 3]), (1.4 * x).clamp(max=1.0), atol=1e-6)
    mean = x.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(_contrasted(x, torch.full((len(x),), 0.6)), mean + 0.6 * (x - mean), atol=1e-6)


def test_hue_and_saturation_keep_greys_grey():
    grey = images(channels=1).expand(-1, 3, -1, -1)
    draws = torch.rand(4, len(grey), generator=torch.Generator().manual_seed(1))
    changed = _jittered(grey, draws, [3, 2, 1, 0])
    assert (changed - changed.mean(1, keepdim=True)).abs().max() < 1e-5
    assert not torch.allclose(_jittered(images(), draws, [2, 3, 0, 1]), _jittered(images(), draws, [0, 1, 2, 3]), atol=1e-4)


@pytest.mark.parametrize("draw", [0.0, 1.0])
def test_the_blur_by_hand(draw):
    """The weights of a Gaussian over three pixels, down and across, with the deviation that is drawn."""
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1.0
    deviation = DEVIATION[0] + draw * (DEVIATION[1] - DEVIATION[0])
    line = torch.exp(-0.5 * (torch.tensor([-1.0, 0.0, 1.0]) / deviation) ** 2)
    line = line / line.sum()
    found = _blurred(x, torch.tensor([draw]))[0, 0]
    assert torch.allclose(found[1:4, 1:4], line[:, None] * line[None], atol=1e-6) and abs(found.sum() - 1.0) < 1e-5


def test_each_change_comes_as_often_as_asked():
    """4,000 images of one grey-free colour: counts within six deviations of their expectation."""
    x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).expand(4000, -1, -1, -1) * 0.5
    for name, share in (("jitter", 0.4), ("blur", 0.2), ("grey", 0.1)):
        views = Photometric(**{"jitter": 0.0, "blur": 0.0, "grey": 0.0, name: share})
        changed = (views(x, generator(3)) - x).abs().amax((1, 2, 3)) > 1e-6
        assert abs(int(changed.sum()) - 4000 * share) < 6 * (4000 * share * (1 - share)) ** 0.5 + 8


def test_what_has_no_colours_and_what_is_no_image():
    table = torch.randn(4, 5)
    assert Photometric()(table, generator(0)) is table
    standardised = 5.0 * images() - 2.5
    only_blurred = Photometric(jitter=1.0, blur=0.0, grey=1.0)(standardised, generator(0))
    assert torch.equal(only_blurred, standardised)
    plain = Photometric(jitter=0.0, blur=0.0, grey=1.0)
    assert torch.equal(plain(images(1), generator(0)), images(1))


def test_what_it_refuses():
    with pytest.raises(ArgumentError, match="jitter must be a number between 0 and 1"):
        Photometric(jitter=1.5)
    assert repr(Photometric(blur=0.0)) == "photometric(blur=0.0)"
