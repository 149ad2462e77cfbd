"""Random views of images that differ a little: light, a few degrees, a few pixels, a mirror, a soft focus, fine noise.

    x -> brightness, contrast, saturation, hue, gamma -> turn, shift, zoom -> blur -> mirror -> + N(0, noise)

A teacher's answers are averaged over such views, so each must still show what the image showed. Colours and blur are kornia's, the
random numbers come from the generator that is handed in.

Reference: Wang et al. (2022), Continual test-time domain adaptation, arXiv 2203.13591 (the family and its values, from their code).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from everlearn.core.errors import check_range
from everlearn.core.events import X
from everlearn.core.spec import describe
from everlearn.data.views import COLOUR, is_image

BRIGHTNESS, CONTRAST, SATURATION, HUE, GAMMA = (0.6, 1.4), (0.7, 1.3), (0.5, 1.5), (-0.06, 0.06), (0.7, 1.3)
SHIFT, ZOOM = 1 / 16, (0.9, 1.1)  # of the side
KERNEL, DEVIATION = 5, (0.001, 0.5)  # of the blur, in pixels


@dataclass(frozen=True, repr=False)
class GentleViews:
    """Views that differ a little. `gentle()` takes the published values.

    degrees: most by which an image is turned, 15; flip: probability of a mirror image, 0.5 for colour and 0 for grey images (None);
    noise: standard deviation of what is added, in parts of the range, 0.005; moved=False leaves every pixel in its place, as answers
    that are maps need.

    Bytes are taken as 0..255, floating-point values as 0..1; where these leave that range (standardised images), colours stay. Rows
    that are no images are given back as they are.

    >>> from everlearn.core.random import generator
    >>> images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    >>> seen = GentleViews()(images, generator(0))
    >>> seen.shape, seen.dtype
    (torch.Size([4, 3, 32, 32]), torch.float32)

    Reference: Wang et al. (2022), arXiv 2203.13591.
    Differs from the paper in: colours change in one order; images are stretched at the edge in place of padded.
    """

    degrees: float = 15.0
    flip: float | None = None
    noise: float = 0.005
    moved: bool = True
    name: ClassVar[str] = "gentle"

    def __post_init__(self) -> None:
        check_range(self.name, "degrees", self.degrees, 0.0, 180.0)
        check_range(self.name, "noise", self.noise, 0.0)
        if self.flip is not None:
            check_range(self.name, "flip", self.flip, 0.0, 1.0)

    def __repr__(self) -> str:
        return describe(self)

    def __call__(self, x: X, random: torch.Generator) -> X:
        """Images of the same shape, float32 in the range of x; x: (batch, 1 or 3, height, width)."""
        if not is_image(x):
            return x
        top = 255.0 if x.dtype == torch.uint8 else 1.0
        seen = x.to(torch.float32) / top
        ranged = x.dtype == torch.uint8 or (float(seen.min()) >= 0.0 and float(seen.max()) <= 1.0)
        draws = torch.rand(11, len(x), generator=random).to(x.device)
        grain = torch.randn(seen.shape, generator=random).to(x.device)
        if ranged:
            seen = _lit(seen, draws[:5])
        if self.moved:
            seen = self._move(seen, draws[5:10])
        seen = _blurred(seen, draws[10]) + self.noise * grain
        return (seen.clamp(0.0, 1.0) if ranged else seen) * top

    def _move(self, x: Tensor, draws: Tensor) -> Tensor:
        """Turn, shift, zoom and mirror by one map of the axes."""
        angle = (2.0 * draws[0] - 1.0) * math.radians(self.degrees)
        across, down = 2.0 * SHIFT * (2.0 * draws[1] - 1.0), 2.0 * SHIFT * (2.0 * draws[2] - 1.0)  # the side is 2 long
        zoom = 1.0 / _between(ZOOM, draws[3])
        mirrored = (0.5 if x.shape[1] == COLOUR else 0.0) if self.flip is None else self.flip
        side = torch.where(draws[4] < mirrored, -1.0, 1.0)
        cosine, sine = zoom * angle.cos(), zoom * angle.sin()
        maps = torch.stack([cosine * side, -sine, across, sine * side, cosine, down], dim=1).view(-1, 2, 3)
        grid = affine_grid(maps, list(x.shape), align_corners=False)
        return grid_sample(x, grid, padding_mode="border", align_corners=False)


def _between(limits: tuple[float, float], draws: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * draws


def _lit(x: Tensor, draws: Tensor) -> Tensor:
    """Brightness, contrast, saturation, hue and gamma, each clipped to 0..1; draws: (5, batch)."""
    from kornia import enhance

    x = (x * _between(BRIGHTNESS, draws[0])[:, None, None, None]).clamp(0.0, 1.0)
    x = (x * _between(CONTRAST, draws[1])[:, None, None, None]).clamp(0.0, 1.0)
    if x.shape[1] == COLOUR:
        x = enhance.adjust_saturation(x, _between(SATURATION, draws[2]))
        x = enhance.adjust_hue(x, 2.0 * math.pi * _between(HUE, draws[3]))
    return x.clamp(0.0, 1.0) ** _between(GAMMA, draws[4])[:, None, None, None]


def _blurred(x: Tensor, draws: Tensor) -> Tensor:
    from kornia.filters import gaussian_blur2d

    side = min(KERNEL, 2 * min(x.shape[2:]) - 1)
    return gaussian_blur2d(x, (side, side), _between(DEVIATION, draws)[:, None].expand(-1, 2).contiguous())
