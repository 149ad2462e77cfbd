"""Random corruptions of images, one kind per task: `corrupted(severity=1)`.

The formulas and strengths of `corrupt`, on a whole batch at once. The kind is drawn from (seed, task), noise from (seed, task, step):
an event is the same whenever it is asked for. Severities 0 to 4 of recurring streams are the published 1 to 5.

Reference: Hendrycks & Dietterich (2019), Benchmarking neural network robustness to common corruptions, arXiv 1903.12261.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError, check_count, closest
from everlearn.core.random import derive, generator
from everlearn.core.spec import describe
from everlearn.data.corruption_noise import Draws
from everlearn.data.corruption_tables import strength
from everlearn.data.corruptions import COLOUR, FUNCTIONS
from everlearn.data.dataset import Data

LEVELS = 5
# frost needs photographs; posterizing, rounding to a few levels, takes its place
POSTERIZE = (16, 12, 8, 6, 4)
KINDS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "gaussian_blur", "defocus_blur", "glass_blur"),
    *("motion_blur", "zoom_blur", "snow", "fog", "brightness", "contrast", "saturate", "elastic_transform", "pixelate"),
    *("posterize", "jpeg_compression"),
)
COLOURED = ("saturate",)  # those that leave grey images as they are


def posterize(x: Tensor, levels: int) -> Tensor:
    """Values rounded to a few levels.

    >>> posterize(torch.tensor([0.0, 0.25, 0.4, 1.0]), 3).tolist()
    [0.0, 0.0, 0.5, 1.0]
    """
    return (x * (levels - 1)).round() / (levels - 1)


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
    Differs from the paper in: frost, which needs photographs, gives way to posterizing.
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
        whole = x.dtype == torch.uint8
        pixels = x.float() / 255.0 if whole else x.float()
        if name == "posterize":
            found = posterize(pixels, POSTERIZE[severity])
        else:
            draws = Draws(derive(seed, "corruption", task, step), name, range(len(x)))
            found = FUNCTIONS[name](pixels, *strength(name, severity + 1, *x.shape[2:]), draws=draws).clamp(0.0, 1.0)
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
