"""Draws that are functions of a number: one uniform for each decision, so that a log can be replayed.

    u(seed, key) = mix(seed + key * golden) / 2^64,     action = the first a with P(0) + ... + P(a) > u

`mix` is the finaliser of SplitMix64, on whole arrays of keys at once. Reference: Steele, Lea, Flood (2014), "Fast splittable
pseudorandom number generators", OOPSLA.
"""

from collections.abc import Sequence

import numpy

from everlearn.core.errors import InputError

GOLDEN = numpy.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = numpy.uint64(0xBF58476D1CE4E5B9), numpy.uint64(0x94D049BB133111EB)
WORD = (1 << 64) - 1
Array = numpy.ndarray


def words(keys: Sequence[int] | Array) -> Array:
    """Whole numbers as 64-bit words, (rows,)."""
    if isinstance(keys, numpy.ndarray):
        return keys.astype(numpy.uint64)
    try:
        return numpy.array([key & WORD for key in keys], numpy.uint64)
    except TypeError:
        raise InputError(f"keys must be whole numbers, got {list(keys)[:3]}.") from None


def uniforms(seed: int, keys: Sequence[int] | Array) -> Array:
    """(rows,) numbers in [0, 1), each a function of (seed, key) alone.

    >>> uniforms(1, [7, 8, 7]).round(4).tolist()
    [0.6345, 0.4226, 0.6345]
    """
    mixed = words(keys) * GOLDEN
    mixed += numpy.uint64(seed & WORD)
    for shift, factor in ((30, FIRST), (27, SECOND)):
        mixed ^= mixed >> numpy.uint64(shift)
        mixed *= factor
    mixed ^= mixed >> numpy.uint64(31)
    return (mixed >> numpy.uint64(11)) * 2.0**-53


def pick(spread: Array, drawn: Array) -> Array:
    """The action of each column of probabilities (actions, rows) by the inverse of its distribution function; never one of 0."""
    reached = spread[0].copy()
    actions = (reached <= drawn).astype(numpy.int64)
    for row in spread[1:]:
        reached += row
        actions += reached <= drawn
    over = numpy.flatnonzero(actions == len(spread))  # rounding left the sum below the number drawn
    for column in over:
        actions[column] = numpy.flatnonzero(spread[:, column])[-1]
    return actions
