"""Blur on images: Gaussian, defocus, glass, motion, zoom.

Blurs that are linear and the same for all rows are products with matrices, one for each side: out = D x R'. Glass blur copies pixels
from near places, one after the other; where each pixel comes from in the end is found for all at once by following pointers.

Reference: Hendrycks & Dietterich (2019), arXiv 1903.12261; motion as in ImageMagick, along a line of whole pixels.
"""

import math
from functools import lru_cache

import numpy
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from everlearn.data.corruption_noise import Draws

TRUNCATE = 4.0  # deviations after which a Gaussian is cut
GRID = 8  # the disk of a defocus blur is drawn on -8..8, or wider where it does not fit
NOTHING = 1e-8  # weights below are lost in float32


def gaussian_blur(x: Tensor, deviation: float, *, draws: Draws | None = None) -> Tensor:
    """Convolved with a Gaussian; the border is repeated."""
    return both_sides(x, *(gaussian_matrix(side, deviation) for side in x.shape[-2:]))


def defocus_blur(x: Tensor, radius: float, soft: float, *, draws: Draws | None = None) -> Tensor:
    """Convolved with a disk whose rim is softened; the border is mirrored about its pixels."""
    kernel = disk(radius, soft)
    reach = len(kernel) // 2
    planes = pad(x.flatten(0, 1)[:, None], (reach,) * 4, mode="reflect" if min(x.shape[-2:]) > reach else "replicate")
    return conv2d(planes, kernel[None, None]).reshape(x.shape)


def glass_blur(x: Tensor, deviation: float, distance: int, times: int, *, draws: Draws) -> Tensor:
    """Blurred, pixels copied from near places several times, and blurred again."""
    x = gaussian_blur(x, deviation)
    _, channels, height, width = x.shape
    distance = min(distance, (min(height, width) - 1) // 2)
    inner = (height - 2 * distance, width - 2 * distance)
    for _ in range(times):
        shift = draws.integers(-distance, distance, 2, *inner)
        source = copied_from(shift, height, width, distance)
        x = x.flatten(2).gather(2, source[:, None].expand(-1, channels, -1)).reshape(x.shape)
    return gaussian_blur(x, deviation)


def motion_blur(
    x: Tensor, radius: int, deviation: float, *, draws: Draws, angles: tuple[float, float] = (-45.0, 45.0)
) -> Tensor:
    """Half a Gaussian along a line, at an angle drawn for each row."""
    weights = motion_kernel(radius, deviation).tolist()
    reach = len(weights) - 1
    wide = pad(x, (reach,) * 4, mode="replicate").numpy()
    turn = torch.deg2rad(draws.uniform(*angles, 1).double()).flatten().tolist()
    height, width = x.shape[-2:]
    out = numpy.zeros(tuple(x.shape), dtype=numpy.float32)
    term = numpy.empty(tuple(x.shape[1:]), dtype=numpy.float32)
    for row, angle in enumerate(turn):
        source, total, down, right = wide[row], out[row], math.sin(angle), math.cos(angle)
        for step, weight in enumerate(weights):
            if weight < NOTHING:
                break
            top, left = reach + math.ceil(step * down - 0.5), reach + math.ceil(step * right - 0.5)
            numpy.multiply(source[:, top : top + height, left : left + width], numpy.float32(weight), out=term)
            total += term
    return torch.from_numpy(out)


def zoom_blur(x: Tensor, most: float, step: float, *, draws: Draws | None = None) -> Tensor:
    """The mean of the image and of its enlargements from 1 up to a factor."""
    factors = zooms(most, step)
    return (x + sum(zoomed(x, factor) for factor in factors)) / (len(factors) + 1)


# ---- kernels and matrices --------------------------------------------------------------------------------------------------


def both_sides(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """down x right', for each plane of x (..., height, width)."""
    return down @ (x @ right.T)


@lru_cache(maxsize=64)
def gaussian_matrix(side: int, deviation: float, border: str = "nearest", truncate: float = TRUNCATE) -> Tensor:
    """(side, side) convolution with a Gaussian along one side; the border is repeated ("nearest") or mirrored ("reflect")."""
    radius = int(truncate * deviation + 0.5)
    offset = torch.arange(-radius, radius + 1)
    line = torch.exp(-0.5 * (offset.double() / max(deviation, 1e-12)) ** 2)
    place = torch.arange(side)[:, None] + offset
    if border == "nearest":
        place = place.clamp(0, side - 1)
    else:  # d c b a | a b c d | d c b a
        place = place % (2 * side)
        place = torch.minimum(place, 2 * side - 1 - place)
    weights = (line / line.sum()).expand(side, -1)
    return torch.zeros(side, side, dtype=torch.float64).scatter_add_(1, place, weights).float()


@lru_cache(maxsize=64)
def disk(radius: float, soft: float) -> Tensor:
    """The kernel of a defocus blur: a disk, normalised, then smoothed by a Gaussian of 3 x 3 (5 x 5 where the radius is above 8).

    Smoothing mirrors the border of the grid, as in the published code: a disk that touches it (radius 8 or 10) weighs 1 % more than 1.
    """
    reach = GRID if radius <= GRID else math.ceil(radius)
    place = torch.arange(-reach, reach + 1)
    inside = (place[:, None] ** 2 + place[None] ** 2 <= radius**2).double()
    near = 1 if radius <= GRID else 2
    line = torch.exp(-0.5 * (torch.arange(-near, near + 1).double() / soft) ** 2)
    line = line / line.sum()
    wide = pad((inside / inside.sum())[None, None], (near,) * 4, mode="reflect")
    kernel = conv2d(conv2d(wide, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))[0, 0].float()
    empty = 0
    while empty < reach and not (kernel[empty].abs() > NOTHING).any():
        empty += 1
    return kernel[empty : len(kernel) - empty, empty : len(kernel) - empty].contiguous()


@lru_cache(maxsize=64)
def motion_kernel(radius: int, deviation: float) -> Tensor:
    """(2 radius + 1,) weights of half a Gaussian, float64, with sum 1."""
    weights = torch.exp(-0.5 * (torch.arange(2 * radius + 1).double() / deviation) ** 2)
    return weights / weights.sum()


def zooms(most: float, step: float) -> list[float]:
    """The factors 1, 1 + step, ... below `most`, as floating-point steps have it: the last one may be `most` itself.

    >>> len(zooms(1.06, 0.01)), len(zooms(1.31, 0.03))
    (7, 11)
    """
    return numpy.arange(1.0, most, step).tolist()


def zoomed(x: Tensor, factor: float) -> Tensor:
    """The middle of the image, enlarged to the size of the image."""
    return both_sides(x, *(zoom_matrix(side, factor) for side in x.shape[-2:]))


@lru_cache(maxsize=256)
def zoom_matrix(side: int, factor: float) -> Tensor:
    """(side, side): the middle ceil(side / factor) places, enlarged linearly with their ends kept, and trimmed to `side`."""
    kept = math.ceil(side / factor)
    size = round(kept * factor)
    place = torch.arange(side).double() + (size - side) // 2
    place = (place * ((kept - 1) / max(size - 1, 1))).clamp(0, kept - 1)
    low = place.floor().long().clamp(max=max(kept - 2, 0))
    part = place - low
    first = (side - kept) // 2
    found = torch.zeros(side, side, dtype=torch.float64)
    found.scatter_add_(1, (first + low)[:, None], (1.0 - part)[:, None])
    found.scatter_add_(1, (first + low + 1).clamp(max=side - 1)[:, None], part[:, None])
    return found.float()


def copied_from(shift: Tensor, height: int, width: int, distance: int) -> Tensor:
    """(rows, height * width): where each pixel comes from, once every inner pixel was replaced by a near one in turn.

    shift: (rows, 2, height - 2 distance, width - 2 distance) int64, (right, down). Inner pixels are visited from the last to the
    first, from place distance + 1 to side - distance, so a pixel may take what another has taken before it.
    """
    count = len(shift)
    places = torch.arange(height * width).reshape(height, width)
    inner = (slice(distance + 1, height - distance + 1), slice(distance + 1, width - distance + 1))
    source = places.expand(count, -1, -1).clone()
    source[:, inner[0], inner[1]] += shift[:, 1] * width + shift[:, 0]
    source = source.flatten(1)
    if distance == 1:  # shifts are -1 or 0: nothing visited earlier is ever taken
        return source
    visited = torch.zeros(height, width, dtype=torch.bool)
    visited[inner] = True
    # a pointer to a pixel visited earlier goes on to where that one came from; any other ends
    follows = visited.flatten()[source] & (source > torch.arange(height * width))
    pointer = torch.where(follows, source, torch.arange(height * width))
    while True:
        further = pointer.gather(1, pointer)
        if torch.equal(further, pointer):
            return source.gather(1, pointer)
        pointer = further
