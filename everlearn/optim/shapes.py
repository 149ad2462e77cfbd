"""Shapes: how a value falls from high to low while a share 0..1 of the way is made.

    cosine       low + (high - low) (1 + cos(pi p)) / 2       one_minus_sqrt  high (1 - sqrt p) + low sqrt p
    linear       high - (high - low) p                        reciprocal      1 / (p / low + (1 - p) / high)
    exponential  high (low / high)^p                          inv_sqrt        high + (low - high) g(p) / g(1),  g(t) = (1 + 10 t)^-1/2 - 1

References: Singh et al. (2025), Beyond cosine decay, CoLLAs, arXiv 2503.02844. Loshchilov & Hutter (2017), SGDR, arXiv 1608.03983 (cosine).
"""

import math
from collections.abc import Callable

from everlearn.core.errors import ArgumentError, closest

INV_SQRT_SCALE = 10.0  # how steep the cool-down of that name begins

Shape = Callable[[float, float, float], float]


def cosine_decay(share: float) -> float:
    """What is left of a rate after a share 0..1 of the way.

    >>> [cosine_decay(0.0), round(cosine_decay(0.5), 6), cosine_decay(1.0)]
    [1.0, 0.5, 0.0]
    """
    return 0.5 * (1.0 + math.cos(math.pi * share))


def _inv_sqrt(high: float, low: float, share: float) -> float:
    def fall(at: float) -> float:
        return 1.0 / math.sqrt(1.0 + INV_SQRT_SCALE * at) - 1.0

    return high + (low - high) * fall(share) / fall(1.0)


SHAPES: dict[str, Shape] = {
    "cosine": lambda high, low, share: low + (high - low) * cosine_decay(share),
    "linear": lambda high, low, share: high - (high - low) * share,
    "inv_sqrt": _inv_sqrt,
    "exponential": lambda high, low, share: high * (low / high) ** share,
    "one_minus_sqrt": lambda high, low, share: high * (1.0 - math.sqrt(share)) + low * math.sqrt(share),
    "reciprocal": lambda high, low, share: 1.0 / (share / low + (1.0 - share) / high),
}
COOLDOWNS = ("cosine", "linear", "inv_sqrt")
ANNEALS = ("exponential", "linear", "cosine", "one_minus_sqrt", "reciprocal")
ABOVE_ZERO = ("exponential", "reciprocal")  # these never reach 0


def check_shape(owner: str, argument: str, shape: str, known: tuple[str, ...], **low: float) -> None:
    """Refuse a shape that is not known, and one that never comes to where it is to end; low: the name of that argument, and its value."""
    if shape not in known:
        raise ArgumentError(f"{owner}: {closest(argument, shape, known)}")
    for key, value in low.items():
        if value <= 0.0 and shape in ABOVE_ZERO:
            raise ArgumentError(f"{owner}: the {shape} shape never reaches 0; {key} must be above 0, got {value!r}.")
