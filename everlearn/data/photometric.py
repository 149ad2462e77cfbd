"""Changes of images in which every pixel stays where it is: brightness, contrast, saturation, hue, blur, grey.

No crops and no flips: what a network shall be steady against here is light, colour and focus. The changes are kornia's, the
random numbers come from the generator that is handed in.

Reference: Song et al. (2023), EcoTTA, arXiv 2303.01904 (the family and its values); Riba et al. (2020), Kornia, WACV.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from everlearn.core.errors import check_range
from everlearn.core.events import X
from everlearn.core.spec import describe
from everlearn.data.views import COLOUR, STRENGTH, is_image

KERNEL = 3  # pixels on a side of the blur
DEVIATION = (0.1, 2.0)  # least and most, of the blur


@dataclass(frozen=True, repr=False)
class Photometric:
    """Colour jitter, blur and greys. Values are the probabilities that an image is changed so.

    jitter: brightness, contrast and saturation by up to 40 %, hue by up to a tenth of its circle, in a random order, 0.4; blur: by
    a Gaussian over 3x3 pixels, of a deviation between 0.1 and 2, 0.2; grey: without colours, 0.1. Grey images know brightness,
    contrast and blur. Bytes are taken as 0..255, floating-point values as 0..1; where these leave that range (standardised
    images), they are blurred alone. Rows that are no images are given back as they are.

    >>> from everlearn.core.random import generator
    >>> images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    >>> seen = Photometric()(images, generator(0))
    >>> seen.shape, seen.dtype
    (torch.Size([4, 3, 32, 32]), torch.float32)

    Reference: Song et al. (2023), arXiv 2303.01904.
    """

    jitter: float = 0.4
    blur: float = 0.2
    grey: float = 0.1
    name: ClassVar[str] = "photometric"

    def __post_init__(self) -> None:
        for key in ("jitter", "blur", "grey"):
            check_range(self.name, key, getattr(self, key), 0.0, 1.0)

    def __repr__(self) -> str:
        return describe(self)

    def __call__(self, x: X, random: torch.Generator) -> X:
        """Images of the same shape, float32 in the range of x; x: (batch, 1 or 3, height, width)."""
        if not is_image(x) or not (self.jitter or self.blur or self.grey):
            return x
        top = 255.0 if x.dtype == torch.uint8 else 1.0
        seen = x.to(torch.float32) / top
        draws = torch.rand(8, len(x), generator=random).to(x.device)
        order = torch.randperm(4, generator=random).tolist()
        ranged = x.dtype == torch.uint8 or (float(seen.min()) >= 0.0 and float(seen.max()) <= 1.0)
        if ranged:
            seen = _where(draws[0] < self.jitter, _jittered(seen, draws[1:5], order), seen)
        seen = _where(draws[5] < self.blur, _blurred(seen, draws[6]), seen)
        if ranged and x.shape[1] == COLOUR:
            from kornia.color import rgb_to_grayscale

            seen = _where(draws[7] < self.grey, rgb_to_grayscale(seen).expand_as(seen), seen)
        return seen * top


def _where(chosen: Tensor, changed: Tensor, plain: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], changed, plain)


def _jittered(x: Tensor, draws: Tensor, order: list[int]) -> Tensor:
    """Colours changed, in an order; draws: (4, batch) in 0..1."""
    from kornia import enhance

    bright, contrast, saturation = (
        1.0 + strength * (2.0 * draw - 1.0) for strength, draw in zip(STRENGTH[:3], draws[:3], strict=True)
    )
    turn = 2.0 * math.pi * STRENGTH[3] * (2.0 * draws[3] - 1.0)
    colour = x.shape[1] == COLOUR
    steps = (
        lambda image: (image * bright[:, None, None, None]).clamp(0.0, 1.0),
        lambda image: _contrasted(image, contrast),
        lambda image: enhance.adjust_saturation_with_gray_subtraction(image, saturation) if colour else image,
        lambda image: enhance.adjust_hue(image, turn) if colour else image,
    )
    for step in order:
        x = steps[step](x)
    return x


def _contrasted(x: Tensor, factor: Tensor) -> Tensor:
    """Distances from the mean grey of each image, times a factor."""
    from kornia.color import rgb_to_grayscale

    grey = rgb_to_grayscale(x) if x.shape[1] == COLOUR else x
    mean = grey.mean((1, 2, 3), keepdim=True)
    return (mean + (x - mean) * factor[:, None, None, None]).clamp(0.0, 1.0)


def _blurred(x: Tensor, draws: Tensor) -> Tensor:
    from kornia.filters import gaussian_blur2d

    deviation = DEVIATION[0] + (DEVIATION[1] - DEVIATION[0]) * draws
    return gaussian_blur2d(x, (KERNEL, KERNEL), deviation[:, None].expand(-1, 2).contiguous())
