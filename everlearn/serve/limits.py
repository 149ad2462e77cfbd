"""Limits on what is asked: a rate for each token or address, and bytes for each body.

A bucket holds at most `burst` rows and gains `rate` a second; a request waits while it holds less than one, and draws all its rows,
so that a large one is paid for by those after it (token bucket; Turner 1986).
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from everlearn.core.errors import ServeError, check_count, check_range

MOST = 10_000  # buckets that are remembered
IPV6_NETWORK = 64  # bits that one client of IPv6 is known by


class Buckets:
    """Buckets by key. rate: rows a second; burst: rows at once, by default those of two seconds and at least 10;
    most: buckets remembered, the longest unused is forgotten first; clock: seconds that never go back.

    >>> buckets = Buckets(2.0, burst=1, clock=lambda: 0.0)
    >>> buckets.wait("phone"), buckets.wait("phone"), buckets.wait("desk")
    (0.0, 0.5, 0.0)
    """

    def __init__(
        self,
        rate: float | None,
        burst: float | None = None,
        *,
        most: int = MOST,
        clock: Callable[[], float] = time.monotonic,
    ):
        for argument, value in (("rate", rate), ("burst", burst)):
            if value is not None:
                check_range("limits", argument, value, 1e-6, 1e12)
        check_count("limits", "most", most)
        self.rate = rate
        self.burst = burst
        self.most = most
        self.clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def wait(self, key: str, rate: float | None = None) -> float:
        """Draw one row: 0.0 where that is allowed, else the seconds until it will be. rate: of this key, else that of all."""
        rate = self.rate if rate is None else rate
        if rate is None:
            return 0.0
        level = self._level(key, rate)
        if level < 1.0:
            return (1.0 - level) / rate
        self._keep(key, level - 1.0)
        return 0.0

    def draw(self, key: str, rows: int, rate: float | None = None) -> None:
        """Draw more rows for a request that was let in; the bucket may owe them."""
        rate = self.rate if rate is None else rate
        if rate is not None:
            self._keep(key, self._level(key, rate) - rows)

    def _level(self, key: str, rate: float) -> float:
        most = max(1.0, self.burst or max(10.0, 2.0 * rate))
        if key not in self._levels:
            return most
        level, moment = self._levels[key]
        return min(most, level + rate * max(0.0, self.clock() - moment))

    def _keep(self, key: str, level: float) -> None:
        self._levels[key] = (level, self.clock())
        self._levels.move_to_end(key)
        if len(self._levels) > self.most:
            self._levels.popitem(last=False)


def spent(seconds: float) -> ServeError:
    """The refusal of a request whose bucket is empty."""
    return ServeError(
        "rate_limited", f"the rate is spent; try again in {max(1, math.ceil(seconds))} s.", 429, retry_after=seconds
    )


def network(address: str) -> str:
    """What a client is known by: its address, and of IPv6 the first half, all of which one client may use.

    >>> network("192.0.2.7"), network("2001:db8:1:2:3::4")
    ('192.0.2.7', '2001:db8:1:2::/64')
    """
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, IPV6_NETWORK), strict=False))


def too_large(most: int) -> ServeError:
    """The refusal of a body above the limit."""
    return ServeError(
        "too_large", f"the body is larger than {most:,} bytes; send fewer rows at once. Nothing was stored.", 413
    )
