"""Light, shape and storage of images: brightness, contrast, saturation, elastic transform, pixels, JPEG.

    brightness  V + c in HSV     contrast  (x - mean) c + mean     saturate  S a + b in HSV
    elastic     a random affine map, then smooth random shifts     pixelate  smaller and larger again, both by boxes

Reference: Hendrycks & Dietterich (2019), arXiv 1903.12261; Simard et al. (2003), Best practices for convolutional neural networks.
"""

from functools import lru_cache
from io import BytesIO

import numpy
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from everlearn.data.corruption_blur import both_sides, gaussian_matrix
from everlearn.data.corruption_noise import Draws

ELASTIC_TRUNCATE = 3.0
TINY = 1e-12  # keeps black pixels out of a division


def brightness(x: Tensor, more: float, *, draws: Draws | None = None) -> Tensor:
    """The value of HSV raised; hue and saturation stay, so channels keep their ratios. Black becomes grey."""
    value = x.amax(1, keepdim=True)
    wanted = (value + more).clamp(0.0, 1.0)
    return torch.where(value > 0, x * (wanted / value.clamp(min=TINY)), wanted)


def contrast(x: Tensor, factor: float, *, draws: Draws | None = None) -> Tensor:
    """Distances from the mean of each channel of each image, times a factor."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def saturate(x: Tensor, factor: float, more: float, *, draws: Draws | None = None) -> Tensor:
    """The saturation of HSV times a factor, and more; hue and value stay. Grey pixels turn red, whose hue is 0; grey images stay."""
    if x.shape[1] == 1:
        return x
    value = x.amax(1, keepdim=True)
    spread = value - x.amin(1, keepdim=True)
    wanted = (spread / value.clamp(min=TINY) * factor + more).clamp(0.0, 1.0)
    # how far each channel lies below the value, in parts of the spread: 0 0..1 1, and (0, 1, 1) for red
    below = (value - x) / spread.clamp(min=TINY)
    red = torch.tensor([0.0, 1.0, 1.0]).view(1, 3, 1, 1)
    return value * (1.0 - wanted * torch.where(spread > 0, below, red))


def elastic_transform(x: Tensor, size: float, smooth: float, affine: float, *, draws: Draws) -> Tensor:
    """Three points moved and the image with them, then every pixel shifted by a smooth field. All lengths in pixels."""
    height, width = x.shape[-2:]
    moved = draws.uniform(-affine, affine, 3, 2)
    field = draws.uniform(-1.0, 1.0, 2, height, width)
    sides = [gaussian_matrix(side, smooth, "reflect", ELASTIC_TRUNCATE) for side in (height, width)]
    shift = size * both_sides(field, *sides)
    right, down = torch.meshgrid(torch.arange(width).float(), torch.arange(height).float(), indexing="xy")
    centre = torch.tensor([width // 2, height // 2], dtype=torch.float64)
    arm = min(height, width) // 3
    points = centre + arm * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    ones = torch.ones(len(x), 3, 1, dtype=torch.float64)
    back = torch.linalg.solve(torch.cat([points + moved.double(), ones], dim=2), points.expand(len(x), -1, -1)).float()
    place = torch.stack([right, down, torch.ones_like(right)], dim=-1) @ back[:, None]
    x = _read(x, place[..., 0], place[..., 1], corners=True)
    return _read(x, right + shift[:, 0], down + shift[:, 1], corners=False)


def _read(x: Tensor, right: Tensor, down: Tensor, *, corners: bool) -> Tensor:
    """The image at places (rows, height, width), linearly; mirrored about the border pixels (`corners`) or about their outer edges."""
    height, width = x.shape[-2:]
    if corners:
        grid = torch.stack([2.0 * right / max(width - 1, 1), 2.0 * down / max(height - 1, 1)], dim=-1) - 1.0
    else:
        grid = torch.stack([(2.0 * right + 1.0) / width, (2.0 * down + 1.0) / height], dim=-1) - 1.0
    return grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=corners)


def pixelate(x: Tensor, part: float, *, draws: Draws | None = None) -> Tensor:
    """Made smaller by boxes, and larger again by boxes."""
    return both_sides(x, *(pixel_matrix(side, max(1, int(side * part))) for side in x.shape[-2:]))


@lru_cache(maxsize=64)
def pixel_matrix(side: int, fewer: int) -> Tensor:
    """(side, side): down to fewer places and up to `side` again."""
    return (box_matrix(fewer, side) @ box_matrix(side, fewer)).float()


def box_matrix(before: int, after: int) -> Tensor:
    """(after, before) float64: a box filter as image programs have it, the mean of the places whose middle lies in the box."""
    scale = before / after
    support = 0.5 * max(scale, 1.0)
    found = torch.zeros(after, before, dtype=torch.float64)
    for row in range(after):
        centre = (row + 0.5) * scale
        low, high = max(0, int(centre - support + 0.5)), min(before, int(centre + support + 0.5))
        inside = [place for place in range(low, high) if -0.5 < (place + 0.5 - centre) / max(scale, 1.0) <= 0.5]
        found[row, inside] = 1.0 / len(inside)
    return found


def jpeg_compression(x: Tensor, quality: float, *, draws: Draws | None = None) -> Tensor:
    """JPEG-compressed and read again, by Pillow."""
    from PIL import Image

    pixels = (x * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    out = numpy.empty_like(pixels)
    for row, image in enumerate(pixels):
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(quality))
        out[row] = numpy.asarray(Image.open(file))
    found = torch.from_numpy(out).float() / 255.0
    return found[:, None] if found.ndim == 3 else found.permute(0, 3, 1, 2)
