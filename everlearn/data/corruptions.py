"""Common corruptions of images: `corrupt(images, "fog", severity=5)`. Fifteen types in five severities, and three more.

The formulas are those by which the published sets of corrupted CIFAR and ImageNet images were made, on whole batches, for grey and
colour images from 28 to 224 pixels and beyond. What a row becomes is a function of (seed, type, index of the row): severities
share their random numbers, so that a stronger storm has its flakes in the same places.

Reference: Hendrycks & Dietterich (2019), Benchmarking neural network robustness to common corruptions, arXiv 1903.12261.
Differs from the paper in: frost is synthetic where no photographs are given; results are rounded to bytes, not cut; intermediate
images are not rounded.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from everlearn.core.errors import DataError, InputError
from everlearn.data import corruption_blur, corruption_digital, corruption_noise, corruption_weather
from everlearn.data.corruption_noise import Draws
from everlearn.data.corruption_tables import EXTRA_TYPES, SMALL, TYPES, strength

COLOUR = 3
LEAST_SIDE = 8
CHUNK = 2**18  # pixels worked on at once: they stay in the cache
FROST_SCALE = 0.2  # photographs of frost are made so much smaller for small images

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "gaussian_noise": corruption_noise.gaussian_noise,
    "shot_noise": corruption_noise.shot_noise,
    "impulse_noise": corruption_noise.impulse_noise,
    "defocus_blur": corruption_blur.defocus_blur,
    "glass_blur": corruption_blur.glass_blur,
    "motion_blur": corruption_blur.motion_blur,
    "zoom_blur": corruption_blur.zoom_blur,
    "snow": corruption_weather.snow,
    "frost": corruption_weather.frost,
    "fog": corruption_weather.fog,
    "brightness": corruption_digital.brightness,
    "contrast": corruption_digital.contrast,
    "elastic_transform": corruption_digital.elastic_transform,
    "pixelate": corruption_digital.pixelate,
    "jpeg_compression": corruption_digital.jpeg_compression,
    "speckle_noise": corruption_noise.speckle_noise,
    "gaussian_blur": corruption_blur.gaussian_blur,
    "saturate": corruption_digital.saturate,
}
ALL_TYPES = (*TYPES, *EXTRA_TYPES)


def corrupt(
    images: Tensor,
    type: str,
    severity: int = 5,
    size_table: str = "auto",
    seed: int = 0,
    *,
    index: Sequence[int] | Tensor | None = None,
    photos: Sequence[Tensor] | None = None,
) -> Tensor:
    """Images with one corruption, in the dtype they came in.

    images: (batch, 1 or 3, height, width), uint8 or floating point in 0..1; type: one of `ALL_TYPES`; severity: 1 to 5; size_table:
    "auto" (by size), "32", "224", or "strong_noise" (by size, with the noise of the 224 table); index: (batch,) numbers that
    name the rows, 0, 1, ... unless given: a row is the same in whichever batch it comes; photos: of frost, each (3, height, width)
    uint8 or in 0..1. Raises ArgumentError, InputError, DataError.

    >>> images = torch.full((2, 3, 32, 32), 0.5)
    >>> noisy = corrupt(images, "gaussian_noise", severity=5)
    >>> round(float(noisy.std()), 2), torch.equal(corrupt(images[1:], "gaussian_noise", index=[1])[0], noisy[1])
    (0.1, True)
    """
    check_images("corrupt", images)
    strengths = strength(type, severity, *images.shape[-2:], size_table)
    rows = list(range(len(images))) if index is None else torch.as_tensor(index).tolist()
    if len(rows) != len(images):
        raise InputError(f"corrupt: index must have a number for each of the {len(images)} images, got {len(rows)}.")
    function = FUNCTIONS[type]
    if type == "frost" and photos is not None:
        function = partial(function, photos=_photos(photos, images))
    size = max(1, CHUNK // (images.shape[2] * images.shape[3]))
    out = torch.empty_like(images, device="cpu")
    for start in range(0, len(images), size):
        part = images[start : start + size].cpu()
        whole = part.dtype == torch.uint8
        pixels = part.float() / 255.0 if whole else part.float()
        found = function(pixels, *strengths, draws=Draws(seed, type, rows[start : start + size])).clamp_(0.0, 1.0)
        out[start : start + size] = found.mul_(255.0).round_() if whole else found
    return out.to(images.device)


def check_images(owner: str, images: Tensor) -> None:
    """Refuse what is no batch of images in 0..255 or 0..1."""
    if not isinstance(images, Tensor):
        raise DataError(f"{owner}: images must be a tensor, got {type(images).__name__}. Use torch.as_tensor(images).")
    if images.ndim != 4 or images.shape[1] not in (1, COLOUR) or min(images.shape[2:]) < LEAST_SIDE:
        raise DataError(
            f"{owner}: images must have the shape (batch, 1 or 3, height, width), with sides of {LEAST_SIDE} or more, got "
            f"{tuple(images.shape)}. Handwritten digits come as images by digits(side=32)."
        )
    if images.dtype == torch.uint8:
        return
    if not images.dtype.is_floating_point:
        raise DataError(f"{owner}: images must be uint8 or floating point, got {images.dtype}.")
    if len(images) and not bool(((images >= 0) & (images <= 1)).all()):
        low, high = images.min().item(), images.max().item()
        raise DataError(f"{owner}: images must lie in 0..1, got {low:g} to {high:g}. Scale them, or give bytes.")


def label_of(type: str, photos: Sequence[Tensor] | None = None) -> str:
    """What figures call a corruption: frost without photographs is `frost_synthetic`."""
    return "frost_synthetic" if type == "frost" and photos is None else type


def _photos(photos: Sequence[Tensor], images: Tensor) -> list[Tensor]:
    """The photographs in 0..1, smaller for small images. Raises DataError where one is smaller than the images."""
    from torch.nn.functional import interpolate

    found = []
    for photo in photos:
        pixels = photo.float() / 255.0 if photo.dtype == torch.uint8 else photo.float()
        if min(images.shape[2:]) <= SMALL * 2:
            size = [max(1, int(side * FROST_SCALE)) for side in pixels.shape[1:]]
            pixels = interpolate(pixels[None], size=size, mode="area")[0]
        if pixels.shape[0] != COLOUR or pixels.shape[1] < images.shape[2] or pixels.shape[2] < images.shape[3]:
            raise DataError(
                f"corrupt: a photograph of frost has the shape {tuple(photo.shape)}; it must be (3, height, width) and, made smaller, "
                f"no smaller than the images of {tuple(images.shape[2:])}."
            )
        found.append(pixels)
    if not found:
        raise DataError("corrupt: photos holds no photograph. Give one or more, or leave photos out.")
    return found
