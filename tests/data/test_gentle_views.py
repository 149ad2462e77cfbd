"""Views that differ a little: repeatable, in range, in place where asked, and what each switch does."""

import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.core.random import generator
from everlearn.data.gentle_views import GentleViews


def images(channels=3, count=8):
    """Smooth planes in 0..1."""
    rows = torch.linspace(0.2, 0.8, 16)
    plane = (rows[:, None] * rows[None, :]).expand(count, channels, 16, 16)
    return plane * torch.linspace(0.5, 1.0, channels)[None, :, None, None]


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_repeatable_in_range_and_near(channels):
    x = images(channels)
    kept = x.clone()
    first, again, other = (GentleViews()(x, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and torch.equal(x, kept)
    assert first.shape == x.shape and first.dtype == torch.float32
    assert first.min() >= 0.0 and first.max() <= 1.0
    assert 0.0 < (first - x).abs().mean() < 0.25


def test_bytes_and_floats_see_the_same():
    x = (255 * images()).round()
    seen = GentleViews()(x.to(torch.uint8), generator(0))
    torch.testing.assert_close(seen / 255, GentleViews()(x / 255, generator(0)))
    standardised = 4.0 * (x / 255) - 2.0  # colours of such are left, and so is the range
    assert GentleViews()(standardised, generator(0)).min() < -1.0
    rows = torch.rand(4, 7)
    assert GentleViews()(rows, generator(0)) is rows


def test_moved_tells_whether_pixels_stay():
    """A bright corner: it stays the brightest place where nothing is moved, and a mirror takes it to the other side."""
    x = torch.zeros(40, 1, 16, 16)
    x[:, :, :4, :4] = 0.9
    for views, sides in ((GentleViews(moved=False), {0}), (GentleViews(flip=1.0), {1}), (GentleViews(flip=0.5), {0, 1})):
        seen = views(x, generator(0))
        left, right = seen[:, 0, :5, :6].sum((1, 2)), seen[:, 0, :5, -6:].sum((1, 2))
        assert set((right > left).long().tolist()) == sides
    still = GentleViews(moved=False, noise=0.0)(x, generator(0))
    assert ((still[:, 0, :2, :2] > 0.1).all() and (still[:, 0, 8:, 8:] == 0.0).all()).item()


def test_turns_and_noise_are_as_large_as_told():
    x = torch.full((64, 1, 16, 16), 3.0)  # out of range: no colours, no clipping; constant: nothing to move or blur
    seen = GentleViews(noise=0.1)(x, generator(0))
    count = seen.numel()
    assert seen.mean().item() == pytest.approx(3.0, abs=4 * 0.1 / count**0.5)
    assert seen.std().item() == pytest.approx(0.1, abs=4 * 0.1 / (2 * count) ** 0.5)
    bar = torch.zeros(64, 1, 33, 33)
    bar[:, :, 16] = 2.0

    def slopes(degrees):
        moved = GentleViews(degrees=degrees, noise=0.0, flip=0.0)(bar, generator(0))[:, 0, 6:-6, 6:-6]
        down = torch.arange(moved.shape[1], dtype=torch.float32)[:, None]
        centre = (moved * down).sum(1) / moved.sum(1)  # of the bar in each column
        return torch.rad2deg(torch.atan((centre[:, -1] - centre[:, 0]) / (moved.shape[2] - 1))).abs()

    assert slopes(0.0).max() < 0.5 and 12.0 < slopes(15.0).max() < 16.0
    with pytest.raises(ArgumentError, match="degrees must be a number between 0 and 180"):
        GentleViews(degrees=-1.0)
    assert repr(GentleViews(noise=0.0)) == "gentle(noise=0.0)"
