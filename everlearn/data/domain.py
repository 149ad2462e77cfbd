"""Scenarios in which the inputs change and the classes stay: `permuted` pixels or columns, `rotated` images.

Each domain shows every training row through a transform of its own, applied to a batch when it is asked for.

References: Kirkpatrick et al. (2017), Overcoming catastrophic forgetting, arXiv 1612.00796 (permuted); Lopez-Paz & Ranzato
(2017), Gradient episodic memory, arXiv 1706.08840 (rotated).
"""

import math

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError, check_count
from everlearn.core.random import derive, generator
from everlearn.core.stream import Stream
from everlearn.data.dataset import Data
from everlearn.data.indexed import HeldOutSets, Indexed, Session, Transform
from everlearn.data.naming import check_data, check_sizes, named, present


@named
def permuted(
    data: Data,
    *,
    experiences: int = 5,
    batch: int = 10,
    epochs: int = 1,
    boundaries: bool = True,
    test: float = 0.2,
    seed: int = 0,
) -> Stream:
    """Domain-incremental: from the second experience on, pixels (or columns) come in another order, drawn once per experience.

    Images keep their channels; positions are exchanged, the same for every channel. Arguments as those of `split`.
    """
    check_count("permuted", "experiences", experiences)
    names = [f"{number}: {'as given' if number == 1 else 'permuted'}" for number in range(1, experiences + 1)]
    return _domains("permuted", data, names, Permute(seed), batch, epochs, boundaries, test, seed)


@named
def rotated(
    data: Data,
    *,
    degrees: tuple[float, ...] = (0, 45, 90, 135, 180),
    batch: int = 10,
    epochs: int = 1,
    boundaries: bool = True,
    test: float = 0.2,
    seed: int = 0,
) -> Stream:
    """Domain-incremental: images turned counter-clockwise by one angle per experience.

    Bilinear, 0 outside the image; multiples of 90 degrees are exact where images are square. Rows of a square number of columns,
    such as the 64 of digits, count as images. The other arguments are those of `split`.
    """
    good = isinstance(degrees, (list, tuple)) and len(degrees) > 0
    good = good and all(isinstance(angle, (int, float)) and math.isfinite(angle) for angle in degrees)
    if not good:
        raise ArgumentError(f"rotated: degrees must be one or more finite numbers such as (0, 45, 90), got {degrees!r}.")
    check_data("rotated", data)
    names = [f"{number}: {angle:g} degrees" for number, angle in enumerate(degrees, start=1)]
    return _domains("rotated", data, names, Rotate(degrees, image_size(data)), batch, epochs, boundaries, test, seed)


def _domains(name, data, names, transform: Transform, batch, epochs, boundaries, test, seed) -> Stream:
    check_data(name, data)
    check_sizes(name, batch=batch, epochs=epochs, test=test)
    train, judged = data.split(test, derive(seed, "test"))
    return Indexed(
        train,
        [Session(0, len(train), tuple(present(train)) if number == 0 else ()) for number in range(len(names))],
        batch=batch,
        order=torch.randperm(len(train), generator=generator(seed, "rows")),
        epochs=epochs,
        seed=seed,
        announced=bool(boundaries),
        transform=transform,
        held_out=HeldOutSets(judged, [Session(0, len(judged))] * len(names), names, transform=transform),
    )


class Permute:
    """Exchanges positions: session 0 as given, every other by a permutation drawn from (seed, session)."""

    def __init__(self, seed: int):
        self.seed = seed
        self._last: tuple[int, int, Tensor] | None = None

    def __call__(self, x: Tensor, session: int) -> Tensor:
        if session == 0:
            return x
        flat = x if x.ndim == 2 else x.flatten(-2)
        return flat[..., self.order(flat.shape[-1], session)].reshape(x.shape)

    def order(self, positions: int, session: int) -> Tensor:
        """The permutation of one session; the last one asked for is kept."""
        if self._last is None or self._last[:2] != (positions, session):
            drawn = torch.randperm(positions, generator=generator(self.seed, "permutation", session))
            self._last = (positions, session, drawn)
        return self._last[2]


class Rotate:
    """Turns images counter-clockwise by the angle of the session."""

    def __init__(self, degrees: tuple[float, ...], size: tuple[int, int]):
        self.degrees = degrees
        self.size = size
        self._last: tuple[float, Tensor, Tensor] | None = None

    def __call__(self, x: Tensor, session: int) -> Tensor:
        angle = self.degrees[session]
        if angle % 360 == 0:
            return x
        if self._last is None or self._last[0] != angle:
            self._last = (angle, *corners(self.size, angle))
        _, index, weight = self._last
        flat = x.reshape(*x.shape[: x.ndim - (1 if x.ndim == 2 else 2)], -1)
        values = flat if flat.dtype.is_floating_point else flat.to(torch.float32)
        turned = (values[..., index] * weight.to(values.dtype)).sum(-2)
        if not x.dtype.is_floating_point:
            turned = turned.round().to(x.dtype)
        return turned.reshape(x.shape)


def corners(size: tuple[int, int], degrees: float) -> tuple[Tensor, Tensor]:
    """(index, weight), each (4, pixels): the four pixels around the place that each pixel of a turned image comes from.

    Pixel (r, c) of the image turned by a comes from the place at -a around the centre; weights are bilinear, 0 outside.
    """
    height, width = size
    angle = math.radians(degrees)
    down = torch.arange(height, dtype=torch.float64)[:, None] - (height - 1) / 2
    right = torch.arange(width, dtype=torch.float64)[None, :] - (width - 1) / 2
    row = (math.cos(angle) * down + math.sin(angle) * right + (height - 1) / 2).round(decimals=9).flatten()
    column = (math.cos(angle) * right - math.sin(angle) * down + (width - 1) / 2).round(decimals=9).flatten()
    index, weight = [], []
    for step_down in (0, 1):
        for step_right in (0, 1):
            r, c = row.floor() + step_down, column.floor() + step_right
            share = (1 - (row - r).abs()) * (1 - (column - c).abs())
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            index.append((r.clamp(0, height - 1) * width + c.clamp(0, width - 1)).to(torch.int64))
            weight.append(share * inside)
    return torch.stack(index), torch.stack(weight)


def image_size(data: Data) -> tuple[int, int]:
    """(height, width) of the rows; a square number of columns is an image of equal sides."""
    shape = tuple(data.x.shape[1:])
    if len(shape) >= 2:
        return shape[-2], shape[-1]
    side = math.isqrt(shape[0]) if shape else 0
    if side < 2 or side * side != shape[0]:
        raise DataError(
            f"rotated: {data.name} has rows of shape {shape}, which are no images. Use images (channels, height, width), "
            "a square number of columns, or permuted(...)."
        )
    return side, side
