"""Sets of whole numbers as sorted ranges (low, high), both ends included: what of the log is left out, and what is put back.

joined  a + b      without  a - b      within  a and low..high
"""

from collections.abc import Iterable

Range = tuple[int, int]


def joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Sorted, neighbours made one.

    >>> joined([(7, 9), (1, 3), (4, 5), (9, 12)])
    ((1, 5), (7, 12))
    """
    made: list[Range] = []
    for low, high in sorted(ranges):
        if made and low <= made[-1][1] + 1:
            made[-1] = (made[-1][0], max(made[-1][1], high))
        elif low <= high:
            made.append((low, high))
    return tuple(made)


def without(ranges: Iterable[Range], others: Iterable[Range]) -> tuple[Range, ...]:
    """What of the first is not in the second.

    >>> without([(1, 10)], [(3, 4), (9, 20)])
    ((1, 2), (5, 8))
    """
    left = list(joined(ranges))
    for low, high in joined(others):
        left = [piece for start, stop in left for piece in ((start, min(stop, low - 1)), (max(start, high + 1), stop))]
        left = [piece for piece in left if piece[0] <= piece[1]]
    return tuple(left)


def common(ranges: Iterable[Range], others: Iterable[Range]) -> tuple[Range, ...]:
    """What is in both.

    >>> common([(1, 10)], [(3, 4), (9, 20)])
    ((3, 4), (9, 10))
    """
    first = joined(ranges)
    return without(first, without(first, others))


def within(ranges: Iterable[Range], low: int, high: int) -> tuple[Range, ...]:
    """What of it lies in low..high.

    >>> within([(1, 5), (8, 20)], 3, 9)
    ((3, 5), (8, 9))
    """
    return common(ranges, [(low, high)])
