"""Random corruptions of images, one kind per task: `corrupted(severity=1)`.

Noise, blur, weather and digital artefacts on a whole batch at once. The kind is drawn from (seed, task), noise from (seed, task,
step): an event is the same whenever it is asked for. Strengths are those published for images of 32 x 32 pixels; sizes of
kernels, drops and shifts do not grow with the image.

Reference: Hendrycks & Dietterich (2019), Benchmarking neural network robustness to common corruptions, arXiv 1903.12261.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor
from torch.nn.functional import conv2d, grid_sample, interpolate, pad

from everlearn.core.errors import ArgumentError, DataError, check_count, closest
from everlearn.core.random import generator
from everlearn.core.spec import describe
from everlearn.data.dataset import Data

LEVELS = 5
COLOUR = 3
TRUNCATE = 4.0  # deviations after which a Gaussian kernel is cut
SIDE = 16  # of a JPEG block with its colours at half the resolution


def _normal(x: Tensor, random: Generator) -> Tensor:
    return torch.randn(x.shape, generator=random)


def gaussian_noise(x: Tensor, deviation: float, random: Generator) -> Tensor:
    """x + deviation * N(0, 1)."""
    return x + deviation * _normal(x, random)


def speckle_noise(x: Tensor, deviation: float, random: Generator) -> Tensor:
    """x + x * deviation * N(0, 1): bright pixels are noisier."""
    return x + x * deviation * _normal(x, random)


def shot_noise(x: Tensor, photons: float, random: Generator) -> Tensor:
    """Poisson(photons * x) / photons."""
    return torch.poisson(x.clamp(0.0, 1.0) * photons, generator=random) / photons


def impulse_noise(x: Tensor, amount: float, random: Generator) -> Tensor:
    """A part `amount` of the values is 0 or 1, either as often."""
    draws = torch.rand(x.shape, generator=random)
    return torch.where(draws < amount / 2, 0.0, torch.where(draws < amount, 1.0, x))


def gaussian_blur(x: Tensor, deviation: float, random: Generator | None = None) -> Tensor:
    """Convolved with a Gaussian; the border is repeated."""
    radius = max(1, int(TRUNCATE * deviation + 0.5))
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / deviation) ** 2)
    line = line / line.sum()
    return _convolve(_convolve(x, line[None]), line[:, None])


def defocus_blur(x: Tensor, strength: tuple[float, float], random: Generator) -> Tensor:
    """Convolved with a disk of a radius, whose rim is softened by a Gaussian of a deviation."""
    radius, soft = strength
    reach = max(1, math.ceil(radius)) + 1
    place = torch.arange(-reach, reach + 1).float()
    disk = ((place[:, None] ** 2 + place[None] ** 2) <= radius**2).float()
    disk = gaussian_blur(pad(disk, (1, 1, 1, 1))[None, None], soft)[0, 0]
    return _convolve(x, disk / disk.sum())


def glass_blur(x: Tensor, strength: tuple[float, int, int], random: Generator) -> Tensor:
    """Blurred, pixels moved by up to a distance several times, and blurred again."""
    deviation, distance, times = strength
    x = gaussian_blur(x, deviation)
    for _ in range(times):
        shift = torch.randint(-distance, distance + 1, (len(x), *x.shape[2:], 2), generator=random).float()
        x = _moved(x, shift, mode="nearest")
    return gaussian_blur(x, deviation)


def motion_blur(x: Tensor, strength: tuple[int, float], random: Generator) -> Tensor:
    """A half Gaussian of a deviation, along a line of up to `radius` pixels, in one direction within 45 degrees for all images."""
    radius, deviation = strength
    angle = math.radians(float(torch.rand((), generator=random)) * 90.0 - 45.0)
    weights = torch.exp(-0.5 * (torch.arange(radius + 1) / deviation) ** 2)
    return sum(
        weight * _moved(x, torch.tensor([step * math.cos(angle), step * math.sin(angle)]))
        for step, weight in enumerate((weights / weights.sum()).tolist())
        if weight > 1e-4
    )


def zoom_blur(x: Tensor, strength: tuple[float, float], random: Generator) -> Tensor:
    """The mean of the image and its enlargements from 1 up to a factor, in steps."""
    most, step = strength
    factors = torch.arange(1.0, most, step).tolist()
    return (x + sum(_enlarged(x, factor) for factor in factors)) / (len(factors) + 1)


def snow(x: Tensor, strength: tuple[float, float, float, float, int, float, float], random: Generator) -> Tensor:
    """Flakes (enlarged noise above a threshold, blurred along a line) on a whitened image."""
    mean, deviation, zoom, threshold, radius, spread, weight = strength
    flakes = mean + deviation * torch.randn((len(x), 1, *x.shape[2:]), generator=random)
    flakes = _enlarged(flakes, zoom)
    flakes = motion_blur(torch.where(flakes < threshold, 0.0, flakes).clamp(0.0, 1.0), (radius, spread), random)
    white = weight * x + (1.0 - weight) * torch.maximum(x, x.mean(1, keepdim=True) * 1.5 + 0.5)
    return white + flakes + flakes.flip(2, 3)


def fog(x: Tensor, strength: tuple[float, float], random: Generator) -> Tensor:
    """A cloud of noise at every scale, each finer one weaker by `decay`, laid over the image, which loses contrast."""
    thickness, decay = strength
    height, width = x.shape[2:]
    cloud = torch.zeros(len(x), 1, height, width)
    octaves = max(1, math.ceil(math.log2(max(height, width))))
    for octave in range(octaves):
        coarse = torch.rand((len(x), 1, 2**octave + 1, 2**octave + 1), generator=random)
        cloud += interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True) / decay**octave
    low, high = cloud.amin((2, 3), keepdim=True), cloud.amax((2, 3), keepdim=True)
    top = x.amax((1, 2, 3), keepdim=True)
    return (x + thickness * (cloud - low) / (high - low).clamp(min=1e-6)) * top / (top + thickness)


def brightness(x: Tensor, more: float, random: Generator) -> Tensor:
    """Brighter by a part of the range, in the brightest channel; the colour stays."""
    value = x.amax(1, keepdim=True)
    return torch.where(value > 0, x * ((value + more).clamp(max=1.0) / value.clamp(min=1e-6)), (value + more).clamp(max=1.0))


def contrast(x: Tensor, factor: float, random: Generator) -> Tensor:
    """Distances from the mean of each channel of each image, times a factor below 1."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def saturate(x: Tensor, strength: tuple[float, float], random: Generator) -> Tensor:
    """The saturation of each pixel (its range of channels over the largest) times a factor, and more; hue and value stay."""
    factor, more = strength
    value = x.amax(1, keepdim=True)
    spread = value - x.amin(1, keepdim=True)
    saturation = spread / value.clamp(min=1e-6)
    wanted = (saturation * factor + more).clamp(0.0, 1.0)
    return value - (value - x) * torch.where(spread > 0, wanted / saturation.clamp(min=1e-6), 0.0)


def elastic(x: Tensor, strength: tuple[float, float, float], random: Generator) -> Tensor:
    """Shifts of a size, smooth over a deviation (both in parts of the height), after a random affine map of a size."""
    size, smooth, affine = (part * x.shape[2] for part in strength)
    count, _, height, width = x.shape
    draws = 2.0 * torch.rand((2, count, 1, height, width), generator=random) - 1.0
    shift = torch.stack([size * gaussian_blur(draw, max(smooth, 0.1))[:, 0] for draw in draws], dim=-1)
    corners = affine * (2.0 * torch.rand((count, 2, 2, 2), generator=random) - 1.0)
    return _moved(x, shift + interpolate(corners, (height, width), mode="bilinear", align_corners=True).permute(0, 2, 3, 1))


def pixelate(x: Tensor, part: float, random: Generator) -> Tensor:
    """Made smaller by averaging, and larger again without smoothing."""
    size = [max(1, int(side * part)) for side in x.shape[2:]]
    return interpolate(interpolate(x, size=size, mode="area"), size=x.shape[2:], mode="nearest")


def posterize(x: Tensor, levels: int, random: Generator) -> Tensor:
    """Values rounded to a few levels."""
    return (x * (levels - 1)).round() / (levels - 1)


def jpeg(x: Tensor, quality: float, random: Generator) -> Tensor:
    """JPEG-compressed and read again."""
    from kornia.enhance import jpeg_codec_differentiable

    height, width = x.shape[2:]
    square = pad(x.clamp(0.0, 1.0), (0, -width % SIDE, 0, -height % SIDE), mode="replicate").expand(-1, COLOUR, -1, -1)
    found = jpeg_codec_differentiable(square, torch.full((1,), float(quality)))[..., :height, :width]
    return found if x.shape[1] == COLOUR else found.mean(1, keepdim=True)


Corruption = Callable[[Tensor, Any, Generator], Tensor]
# each with its strengths, least to most
KINDS: dict[str, tuple[Corruption, Sequence[Any]]] = {
    "gaussian_noise": (gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "speckle_noise": (speckle_noise, (0.06, 0.10, 0.12, 0.16, 0.20)),
    "gaussian_blur": (gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "defocus_blur": (defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))),
    "glass_blur": (glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion_blur": (motion_blur, ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))),
    "zoom_blur": (zoom_blur, ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))),
    "snow": (
        snow,
        (
            (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
            (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
        ),
    ),
    "fog": (fog, ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))),
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "saturate": (saturate, ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))),
    "elastic": (
        elastic,
        ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "posterize": (posterize, (16, 12, 8, 6, 4)),
    "jpeg": (jpeg, (80, 65, 58, 50, 40)),
}
COLOURED = ("saturate",)  # those that leave grey images as they are


@dataclass(frozen=True, repr=False)
class Corrupted:
    """One random corruption per task: `corrupted(severity=1)`.

    severity: 0 (least) to 4, or "random" for one of them per task; kinds: names of those that may come, all 18 unless given
    (17 for grey images, which have no colours to saturate). Images are uint8, or floating-point values 0..1, and stay so.

    >>> images = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
    >>> seen = Corrupted(severity=2, kinds=("gaussian_noise",))(images, seed=0, task=3, step=0)
    >>> seen.shape, seen.dtype, bool((seen > 0).any())
    (torch.Size([4, 1, 28, 28]), torch.uint8, True)

    Reference: Hendrycks & Dietterich (2019), arXiv 1903.12261.
    Differs from the paper in: frost and spatter, which need photographs or drawings, give way to speckle noise, saturation and
    posterizing; glass blur and fog are computed for all pixels at once.
    """

    severity: int | str = 1
    kinds: tuple[str, ...] | None = None
    name: ClassVar[str] = "corrupted"

    def __post_init__(self) -> None:
        if self.severity != "random":
            check_count(self.name, "severity", self.severity, low=0, fix="Or use severity='random'.")
            if self.severity >= LEVELS:
                raise ArgumentError(f"{self.name}: severity must be 0 to {LEVELS - 1} or 'random', got {self.severity}.")
        if self.kinds is not None and (not isinstance(self.kinds, (list, tuple)) or not self.kinds):
            raise ArgumentError(
                f"{self.name}: kinds must be names such as ('fog', 'snow'), or None for all, got {self.kinds!r}."
            )
        for kind in self.kinds or ():
            if kind not in KINDS:
                raise ArgumentError(f"{self.name}: {closest('kind', str(kind), KINDS)}")

    def __repr__(self) -> str:
        return describe(self)

    def kind(self, channels: int, seed: int, task: int) -> tuple[str, int]:
        """(name, severity) of the corruption of a task; channels: of the images."""
        names = [kind for kind in self.kinds or KINDS if channels == COLOUR or kind not in COLOURED]
        first, second = torch.rand(2, generator=generator(seed, "corruption", task), dtype=torch.float64).tolist()
        return names[int(first * len(names))], int(second * LEVELS) if self.severity == "random" else int(self.severity)

    def __call__(self, x: Tensor, seed: int, task: int, step: int) -> Tensor:
        """x: (batch, channels, height, width); step: number of the event within the task."""
        name, severity = self.kind(x.shape[1], seed, task)
        apply, strengths = KINDS[name]
        whole = x.dtype == torch.uint8
        pixels = x.float() / 255.0 if whole else x.float()
        found = apply(pixels, strengths[severity], generator(seed, "corruption", task, step)).clamp(0.0, 1.0)
        return (found * 255.0).round().to(torch.uint8) if whole else found.to(x.dtype)


def check_corruptible(owner: str, data: Data, transform: Any) -> None:
    """Refuse a transform that is no corruption, or rows that are no images."""
    if not isinstance(transform, Corrupted):
        raise ArgumentError(f"{owner}: transform must be None or corrupted(severity=1), got {transform!r}.")
    if data.x.ndim != 4 or data.x.shape[1] not in (1, COLOUR):
        raise DataError(
            f"{owner}: transform=corrupted(...) needs images of shape (1 or 3, height, width), and {data.name} has rows of shape "
            f"{tuple(data.x.shape[1:])}. Leave transform out."
        )
    if data.x.dtype != torch.uint8 and (data.x.min() < 0 or data.x.max() > 1):
        raise DataError(
            f"{owner}: transform=corrupted(...) needs bytes, or values 0..1, and {data.name} has {data.x.min():g} to "
            f"{data.x.max():g}. Scale the images."
        )
    if data.x.shape[1] != COLOUR and transform.kinds is not None and all(kind in COLOURED for kind in transform.kinds):
        raise ArgumentError(
            f"{owner}: {transform!r} leaves grey images as they are, and those of {data.name} are grey. Name another kind."
        )


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Each channel convolved with one kernel of odd sides; the border is repeated."""
    down, right = kernel.shape[0] // 2, kernel.shape[1] // 2
    planes = pad(x.flatten(0, 1)[:, None], (right, right, down, down), mode="replicate")
    return conv2d(planes, kernel[None, None]).reshape(x.shape)


def _moved(x: Tensor, shift: Tensor, mode: str = "bilinear") -> Tensor:
    """The image read at places shifted by (right, down) pixels, from (batch, height, width, 2) or one pair for all."""
    height, width = x.shape[2:]
    down, right = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    place = torch.stack([right, down], dim=-1) + shift
    grid = (2.0 * place + 1.0) / torch.tensor([width, height]) - 1.0
    grid = grid if grid.ndim == 4 else grid.expand(len(x), -1, -1, -1)
    return grid_sample(x, grid, mode=mode, padding_mode="border", align_corners=False)


def _enlarged(x: Tensor, factor: float) -> Tensor:
    """The middle of the image, larger by a factor, at the size of the image."""
    height, width = x.shape[2:]
    place = [(torch.arange(side) + 0.5 - side / 2) * 2 / side / factor for side in (width, height)]
    grid = torch.stack(torch.meshgrid(place[1], place[0], indexing="ij")[::-1], dim=-1)
    return grid_sample(x, grid.expand(len(x), -1, -1, -1), padding_mode="border", align_corners=False)
