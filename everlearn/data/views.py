"""Random views of images: crops, flips and colours, a whole batch at once.

Crop and flip of an image are one map of its axes, sampled once, bilinearly; colours are kornia's. Random numbers come from the
generator that is handed in, so that a resumed run sees the same views.

Reference: Lin et al. (2023), PCR, arXiv 2304.04408 (the family and its values); Riba et al. (2020), Kornia, WACV.
"""

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from everlearn.core.errors import ArgumentError, check_range
from everlearn.core.events import X
from everlearn.core.spec import describe

COLOUR, GREY = 3, 1  # channels
STRENGTH = (0.4, 0.4, 0.4, 0.1)  # of brightness, contrast, saturation and hue, as published
RATIO = (3 / 4, 4 / 3)  # width : height of a crop


@dataclass(frozen=True, repr=False)
class Views:
    """Random resized crops, flips, colour jitter and greys. `views()` takes the values that suit the images.

    scale: (least, most) part of the area that a crop keeps, (0.2, 1) for colour images as published, (0.6, 1) for grey ones
    (digits are destroyed by less); flip: probability of a mirror image, 0.5 for colour, 0 for grey; jitter: probability that
    colours are changed, 0.8; grey: probability that they are taken away, 0.2. Only images of three channels have colours.

    Bytes are taken as 0..255, floating-point colours as 0..1. Rows that are no images (tables, tokens) have no views: they
    are given back as they are, with a warning the first time.

    >>> import torch
    >>> from everlearn.core.random import generator
    >>> images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    >>> seen = Views()(images, generator(0))
    >>> seen.shape, seen.dtype
    (torch.Size([4, 3, 32, 32]), torch.float32)

    Differs from the source in: sides of a crop that would leave the image are cut to it instead of being drawn again.
    """

    scale: tuple[float, float] | None = None
    flip: float | None = None
    jitter: float = 0.8
    grey: float = 0.2
    name: ClassVar[str] = "views"

    def __post_init__(self) -> None:
        for key in ("flip", "jitter", "grey"):
            if getattr(self, key) is not None:
                check_range("views", key, getattr(self, key), 0.0, 1.0)
        good = self.scale is None or (len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1] <= 1)
        if not good:
            raise ArgumentError(f"views: scale must be (least, most) with 0 < least <= most <= 1, got {self.scale!r}.")

    def __repr__(self) -> str:
        return describe(self)

    def __call__(self, x: X, random: torch.Generator) -> X:
        """Views of the same shape, float32 in the range of x; x: (batch, channels, height, width)."""
        if not is_image(x):
            return x
        colour = x.shape[1] == COLOUR
        pixels = x.to(torch.float32)
        moved = self._move(pixels, colour, random)
        if not colour or not (self.jitter or self.grey):
            return moved
        top = 255.0 if x.dtype == torch.uint8 else 1.0
        return self._paint(moved / top, random) * top

    def _move(self, x: Tensor, colour: bool, random: torch.Generator) -> Tensor:
        """Crop, stretch back and mirror."""
        low, high = self.scale or ((0.2, 1.0) if colour else (0.6, 1.0))
        mirrored = (0.5 if colour else 0.0) if self.flip is None else self.flip
        draws = torch.rand(5, len(x), generator=random).to(x.device)
        side = (low + (high - low) * draws[0]).sqrt()
        stretch = ((math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * draws[1]) / 2.0).exp()
        width, height = (side * stretch).clamp(max=1.0), (side / stretch).clamp(max=1.0)
        across = torch.where(draws[4] < mirrored, -width, width)[:, None] * _centres(x.shape[3], x)
        across += ((2.0 * draws[2] - 1.0) * (1.0 - width))[:, None]
        down = height[:, None] * _centres(x.shape[2], x) + ((2.0 * draws[3] - 1.0) * (1.0 - height))[:, None]
        plane = (len(x), x.shape[2], x.shape[3])
        grid = torch.stack([across[:, None, :].expand(plane), down[:, :, None].expand(plane)], dim=3)
        return grid_sample(x, grid, padding_mode="border", align_corners=False)

    def _paint(self, x: Tensor, random: torch.Generator) -> Tensor:
        """Change colours in a random order, and take them away."""
        from kornia import enhance
        from kornia.color import rgb_to_grayscale

        draws = torch.rand(6, len(x), generator=random).to(x.device)
        brightness, contrast, saturation = (
            1.0 + strength * (2.0 * draw - 1.0) for strength, draw in zip(STRENGTH[:3], draws[:3], strict=True)
        )
        turn = 2.0 * math.pi * STRENGTH[3] * (2.0 * draws[3] - 1.0)
        steps = (
            lambda image: enhance.adjust_brightness_accumulative(image, brightness),
            lambda image: enhance.adjust_contrast_with_mean_subtraction(image, contrast),
            lambda image: enhance.adjust_saturation_with_gray_subtraction(image, saturation),
            lambda image: enhance.adjust_hue(image, turn),
        )
        if self.jitter:
            painted = x
            for step in torch.randperm(len(steps), generator=random).tolist():
                painted = steps[step](painted)
            x = torch.where((draws[4] < self.jitter)[:, None, None, None], painted, x)
        if self.grey:
            plain = rgb_to_grayscale(x).expand_as(x)
            x = torch.where((draws[5] < self.grey)[:, None, None, None], plain, x)
        return x


def _centres(count: int, like: Tensor) -> Tensor:
    """(count,): the centres of pixels in a row, from -1 at its left edge to 1 at its right."""
    return (2.0 * torch.arange(count, device=like.device) + 1.0) / count - 1.0


def is_image(x: X) -> bool:
    """Whether rows are images: (channels, height, width) with one or three channels, in bytes or floating point."""
    return (
        isinstance(x, Tensor)
        and x.ndim == 4
        and x.shape[1] in (GREY, COLOUR)
        and (x.dtype == torch.uint8 or x.dtype.is_floating_point)
    )


class Viewer:
    """Views for one learner, with the generator they are drawn from; `viewer(x)` gives one view of each row.

    views=None: no views, x is used twice. Says so once, and also where rows are no images.
    """

    parts = ("random",)

    def __init__(self, owner: str, views: Views | None, random: torch.Generator):
        if views is not None and not isinstance(views, Views):
            raise ArgumentError(f"{owner}: views must be views(...) or None, got {views!r}.")
        self.owner = owner
        self.views = views
        self.random = random
        self._warned = False

    def __call__(self, x: X) -> X:
        if self.views is not None and is_image(x):
            return self.views(x, self.random)
        if not self._warned:
            self._warned = True
            why = "views=None" if self.views is None else "rows are no images"
            warnings.warn(
                f"{self.owner}: {why}, so the second view of each row is the row itself.", UserWarning, stacklevel=2
            )
        return x
