"""Smaller images: `pooled(DATA, factor)` averages whole blocks of pixels.

x'[c, i, j] = mean of x[c, factor i : factor (i + 1), factor j : factor (j + 1)]
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from everlearn.core.errors import ArgumentError, DataError, check_count
from everlearn.data.dataset import Data
from everlearn.data.pictures import Pictures

ROWS = 1024  # images that are float32 at a time


def pooled(data: Data, factor: int = 2) -> Data:
    """The same images with sides divided by `factor`; each pixel is the mean of a block of factor x factor pixels.

    data: images, x (rows, channels, height, width); factor: at least 2, must divide height and width. Bytes stay bytes, means are
    rounded to the nearest, halves to the even one. The test part is pooled too. A quarter of the pixels is a quarter of the
    multiplications of a convolution: `split(pooled(cifar100_12k), experiences=10)`. Raises ArgumentError, DataError.

    >>> x = torch.tensor([[[[0, 2, 8, 8], [4, 6, 8, 9]]]], dtype=torch.uint8)
    >>> pooled(Data("dots", x, torch.tensor([0]), ("a",))).x.tolist()
    [[[[3, 8]]]]
    """
    if not isinstance(data, Data):
        raise ArgumentError(f"pooled: data must be a data set of images such as cifar100_12k, got {type(data).__name__}.")
    check_count("pooled", "factor", factor, 2, "Leave pooled out to keep the images as they are.")
    if data.x.ndim != 4:
        raise DataError(
            f"pooled: {data.name} has rows of shape {tuple(data.x.shape[1:])}, no images of shape (channels, height, width)."
        )
    height, width = data.x.shape[2:]
    if height % factor or width % factor:
        fits = [number for number in range(2, min(height, width) + 1) if height % number == width % number == 0]
        advice = f"Use one of {', '.join(map(str, fits))}." if fits else "Resize the images first."
        raise ArgumentError(f"pooled: factor must divide the {height}x{width} pixels of {data.name}, got {factor}. {advice}")
    name = f"pooled({data.name}{'' if factor == 2 else f', factor={factor}'})"
    test_x = None if data.test_x is None else _means(data.test_x, factor)
    return replace(data, name=name, x=_means(data.x, factor), test_x=test_x)


def _means(x: Tensor | Pictures, factor: int) -> Tensor:
    """(rows, channels, height / factor, width / factor) block means in the type of x."""
    parts = []
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS]  # lazy pictures are decoded here
        means = avg_pool2d(part if part.is_floating_point() else part.float(), factor)
        parts.append(means if part.is_floating_point() else means.round().to(part.dtype))
    return torch.cat(parts)
