"""Weather on images: snow, frost, fog; and the plasma that clouds and ice are made of.

    fog    (x + c P) max(x) / (max(x) + c)          frost  a x + b texture
    snow   b x + (1 - b) max(x, 1.5 grey + 0.5) + flakes + flakes turned by 180 degrees

Plasma P is a diamond-square fractal in 0..1. Photographs of frost are not part of the project: unless the caller has some, frost is
the plasma above its 0.6 quantile, tinted, and goes by the name `frost_synthetic` in figures.

Reference: Hendrycks & Dietterich (2019), arXiv 1903.12261.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from everlearn.data.corruption_blur import gaussian_blur, motion_blur, zoomed
from everlearn.data.corruption_noise import Draws

GREY = (0.299, 0.587, 0.114)
TINT = (0.9, 0.95, 1.0)
WOBBLE = 100.0
FROST_DECAY, FROST_QUANTILE, FROST_BLUR = 1.5, 0.6, 0.5
SLOPE = (-135.0, -45.0)  # degrees between which snow falls


def snow(
    x: Tensor,
    mean: float,
    deviation: float,
    zoom: float,
    least: float,
    radius: int,
    spread: float,
    part: float,
    *,
    draws: Draws,
) -> Tensor:
    """Flakes, enlarged noise above a threshold and blurred along a line, on a whitened image."""
    flakes = mean + deviation * draws.normal(1, *x.shape[-2:])
    flakes = zoomed(flakes, zoom)
    flakes = torch.where(flakes < least, 0.0, flakes).clamp(0.0, 1.0)
    flakes = motion_blur(flakes, radius, spread, draws=draws, angles=SLOPE)
    white = part * x + (1.0 - part) * torch.maximum(x, grey(x) * 1.5 + 0.5)
    return white + flakes + flakes.flip(-2, -1)


def frost(x: Tensor, part: float, ice: float, *, draws: Draws, photos: Sequence[Tensor] | None = None) -> Tensor:
    """part * x + ice * texture; a random crop of a photograph where there are any."""
    texture = frost_texture(x, draws) if photos is None else frost_crops(x, draws, photos)
    return part * x + ice * texture


def fog(x: Tensor, thickness: float, decay: float, *, draws: Draws) -> Tensor:
    """A cloud laid over the image, which loses contrast and never gets brighter than it was."""
    top = x.amax((1, 2, 3), keepdim=True)
    cloud = plasma(draws, *x.shape[-2:], decay)[:, None]
    return (x + thickness * cloud) * top / (top + thickness)


def plasma(draws: Draws, height: int, width: int, decay: float) -> Tensor:
    """(rows, height, width) in 0..1: a square of side 2^n filled by squares and diamonds, wrapped around, cropped.

    Each new value is the mean of its four neighbours + w U(-w, w), where w = 100 at first and is divided by `decay` in each round.
    """
    side = 1
    while side < max(height, width):
        side *= 2
    drawn = draws.uniform(-1.0, 1.0, side * side - 1).double()
    field = torch.zeros(len(drawn), side, side, dtype=torch.float64)
    used, step, wobble = 0, side, WOBBLE

    def near(total: Tensor) -> Tensor:
        nonlocal used
        count = total.shape[1] * total.shape[2]
        more = drawn[:, used : used + count].reshape(total.shape)
        used += count
        return total / 4 + wobble**2 * more

    while step >= 2:
        half = step // 2
        corners = field[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        field[:, half::step, half::step] = near(pairs + pairs.roll(-1, 2))
        middles = field[:, half::step, half::step]
        corners = field[:, ::step, ::step]
        field[:, ::step, half::step] = near(middles + middles.roll(1, 1) + corners + corners.roll(-1, 2))
        field[:, half::step, ::step] = near(middles + middles.roll(1, 2) + corners + corners.roll(-1, 1))
        step, wobble = half, wobble / decay
    field -= field.amin((1, 2), keepdim=True)
    return (field / field.amax((1, 2), keepdim=True))[:, :height, :width].float()


def frost_texture(x: Tensor, draws: Draws) -> Tensor:
    """(rows, channels, height, width): the plasma above its 0.6 quantile, 0 elsewhere, blurred and tinted."""
    ice = plasma(draws, *x.shape[-2:], FROST_DECAY)
    least = ice.flatten(1).quantile(FROST_QUANTILE, dim=1)[:, None, None]
    ice = gaussian_blur(torch.where(ice < least, 0.0, ice)[:, None], FROST_BLUR)
    tint = TINT if x.shape[1] == len(TINT) else (TINT[1],)
    return ice * torch.tensor(tint).view(1, -1, 1, 1)


def frost_crops(x: Tensor, draws: Draws, photos: Sequence[Tensor]) -> Tensor:
    """A random crop of a random photograph for each row. photos: (3, height, width) in 0..1, no smaller than the images."""
    choice = draws.uniform(0.0, 1.0, 3).tolist()
    height, width = x.shape[-2:]
    crops = []
    for which, down, right in choice:
        photo = photos[int(which * len(photos))]
        top, left = int(down * (photo.shape[1] - height + 1)), int(right * (photo.shape[2] - width + 1))
        crops.append(photo[:, top : top + height, left : left + width])
    found = torch.stack(crops).float()
    return found if x.shape[1] == len(TINT) else grey(found)


def grey(x: Tensor) -> Tensor:
    """(rows, 1, height, width): how bright colours look; the channel itself where there is one."""
    return x if x.shape[1] == 1 else (x * torch.tensor(GREY).view(1, -1, 1, 1)).sum(1, keepdim=True)
