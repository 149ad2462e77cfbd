"""Means with intervals over seeds, and paired differences between learners that ran on the same seeds.

    mean +- t(n-1, (1+level)/2) * s / sqrt(n)      s: standard deviation with n-1 in the denominator

With one value there is no interval (None). With a few seeds it is wide, as it should be. Where all values are equal it has no
width: nothing varied over the seeds, so it says nothing of other data.
Reference: Student (1908), The probable error of a mean. Fisher (1935), The design of experiments, ch. 3 (sign flips).
"""

import math
from collections.abc import Sequence
from typing import Any

from everlearn.core.errors import ArgumentError, check_range

EXACT = 16  # pairs up to which all sign flips are tried
TIE = 1e-12  # means this close (relative to the largest difference) count as equal


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float | None, float | None]:
    """(mean, low, high) with a t interval; low and high are None for one value.

    Raises ArgumentError where there is no value, or one that is not finite.

    >>> [round(bound, 3) for bound in mean_interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    numbers = _numbers("mean_interval", values)
    _check_level("mean_interval", level)
    mean = math.fsum(numbers) / len(numbers)
    if len(numbers) == 1:
        return mean, None, None
    if min(numbers) == max(numbers):
        return numbers[0], numbers[0], numbers[0]
    from scipy.special import stdtrit

    half = float(stdtrit(len(numbers) - 1, (1.0 + level) / 2.0)) * _error(numbers, mean)
    return mean, mean - half, mean + half


def paired(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> dict[str, Any]:
    """First minus second, seed by seed.

    Returns difference (mean), low and high (t interval), p (two-sided paired t test), p_exact (all sign flips, up to 16 pairs;
    never below 2^(1-n), so never small with few seeds) and clear, whether the interval leaves 0 out, that is p < 1 - level.

    >>> paired([0.8, 0.9, 0.8], [0.5, 0.6, 0.6])["clear"]
    True
    """
    left, right = _numbers("paired", first), _numbers("paired", second)
    if len(left) != len(right):
        raise ArgumentError(f"paired: both sides need the same seeds, got {len(left)} and {len(right)} values.")
    differences = [one - other for one, other in zip(left, right, strict=True)]
    mean, low, high = mean_interval(differences, level)
    if low is None or high is None:
        return {"difference": mean, "low": None, "high": None, "p": None, "p_exact": None, "clear": False}
    return {
        "difference": mean,
        "low": low,
        "high": high,
        "p": _t_test(differences, mean),
        "p_exact": sign_flip_p(differences) if len(differences) <= EXACT else None,
        "clear": low > 0.0 or high < 0.0,
    }


def sign_flip_p(differences: Sequence[float]) -> float:
    """The share of all 2^n choices of signs whose mean is at least as far from 0 as the observed one (two-sided, exact).

    >>> sign_flip_p([1.0, 2.0, 3.0])
    0.25
    """
    import numpy

    numbers = numpy.asarray(_numbers("sign_flip_p", differences))
    if len(numbers) > EXACT:
        raise ArgumentError(
            f"sign_flip_p: at most {EXACT} differences, got {len(numbers)}; use the p of paired(...) instead."
        )
    signs = 1.0 - 2.0 * ((numpy.arange(2 ** len(numbers))[:, None] >> numpy.arange(len(numbers))) & 1)
    sums = numpy.abs(signs @ numbers)
    return float(numpy.mean(sums >= abs(numbers.sum()) - TIE * numpy.abs(numbers).max()))


def _t_test(differences: Sequence[float], mean: float) -> float:
    error = _error(differences, mean)
    if min(differences) == max(differences) or error == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    from scipy.special import stdtr

    return 2.0 * float(stdtr(len(differences) - 1, -abs(mean) / error))


def _error(numbers: Sequence[float], mean: float) -> float:
    """The standard error of the mean."""
    return math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1) / len(numbers))


def _numbers(owner: str, values: Sequence[float]) -> list[float]:
    numbers = [float(value) for value in values]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ArgumentError(f"{owner}: at least one value is needed and all must be finite, got {numbers}.")
    return numbers


def _check_level(owner: str, level: float) -> None:
    check_range(owner, "level", level, 0.0, 1.0)
    if level in (0.0, 1.0):
        raise ArgumentError(f"{owner}: level must lie between 0 and 1, got {level}; 0.95 is usual.")
